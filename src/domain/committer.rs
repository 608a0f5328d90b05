//! The committer of changes, and the environment variables by which git, Breezy and the Debian
//! tools know it.

use std::collections::BTreeMap;

/// Returns the environment for a committer `Name <email>`, which is empty without one.
pub fn environment(committer: Option<&str>) -> BTreeMap<String, String> {
    let Some(committer) = committer.map(str::trim).filter(|c| !c.is_empty()) else {
        return BTreeMap::new();
    };
    let (name, email) = split(committer);
    let mut env = BTreeMap::new();
    let mut set = |keys: &[&str], value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            env.extend(keys.iter().map(|key| ((*key).to_owned(), value.to_owned())));
        }
    };
    set(
        &["DEBFULLNAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_NAME"],
        name,
    );
    set(
        &[
            "DEBEMAIL",
            "GIT_COMMITTER_EMAIL",
            "GIT_AUTHOR_EMAIL",
            "EMAIL",
        ],
        email,
    );
    set(&["COMMITTER", "BRZ_EMAIL"], Some(committer));
    env
}

fn split(committer: &str) -> (Option<&str>, Option<&str>) {
    if let Some((name, rest)) = committer.split_once('<') {
        return (Some(name.trim()), Some(rest.trim_end_matches('>').trim()));
    }
    if committer.contains('@') {
        (None, Some(committer))
    } else {
        (Some(committer), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_email_set_their_own_variables() {
        let env = environment(Some("Janitor Bot <janitor@example.com>"));
        assert_eq!(env["DEBFULLNAME"], "Janitor Bot");
        assert_eq!(env["EMAIL"], "janitor@example.com");
        assert_eq!(env["COMMITTER"], "Janitor Bot <janitor@example.com>");
        assert_eq!(env.len(), 9);
    }

    #[test]
    fn missing_part_sets_no_variable() {
        assert!(!environment(Some("bot@example.com")).contains_key("DEBFULLNAME"));
        assert!(!environment(Some("Bot")).contains_key("EMAIL"));
        assert!(environment(None).is_empty());
        assert!(environment(Some(" ")).is_empty());
    }
}
