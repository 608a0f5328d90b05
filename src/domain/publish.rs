//! What the publisher reads: the status of a run's result, and the policies that candidates name.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! words {
    ($(#[$doc:meta])* $type:ident, $field:literal, $($variant:ident = $word:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
        #[serde(rename_all = "kebab-case")]
        #[expect(missing_docs)]
        pub enum $type {
            #[default]
            $($variant),+
        }

        impl $type {
            /// Every value with its name.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// Its name.
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
    /// What was decided about publishing a run's result.
    PublishStatus, "publish_status",
    Unknown = "unknown", Blocked = "blocked", NeedsManualReview = "needs-manual-review", Rejected = "rejected",
    Approved = "approved", Ignored = "ignored"
}

words! {
    /// How a branch of a result is published.
    PublishMode, "mode",
    BuildOnly = "build-only", Push = "push", AttemptPush = "attempt-push", Propose = "propose", Skip = "skip",
    PushDerived = "push-derived", Bts = "bts"
}

/// How one branch of a result is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchPolicy {
    /// The branch's role.
    pub role: String,
    /// What is done with it.
    #[serde(default)]
    pub mode: PublishMode,
    /// Not more often than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_days: Option<i32>,
}

/// A policy that candidates name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishPolicy {
    /// Its name.
    pub name: String,
    /// A rule for each role.
    pub per_branch: Vec<BranchPolicy>,
    /// What counts against the same limit of open proposals.
    #[serde(default)]
    pub rate_limit_bucket: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
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
