//! The audit log: who changed what, with what effect.
//!
//! Entries are bounded and have no secrets: texts are cut, and what [`redact`](super::redact) finds
//! is hidden.

use super::{
    Invalid,
    redact::{HIDDEN, is_secret_name, redact},
    time::Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr};

/// The id of an entry; a later entry has a higher one.
pub type AuditId = i64;

/// The maximum length of the name of a person or thing, in characters.
const MAX_NAME: usize = 300;
/// The maximum length of a text in `before` and `after`, in characters.
const MAX_TEXT: usize = 500;
/// The maximum number of entries of a list or an object in `before` and `after`.
const MAX_ENTRIES: usize = 50;
/// The maximum depth of `before` and `after`.
const MAX_DEPTH: usize = 5;
/// The maximum size of each of `before` and `after` as JSON, in bytes.
const MAX_JSON: usize = 8 << 10;

/// Defines the actions with their names.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal),+ $(,)?) => {
        /// What was done. The names are stored and must not change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $action,)+
        }

        impl Action {
            /// All actions.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// Returns the name, as clients see it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)+
                }
            }
        }
    };
}

actions! {
    /// Codebases were uploaded.
    UploadCodebases = "codebases.upload",
    /// Candidates were uploaded, and scheduled.
    UploadCandidates = "candidates.upload",
    /// A candidate was deleted.
    DeleteCandidate = "candidate.delete",
    /// A run was scheduled by hand.
    Schedule = "run.schedule",
    /// A control run was scheduled.
    ScheduleControl = "run.schedule-control",
    /// Many items were rescheduled, descheduled or reset.
    ScheduleBulk = "queue.bulk",
    /// The publish status of a run was set.
    SetPublishStatus = "run.publish-status",
    /// A run was killed.
    KillRun = "run.kill",
    /// Something was paused.
    Pause = "pause.set",
    /// A pause was ended.
    Unpause = "pause.end",
    /// A concurrency limit was set.
    SetLimit = "limit.set",
    /// A concurrency limit was removed.
    RemoveLimit = "limit.remove",
    /// The backoff of a host was ended.
    EndBackoff = "backoff.end",
    /// Parked items were unparked.
    Unpark = "queue.unpark",
    /// A worker was added.
    AddWorker = "worker.add",
    /// A worker was removed.
    RemoveWorker = "worker.remove",
    /// A worker got a new password.
    RotateWorker = "worker.rotate",
    /// The tables of the database were migrated.
    Migrate = "store.migrate",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.iter().find(|action| action.as_str() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|action| action.as_str()).collect();
            Invalid::new("action", format!("is none of {}", names.join(", ")))
        })
    }
}

/// Who made a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// The name of the token or user; for an API without tokens a word for whoever reaches it.
    pub who: String,
    /// The address that the request came from.
    pub address: Option<String>,
    /// The id of the request, which the logs of this process and its proxy have too.
    pub request_id: Option<String>,
}

/// A change that was made, before it is known who made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// The name of what was changed.
    pub object: String,
    /// How that was before; none when it is new or not known.
    pub before: Option<Value>,
    /// How it is now; none when it is gone.
    pub after: Option<Value>,
}

impl Change {
    /// Creates a change of `object`.
    pub fn new(action: Action, object: impl Into<String>) -> Self {
        Self {
            action,
            object: object.into(),
            before: None,
            after: None,
        }
    }

    /// Says how the object was before.
    pub fn before(self, before: impl Into<Option<Value>>) -> Self {
        Self {
            before: before.into(),
            ..self
        }
    }

    /// Says how the object is now.
    pub fn after(self, after: impl Into<Option<Value>>) -> Self {
        Self {
            after: after.into(),
            ..self
        }
    }
}

/// A change, who made it and when: an entry that has no id yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When the change was made.
    #[serde(with = "super::time::as_iso")]
    pub at: Time,
    /// Who made it: the name of a token or user.
    pub who: String,
    /// The address that the request came from.
    pub address: Option<String>,
    /// The name of the [`Action`]; another version may know more of them.
    pub action: String,
    /// The name of what was changed.
    pub object: String,
    /// How that was before.
    pub before: Option<Value>,
    /// How it was afterwards.
    pub after: Option<Value>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The id.
    pub id: AuditId,
    /// What it says.
    #[serde(flatten)]
    pub record: AuditRecord,
}

/// Selects entries; an absent field matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Who made the change.
    pub who: Option<String>,
    /// The name of the action.
    pub action: Option<String>,
    /// The name of what was changed.
    pub object: Option<String>,
    /// The earliest time.
    pub since: Option<Time>,
    /// The time before which the change was made.
    pub until: Option<Time>,
}

impl AuditFilter {
    /// Returns whether it selects a record.
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.who, &record.who)
            && is(&self.action, &record.action)
            && is(&self.object, &record.object)
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
    }
}

