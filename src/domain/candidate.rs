//! Candidates: pairs of a campaign and a codebase that the campaign is to be run on, again and
//! again.

use super::{
    Invalid,
    campaign::Campaigns,
    command,
    invalid::text,
    name::{CampaignName, CodebaseName, RunId},
    queue::{Bucket, QueueKey},
};
use serde::{Deserialize, Serialize};

/// The id of a candidate.
pub type CandidateId = i64;

/// A campaign that is to be run on a codebase, again after each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The id that the store assigned.
    pub id: CandidateId,
    /// The codebase, the campaign and the change set.
    #[serde(flatten)]
    pub key: QueueKey,
    /// The codemod's command line.
    pub command: String,
    /// What the result depends on besides the codebase, such as an upstream version.
    pub context: Option<String>,
    /// How much a successful run is worth; above zero.
    pub value: Option<i32>,
    /// The uploader's estimate of the chance of success, from 0 to 1.
    pub success_chance: Option<f64>,
    /// The name of the policy that the publisher follows.
    pub publish_policy: Option<String>,
}

/// One entry of an upload. Codebase and campaign are present; nothing else is validated yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CandidateEntry {
    /// The name of the codebase.
    pub codebase: String,
    /// The name of the campaign.
    pub campaign: String,
    /// See [`Candidate::command`]; none, or an empty one, means the campaign's command.
    pub command: Option<String>,
    /// See [`Candidate::publish_policy`].
    pub publish_policy: Option<String>,
    /// The change set that its runs belong to.
    pub change_set: Option<String>,
    /// See [`Candidate::context`].
    pub context: Option<String>,
    /// See [`Candidate::value`].
    pub value: Option<i64>,
    /// See [`Candidate::success_chance`].
    pub success_chance: Option<f64>,
    /// The bucket that its first run is queued in.
    pub bucket: Option<Bucket>,
    /// Who asked for it.
    pub requester: Option<String>,
    /// The runs that it follows up on.
    pub followup_for: Vec<RunId>,
}

/// Why an entry was rejected. The other entries of its list are stored all the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// The configuration has no such campaign.
    #[error("campaign: the campaign {0} is not configured")]
    UnknownCampaign(String),
    /// Neither the entry nor its campaign has a command, or a quote in it is not closed. Carries the
    /// entry's own, if any.
    #[error("command: there is none, or a quote in it is not closed")]
    InvalidCommand(Option<String>),
    /// The value is zero, negative or too large.
    #[error("value: {0} is not above zero, or too large")]
    InvalidValue(i64),
    /// There is no such codebase.
    #[error("codebase: there is no codebase {0}")]
    UnknownCodebase(String),
    /// There is no such publish policy.
    #[error("publish-policy: there is no publish policy {0}")]
    UnknownPublishPolicy(String),
    /// The entry follows up on a run that is not stored.
    #[error("followup_for: there is no run {0}")]
    UnknownRun(RunId),
}

/// Looks up the names that an entry refers to.
pub trait NameLookup {
    /// Returns whether there is such a codebase.
    fn has_codebase(&self, name: &CodebaseName) -> bool;
    /// Returns whether there is such a publish policy.
    fn has_publish_policy(&self, name: &str) -> bool;
    /// Returns whether a run of that id is stored.
    fn has_run(&self, id: &RunId) -> bool;
}

/// A validated entry, ready to be stored and scheduled.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCandidate {
    /// The candidate. Its id is 0 until the store assigns one.
    pub candidate: Candidate,
    /// See [`CandidateEntry::bucket`].
    pub bucket: Option<Bucket>,
    /// See [`CandidateEntry::requester`].
    pub requester: Option<String>,
    /// See [`CandidateEntry::followup_for`].
    pub followup_for: Vec<RunId>,
}

