//! Passwords in URLs: removed from text, and kept apart from the URLs that git gets as arguments.

/// A URL that git fetches from or pushes to, without its password.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// The URL, which may be shown.
    pub(super) url: String,
    /// The user and password that the URL had.
    login: Option<(String, String)>,
}

/// Responds to git's request for a user and password, from variables that only git's own processes
/// get.
const CREDENTIAL_HELPER: &str = "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \
     \"$JANITOR_GIT_USER\" \"$JANITOR_GIT_PASSWORD\"; }; f";

/// Where the parts of a URL are, in bytes from its start.
struct Authority {
    /// The first byte after `://`.
    start: usize,
    /// The `@` before the host; none without a user.
    at: Option<usize>,
}

fn is_http(scheme: &str) -> bool {
    let scheme = scheme.to_ascii_lowercase();
    scheme.ends_with("http") || scheme.ends_with("https")
}

/// Finds the user and host of the URL whose `://` is at `separator`. The URL ends at a space or
/// quote.
fn authority(text: &str, separator: usize) -> Authority {
    let start = separator + "://".len();
    let rest = text.get(start..).unwrap_or_default();
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'<>`".contains(c);
    let url = rest.split(is_end).next().unwrap_or_default();
    let host = url.split(['/', '?', '#']).next().unwrap_or_default();
    // A colon that no port follows is one before a password, in which there may be a slash.
    let has_password = host.rsplit_once(':').is_some_and(|(before, port)| {
        !before.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let at = host
        .rfind('@')
        .or_else(|| url.find('@').filter(|_| has_password));
    Authority {
        start,
        at: at.map(|at| start + at),
    }
}

/// Returns a text without the passwords of the URLs in it. The users of web addresses are removed
/// too, since tokens are often written there.
pub fn redact(text: &str) -> String {
    let (mut redacted, mut copied, mut from) = (String::with_capacity(text.len()), 0, 0);
    while let Some(found) = text.get(from..).and_then(|rest| rest.find("://")) {
        let separator = from + found;
        let Authority { start, at } = authority(text, separator);
        from = start;
        let Some(at) = at else { continue };
        let user_end = if is_http(text.get(..separator).unwrap_or_default()) {
            None
        } else {
            text.get(start..at)
                .map(|user| user.find(':').map_or(at, |colon| start + colon))
        };
        let kept_until = user_end.unwrap_or(start);
        redacted.push_str(text.get(copied..kept_until).unwrap_or_default());
        copied = if user_end.is_some() { at } else { at + 1 };
        from = at;
    }
    redacted.push_str(text.get(copied..).unwrap_or_default());
    redacted
}

fn unescape(escaped: &str) -> Option<String> {
    let (mut bytes, mut rest) = (vec![], escaped.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = tail
            .get(if code.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    // A line break would end the answer to git early.
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(char::is_control))
}

impl Remote {
    /// Takes the user and password out of a URL.
    pub(super) fn new(url: &str) -> Self {
        let login = url
            .find("://")
            .filter(|separator| is_http(url.get(..*separator).unwrap_or_default()))
            .and_then(|separator| {
                let Authority { start, at } = authority(url, separator);
                let login = url.get(start..at?)?;
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                Some((unescape(user)?, unescape(password)?))
            });
        Self {
            url: redact(url),
            login,
        }
    }

    /// Returns the environment by which git learns the user and password, for this host only.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let Some((user, password)) = &self.login else {
            return vec![];
        };
        let scheme_end = self.url.find("://").map_or(0, |found| found + 3);
        let host_end = self
            .url
            .get(scheme_end..)
            .and_then(|rest| rest.find(['/', '?', '#']))
            .map_or(self.url.len(), |found| scheme_end + found);
        let host = self.url.get(..host_end).unwrap_or_default();
        let key = format!("credential.{host}.helper");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair("GIT_CONFIG_COUNT", "2"),
            // An empty value removes the helpers that were set before.
            pair("GIT_CONFIG_KEY_0", &key),
            pair("GIT_CONFIG_VALUE_0", ""),
            pair("GIT_CONFIG_KEY_1", &key),
            pair("GIT_CONFIG_VALUE_1", CREDENTIAL_HELPER),
            pair("JANITOR_GIT_USER", user),
            pair("JANITOR_GIT_PASSWORD", password),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_are_removed_from_text() {
        for (text, redacted) in [
            ("clone https://u:p@host/x .", "clone https://host/x ."),
            ("https://token@host/x", "https://host/x"),
            ("https://u:p@ss@host:80/x@y", "https://host:80/x@y"),
            ("https://u:p/s?s@host/x", "https://host/x"),
            ("ssh://git:p@host/x", "ssh://git@host/x"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("'http://u:p@a' \"http://v:q@b\"", "'http://a' \"http://b\""),
            ("git+https://u:p@host/x", "git+https://host/x"),
            ("https://host:80/a@b", "https://host:80/a@b"),
            ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
            ("https://host mail me@host", "https://host mail me@host"),
            ("://", "://"),
            ("https://u:p@", "https://"),
            ("ä://ü:ö@ß", "ä://ü@ß"),
        ] {
            assert_eq!(redact(text), redacted);
        }
    }

    #[test]
    fn login_of_a_web_address_is_kept_apart() {
        let remote = Remote::new("https://u:p%40s@host:80/x.git");
        assert_eq!(remote.url, "https://host:80/x.git");
        assert_eq!(remote.login, Some(("u".into(), "p@s".into())));
        let environment = remote.environment();
        assert_eq!(environment[1].1, "credential.https://host:80.helper");
        assert!(
            Remote::new("https://u:p%0Aq@host/")
                .environment()
                .is_empty()
        );
        assert!(Remote::new("ssh://u:p@host/x").environment().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(://|\\PC|[@:/%]){0,40}") {
            let _ = (redact(&text), Remote::new(&text));
        }
    }
}
