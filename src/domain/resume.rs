//! Continuing from the branch of an earlier run.

use super::{
    name::RunId,
    publish::PublishStatus,
    run::{ResultBranch, Run},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a worker continues from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Resume {
    pub run_id: RunId,
    /// What the codemod reported then.
    pub result: Option<Value>,
    pub branch_url: String,
    pub branches: Vec<ResultBranch>,
}

impl Resume {
    /// Whether `run`, which made the tip of `branch_url`, may be continued: it succeeded and was not rejected.
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
