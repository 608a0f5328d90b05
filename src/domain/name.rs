//! Names of codebases and campaigns, and ids of runs.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The length of the longest name, in bytes.
const MAX_LENGTH: usize = 255;

fn validate(field: &str, name: &str) -> Result<(), Invalid> {
    let mut chars = name.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest = chars.as_str();
    let rest_ok = !rest.is_empty()
        && rest
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '+' | ',' | '-' | '.'));
    if first && rest_ok && name.len() <= MAX_LENGTH {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(Invalid::new(
        field,
        format!(
            "{shown:?} is not a name: a-z or 0-9 first, then at least one of a-z 0-9 + , - . \
             (at most {MAX_LENGTH} characters)"
        ),
    ))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Creates a name.
            ///
            /// # Errors
            ///
            /// [`Invalid`] when the text breaks the rule for names.
            pub fn new(name: impl Into<String>) -> Result<Self, Invalid> {
                let name = name.into();
                validate($field, &name)?;
                Ok(Self(name))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = Invalid;
            fn try_from(name: String) -> Result<Self, Invalid> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a codebase: `[a-z0-9]` first, then one or more of `a-z 0-9 + , - .`.
    CodebaseName,
    "codebase"
);
name!(
    /// The name of a campaign, by the same rule as [`CodebaseName`].
    CampaignName,
    "campaign"
);

impl CampaignName {
    /// Returns the name that sorts before all others.
    pub fn first() -> Option<Self> {
        Self::new("0+").ok()
    }
}

/// The id of an active run and of the run that it becomes. The runner makes UUIDs; any text without
/// a slash is accepted from stores that others wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Wraps the text of an id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_has_two_characters_and_starts_with_a_letter_or_digit() {
        for good in ["ab", "0ad", "lib,x", "g++", "a.b-c"] {
            assert!(CodebaseName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "X", "-a", "Ab", "a b", "a/b", "a_b", "é1", "a\0"] {
            assert!(CodebaseName::new(bad).is_err(), "{bad:?}");
        }
        assert!(CodebaseName::new("a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn names_round_trip_through_json(name in "[a-z0-9][a-z0-9+,.-]{1,40}") {
            let parsed = CampaignName::new(name.clone()).unwrap();
            let json = serde_json::to_string(&parsed).unwrap();
            let back: CampaignName = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.as_str(), name);
        }
    }
}
