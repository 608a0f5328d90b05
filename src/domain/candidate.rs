//! Candidates: that a campaign should keep being run on a codebase.

use super::{
    Invalid,
    campaign::Campaigns,
    invalid::text,
    name::{CampaignName, CodebaseName, RunId},
    queue::{Bucket, QueueKey},
    schedule::ScheduleRequest,
};
use serde::{Deserialize, Serialize};

/// The id of a candidate.
pub type CandidateId = i64;

/// "This campaign should keep being run on this codebase."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Candidate {
    pub id: CandidateId,
    #[serde(flatten)]
    pub key: QueueKey,
    pub command: String,
    pub context: Option<String>,
    /// Above zero.
    pub value: Option<i32>,
    pub success_chance: Option<f64>,
    pub publish_policy: Option<String>,
}

/// One entry of an upload; codebase and campaign are there, nothing else is checked yet.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs)]
pub struct CandidateEntry {
    pub codebase: String,
    pub campaign: String,
    pub command: Option<String>,
    pub publish_policy: Option<String>,
    pub change_set: Option<String>,
    pub context: Option<String>,
    pub value: Option<i64>,
    pub success_chance: Option<f64>,
    pub bucket: Option<Bucket>,
    pub requester: Option<String>,
    pub followup_for: Vec<RunId>,
}

/// Why an entry was left out. The others of its list are stored all the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    /// The configuration has no such campaign.
    UnknownCampaign(String),
    /// Neither the entry nor its campaign has a command; the entry's own, if any.
    InvalidCommand(Option<String>),
    /// The value is not above zero or too large.
    InvalidValue(i64),
    /// No such codebase.
    UnknownCodebase(String),
    /// No such publish policy.
    UnknownPublishPolicy(String),
    /// It follows up on a run that is not stored.
    UnknownRun(RunId),
}

/// What is known outside the entry itself.
pub trait Known {
    /// Whether there is such a codebase.
    fn codebase(&self, name: &CodebaseName) -> bool;
    /// Whether there is such a publish policy.
    fn publish_policy(&self, name: &str) -> bool;
    /// Whether a run of that id is stored.
    fn run(&self, id: &RunId) -> bool;
}

/// A checked entry, ready to be stored and scheduled.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct NewCandidate {
    /// Its id is not yet given.
    pub candidate: Candidate,
    pub bucket: Option<Bucket>,
    pub requester: Option<String>,
    pub followup_for: Vec<RunId>,
}

impl CandidateEntry {
    /// Text that no store can keep spoils the request, not just the entry.
    pub fn check_text(&self) -> Result<(), Invalid> {
        for (field, value) in [
            ("command", &self.command),
            ("change_set", &self.change_set),
            ("context", &self.context),
            ("requester", &self.requester),
        ] {
            value.clone().map(|value| text(field, value)).transpose()?;
        }
        if self
            .success_chance
            .is_some_and(|chance| !chance.is_finite())
        {
            return Err(Invalid::new("success_chance", "is not a finite number"));
        }
        if self.change_set.as_deref() == Some("") {
            return Err(Invalid::new("change_set", "must not be empty"));
        }
        Ok(())
    }

    /// Checks an entry against what is configured and stored.
    pub fn check(
        self,
        campaigns: &Campaigns,
        known: &impl Known,
    ) -> Result<NewCandidate, Rejection> {
        let campaign = CampaignName::new(self.campaign.clone())
            .ok()
            .and_then(|name| campaigns.campaign(&name));
        let Some(campaign) = campaign else {
            return Err(Rejection::UnknownCampaign(self.campaign));
        };
        let command = self
            .command
            .clone()
            .or_else(|| campaign.command.clone())
            .filter(|c| !c.is_empty());
        let Some(command) = command else {
            return Err(Rejection::InvalidCommand(self.command));
        };
        let value = self.value.map(|value| {
            i32::try_from(value)
                .ok()
                .filter(|v| *v > 0)
                .ok_or(Rejection::InvalidValue(value))
        });
        let value = value.transpose()?;
        let codebase = CodebaseName::new(self.codebase.clone())
            .ok()
            .filter(|name| known.codebase(name));
        let Some(codebase) = codebase else {
            return Err(Rejection::UnknownCodebase(self.codebase));
        };
        if let Some(policy) = self
            .publish_policy
            .as_ref()
            .filter(|policy| !known.publish_policy(policy))
        {
            return Err(Rejection::UnknownPublishPolicy(policy.clone()));
        }
        if let Some(run) = self.followup_for.iter().find(|run| !known.run(run)) {
            return Err(Rejection::UnknownRun(run.clone()));
        }
        let candidate = Candidate {
            id: 0,
            key: QueueKey {
                codebase,
                campaign: campaign.name.clone(),
                change_set: self.change_set,
            },
            command,
            context: self.context,
            value,
            success_chance: self.success_chance,
            publish_policy: self.publish_policy,
        };
        Ok(NewCandidate {
            candidate,
            bucket: self.bucket,
            requester: self.requester,
            followup_for: self.followup_for,
        })
    }
}

