//! Secrets in text that is about to be shown: in logs, errors, tables, settings, checks.
//!
//! A URL is shown without its user and its query, and what has the shape of a token, or stands
//! after a name such as `password=`, is replaced ([`redact`]). Results of runs, which people have
//! asked for, keep the queries of URLs, in which there may be the number of a bug ([`redact_result`]).

/// What is shown in place of a secret.
pub const HIDDEN: &str = "***";
/// Follows a text of which only the start is shown.
const CUT: &str = "…";
/// What is shown in place of the query of a URL.
const HIDDEN_QUERY: &str = "?…";

/// The starts of well-known tokens, and how many characters follow at least.
const TOKEN_STARTS: [(&str, usize); 22] = [
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("gldt-", 16),
    ("glrt-", 16),
    ("glptt-", 16),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxa-", 10),
    ("xapp-", 10),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ya29.", 16),
    ("sk_live_", 16),
    ("npm_", 30),
    ("pypi-", 30),
    ("hf_", 30),
];
/// Names that end like this are followed by a secret.
const SECRET_NAMES: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "signature",
];
/// Short names that are followed by a secret; others may end like them by chance.
const SHORT_SECRET_NAMES: [&str; 3] = ["pass", "pwd", "pw"];
/// How the values of an `Authorization` header begin.
const LOGIN_KINDS: [&str; 2] = ["basic ", "bearer "];

/// Returns whether a character cannot be part of a URL in text.
fn ends_url(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'<>`".contains(c)
}

/// The parts of a URL after its `://`, in bytes from there.
struct UrlParts {
    /// Where the user ends, after its `@`; 0 without one.
    user_end: usize,
    /// Where the query or fragment begins.
    query: Option<usize>,
}

fn url_parts(url: &str) -> UrlParts {
    let host = url.split(['/', '?', '#']).next().unwrap_or_default();
    // A colon that no port follows is one before a password, in which any of these characters may
    // stand that should have been escaped.
    let has_password = host.rsplit_once(':').is_some_and(|(before, port)| {
        !before.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let at = host
        .rfind('@')
        .or_else(|| url.rfind('@').filter(|_| has_password));
    let user_end = at.map_or(0, |at| at + 1);
    let query = url
        .get(user_end..)
        .and_then(|rest| rest.find(['?', '#']))
        .map(|found| user_end + found);
    UrlParts { user_end, query }
}

/// Returns the URL at the start of a text: up to a space or quote, or to the scheme of another URL
/// as in `git=URL,bzr=URL`. Looks no further than that, since a text may have thousands of URLs.
fn first_url(text: &str) -> &str {
    let is_end = |(at, c): (usize, char)| {
        ends_url(c) || c == ':' && text.get(at..).is_some_and(|rest| rest.starts_with("://"))
    };
    let end = text.char_indices().find(|place| is_end(*place));
    let url = end.map_or(text, |(at, _)| text.get(..at).unwrap_or_default());
    match end {
        Some((_, ':')) => {
            url.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c))
        }
        Some(_) | None => url,
    }
}

/// Returns what of the user may be shown: the account of SSH is part of the address.
fn shown_user<'a>(scheme: &str, user: &'a str) -> &'a str {
    let is_ssh = ["ssh", "sftp"].iter().any(|name| scheme.ends_with(name));
    if is_ssh && !user.is_empty() {
        user.split([':', '@']).next().unwrap_or_default()
    } else {
        ""
    }
}

/// Removes the users of URLs, and their queries unless those are kept.
fn without_logins(text: &str, keep_queries: bool) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("://") {
        let url = first_url(after);
        let UrlParts { user_end, query } = url_parts(url);
        let query = query.filter(|_| !keep_queries);
        let user = url.get(..user_end).unwrap_or_default();
        let shown = shown_user(&before.to_ascii_lowercase(), user);
        out += before;
        out += "://";
        out += shown;
        out += if shown.is_empty() { "" } else { "@" };
        out += url
            .get(user_end..query.unwrap_or(url.len()))
            .unwrap_or_default();
        out += query.map_or("", |_| HIDDEN_QUERY);
        rest = after.get(url.len()..).unwrap_or_default();
    }
    out + rest
}

fn is_token(word: &str) -> bool {
    let has_known_start = TOKEN_STARTS.iter().any(|(start, least)| {
        word.strip_prefix(start)
            .is_some_and(|rest| rest.len() >= *least)
    });
    // Three parts in base64, of which the first is a JSON object.
    let is_jwt = word.starts_with("eyJ") && word.len() > 30 && word.matches('.').count() == 2;
    has_known_start || is_jwt
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

fn without_tokens(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let word_end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        out += if is_token(word) { HIDDEN } else { word };
        let next = after.find(is_word).unwrap_or(after.len());
        let (between, following) = after.split_at(next);
        out += between;
        rest = following;
    }
    out
}

