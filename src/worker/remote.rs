//! A URL that git works with, whose password is kept apart: arguments are seen by everybody.

use crate::domain::{
    percent,
    redact::{login_of, without_login},
};

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

fn is_http(scheme: &str) -> bool {
    let scheme = scheme.to_ascii_lowercase();
    scheme.ends_with("http") || scheme.ends_with("https")
}

fn unescape(escaped: &str) -> Option<String> {
    // A line break would end the answer to git early.
    String::from_utf8(percent::unescape(escaped))
        .ok()
        .filter(|text| !text.contains(char::is_control))
}

impl Remote {
    /// Takes the user and password out of a URL.
    pub(super) fn new(url: &str) -> Self {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        let login = scheme
            .filter(|scheme| is_http(scheme))
            .and_then(|_| login_of(url))
            .and_then(|login| {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                Some((unescape(user)?, unescape(password)?))
            });
        Self {
            url: without_login(url),
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
            let _ = Remote::new(&text);
        }
    }
}
