//! Secrets that settings refer to: `{file:PATH}` and `{env:NAME}`.
//!
//! In a URL a secret is escaped for the place where it stands, so that a password may have any
//! character; a secret that is a whole URL, or part of another text, is taken as it is.

use crate::domain::Invalid;
use std::io::Read;

/// The schemes of settings that are URLs; the others (`sled:`, `file:`) are followed by a path.
const URL_SCHEMES: [&str; 8] = [
    "postgresql",
    "postgres",
    "redis",
    "rediss",
    "redis+unix",
    "unix",
    "http",
    "https",
];

/// Where in a URL a secret stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In no URL, or in its host and port: no character is escaped.
    Plain,
    /// Both the user and the password, with a colon between them.
    UserAndPassword,
    /// The user or the password.
    Userinfo,
    Path,
    Query,
}

/// Replaces placeholders by a letter: paths in them would look like parts of the URL.
fn masked(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, (_, after))) = next_placeholder(rest) {
        out += before;
        out.push('x');
        rest = after;
    }
    out + rest
}

/// Splits a text at its first placeholder: what is before it, inside of it and after it.
fn next_placeholder(text: &str) -> Option<(&str, (&str, &str))> {
    let (before, rest) = text.split_once('{')?;
    Some((before, rest.split_once('}')?))
}

/// Returns a text without its placeholders.
pub(super) fn without_placeholders(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, (_, after))) = next_placeholder(rest) {
        out += before;
        rest = after;
    }
    out + rest
}

/// Returns the files that the placeholders of a text name.
pub(super) fn files_in(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let placeholders = std::iter::from_fn(move || {
        let (_, (inside, after)) = next_placeholder(rest)?;
        rest = after;
        Some(inside)
    });
    placeholders.filter_map(|inside| inside.strip_prefix("file:"))
}

/// Returns the place between these parts of a setting.
fn place(before: &str, after: &str) -> Place {
    let (before, after) = (masked(before), masked(after));
    let Some((_, rest)) = before
        .split_once(':')
        .filter(|(scheme, _)| URL_SCHEMES.contains(scheme))
    else {
        return Place::Plain;
    };
    let authority = rest.strip_prefix("//").filter(|rest| !rest.contains('/'));
    match authority {
        _ if rest.contains('?') => Place::Query,
        None => Place::Path,
        Some(authority) => {
            let end = after.find(['/', '?', '#']).unwrap_or(after.len());
            let host_follows = after.get(..end).is_some_and(|after| after.contains('@'));
            match (host_follows && !authority.contains('@'), authority) {
                (false, _) => Place::Plain,
                (true, "") if after.starts_with('@') => Place::UserAndPassword,
                (true, _) => Place::Userinfo,
            }
        }
    }
}

