//! What runs resumed from.

use super::{RunResponse, assignment::ResumeResponse};
use crate::{
    domain::{name::RunId, resume_check::ResumeProblem},
    services::{
        resumes::{RunPage, Validation},
        resumption::Resumable,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks whether a run of a campaign would resume from an earlier one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResumeCheckRequest {
    /// The campaign.
    pub(crate) campaign: String,
    /// The name of the codebase.
    pub(crate) codebase: Option<String>,
    /// The URL of its branch, instead of its name.
    pub(crate) branch_url: Option<String>,
}

/// Whether a run would resume from an earlier one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeCheckResponse {
    /// Whether it would.
    pub(crate) resume_available: bool,
    /// Why not; null when it would.
    pub(crate) reason: Option<String>,
    /// What it would resume from.
    pub(crate) resume: Option<ResumeResponse>,
}

impl From<Resumable> for ResumeCheckResponse {
    fn from(resumable: Resumable) -> Self {
        let (resume, reason) = match resumable {
            Resumable::From(resume) => (Some(ResumeResponse::from(*resume)), None),
            Resumable::Nothing(why) => (None, Some(why)),
            Resumable::RateLimited(limit) => {
                let (host, until) = (limit.host, limit.until);
                (
                    None,
                    Some(format!("{host} limits the rate of requests until {until}")),
                )
            }
        };
        Self {
            resume_available: resume.is_some(),
            reason,
            resume,
        }
    }
}

/// The runs that a run resumed from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeChainResponse {
    /// The run.
    pub(crate) run_id: String,
    /// The runs that it resumed from, the nearest first.
    pub(crate) chain: Vec<RunResponse>,
    /// The cursor of the next page; null after the last.
    pub(crate) next: Option<String>,
}

/// The runs that resumed from a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeDescendantsResponse {
    /// The run.
    pub(crate) run_id: String,
    /// The runs that resumed from it, the oldest first.
    pub(crate) descendants: Vec<RunResponse>,
    /// The cursor of the next page; null after the last.
    pub(crate) next: Option<String>,
}

impl ResumeChainResponse {
    /// Creates the response for a run.
    pub fn new(id: &RunId, page: RunPage) -> Self {
        Self {
            run_id: id.to_string(),
            chain: page.runs.iter().map(RunResponse::from).collect(),
            next: page.next.map(|next| next.to_string()),
        }
    }
}

impl ResumeDescendantsResponse {
    /// Creates the response for a run.
    pub fn new(id: &RunId, page: RunPage) -> Self {
        Self {
            run_id: id.to_string(),
            descendants: page.runs.iter().map(RunResponse::from).collect(),
            next: page.next.map(|next| next.to_string()),
        }
    }
}

/// What is wrong with what a run resumed from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeProblemResponse {
    /// The run.
    pub(crate) run_id: String,
    /// One of missing, cycle, other-codebase, other-campaign, not-successful, not-earlier.
    pub(crate) problem: String,
}

/// What is wrong in a page of runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumeValidationResponse {
    /// `consistent`, or `inconsistent` when there are errors.
    pub(crate) status: String,
    /// How many runs of the page resumed from others.
    pub(crate) checked: usize,
    /// What is wrong with which of them.
    pub(crate) errors: Vec<ResumeProblemResponse>,
    /// The cursor of the next page; null after the last.
    pub(crate) next: Option<String>,
}

impl From<Validation> for ResumeValidationResponse {
    fn from(validation: Validation) -> Self {
        let error = |(id, problem): (RunId, ResumeProblem)| ResumeProblemResponse {
            run_id: id.to_string(),
            problem: problem.as_str().to_owned(),
        };
        let status = match validation.errors.is_empty() {
            true => "consistent",
            false => "inconsistent",
        };
        Self {
            status: status.to_owned(),
            checked: validation.checked,
            errors: validation.errors.into_iter().map(error).collect(),
            next: validation.next.map(|next| next.to_string()),
        }
    }
}
