//! What keeps items in the queue from being assigned: pauses, and limits on how many run at the
//! same time.

use super::{
    Invalid,
    active_run::{ActiveRun, Claimant},
    host,
    invalid::text,
    name::{CampaignName, CodebaseName},
    queue::{Bucket, QueueItem},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The length of the longest reason, in bytes.
const MAX_REASON_LENGTH: usize = 1000;

/// What is paused or limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    All,
    /// The items of a campaign.
    Campaign(CampaignName),
    /// The items whose codebase is on a host.
    Host(String),
    /// The items of a codebase.
    Codebase(CodebaseName),
    /// The items in a bucket.
    Bucket(Bucket),
    /// The claims of a worker, or of one node of its account, `ACCOUNT/NODE`.
    Worker(String),
}

impl Scope {
    /// Parses a kind, and the name of one of that kind.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when there is no such kind, or its name is missing or breaks the rules for
    /// names.
    pub fn parse(kind: &str, name: Option<&str>) -> Result<Self, Invalid> {
        let name = name.filter(|name| !name.is_empty());
        let named = || name.ok_or_else(|| Invalid::new("name", "is missing"));
        let of = |invalid: Invalid| Invalid::new("name", invalid.reason);
        Ok(match kind {
            "all" if name.is_some() => return Err(Invalid::new("name", "all has no name")),
            "all" => Self::All,
            "campaign" => Self::Campaign(CampaignName::new(named()?).map_err(of)?),
            "host" => Self::Host(host::normalize(&text("name", named()?.to_owned())?)),
            "codebase" => Self::Codebase(CodebaseName::new(named()?).map_err(of)?),
            "bucket" => Self::Bucket(named()?.parse().map_err(of)?),
            "worker" => Self::Worker(text("name", named()?.to_owned())?),
            _ => {
                return Err(Invalid::new(
                    "kind",
                    "is none of all, campaign, host, codebase, bucket, worker",
                ));
            }
        })
    }

    /// Returns the kind, as [`Scope::parse`] reads it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Campaign(_) => "campaign",
            Self::Host(_) => "host",
            Self::Codebase(_) => "codebase",
            Self::Bucket(_) => "bucket",
            Self::Worker(_) => "worker",
        }
    }

    /// Returns the name, which is empty for [`Scope::All`].
    pub fn name(&self) -> &str {
        match self {
            Self::All => "",
            Self::Campaign(name) => name.as_str(),
            Self::Codebase(name) => name.as_str(),
            Self::Host(name) | Self::Worker(name) => name,
            Self::Bucket(bucket) => bucket.as_str(),
        }
    }
}

/// A pause: what is paused, why, since when and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What is paused.
    #[serde(flatten)]
    pub scope: Scope,
    /// The reason, for operators.
    pub reason: String,
    /// The time at which the pause began.
    #[serde(with = "super::time::as_iso")]
    pub since: Time,
    /// The end of the pause; `None` means until somebody ends it.
    #[serde(with = "super::time::as_iso::option")]
    pub until: Option<Time>,
}

impl Pause {
    /// Validates a pause from outside.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the reason is too long or cannot be stored, or the pause has ended already.
    pub fn validate(self) -> Result<Self, Invalid> {
        if self.reason.len() > MAX_REASON_LENGTH {
            return Err(Invalid::new(
                "reason",
                format!("is longer than {MAX_REASON_LENGTH} bytes"),
            ));
        }
        if self.until.is_some_and(|until| until <= self.since) {
            return Err(Invalid::new("until", "has passed already"));
        }
        let reason = text("reason", self.reason)?;
        Ok(Self { reason, ..self })
    }

    /// Returns whether it is a pause of that worker: of its account, or of its node.
    pub fn is_of(&self, claimant: &Claimant) -> bool {
        let Scope::Worker(name) = &self.scope else {
            return false;
        };
        claimant.worker.as_ref() == Some(name) || claimant.counted_name().as_ref() == Some(name)
    }

    /// Returns whether the pause has not ended yet.
    pub fn holds(&self, now: Time) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// How many runs of a campaign, or on a host, there may be at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyLimit {
    /// The campaign or the host.
    #[serde(flatten)]
    pub scope: Scope,
    /// The maximum number of active runs.
    pub most: u32,
}

