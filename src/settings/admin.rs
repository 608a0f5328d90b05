//! Where the admin API listens, and who may use it.

use super::{
    raw_admin::{RawAdmin, RawToken},
    secrets::with_secrets,
    values::{AdminSettings, ListenAddress, Settings},
};
use crate::domain::{Invalid, access::AdminToken};
use std::collections::BTreeSet;

/// What the hash of a token begins with.
const HASH_PREFIX: &str = "sha256:";

/// Reads an address to listen on.
///
/// # Errors
///
/// Returns an [`Invalid`] that names `field` when there is none.
pub(super) fn listen_address(field: &str, text: &str) -> Result<ListenAddress, Invalid> {
    match text.strip_prefix("unix:") {
        _ if text.is_empty() => Err(Invalid::new(field, "must not be empty")),
        Some("") => Err(Invalid::new(field, "unix: is followed by a path")),
        Some(path) => Ok(ListenAddress::Unix(path.into())),
        None => Ok(ListenAddress::Host(text.to_owned())),
    }
}

/// Reads a hash: `sha256:` and 64 hexadecimal digits.
fn hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn token(index: usize, raw: RawToken) -> Result<AdminToken, Invalid> {
    let field = |key: &str| format!("admin.token[{index}].{key}");
    if raw.name.is_empty() || raw.name.chars().any(char::is_control) {
        return Err(Invalid::new(
            field("name"),
            "must have characters, and no control characters",
        ));
    }
    let role = raw
        .role
        .parse()
        .map_err(|e: Invalid| Invalid::new(field("role"), e.reason))?;
    let secret = with_secrets(&field("secret"), &raw.secret)?;
    let hash = hash(&secret).ok_or_else(|| {
        Invalid::new(
            field("secret"),
            "is not the hash of a token; janitor-runner token add prints one",
        )
    })?;
    Ok(AdminToken {
        name: raw.name,
        role,
        hash,
    })
}

/// Reads a name of `admin.hosts`.
fn host(name: &str) -> Result<String, Invalid> {
    let name = name.trim_end_matches('.').to_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let is_name = !plain.is_empty()
        && plain
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_name {
        Ok(name)
    } else {
        Err(Invalid::new(
            "admin.hosts",
            format!("{name:?} is neither a name without a port nor one that begins with *."),
        ))
    }
}

/// Checks and converts what concerns the admin API.
///
/// # Errors
///
/// Returns an [`Invalid`] for the first value that cannot be used.
pub(super) fn settings(address: &str, raw: RawAdmin) -> Result<AdminSettings, Invalid> {
    let tokens = raw
        .token
        .into_iter()
        .enumerate()
        .map(|(index, raw)| token(index, raw))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = tokens.iter().find(|token| !seen.insert(&token.name)) {
        return Err(Invalid::new(
            "admin.token",
            format!("{} is there twice", twice.name),
        ));
    }
    Ok(AdminSettings {
        listen_address: listen_address("admin_listen_address", address)?,
        hosts: raw
            .hosts
            .iter()
            .map(|name| host(name))
            .collect::<Result<_, _>>()?,
        open: raw.open,
        tokens,
        tls: raw.tls.map(Into::into),
    })
}

/// Returns what an operator should know about the addresses.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let (admin, mut warnings) = (&settings.admin, vec![]);
    let address = &admin.listen_address;
    let mut warn = |text: &str| warnings.push(format!("admin_listen_address {address}: {text}"));
    match (admin.tokens.is_empty(), admin.open) {
        _ if !address.is_beyond_this_machine() => {}
        (true, true) => warn(
            "the admin API has no login, and whoever reaches it can run commands on workers: add \
             an [[admin.token]] (janitor-runner token add)",
        ),
        (true, false) => warn(
            "the service does not start with an admin API there that has no login: add an \
             [[admin.token]] (janitor-runner token add), or set admin.open = true",
        ),
        (false, _) if admin.tls.is_none() => warn(
            "the tokens of the admin API are sent in the clear, unless a proxy before it has TLS: \
             set admin.tls",
        ),
        (false, _) => {}
    }
    let address = &settings.listen_address;
    let is_public = settings.public_port.is_some() && address.is_beyond_this_machine();
    if is_public && settings.tls.is_none() {
        warnings.push(format!(
            "listen_address {address}: the passwords of workers are sent in the clear, unless a \
             proxy before the public API has TLS: set tls"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_64_hexadecimal_digits() {
        let digits = "0f".repeat(32);
        assert_eq!(hash(&format!("sha256:{digits}")), Some([15; 32]));
        for text in ["", "sha256:", "sha256:0f", &digits, "sha256:é", "x"] {
            assert_eq!(hash(text), None, "{text}");
        }
        assert_eq!(hash(&format!("sha256:{digits}0")), None);
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        for (text, beyond) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("::1", false),
            ("localhost", false),
            ("unix:/run/a.sock", false),
            ("0.0.0.0", true),
            ("::", true),
            ("10.0.0.1", true),
            ("runner.example.com", true),
        ] {
            let address = listen_address("listen_address", text).unwrap();
            assert_eq!(address.is_beyond_this_machine(), beyond, "{text}");
            assert_eq!(address.to_string(), text);
        }
        assert!(listen_address("listen_address", "unix:").is_err());
    }

    #[test]
    fn hosts_are_names() {
        assert_eq!(host("A.Example.com."), Ok("a.example.com".to_owned()));
        assert_eq!(host("*.example.com"), Ok("*.example.com".to_owned()));
        for name in ["", "*", "a:80", "http://a", "a b", "*.*.a"] {
            assert!(host(name).is_err(), "{name}");
        }
    }
}