impl NewCandidate {
    /// How the candidate is scheduled after its upload: a changed command updates an open proposal first of all.
    pub fn schedule_request(&self, open_proposal_command: Option<&str>) -> ScheduleRequest {
        let changed = open_proposal_command.filter(|old| *old != self.candidate.command);
        let (bucket, refresh, requester) = match changed {
            Some(old) => {
                let requester = format!(
                    "command changed for existing mp: '{old}' ⇒ '{}'",
                    self.candidate.command
                );
                (Bucket::UpdateExistingMp, true, requester)
            }
            None => (
                self.bucket.unwrap_or_default(),
                false,
                "candidate update".to_owned(),
            ),
        };
        let requester = match &self.requester {
            Some(who) => format!("{requester} {who}"),
            None => requester,
        };
        ScheduleRequest {
            bucket,
            refresh,
            requester,
            context: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::campaign::Campaign;

    struct Everything;
    impl Known for Everything {
        fn codebase(&self, name: &CodebaseName) -> bool {
            name.as_str() != "nowhere"
        }
        fn publish_policy(&self, name: &str) -> bool {
            name == "default-policy"
        }
        fn run(&self, id: &RunId) -> bool {
            id.as_str() != "never"
        }
    }

    fn campaigns() -> Campaigns {
        let campaign = |name: &str, command: Option<&str>| Campaign {
            name: CampaignName::new(name).unwrap(),
            command: command.map(Into::into),
            branch_name: None,
            force_build: false,
            skip_setup_validation: false,
            default_empty: true,
            build: None,
        };
        Campaigns {
            campaigns: vec![campaign("gen", Some("true")), campaign("nocmd", None)],
            distributions: vec![],
        }
    }

    fn entry(campaign: &str) -> CandidateEntry {
        CandidateEntry {
            codebase: "cb".into(),
            campaign: campaign.into(),
            ..Default::default()
        }
    }

    fn checked(entry: CandidateEntry) -> Result<NewCandidate, Rejection> {
        entry.check(&campaigns(), &Everything)
    }

    #[test]
    fn each_kind_of_wrong_entry_is_told_apart() {
        assert_eq!(
            checked(entry("nope")),
            Err(Rejection::UnknownCampaign("nope".into()))
        );
        assert_eq!(
            checked(entry("nocmd")),
            Err(Rejection::InvalidCommand(None))
        );
        assert_eq!(
            checked(CandidateEntry {
                value: Some(0),
                ..entry("gen")
            }),
            Err(Rejection::InvalidValue(0))
        );
        assert_eq!(
            checked(CandidateEntry {
                value: Some(1 << 40),
                ..entry("gen")
            }),
            Err(Rejection::InvalidValue(1 << 40))
        );
        let nowhere = CandidateEntry {
            codebase: "nowhere".into(),
            ..entry("gen")
        };
        assert_eq!(
            checked(nowhere),
            Err(Rejection::UnknownCodebase("nowhere".into()))
        );
        let policy = CandidateEntry {
            publish_policy: Some("x".into()),
            ..entry("gen")
        };
        assert_eq!(
            checked(policy),
            Err(Rejection::UnknownPublishPolicy("x".into()))
        );
        let run = CandidateEntry {
            followup_for: vec![RunId::new("r1"), RunId::new("never")],
            ..entry("gen")
        };
        assert_eq!(
            checked(run),
            Err(Rejection::UnknownRun(RunId::new("never")))
        );
    }

    #[test]
    fn the_command_is_the_entrys_else_the_campaigns() {
        assert_eq!(checked(entry("gen")).unwrap().candidate.command, "true");
        let own = CandidateEntry {
            command: Some("mine".into()),
            ..entry("nocmd")
        };
        assert_eq!(checked(own).unwrap().candidate.command, "mine");
    }

    #[test]
    fn a_changed_command_updates_the_open_proposal_first() {
        let new = checked(CandidateEntry {
            requester: Some("me".into()),
            bucket: Some(Bucket::Hook),
            ..entry("gen")
        })
        .unwrap();
        let same = new.schedule_request(Some("true"));
        assert_eq!(
            (same.bucket, same.refresh, same.requester.as_str()),
            (Bucket::Hook, false, "candidate update me")
        );
        let changed = new.schedule_request(Some("old"));
        assert_eq!(
            (changed.bucket, changed.refresh),
            (Bucket::UpdateExistingMp, true)
        );
        assert_eq!(
            changed.requester,
            "command changed for existing mp: 'old' ⇒ 'true' me"
        );
    }

    #[test]
    fn text_that_no_store_can_keep_is_refused() {
        let nul = CandidateEntry {
            command: Some("a\0b".into()),
            ..entry("gen")
        };
        assert_eq!(nul.check_text().unwrap_err().field, "command");
    }
}