impl ConcurrencyLimit {
    /// Validates a limit from outside.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the scope is neither a campaign nor a host.
    pub fn validate(self) -> Result<Self, Invalid> {
        match self.scope {
            Scope::Campaign(_) | Scope::Host(_) => Ok(self),
            _ => Err(Invalid::new("kind", "limits are for a campaign or a host")),
        }
    }

    /// Returns how many of these runs count towards the limit.
    pub fn used(&self, active: &[ActiveRun]) -> usize {
        let counts = |run: &&ActiveRun| match &self.scope {
            Scope::Campaign(name) => run.key().campaign == *name,
            Scope::Host(host) => run.host.as_ref() == Some(host),
            _ => false,
        };
        active.iter().filter(counts).count()
    }
}

/// The pauses in force, by scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<Scope, Pause>);

impl FromIterator<Pause> for Pauses {
    fn from_iter<I: IntoIterator<Item = Pause>>(pauses: I) -> Self {
        Self(
            pauses
                .into_iter()
                .map(|pause| (pause.scope.clone(), pause))
                .collect(),
        )
    }
}

impl Pauses {
    /// Returns the pauses that keep an item from being assigned; `host` is that of its codebase.
    pub fn of_item(&self, item: &QueueItem, host: Option<&str>) -> Vec<&Pause> {
        let scopes = [
            Some(Scope::All),
            Some(Scope::Campaign(item.key.campaign.clone())),
            Some(Scope::Codebase(item.key.codebase.clone())),
            Some(Scope::Bucket(item.bucket)),
            host.map(|host| Scope::Host(host.to_owned())),
        ];
        scopes
            .into_iter()
            .flatten()
            .filter_map(|scope| self.0.get(&scope))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{finish::tests::item, time};

    fn pause(kind: &str, name: Option<&str>) -> Pause {
        let since = time::parse("t", "2026-01-01T00:00:00").unwrap();
        Pause {
            scope: Scope::parse(kind, name).unwrap(),
            reason: "why".into(),
            since,
            until: None,
        }
    }

    #[test]
    fn scopes_round_trip_through_text_and_json() {
        for (kind, name) in [
            ("all", ""),
            ("campaign", "gen"),
            ("host", "h"),
            ("codebase", "cb"),
            ("bucket", "manual"),
            ("worker", "w 1"),
        ] {
            let scope = Scope::parse(kind, Some(name)).unwrap();
            assert_eq!(scope.kind(), kind);
            assert_eq!(scope.name(), name);
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(
                serde_json::from_str::<Scope>(&json).unwrap(),
                scope,
                "{json}"
            );
        }
        for (kind, name) in [
            ("all", Some("x")),
            ("campaign", None),
            ("campaign", Some("X")),
            ("bucket", Some("pail")),
            ("moon", None),
            ("host", Some("")),
        ] {
            assert!(Scope::parse(kind, name).is_err(), "{kind} {name:?}");
        }
    }

    #[test]
    fn item_is_paused_by_each_of_its_scopes() {
        for (kind, name, paused) in [
            ("all", None, true),
            ("campaign", Some("gen"), true),
            ("campaign", Some("other"), false),
            ("codebase", Some("cb"), true),
            ("bucket", Some("default"), true),
            ("host", Some("h"), true),
            ("host", Some("i"), false),
            ("worker", Some("w"), false),
        ] {
            let pauses: Pauses = [pause(kind, name)].into_iter().collect();
            assert_eq!(
                !pauses.of_item(&item(), Some("h")).is_empty(),
                paused,
                "{kind} {name:?}"
            );
        }
    }

    #[test]
    fn ended_pause_and_limit_of_another_scope_are_invalid() {
        let now = time::parse("t", "2026-01-01T00:00:00").unwrap();
        let until = Pause {
            until: Some(now),
            ..pause("all", None)
        };
        assert!(!until.holds(now));
        assert!(until.validate().is_err());
        assert!(
            ConcurrencyLimit {
                scope: Scope::All,
                most: 1
            }
            .validate()
            .is_err()
        );
    }
}
