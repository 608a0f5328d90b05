//! Relations between Debian packages: what a build needs, and whether that is there.

use debversion::Version;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The versions that are known, by the name of the package.
pub type KnownVersions = BTreeMap<String, Vec<String>>;

/// How many packages one run may name.
const MAX_NAMES: usize = 1000;

/// One way to satisfy a relation: a package, maybe in some versions only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Alternative {
    /// The package.
    name: String,
    /// The operator and the version.
    version: Option<(String, String)>,
}

/// Relations, each with its alternatives; all of them must hold.
///
/// ```
/// use janitor_runner::domain::relations::Relations;
/// use serde_json::json;
///
/// let needed = json!([[{ "name": "libx-dev", "version": [">=", "2.0"] }, { "name": "liby-dev" }]]);
/// let relations = Relations::read(&needed).unwrap();
/// let known = |version: &str| [("libx-dev".to_owned(), vec![version.to_owned()])].into();
/// assert!(relations.hold(&known("2.0-1")));
/// assert!(!relations.hold(&known("1.9")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relations(Vec<Vec<Alternative>>);

impl Alternative {
    fn holds(&self, known: &KnownVersions) -> bool {
        let Some(versions) = known.get(&self.name) else {
            return false;
        };
        let Some((operator, wanted)) = &self.version else {
            return !versions.is_empty();
        };
        let Ok(wanted) = wanted.parse::<Version>() else {
            return false;
        };
        let mut versions = versions
            .iter()
            .filter_map(|text| text.parse::<Version>().ok());
        versions.any(|version| match operator.as_str() {
            "<<" => version < wanted,
            "<=" | "<" => version <= wanted,
            "=" => version == wanted,
            ">=" | ">" => version >= wanted,
            ">>" => version > wanted,
            _ => false,
        })
    }
}

impl Relations {
    /// Reads the relations among failure details; `None` when they are no relations.
    pub fn read(relations: &Value) -> Option<Self> {
        let read: Vec<Vec<Alternative>> = serde_json::from_value(relations.clone()).ok()?;
        let names = read.iter().map(Vec::len).sum::<usize>();
        (!read.is_empty() && names <= MAX_NAMES).then_some(Self(read))
    }

    /// Returns the names of the packages.
    pub fn names(&self) -> BTreeSet<&str> {
        let all = self.0.iter().flatten();
        all.map(|alternative| alternative.name.as_str()).collect()
    }

    /// Returns whether all relations hold with these versions.
    pub fn hold(&self, known: &KnownVersions) -> bool {
        let holds = |alternatives: &Vec<Alternative>| {
            alternatives
                .iter()
                .any(|alternative| alternative.holds(known))
        };
        self.0.iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hold(relations: &Value) -> bool {
        let known = [
            (
                "aa".to_owned(),
                vec!["1:2.0-3".to_owned(), "1.0~rc1".to_owned()],
            ),
            ("bb".to_owned(), vec!["7".to_owned()]),
        ];
        Relations::read(relations).unwrap().hold(&known.into())
    }

    #[test]
    fn versions_are_compared_as_debian_does() {
        for (operator, version, holds) in [
            (">=", "1:2.0-3", true),
            (">>", "1:2.0-3", false),
            (">>", "5.0", true),
            ("<<", "1.0", true),
            ("<<", "1.0~rc1", false),
            ("<=", "1.0~rc1", true),
            ("=", "1:2.0-3", true),
            ("=", "2.0-3", false),
            ("~", "1", false),
            (">=", "not a version", false),
        ] {
            let relations = json!([[{ "name": "aa", "version": [operator, version] }]]);
            assert_eq!(hold(&relations), holds, "aa ({operator} {version})");
        }
    }

    #[test]
    fn every_relation_needs_one_alternative() {
        let package = |name: &str| json!({ "name": name, "archqual": null, "version": null });
        assert!(hold(&json!([
            [package("zz"), package("aa")],
            [package("bb")]
        ])));
        assert!(!hold(&json!([[package("aa")], [package("zz")]])));
        assert!(!hold(&json!([[package("aa")], []])));
    }

    #[test]
    fn anything_else_is_no_relation() {
        for odd in [
            json!(null),
            json!([]),
            json!("x"),
            json!([{ "name": "aa" }]),
            json!([[1]]),
        ] {
            assert_eq!(Relations::read(&odd), None, "{odd}");
        }
        let many = vec![json!({ "name": "aa" }); 1001];
        assert_eq!(Relations::read(&json!([many])), None);
    }
}
