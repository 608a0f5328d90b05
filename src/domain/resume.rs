//! Resuming from the branch of an earlier run.

use super::{
    name::RunId,
    publish::PublishStatus,
    run::{ResultBranch, Run},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a worker resumes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The earlier run.
    pub run_id: RunId,
    /// What the codemod reported in the earlier run.
    pub result: Option<Value>,
    /// The URL of the branch that the earlier run left.
    pub branch_url: String,
    /// The branches of the earlier run.
    pub branches: Vec<ResultBranch>,
}

impl Resume {
    /// Creates the resume point of `run`, which made the tip of `branch_url`. `None` unless the run
    /// succeeded and was not rejected.
    pub fn from_run(run: Run, branch_url: String) -> Option<Self> {
        if !run.code.is_success() || run.publish_status == PublishStatus::Rejected {
            return None;
        }
        Some(Self {
            run_id: run.id,
            result: run.codemod,
            branch_url,
            branches: run.branches.unwrap_or_default(),
        })
    }
}