/// Percent-escapes all but what is never special in a URL, and `also`.
fn escaped(secret: &str, also: &str) -> String {
    secret
        .bytes()
        .map(|byte| {
            let c = char::from(byte);
            if c.is_ascii_alphanumeric() || "-._~".contains(c) || also.contains(c) {
                c.to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn escaped_for(place: Place, secret: &str) -> String {
    match place {
        Place::Plain => secret.to_owned(),
        Place::UserAndPassword => match secret.split_once(':') {
            Some((user, password)) => format!("{}:{}", escaped(user, ""), escaped(password, "")),
            None => escaped(secret, ""),
        },
        Place::Userinfo | Place::Query => escaped(secret, ""),
        Place::Path => escaped(secret, "/"),
    }
}

/// The maximum size of a secret, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Reads a file with a secret. Errors name the file and have nothing of what is in it.
fn read_file(path: &str) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = vec![];
    let read = file.take(MAX_SECRET + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(format!("is larger than {MAX_SECRET} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn read(field: &str, from: &str) -> Result<String, Invalid> {
    match from.split_once(':') {
        Some(("file", path)) => {
            read_file(path).map_err(|error| Invalid::new(field, format!("{path}: {error}")))
        }
        Some(("env", name)) => std::env::var(name)
            .map_err(|_| Invalid::new(field, format!("the environment has no {name}"))),
        _ => Err(Invalid::new(
            field,
            "braces stand for {file:PATH} or {env:NAME}",
        )),
    }
}

/// Checks that a secret can be one. An empty file, or one with several lines, is a mistake that a
/// server would report as a wrong password at best.
fn check(field: &str, from: &str, secret: &str) -> Result<(), Invalid> {
    let reason = match secret {
        "" => "is empty",
        secret if secret.bytes().any(|byte| byte.is_ascii_control()) => {
            "has a control character or several lines"
        }
        _ => return Ok(()),
    };
    Err(Invalid::new(
        field,
        format!("the secret at {from} {reason}"),
    ))
}

/// Replaces `{file:PATH}` and `{env:NAME}` in a text by the secrets that are kept there.
///
/// # Errors
///
/// Returns an [`Invalid`] that names `field` when a secret cannot be read; it never has the secret.
pub(super) fn with_secrets(field: &str, text: &str) -> Result<String, Invalid> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, (from, after))) = next_placeholder(rest) {
        let secret = read(field, from)?;
        let secret = secret.trim_end_matches(['\r', '\n']);
        check(field, from, secret)?;
        let start = text.len() - rest.len() + before.len();
        let place = place(text.get(..start).unwrap_or_default(), after);
        out += before;
        out += &escaped_for(place, secret);
        rest = after;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use url::Url;

    fn secret_file(secret: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(secret.as_bytes()).unwrap();
        file
    }

    fn filled_in(template: &str, secret: &str) -> String {
        let file = secret_file(&format!("{secret}\n"));
        let place = format!("{{file:{}}}", file.path().display());
        with_secrets("store", &template.replace("SECRET", &place)).unwrap()
    }

    #[test]
    fn secrets_are_escaped_for_their_place() {
        for (template, filled) in [
            (
                "postgresql://u:SECRET@h/db",
                "postgresql://u:a%40b%2Fc%23d%25e%3Af@h/db",
            ),
            (
                "postgresql://SECRET:p@h/db",
                "postgresql://a%40b%2Fc%23d%25e%3Af:p@h/db",
            ),
            ("redis://:SECRET@h/", "redis://:a%40b%2Fc%23d%25e%3Af@h/"),
            ("redis://SECRET@h/", "redis://a%40b%2Fc%23d%25e:f@h/"),
            (
                "postgresql://u:p@h/SECRET",
                "postgresql://u:p@h/a%40b/c%23d%25e%3Af",
            ),
            (
                "postgresql:///db?password=SECRET",
                "postgresql:///db?password=a%40b%2Fc%23d%25e%3Af",
            ),
            (
                "unix:/run/r.sock?pass=SECRET",
                "unix:/run/r.sock?pass=a%40b%2Fc%23d%25e%3Af",
            ),
            (
                "postgresql://u:SECRET@SECRET/db",
                "postgresql://u:a%40b%2Fc%23d%25e%3Af@a@b/c#d%e:f/db",
            ),
            ("sled:SECRET", "sled:a@b/c#d%e:f"),
            ("SECRET", "a@b/c#d%e:f"),
        ] {
            assert_eq!(filled_in(template, "a@b/c#d%e:f"), filled, "{template}");
        }
    }

    #[test]
    fn whole_url_is_taken_as_it_is() {
        let url = "postgresql://u:p%40@h:5432/db?sslmode=require";
        assert_eq!(filled_in("SECRET", url), url);
        assert_eq!(
            filled_in("postgresql://SECRET/db", "h:5432"),
            "postgresql://h:5432/db"
        );
    }

    #[test]
    fn missing_secret_is_named() {
        let error = with_secrets("store", "redis://:{file:/no/such}@h/").unwrap_err();
        assert_eq!(error.field, "store");
        assert!(error.reason.contains("/no/such"), "{error}");
    }

    #[test]
    fn secret_that_cannot_be_one_is_refused() {
        for (content, reason) in [
            (&b"\n"[..], "is empty"),
            (b"geheim\nzwei", "several lines"),
            (b"ge\0heim", "control character"),
            (b"\xffgeheim", "is not UTF-8"),
            (b"x".repeat(70_000).as_slice(), "is larger than"),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            let text = format!("redis://:{{file:{}}}@h/", file.path().display());
            let error = with_secrets("events", &text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_password_reaches_the_server(secret in "[^\\x00-\\x1f\\x7f]{1,20}") {
            let url = Url::parse(&filled_in("redis://u:SECRET@h:1/2", &secret)).unwrap();
            prop_assert_eq!(url.host_str(), Some("h"));
            let escaped = url.password().unwrap().to_owned();
            let decoded: String = url::form_urlencoded::parse(format!("p={escaped}").as_bytes())
                .next().unwrap().1.into_owned();
            prop_assert_eq!(decoded, secret);
        }
    }
}
