//! The host that a codebase is on: what pauses, limits, backoffs and avoided hosts go by.
//!
//! The SQL function `runner_host` has the same rule. The table `tests/data/hosts.tsv` runs through
//! both of them.

/// Returns the host of a branch URL, in lower case and without a port or final dots.
///
/// Understands `scheme://[user[:password]@]host[:port]/path` and `[user@]host:path`, as git and ssh
/// write it. In the authority of a URL the last `@` ends the user, so that a password may have one;
/// IPv6 literals keep their brackets; parameters after a comma (`,branch=NAME`) do not belong to the
/// host. File URLs and paths have no host.
///
/// ```
/// use janitor_runner::domain::host::host_of;
///
/// assert_eq!(host_of("https://user:p@ss@Example.com.:8443/x").as_deref(), Some("example.com"));
/// assert_eq!(host_of("git@example.com:group/x.git").as_deref(), Some("example.com"));
/// assert_eq!(host_of("file:///srv/x"), None);
/// ```
pub fn host_of(branch_url: &str) -> Option<String> {
    let host = match branch_url.split_once("://") {
        Some((scheme, rest)) => host_in_url(scheme, rest)?,
        None => host_in_scp_form(branch_url)?,
    };
    let host = host.trim_end_matches('.');
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Returns a host that a person named as [`host_of`] writes it, so that both can be compared.
///
/// A name that cannot be a host is only put in lower case.
pub fn normalize(name: &str) -> String {
    host_of(&format!("name://{name}")).unwrap_or_else(|| name.to_ascii_lowercase())
}

/// A pattern of hosts: a name, `*.NAME` for those below it, or `*` for all.
///
/// ```
/// use janitor_runner::domain::host::HostPattern;
///
/// let below = HostPattern::new("*.Example.com");
/// assert!(below.matches("git.example.com"));
/// assert!(!below.matches("example.com"));
/// assert!(!below.matches("badexample.com"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Creates a pattern.
    pub fn new(text: &str) -> Self {
        Self(match text.strip_prefix("*.") {
            Some(name) => format!("*.{}", normalize(name)),
            None => normalize(text),
        })
    }

    /// Returns whether a host, as [`host_of`] returns it, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(end) => host.strip_suffix(end).is_some_and(|rest| !rest.is_empty()),
            None => self.0 == host,
        }
    }
}

fn host_in_url<'a>(scheme: &str, rest: &'a str) -> Option<&'a str> {
    let scheme_name = scheme.rsplit_once('+').map_or(scheme, |(_, name)| name);
    // A `://` after a slash is part of a path.
    if scheme.is_empty() || scheme.contains('/') || scheme_name.eq_ignore_ascii_case("file") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    Some(leading_host(host))
}

fn host_in_scp_form(text: &str) -> Option<&str> {
    // The user ends at the last `@` of what may be an authority; a path that has one does not count.
    let authority = text.split(['/', ':', ',']).next()?;
    let start = authority.rfind('@').map_or(0, |at| at + 1);
    let rest = text.get(start..)?;
    let host = leading_host(rest);
    let is_followed_by_path = rest.get(host.len()..)?.starts_with(':');
    is_followed_by_path.then_some(host)
}

/// Returns the host that a text begins with: a bracketed IPv6 literal, or what comes before the
/// port, the path or the parameters.
fn leading_host(text: &str) -> &str {
    let literal = text.strip_prefix('[').and_then(|inner| {
        let end = inner.find([']', '/', '?', '#', '@'])?;
        // Two more bytes for the brackets.
        inner
            .get(end..)?
            .starts_with(']')
            .then(|| text.get(..end + 2))?
    });
    let end = text
        .find(['[', ']', '/', '?', '#', ':', '@', ','])
        .unwrap_or(text.len());
    literal.or_else(|| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_of_urls_has_the_expected_hosts() {
        let table = include_str!("../../tests/data/hosts.tsv");
        let rows = table.lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for row in rows {
            let (url, host) = row.split_once('\t').unwrap();
            let expected = (host != "-").then_some(host);
            assert_eq!(host_of(url).as_deref(), expected, "{url}");
            count += 1;
        }
        assert!(count >= 50, "the table has {count} rows");
    }

    #[test]
    fn names_are_normalized() {
        for (name, normalized) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:443", "example.com"),
            ("git@example.com", "example.com"),
            ("[::1]:22", "[::1]"),
            ("/No host", "/no host"),
            ("", ""),
        ] {
            assert_eq!(normalize(name), normalized, "{name}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(name in "\\PC{0,20}") {
            let once = normalize(&name);
            prop_assert_eq!(normalize(&once), once);
        }

        #[test]
        fn host_is_normal_already(url in "[a-zA-Z0-9@:/?#.,+\\[\\]-]{0,30}") {
            if let Some(host) = host_of(&url) {
                prop_assert_eq!(normalize(&host), host);
            }
        }
    }
}
