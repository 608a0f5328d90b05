//! What the publisher depends on: the publish status of runs, and the policies that candidates
//! name.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Defines an enum whose values are words, in JSON and on the command line; the first is the
/// default.
macro_rules! words {
    (
        $(#[$doc:meta])* $type:ident, $field:literal,
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
        #[serde(rename_all = "kebab-case")]
        pub enum $type {
            #[default]
            $($(#[$variant_doc])* $variant),+
        }

        impl $type {
            /// Every value with its name.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// Returns its name.
            pub fn as_str(self) -> &'static str {
                Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let found = Self::ALL.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| *value).ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|(word, _)| *word).collect();
                    Invalid::new($field, format!("{text:?} is none of {}", words.join(", ")))
                })
            }
        }
    };
}

words! {
    /// The decision about publishing the result of a run.
    PublishStatus, "publish_status",
    /// Nothing is decided yet.
    Unknown = "unknown",
    /// The result must not be published for now.
    Blocked = "blocked",
    /// Somebody must review the result.
    NeedsManualReview = "needs-manual-review",
    /// The result is not published, and later runs do not resume from it.
    Rejected = "rejected",
    /// The result may be published.
    Approved = "approved",
    /// The result needs no decision.
    Ignored = "ignored"
}

words! {
    /// How a branch of a result is published.
    PublishMode, "mode",
    /// The branch is built and not published.
    BuildOnly = "build-only",
    /// The branch is pushed.
    Push = "push",
    /// The branch is pushed, or proposed when it cannot be.
    AttemptPush = "attempt-push",
    /// A merge proposal is opened.
    Propose = "propose",
    /// The branch is skipped.
    Skip = "skip",
    /// The branch is pushed to a derived location.
    PushDerived = "push-derived",
    /// The change is sent to a bug tracking system.
    Bts = "bts"
}

/// How one branch of a result is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchPolicy {
    /// The role of the branch.
    pub role: String,
    /// How the branch is published.
    #[serde(default)]
    pub mode: PublishMode,
    /// The minimum number of days between two publications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_days: Option<i32>,
}

/// A policy that candidates name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishPolicy {
    /// Its name.
    pub name: String,
    /// The policies of the branches, by role.
    pub per_branch: Vec<BranchPolicy>,
    /// The bucket whose limit of open proposals it counts against.
    #[serde(default)]
    pub rate_limit_bucket: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_through_text_and_json() {
        for (word, status) in PublishStatus::ALL {
            assert_eq!(word.parse::<PublishStatus>().unwrap(), *status);
            assert_eq!(serde_json::to_value(status).unwrap(), *word);
        }
        for (word, mode) in PublishMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), *word);
        }
        assert_eq!(
            "nonsense".parse::<PublishStatus>().unwrap_err().field,
            "publish_status"
        );
    }
}
