//! Codebases and candidates.

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

/// A codebase as it is uploaded: a name or a URL is needed, all else may be left out.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[expect(missing_docs)]
pub struct CodebaseRequest {
    pub name: Option<String>,
    /// `URL` or `URL,branch=NAME`.
    pub branch_url: Option<String>,
    pub url: Option<String>,
    pub branch: Option<String>,
    pub subpath: Option<String>,
    pub vcs_type: Option<String>,
    pub vcs_last_revision: Option<String>,
    pub value: Option<i64>,
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
#[derive(Debug, Serialize, ToSchema)]
pub struct CodebaseResponse {
    name: Option<String>,
    branch_url: Option<String>,
    url: Option<String>,
    branch: Option<String>,
    subpath: Option<String>,
    vcs_type: Option<String>,
    vcs_last_revision: Option<String>,
    value: Option<i32>,
    web_url: Option<String>,
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
#[derive(Debug, Serialize, ToSchema)]
pub struct CandidateResponse {
    id: i64,
    codebase: String,
    campaign: String,
    command: String,
    #[serde(rename = "publish-policy")]
    publish_policy: Option<String>,
    change_set: Option<String>,
    context: Option<String>,
    value: Option<i32>,
    success_chance: Option<f64>,
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

/// Tells a field that is null from one that is not there.
#[expect(clippy::option_option)]
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else {
        return Ok(None);
    };
    let float = || {
        number
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
            .and_then(|f| format!("{f:.0}").parse().ok())
    };
    number
        .as_i64()
        .or_else(float)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("is not a whole number of 64 bits"))
}

/// A candidate as it is uploaded.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[expect(
    clippy::option_option,
    reason = "a null codebase is refused in other words than a missing one"
)]
pub struct CandidateRequest {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required)]
    codebase: Option<Option<String>>,
    #[schema(required)]
    campaign: Option<String>,
    command: Option<String>,
    #[serde(rename = "publish-policy")]
    publish_policy: Option<String>,
    change_set: Option<String>,
    context: Option<String>,
    /// Above zero.
    #[serde(default, deserialize_with = "whole")]
    #[schema(value_type = Option<i64>)]
    value: Option<i64>,
    success_chance: Option<f64>,
    #[schema(value_type = Option<String>)]
    bucket: Option<Bucket>,
    requester: Option<String>,
    /// Ids of runs that this candidate follows up on.
    #[schema(value_type = Option<Vec<String>>)]
    followup_for: Option<Vec<RunId>>,
}

impl CandidateRequest {
    /// The entry; one without codebase or campaign spoils the whole list.
    pub fn entry(self, place: usize) -> Result<CandidateEntry, String> {
        let codebase = match self.codebase {
            None => return Err(format!("no codebase field for candidate [{place}]")),
            Some(None) => return Err(format!("codebase field is None for candidate [{place}]")),
            Some(Some(codebase)) => codebase,
        };
        let campaign = self
            .campaign
            .ok_or_else(|| format!("no campaign field for candidate [{place}]"))?;
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

/// A candidate that was stored and queued.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AcceptedResponse {
    pub(crate) campaign: String,
    pub(crate) codebase: String,
    pub(crate) bucket: Cow<'static, str>,
    pub(crate) change_set: Option<String>,
    pub(crate) offset: f64,
    /// Seconds.
    pub(crate) estimated_duration: f64,
    #[serde(rename = "queue-id")]
    pub(crate) queue_id: i64,
    pub(crate) refresh: bool,
}

/// What became of each entry of an upload.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct CandidatesResponse {
    pub(crate) success: Vec<AcceptedResponse>,
    pub(crate) invalid_command: Vec<Option<String>>,
    pub(crate) invalid_value: Vec<i64>,
    pub(crate) unknown_campaigns: Vec<String>,
    pub(crate) unknown_codebases: Vec<String>,
    pub(crate) unknown_publish_policies: Vec<String>,
    /// Runs that entries follow up on; absent when all are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown_runs: Vec<String>,
}

impl From<UploadedCandidates> for CandidatesResponse {
    fn from(uploaded: UploadedCandidates) -> Self {
        let mut shape = Self::default();
        for rejection in uploaded.rejected {
            match rejection {
                Rejection::InvalidCommand(command) => shape.invalid_command.push(command),
                Rejection::InvalidValue(value) => shape.invalid_value.push(value),
                Rejection::UnknownCampaign(name) => shape.unknown_campaigns.push(name),
                Rejection::UnknownCodebase(name) => shape.unknown_codebases.push(name),
                Rejection::UnknownPublishPolicy(name) => shape.unknown_publish_policies.push(name),
                Rejection::UnknownRun(id) => shape.unknown_runs.push(id.to_string()),
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
        shape.success = accepted.collect();
        shape
    }
}