impl CandidateEntry {
    /// Validates the values that no store can keep. Such a value rejects the whole request, not
    /// just its entry.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the first field that cannot be stored.
    pub fn validate_storable(&self) -> Result<(), Invalid> {
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

    /// Validates an entry against the configured campaigns and the stored names.
    ///
    /// # Errors
    ///
    /// [`Rejection`] with the first rule that the entry breaks.
    pub fn validate(
        self,
        campaigns: &Campaigns,
        names: &impl NameLookup,
    ) -> Result<NewCandidate, Rejection> {
        let campaign = CampaignName::new(self.campaign.clone())
            .ok()
            .and_then(|name| campaigns.campaign(&name));
        let Some(campaign) = campaign else {
            return Err(Rejection::UnknownCampaign(self.campaign));
        };
        let given = self.command.as_ref().filter(|c| !c.trim().is_empty());
        let command = given
            .or(campaign.command.as_ref())
            .filter(|c| !c.trim().is_empty() && command::validate(c).is_ok())
            .cloned();
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
            .filter(|name| names.has_codebase(name));
        let Some(codebase) = codebase else {
            return Err(Rejection::UnknownCodebase(self.codebase));
        };
        if let Some(policy) = self
            .publish_policy
            .as_ref()
            .filter(|policy| !names.has_publish_policy(policy))
        {
            return Err(Rejection::UnknownPublishPolicy(policy.clone()));
        }
        if let Some(run) = self.followup_for.iter().find(|run| !names.has_run(run)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::campaign::Campaign;

    struct FixedNames;
    impl NameLookup for FixedNames {
        fn has_codebase(&self, name: &CodebaseName) -> bool {
            name.as_str() != "nowhere"
        }
        fn has_publish_policy(&self, name: &str) -> bool {
            name == "default-policy"
        }
        fn has_run(&self, id: &RunId) -> bool {
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
            max_run_duration_minutes: None,
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

    fn validated(entry: CandidateEntry) -> Result<NewCandidate, Rejection> {
        entry.validate(&campaigns(), &FixedNames)
    }

    #[test]
    fn each_broken_rule_has_its_own_rejection() {
        assert_eq!(
            validated(entry("nope")),
            Err(Rejection::UnknownCampaign("nope".into()))
        );
        assert_eq!(
            validated(entry("nocmd")),
            Err(Rejection::InvalidCommand(None))
        );
        assert_eq!(
            validated(CandidateEntry {
                value: Some(0),
                ..entry("gen")
            }),
            Err(Rejection::InvalidValue(0))
        );
        assert_eq!(
            validated(CandidateEntry {
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
            validated(nowhere),
            Err(Rejection::UnknownCodebase("nowhere".into()))
        );
        let policy = CandidateEntry {
            publish_policy: Some("x".into()),
            ..entry("gen")
        };
        assert_eq!(
            validated(policy),
            Err(Rejection::UnknownPublishPolicy("x".into()))
        );
        let run = CandidateEntry {
            followup_for: vec![RunId::new("r1"), RunId::new("never")],
            ..entry("gen")
        };
        assert_eq!(
            validated(run),
            Err(Rejection::UnknownRun(RunId::new("never")))
        );
    }

    #[test]
    fn entry_without_command_uses_that_of_its_campaign() {
        assert_eq!(validated(entry("gen")).unwrap().candidate.command, "true");
        let own = CandidateEntry {
            command: Some("mine".into()),
            ..entry("nocmd")
        };
        assert_eq!(validated(own).unwrap().candidate.command, "mine");
    }

    #[test]
    fn empty_command_is_that_of_the_campaign() {
        for empty in ["", " \n"] {
            let with_command = |campaign| CandidateEntry {
                command: Some(empty.into()),
                ..entry(campaign)
            };
            assert_eq!(
                validated(with_command("gen")).unwrap().candidate.command,
                "true"
            );
            assert_eq!(
                validated(with_command("nocmd")),
                Err(Rejection::InvalidCommand(Some(empty.into())))
            );
        }
    }

    #[test]
    fn command_with_an_open_quote_is_rejected() {
        let open = CandidateEntry {
            command: Some("brush 'x".into()),
            ..entry("gen")
        };
        assert_eq!(
            validated(open),
            Err(Rejection::InvalidCommand(Some("brush 'x".into())))
        );
    }

    #[test]
    fn text_with_nul_bytes_is_invalid() {
        let nul = CandidateEntry {
            command: Some("a\0b".into()),
            ..entry("gen")
        };
        assert_eq!(nul.validate_storable().unwrap_err().field, "command");
    }
}