/// Returns whether a value of this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit(['_', '-', '.']).next().unwrap_or_default();
    SECRET_NAMES.iter().any(|end| name.ends_with(end)) || SHORT_SECRET_NAMES.contains(&last)
}

/// Returns the length of the value at the start of a text, and of the quote before it.
fn value_length(text: &str) -> (usize, usize) {
    let Some(quote) = text.chars().next().filter(|c| "\"'".contains(*c)) else {
        let end = text.find(|c: char| c.is_whitespace() || "&;,)]}\"'<>".contains(c));
        return (0, end.unwrap_or(text.len()));
    };
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    (1, end.map_or(text.len(), |(at, _)| at) - 1)
}

/// Hides what follows `password=`, `"token": ` and their like.
fn without_assigned(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(sign) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(sign);
        let name = before.trim_end_matches(['"', '\'', '\\', ' ']);
        let start = name.rfind(|c| !is_word(c)).map_or(0, |at| {
            at + name
                .get(at..)
                .map_or(1, |c| c.chars().next().map_or(1, char::len_utf8))
        });
        let is_secret = is_secret_name(name.get(start..).unwrap_or_default());
        let value = after.get(1..).unwrap_or_default();
        let gap = value.len() - value.trim_start_matches(' ').len();
        let value = value.get(gap..).unwrap_or_default();
        // After a colon only a quoted text is a value: "no password: the file is empty" is a
        // sentence.
        let is_value = after.starts_with('=') || value.starts_with(['"', '\'']);
        // Only a value that is skipped is looked at, so that no text is looked at twice.
        let (quote, length) = match is_secret && is_value {
            true => value_length(value),
            false => (0, 0),
        };
        let hidden = length > 0;
        let copied = 1 + gap + if hidden { quote } else { 0 };
        out += before;
        out += after.get(..copied).unwrap_or_default();
        out += if hidden { HIDDEN } else { "" };
        rest = after
            .get(copied + if hidden { length } else { 0 }..)
            .unwrap_or_default();
    }
    out + rest
}

/// Hides what follows `Basic` and `Bearer`, where it looks like base64 and not like a word.
fn without_headers(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    let mut starts: Vec<usize> = LOGIN_KINDS
        .iter()
        .flat_map(|kind| lower.match_indices(kind).map(|(at, kind)| at + kind.len()))
        .collect();
    starts.sort_unstable();
    for start in starts {
        let value = text.get(start..).unwrap_or_default();
        let end = value
            .find(|c: char| !is_word(c) && !"+/=~".contains(c))
            .unwrap_or(value.len());
        let value = value.get(..end).unwrap_or_default();
        let is_plain = value.chars().skip(1).all(|c| c.is_ascii_lowercase());
        if is_plain || value.len() < 4 || start < copied {
            continue;
        }
        out += text.get(copied..start).unwrap_or_default();
        out += HIDDEN;
        copied = start + end;
    }
    out + text.get(copied..).unwrap_or_default()
}

fn without_private_keys(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("PRIVATE KEY-----") {
        let end = after.find("-----END").unwrap_or(after.len());
        out += before;
        out += "PRIVATE KEY-----";
        out += HIDDEN;
        // Also the end names the kind of key, and would be taken for another start.
        let tail = after.get(end..).unwrap_or_default();
        rest = tail
            .split_once("PRIVATE KEY-----")
            .map_or("", |(_, tail)| tail);
    }
    out + rest
}

/// Returns a text without the secrets that can be recognized in it.
///
/// ```
/// use janitor_runner::domain::redact::redact;
///
/// let error = "cannot reach postgresql://u:geheim@db/janitor?sslmode=require";
/// assert_eq!(redact(error), "cannot reach postgresql://db/janitor?…");
/// ```
pub fn redact(text: &str) -> String {
    without_secrets(&without_logins(text, false))
}

/// Returns a text of a result without the secrets that can be recognized in it. Queries of URLs are
/// kept, apart from parameters such as `token`.
///
/// ```
/// use janitor_runner::domain::redact::redact_result;
///
/// let result = "fixes https://u:geheim@bugs/?bug=5&token=geheim";
/// assert_eq!(redact_result(result), "fixes https://bugs/?bug=5&token=***");
/// ```
pub fn redact_result(text: &str) -> String {
    without_secrets(&without_logins(text, true))
}

/// Returns the first bytes of a text, at most `max`, without secrets. What may be a part of
/// a secret at the end is left out.
pub fn redact_start(text: &str, max: usize) -> String {
    if text.len() <= max {
        return redact(text);
    }
    let head = text
        .get(..text.floor_char_boundary(max))
        .unwrap_or_default();
    let end = head.rfind(ends_url).unwrap_or(0);
    redact(head.get(..end).unwrap_or_default()) + CUT
}

/// Returns a URL without its user, with which git can be called.
pub fn without_login(url: &str) -> String {
    without_logins(url, true)
}

