//! Codebases and candidates.

use super::number;
use crate::{
    domain::{
        candidate::{Candidate, CandidateEntry, Rejection},
        codebase::{Codebase, CodebaseUpload},
        name::RunId,
        queue::Bucket,
    },
    services::ingest::UploadedCandidates,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// A codebase to store. It needs a name or a URL; all else is optional.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct CodebaseRequest {
    /// The name of the codebase.
    pub name: Option<String>,
    /// The repository and branch in one: `URL` or `URL,branch=NAME`.
    pub branch_url: Option<String>,
    /// The URL of the repository.
    pub url: Option<String>,
    /// The branch; the default branch of the repository when there is none.
    pub branch: Option<String>,
    /// The folder of the codebase within the branch.
    pub subpath: Option<String>,
    /// The version control system: `git`, `bzr` and so on.
    pub vcs_type: Option<String>,
    /// The revision last seen at the tip of the branch.
    pub vcs_last_revision: Option<String>,
    /// How much the codebase matters, relative to others.
    #[serde(default, deserialize_with = "number::or_text")]
    pub value: Option<i64>,
    /// A page about the codebase, for people to read.
    pub web_url: Option<String>,
}

impl From<CodebaseRequest> for CodebaseUpload {
    fn from(body: CodebaseRequest) -> Self {
        Self {
            name: body.name,
            branch_url: body.branch_url,
            url: body.url,
            branch: body.branch,
            subpath: body.subpath,
            vcs_type: body.vcs_type,
            vcs_last_revision: body.vcs_last_revision,
            value: body.value,
            web_url: body.web_url,
        }
    }
}

/// A codebase.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CodebaseResponse {
    /// The name of the codebase.
    pub(crate) name: Option<String>,
    /// The repository and branch in one: `URL` or `URL,branch=NAME`.
    pub(crate) branch_url: Option<String>,
    /// The URL of the repository.
    pub(crate) url: Option<String>,
    /// The branch; the default branch of the repository when there is none.
    pub(crate) branch: Option<String>,
    /// The folder of the codebase within the branch.
    pub(crate) subpath: Option<String>,
    /// The version control system: `git`, `bzr` and so on.
    pub(crate) vcs_type: Option<String>,
    /// The revision last seen at the tip of the branch.
    pub(crate) vcs_last_revision: Option<String>,
    /// How much the codebase matters, relative to others.
    pub(crate) value: Option<i32>,
    /// A page about the codebase, for people to read.
    pub(crate) web_url: Option<String>,
}

impl From<Codebase> for CodebaseResponse {
    fn from(codebase: Codebase) -> Self {
        Self {
            name: codebase.name.map(String::from),
            branch_url: codebase.branch_url,
            url: codebase.url,
            branch: codebase.branch,
            subpath: codebase.subpath,
            vcs_type: codebase.vcs_type.map(|vcs| vcs.to_string()),
            vcs_last_revision: codebase.vcs_last_revision,
            value: codebase.value,
            web_url: codebase.web_url,
        }
    }
}

/// A candidate.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CandidateResponse {
    /// The id of the candidate.
    pub(crate) id: i64,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The command of the codemod.
    pub(crate) command: String,
    /// The name of the publish policy.
    #[serde(rename = "publish-policy")]
    publish_policy: Option<String>,
    /// The change set that its runs belong to.
    pub(crate) change_set: Option<String>,
    /// What a run depends on, as the finder of the candidate describes it.
    pub(crate) context: Option<String>,
    /// How much the change is worth, relative to others; above zero.
    pub(crate) value: Option<i32>,
    /// The estimated probability of success, from 0 to 1.
    pub(crate) success_chance: Option<f64>,
}

impl From<Candidate> for CandidateResponse {
    fn from(candidate: Candidate) -> Self {
        Self {
            id: candidate.id,
            codebase: candidate.key.codebase.into(),
            campaign: candidate.key.campaign.into(),
            command: candidate.command,
            publish_policy: candidate.publish_policy,
            change_set: candidate.key.change_set,
            context: candidate.context,
            value: candidate.value,
            success_chance: candidate.success_chance,
        }
    }
}

/// Distinguishes a field that is null from one that is absent.
#[expect(clippy::option_option)]
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

/// A candidate to store and schedule.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[expect(
    clippy::option_option,
    reason = "a null codebase is refused in other words than a missing one"
)]
pub struct CandidateRequest {
    /// The name of the codebase.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required)]
    codebase: Option<Option<String>>,
    /// The name of the campaign.
    #[schema(required)]
    campaign: Option<String>,
    /// The command of the codemod; the campaign's when absent.
    command: Option<String>,
    /// The name of the publish policy.
    #[serde(rename = "publish-policy")]
    publish_policy: Option<String>,
    /// The change set that its runs belong to.
    change_set: Option<String>,
    /// What a run depends on, as the finder of the candidate describes it.
    context: Option<String>,
    /// How much the change is worth, relative to others; above zero.
    #[serde(default, deserialize_with = "number::or_text")]
    #[schema(value_type = Option<i64>)]
    value: Option<i64>,
    /// The estimated probability of success, from 0 to 1.
    #[serde(default, deserialize_with = "number::or_text")]
    success_chance: Option<f64>,
    /// The bucket of the queue to schedule it in.
    #[schema(value_type = Option<String>)]
    bucket: Option<Bucket>,
    /// Who asks for it.
    requester: Option<String>,
    /// The ids of the runs that this candidate follows up on.
    #[schema(value_type = Option<Vec<String>>)]
    followup_for: Option<Vec<RunId>>,
}

