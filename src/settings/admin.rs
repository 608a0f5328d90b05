//! Where the admin API listens, and who may use it.

use super::{raw::layered, secrets::with_secrets, values::Settings};
use crate::domain::{Invalid, access::Role};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{collections::BTreeSet, fmt, net::IpAddr, path::PathBuf};

/// What the hash of a token begins with.
const HASH_PREFIX: &str = "sha256:";

/// Who may use the admin API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Lists the names by which the admin API is reached, besides addresses, `localhost`, names of
    /// one label and those of the machine; `*.` at the start stands for any names below. Requests
    /// for other names are refused. Default: `[]`. Example: `["janitor.example.com"]`.
    pub(super) hosts: Vec<String>,
    /// Allows an admin API without tokens at an address that others can reach. Default: `false`.
    pub(super) open: bool,
    /// Lists the tokens; with one, each request to the admin API needs a token. Default: `[]`.
    #[serde(default)]
    pub(super) token: Vec<RawToken>,
}

/// A token of the admin API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    /// Names who has the token, for the audit log. Example: `"anna"`.
    pub(super) name: String,
    /// Sets what the token is good for: `viewer` reads, `operator` also changes the queue and runs,
    /// `admin` also manages workers. Example: `"operator"`.
    pub(super) role: String,
    /// Sets the hash of the token, as `janitor-runner token add` prints it. Example:
    /// `"{file:/etc/janitor-runner/anna.hash}"`.
    pub(super) secret: String,
}

/// What an API listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address, or the name of a host.
    Host(String),
    /// The Unix socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Returns whether other machines may reach the address, as far as can be said without looking
    /// a name up.
    fn is_beyond_this_machine(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Host(host) => match host.parse::<IpAddr>() {
                Ok(address) => !address.is_loopback(),
                Err(_) => host != "localhost",
            },
        }
    }
}

/// A token of the admin API.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The name of who has it.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// Its SHA-256 hash.
    pub hash: [u8; 32],
}

/// Leaves the hash out.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken({}, {})", self.name, self.role)
    }
}

/// Where the admin API listens, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen_address: ListenAddress,
    /// The names by which it is reached, besides those that are allowed anyway.
    pub hosts: Vec<String>,
    /// Whether it may be open to other machines without tokens.
    pub open: bool,
    /// The tokens.
    pub tokens: Vec<AdminToken>,
}

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
    })
}

/// Returns what an operator should know about the addresses.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let (admin, mut warnings) = (&settings.admin, vec![]);
    let address = &admin.listen_address;
    if address.is_beyond_this_machine() {
        let text = match (admin.tokens.is_empty(), admin.open) {
            (true, true) => {
                "the admin API has no login, and whoever reaches it can run commands on workers: \
                 add an [[admin.token]] (janitor-runner token add)"
            }
            (true, false) => {
                "the service does not start with an admin API there that has no login: add an \
                 [[admin.token]] (janitor-runner token add), or set admin.open = true"
            }
            (false, _) => {
                "the tokens of the admin API are sent in the clear, unless a proxy before it has TLS"
            }
        };
        warnings.push(format!("admin_listen_address {address}: {text}"));
    }
    let address = &settings.listen_address;
    if settings.public_port.is_some() && address.is_beyond_this_machine() {
        warnings.push(format!(
            "listen_address {address}: the passwords of workers are sent in the clear, unless a \
             proxy before the public API has TLS"
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