/// Returns the user of a URL and its password as they are written, or `None` without a user.
pub fn login_of(url: &str) -> Option<&str> {
    let (_, after) = url.split_once("://")?;
    let UrlParts { user_end, .. } = url_parts(first_url(after));
    after.get(..user_end.checked_sub(1)?)
}

fn without_secrets(text: &str) -> String {
    let text = without_private_keys(text);
    without_headers(&without_assigned(&without_tokens(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_shown_without_user_and_query() {
        for (text, shown) in [
            ("clone https://u:p@host/x .", "clone https://host/x ."),
            ("https://token@host/x", "https://host/x"),
            ("https://u:p@ss@host:80/x@y", "https://host:80/x@y"),
            ("https://u:p/s?s@host/x", "https://host/x"),
            ("redis://:p#q@host/0", "redis://host/0"),
            ("postgresql://u:p@h/d?x=1#y", "postgresql://h/d?…"),
            ("(https://h/x?sig=abc)", "(https://h/x?…"),
            ("ssh://git:p@host/x", "ssh://git@host/x"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("'http://u:p@a' \"http://v:q@b\"", "'http://a' \"http://b\""),
            ("git+https://u:p@host/x", "git+https://host/x"),
            ("https://u:p@", "https://"),
            ("https://host:80/a@b", "https://host:80/a@b"),
            ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
            ("https://host mail me@host", "https://host mail me@host"),
            (
                "git=https://u:p@h/,bzr=https://v:q@h/",
                "git=https://h/,bzr=https://h/",
            ),
            ("://", "://"),
            ("ä://ü:ö@ß", "ä://ß"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn tokens_are_hidden() {
        for (text, shown) in [
            ("with ghp_0123456789abcdef0123.", "with ***"),
            ("/glpat-0123456789abcdef0/x", "/***/x"),
            ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "***"),
            (
                "Authorization: Basic dTpwYXNzd29yZA==",
                "Authorization: Basic ***",
            ),
            ("a Bearer AbC-123456 b", "a Bearer *** b"),
            ("Basic authentication", "Basic authentication"),
            ("npm_config_cache", "npm_config_cache"),
            (
                "x -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- y",
                "x -----BEGIN RSA PRIVATE KEY-----*** y",
            ),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn values_after_names_of_secrets_are_hidden() {
        for (text, shown) in [
            (
                "host=h password=geheim user=u",
                "host=h password=*** user=u",
            ),
            ("unix:/run/r.sock?pass=geheim", "unix:/run/r.sock?pass=***"),
            ("{\"password\": \"ge\\\"heim\"}", "{\"password\": \"***\"}"),
            (
                "secret_access_key = \"geheim\"",
                "secret_access_key = \"***\"",
            ),
            ("accessToken='a b'", "accessToken='***'"),
            (
                "no password: the file is empty",
                "no password: the file is empty",
            ),
            ("bypass=1&compass=2", "bypass=1&compass=2"),
            ("password=", "password="),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn time_grows_with_the_length_only() {
        // Each of these took minutes when the rest of the text was searched at each place.
        for part in [
            "x=",
            "a://",
            "a://b@",
            "x='",
            "token=",
            "token='",
            "token: \"",
            "basic ",
            "ghp_.",
            "PRIVATE KEY-----",
            "-----END",
            "a:",
            "@:",
            "ä://ü",
            "https://u:",
            "\\\"=",
        ] {
            let text = part.repeat((1 << 20) / part.len());
            let started = std::time::Instant::now();
            assert!(redact(&text).len() <= 4 * text.len() + 16);
            assert!(redact_result(&text).len() <= 4 * text.len() + 16);
            assert!(started.elapsed().as_secs() < 10, "{part}");
        }
    }

    #[test]
    fn start_of_a_text_has_no_part_of_a_secret() {
        let text = "clone https://u:geheim@host/x and more";
        for max in 0..text.len() {
            let shown = redact_start(text, max);
            assert!(!shown.contains("geh") && shown.ends_with(CUT), "{shown}");
        }
        assert_eq!(redact_start(text, 34), "clone https://host/x and…");
        assert_eq!(redact_start(text, 100), "clone https://host/x and more");
    }

    #[test]
    fn login_is_as_it_is_written() {
        for (url, login) in [
            ("https://u:p%40s@host/x", Some("u:p%40s")),
            ("https://token@host/x", Some("token")),
            ("https://host/a@b", None),
            ("host", None),
            ("https://@host/", Some("")),
        ] {
            assert_eq!(login_of(url), login, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "(://|token=|Bearer |PRIVATE KEY-----|\\PC|[@:/%\"'= ?#]){0,40}"
        ) {
            let shown = redact(&text);
            prop_assert!(shown.len() <= 4 * text.len() + 16);
        }

        #[test]
        fn no_password_of_a_url_is_shown(password in "[a-zA-Z0-9]{8,20}", tail in "[/?#@:]?") {
            let text = format!("postgresql://u:x{password}{tail}@host/db");
            prop_assert!(!redact(&text).contains(&password), "{}", redact(&text));
        }
    }
}