impl CandidateRequest {
    /// Returns the entry at position `index` of a list.
    ///
    /// # Errors
    ///
    /// When it has no codebase or no campaign, which refuses the whole list.
    pub fn entry(self, index: usize) -> Result<CandidateEntry, String> {
        let codebase = match self.codebase {
            None => return Err(format!("no codebase field for candidate [{index}]")),
            Some(None) => return Err(format!("codebase field is None for candidate [{index}]")),
            Some(Some(codebase)) => codebase,
        };
        let campaign = self
            .campaign
            .ok_or_else(|| format!("no campaign field for candidate [{index}]"))?;
        Ok(CandidateEntry {
            codebase,
            campaign,
            command: self.command,
            publish_policy: self.publish_policy,
            change_set: self.change_set,
            context: self.context,
            value: self.value,
            success_chance: self.success_chance,
            bucket: self.bucket,
            requester: self.requester,
            followup_for: self.followup_for.unwrap_or_default(),
        })
    }
}

/// A candidate that was stored and scheduled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AcceptedResponse {
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The bucket of the queue that it is in.
    pub(crate) bucket: Cow<'static, str>,
    /// The change set that its runs belong to.
    pub(crate) change_set: Option<String>,
    /// The distance behind the first item at which it was queued.
    pub(crate) offset: f64,
    /// The expected duration, in seconds.
    pub(crate) estimated_duration: f64,
    /// The id of its queue item.
    #[serde(rename = "queue-id")]
    pub(crate) queue_id: i64,
    /// Whether the run starts afresh instead of resuming from an earlier one.
    pub(crate) refresh: bool,
}

/// The outcome of an upload of candidates: those that were stored, and what was wrong with the
/// others.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct CandidatesResponse {
    /// The candidates that were stored and scheduled.
    pub(crate) success: Vec<AcceptedResponse>,
    /// The commands that are missing or not valid.
    pub(crate) invalid_command: Vec<Option<String>>,
    /// The values that are not above zero or too large.
    pub(crate) invalid_value: Vec<i64>,
    /// The campaigns that are not configured.
    pub(crate) unknown_campaigns: Vec<String>,
    /// The codebases that are not stored.
    pub(crate) unknown_codebases: Vec<String>,
    /// The publish policies that are not stored.
    pub(crate) unknown_publish_policies: Vec<String>,
    /// The runs that entries follow up on and that are not stored; absent when all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown_runs: Vec<String>,
}

impl CandidatesResponse {
    /// Returns the campaign and codebase of each candidate that was stored.
    pub(crate) fn accepted(&self) -> Vec<String> {
        let name =
            |accepted: &AcceptedResponse| format!("{} {}", accepted.campaign, accepted.codebase);
        self.success.iter().map(name).collect()
    }
}

impl From<UploadedCandidates> for CandidatesResponse {
    fn from(uploaded: UploadedCandidates) -> Self {
        let mut response = Self::default();
        for (_, rejection) in uploaded.rejected {
            match rejection {
                Rejection::InvalidCommand(command) => response.invalid_command.push(command),
                Rejection::InvalidValue(value) => response.invalid_value.push(value),
                Rejection::UnknownCampaign(name) => response.unknown_campaigns.push(name),
                Rejection::UnknownCodebase(name) => response.unknown_codebases.push(name),
                Rejection::UnknownPublishPolicy(name) => {
                    response.unknown_publish_policies.push(name);
                }
                Rejection::UnknownRun(id) => response.unknown_runs.push(id.to_string()),
            }
        }
        let accepted = uploaded
            .accepted
            .into_iter()
            .map(|accepted| AcceptedResponse {
                campaign: accepted.key.campaign.into(),
                codebase: accepted.key.codebase.into(),
                bucket: accepted.queued.bucket.as_str().into(),
                change_set: accepted.key.change_set,
                offset: accepted.offset,
                estimated_duration: accepted.estimated_duration,
                queue_id: accepted.queued.queue_id,
                refresh: accepted.refresh,
            });
        response.success = accepted.collect();
        response
    }
}

/// What became of an upload of lines.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LinesResponse {
    /// How many lines there were.
    pub(crate) lines: u64,
    /// How many entries were stored.
    pub(crate) stored: u64,
    /// How many entries were not.
    pub(crate) rejected: u64,
    /// Why, of the first 100 of these.
    pub(crate) errors: Vec<LineError>,
}

/// Why the entry of a line was not stored.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LineError {
    /// The number of the line, from 1.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) reason: String,
}