/// How much of the audit log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRetention {
    /// Entries older than so many days are removed.
    pub days: u32,
    /// The oldest entries are removed while there are more than so many.
    pub entries: u64,
}

/// Cuts a text to so many characters. No store can keep NUL bytes.
fn cut(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out.replace('\0', "\u{fffd}")
}

fn name(text: &str) -> String {
    cut(&redact(text), MAX_NAME)
}

fn bounded(value: Value, depth: usize) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => "…".into(),
        Value::String(text) => cut(&redact(&text), MAX_TEXT).into(),
        Value::Array(list) => {
            let more = list.len().saturating_sub(MAX_ENTRIES);
            let mut out: Vec<Value> = list
                .into_iter()
                .take(MAX_ENTRIES)
                .map(|value| bounded(value, depth + 1))
                .collect();
            out.extend((more > 0).then(|| format!("… and {more} more").into()));
            out.into()
        }
        Value::Object(fields) => {
            let more = fields.len().saturating_sub(MAX_ENTRIES);
            let mut out: Map<String, Value> = fields
                .into_iter()
                .take(MAX_ENTRIES)
                .map(|(key, value)| {
                    let hidden = is_secret_name(&key) && !value.is_null();
                    let value = if hidden {
                        HIDDEN.into()
                    } else {
                        bounded(value, depth + 1)
                    };
                    (cut(&key, MAX_NAME), value)
                })
                .collect();
            if more > 0 {
                out.insert("…".to_owned(), format!("and {more} more").into());
            }
            out.into()
        }
        other => other,
    }
}

/// Returns a state as it is stored: without secrets, and of a limited size.
fn state(value: Value) -> Value {
    let value = bounded(value, 0);
    let text = value.to_string();
    if text.len() <= MAX_JSON {
        value
    } else {
        cut(&text, MAX_JSON / 8).into()
    }
}

impl AuditRecord {
    /// Creates the record of a change that `actor` made at that time.
    pub fn new(change: Change, actor: &Actor, at: Time) -> Self {
        Self {
            at: super::time::micros(at),
            who: name(&actor.who),
            address: actor.address.as_deref().map(name),
            action: change.action.to_string(),
            object: name(&change.object),
            before: change.before.map(state),
            after: change.after.map(state),
            request_id: actor.request_id.as_deref().map(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn record(object: &str, after: Value) -> AuditRecord {
        let at = super::super::time::parse("at", "2026-11-23T10:00:00").unwrap();
        let actor = Actor {
            who: "anna".to_owned(),
            ..Actor::default()
        };
        let change = Change::new(Action::AddWorker, object).after(after);
        AuditRecord::new(change, &actor, at)
    }

    #[test]
    fn secrets_are_not_in_a_record() {
        let after = json!({
            "password": "geheim",
            "inner": [{ "auth_token": "geheim" }],
            "link": "https://u:geheim@h/?key=geheim",
            "secret": null,
        });
        let record = record("https://u:geheim@h/x", after);
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains("geheim"), "{text}");
        assert_eq!(record.after.unwrap()["secret"], Value::Null);
    }

    #[test]
    fn names_of_actions_are_parsed() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(*action));
        }
        assert!("nonsense".parse::<Action>().is_err());
    }

    #[test]
    fn filter_selects_by_each_field() {
        let record = record("w1", Value::Null);
        let matches = |filter: AuditFilter| filter.matches(&record);
        let text = |text: &str| Some(text.to_owned());
        assert!(matches(AuditFilter::default()));
        assert!(matches(AuditFilter {
            who: text("anna"),
            action: text("worker.add"),
            object: text("w1"),
            since: Some(record.at),
            until: None,
        }));
        for other in [
            AuditFilter {
                who: text("eve"),
                ..AuditFilter::default()
            },
            AuditFilter {
                action: text("run.kill"),
                ..AuditFilter::default()
            },
            AuditFilter {
                object: text("w2"),
                ..AuditFilter::default()
            },
            AuditFilter {
                until: Some(record.at),
                ..AuditFilter::default()
            },
        ] {
            assert!(!matches(other.clone()), "{other:?}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            "[\\x00a-zä€]{0,2000}".prop_map(Value::from),
        ];
        leaf.prop_recursive(8, 300, 80, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..80).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,400}", inner, 0..80)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn records_are_bounded(object in "\\PC{0,3000}", after in any_json()) {
            let record = record(&object, after);
            prop_assert!(record.object.len() <= 4 * MAX_NAME + 3);
            let text = record.after.map(|after| after.to_string()).unwrap_or_default();
            prop_assert!(text.len() <= MAX_JSON, "{}", text.len());
            prop_assert!(!text.contains("\\u0000"));
        }
    }
}
