//! The branches and tags of a report.

use super::fields::{Fields, MAX_NAME};
use crate::domain::run::{ResultBranch, ResultTag};
use serde_json::{Map, Value};
use std::collections::{HashMap, hash_map::Entry};

/// The maximum number of branches, and of tags.
const MAX_REFS: usize = 1000;

/// The keys of a branch that is written as an object, in the order of the list that it should be.
const BRANCH_KEYS: [&[&str]; 4] = [
    &["role"],
    &["name", "remote_name"],
    &["base", "base_revision"],
    &["revision", "new_revision"],
];

fn member<'a>(object: &'a Map<String, Value>, keys: &[&str]) -> &'a Value {
    keys.iter()
        .find_map(|key| object.get(*key))
        .unwrap_or(&Value::Null)
}

impl Fields<'_> {
    /// Reads the branches. Those that cannot be understood are a problem: a run whose branches are
    /// wrong must not be published.
    pub(super) fn branches(&mut self, revision: Option<&str>) -> Option<Vec<ResultBranch>> {
        let Some(listed) = self.value("branches")?.as_array() else {
            self.fail(
                "branches",
                "is not a list of [role, name, base revision, revision]",
            );
            return None;
        };
        if listed.len() > MAX_REFS {
            self.fail("branches", format!("has more than {MAX_REFS} entries"));
            return None;
        }
        let mut branches: Vec<ResultBranch> = vec![];
        let mut by_role = HashMap::new();
        for entry in listed {
            let branch = self.branch(entry, revision)?;
            match by_role.entry(branch.role.clone()) {
                Entry::Vacant(place) => {
                    place.insert(branches.len());
                    branches.push(branch);
                }
                Entry::Occupied(place) if branches.get(*place.get()) == Some(&branch) => {
                    self.note("branches", format!("{:?} is listed twice", branch.role));
                }
                Entry::Occupied(_) => {
                    let role = &branch.role;
                    self.fail("branches", format!("two branches have the role {role:?}"));
                    return None;
                }
            }
        }
        Some(branches)
    }

    fn branch(&mut self, entry: &Value, revision: Option<&str>) -> Option<ResultBranch> {
        let mut members: Vec<&Value> = match entry {
            Value::Array(members) if members.len() >= 2 => members.iter().collect(),
            Value::Object(object) => BRANCH_KEYS.map(|keys| member(object, keys)).to_vec(),
            _ => {
                self.fail(
                    "branches",
                    "an entry is not [role, name, base revision, revision]",
                );
                return None;
            }
        };
        if members.len() != 4 {
            let length = members.len();
            self.note(
                "branches",
                format!("an entry has {length} members instead of 4"),
            );
        }
        // Without its base revision, an entry ends with the revision of the result.
        if members.len() == 3 && revision.is_some() && members[2].as_str() == revision {
            members.insert(2, &Value::Null);
        }
        members.resize(4, &Value::Null);
        let [role, name, base, revision] = members[..] else {
            return None;
        };
        let problems = self.problems.len();
        let branch = ResultBranch {
            role: self.ref_name(role).unwrap_or_default(),
            name: self.ref_name(name),
            base: self.checked_revision("branches", base),
            revision: self.checked_revision("branches", revision),
        };
        (self.problems.len() == problems).then_some(branch)
    }

    /// Returns a name within a branch; one that is not text is a problem.
    fn ref_name(&mut self, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(name) => Some(self.bounded_name("branches", name.clone(), MAX_NAME)),
            _ => {
                self.fail("branches", "a role or name is not text");
                None
            }
        }
    }

    /// Reads the tags: `[name, revision]`, `{name, revision}`, or a name alone, which tags the
    /// revision of the result.
    pub(super) fn tags(&mut self, revision: Option<&str>) -> Option<Vec<ResultTag>> {
        let value = self.value("tags")?;
        let listed: Vec<Value> = match value {
            Value::Array(listed) => listed.clone(),
            // By name, as the version control systems of Breezy list them.
            Value::Object(by_name) => by_name
                .iter()
                .map(|(name, revision)| serde_json::json!([name, revision]))
                .collect(),
            other => {
                self.note_value("tags", other, "a list of [name, revision]");
                return None;
            }
        };
        if listed.len() > MAX_REFS {
            self.note(
                "tags",
                format!("has more than {MAX_REFS} entries; the rest is left out"),
            );
        }
        let mut tags = vec![];
        for entry in listed.iter().take(MAX_REFS) {
            match tag(entry, revision) {
                Some(tag) => tags.push(tag),
                None => self.note_value("tags", entry, "[name, revision]"),
            }
        }
        Some(tags)
    }
}

fn tag(entry: &Value, revision: Option<&str>) -> Option<ResultTag> {
    let (name, tagged) = match entry {
        Value::String(_) => (entry, &Value::Null),
        Value::Array(members) => (members.first()?, members.get(1).unwrap_or(&Value::Null)),
        Value::Object(object) => (
            member(object, &["name", "actual_name"]),
            member(object, &["revision", "revid"]),
        ),
        _ => return None,
    };
    let name = match name {
        Value::Null => None,
        Value::String(name) if name.chars().nth(MAX_NAME).is_none() => Some(name.clone()),
        _ => return None,
    };
    let revision = match tagged {
        Value::Null => revision?.to_owned(),
        Value::String(revision) => revision.clone(),
        _ => return None,
    };
    Some(ResultTag { name, revision })
}

#[cfg(test)]
mod tests {
    use super::super::{Report, read};
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Report {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn branches_and_tags_are_limited() {
        let branch = |n: usize| json!([format!("role{n}"), "b", "r1", "r2"]);
        let branches: Vec<Value> = (0..1001).map(branch).collect();
        let report = of(&json!({"code": "success", "branches": branches}));
        assert_eq!(report.problems[0].field, "branches");
        let report = of(&json!({"code": "success", "branches": branches[1..]}));
        assert_eq!(report.branches.map(|all| all.len()), Some(1000));
        let tags = vec![json!(["t", "r"]); 1001];
        let report = of(&json!({"code": "success", "tags": tags}));
        assert_eq!(report.tags.map(|all| all.len()), Some(1000));
        assert_eq!(report.notes[0].field, "tags");
    }
}
