//! Why a run ended that did not end by the report of its worker.

use super::{
    active_run::{ActiveRun, BackchannelAddress},
    time::Time,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The code of a run that is certainly lost.
pub const RUN_DISAPPEARED: &str = "run-disappeared";
/// The code of a run whose worker sent no heartbeat for too long, or that took too long.
pub const WORKER_TIMEOUT: &str = "worker-timeout";
/// The code of a run whose campaign is not configured.
pub const UNKNOWN_CAMPAIGN: &str = "unknown-campaign";
/// The code of a run whose codebase has no branch, in a campaign that needs one.
pub const NOT_IN_VCS: &str = "not-in-vcs";
/// The code of a run whose build target the runner does not support.
pub const UNSUPPORTED_BUILD_TARGET: &str = "unsupported-build-target";
/// The code of an item whose command is no command of a shell.
pub const INVALID_COMMAND: &str = "invalid-command";
/// The codes of items that cannot be assigned.
pub const UNASSIGNABLE_CODES: [&str; 4] = [
    UNKNOWN_CAMPAIGN,
    NOT_IN_VCS,
    UNSUPPORTED_BUILD_TARGET,
    INVALID_COMMAND,
];

/// The reason for which a run was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminationReason {
    /// An operator killed it.
    Killed,
    /// Its worker did not renew the lease.
    LeaseExpired,
    /// Its worker was silent for too long.
    Timeout,
    /// It took longer than runs may take.
    MaxDuration,
    /// Its worker does not know it any more, or is gone.
    Disappeared,
    /// Its Jenkins job has failed, or is gone.
    JenkinsFailure,
    /// Its campaign is not configured.
    UnknownCampaign,
    /// Its codebase has no branch.
    NotInVcs,
    /// Its build target is not supported.
    UnsupportedBuildTarget,
    /// Another reason; the code of the run says which.
    Other,
}

impl TerminationReason {
    /// Returns the reason for which an active run is ended with a code.
    pub fn of(active: &ActiveRun, code: &str, now: Time) -> Self {
        let is_jenkins = matches!(
            active.claimant.backchannel,
            Some(BackchannelAddress::Jenkins { .. })
        );
        match code {
            UNKNOWN_CAMPAIGN => Self::UnknownCampaign,
            NOT_IN_VCS => Self::NotInVcs,
            UNSUPPORTED_BUILD_TARGET => Self::UnsupportedBuildTarget,
            _ if active.cancel.is_some() => Self::Killed,
            WORKER_TIMEOUT if active.lease_until.is_some_and(|until| until < now) => {
                Self::LeaseExpired
            }
            WORKER_TIMEOUT => Self::Timeout,
            RUN_DISAPPEARED if is_jenkins => Self::JenkinsFailure,
            RUN_DISAPPEARED => Self::Disappeared,
            _ => Self::Other,
        }
    }
}

/// How the runner ends a run whose worker is gone, or that takes too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandonment {
    /// The result code.
    pub code: &'static str,
    /// The reason among the failure details.
    pub reason: TerminationReason,
    /// The reason, in words.
    pub description: String,
}

impl Abandonment {
    /// Describes the end of an active run at `now`, with the reason that its code stands for.
    pub fn new(active: &ActiveRun, code: &'static str, description: String, now: Time) -> Self {
        Self {
            code,
            reason: TerminationReason::of(active, code, now),
            description,
        }
    }

    /// Describes the end of an active run that takes longer than it may.
    pub fn overdue(active: &ActiveRun, limit: TimeDelta) -> Self {
        let minutes = limit.num_minutes();
        Self {
            code: WORKER_TIMEOUT,
            reason: match active.cancel {
                Some(_) => TerminationReason::Killed,
                None => TerminationReason::MaxDuration,
            },
            description: format!(
                "the run took longer than {minutes} minutes, the maximum duration"
            ),
        }
    }
}

/// Who ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// The runner itself.
    Runner,
    /// An operator, through the API.
    Operator,
}

/// The failure details of a run that did not end by the report of its worker. The names are those
/// of the stored JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// Why it was ended.
    pub termination_reason: TerminationReason,
    /// The seconds since it was assigned.
    pub run_duration_seconds: f64,
    /// The seconds since the last heartbeat of its worker.
    #[serde(rename = "last_sign_of_life_seconds")]
    pub last_heartbeat_seconds: f64,
    /// The kind of its backchannel: `http` or `jenkins`; null without one.
    pub backchannel: Option<String>,
    /// The bytes of its logs that the worker sent before.
    pub log_bytes: u64,
    /// Who ended it.
    pub by: EndedBy,
}

impl Termination {
    /// Describes the end of an active run at `now`.
    pub fn new(active: &ActiveRun, reason: TerminationReason, now: Time) -> Self {
        let backchannel = active.claimant.backchannel.as_ref();
        Self {
            termination_reason: reason,
            run_duration_seconds: active.age(now).max(0.0),
            last_heartbeat_seconds: active.keepalive_age(now).max(0.0),
            backchannel: backchannel.map(|address| {
                match address {
                    BackchannelAddress::Http { .. } => "http",
                    BackchannelAddress::Jenkins { .. } => "jenkins",
                }
                .to_owned()
            }),
            log_bytes: 0,
            by: match reason {
                TerminationReason::Killed => EndedBy::Operator,
                _ => EndedBy::Runner,
            },
        }
    }

    /// Returns the details as JSON.
    pub fn details(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{active_run::Claimant, finish::tests::item, name::RunId, time};
    use serde_json::json;

    fn run() -> ActiveRun {
        let start = time::parse("t", "2026-01-01T00:00:00").unwrap();
        let id = RunId::new("r");
        ActiveRun::new(id, "t".into(), item(), Claimant::default(), start)
    }

    #[test]
    fn details_have_the_names_that_readers_expect() {
        let mut run = run();
        run.keepalive = run.start_time + TimeDelta::seconds(30);
        run.lease_until = Some(run.start_time + TimeDelta::seconds(150));
        let now = run.start_time + TimeDelta::seconds(200);
        let reason = TerminationReason::of(&run, WORKER_TIMEOUT, now);
        assert_eq!(
            Termination::new(&run, reason, now).details(),
            json!({
                "termination_reason": "lease-expired", "run_duration_seconds": 200.0,
                "last_sign_of_life_seconds": 170.0, "backchannel": null, "log_bytes": 0,
                "by": "runner"
            })
        );
    }

    #[test]
    fn reason_depends_on_code_backchannel_and_cancellation() {
        let now = run().start_time + TimeDelta::days(2);
        let reason = |run: &ActiveRun, code| TerminationReason::of(run, code, now);
        assert_eq!(reason(&run(), WORKER_TIMEOUT), TerminationReason::Timeout);
        assert_eq!(
            reason(&run(), RUN_DISAPPEARED),
            TerminationReason::Disappeared
        );
        assert_eq!(
            reason(&run(), UNKNOWN_CAMPAIGN),
            TerminationReason::UnknownCampaign
        );
        let mut jenkins = run();
        jenkins.claimant.backchannel = Some(BackchannelAddress::Jenkins { url: "u".into() });
        assert_eq!(
            reason(&jenkins, RUN_DISAPPEARED),
            TerminationReason::JenkinsFailure
        );
        jenkins.cancel = Some("killed by an operator".into());
        assert_eq!(reason(&jenkins, WORKER_TIMEOUT), TerminationReason::Killed);
        let killed = Termination::new(&jenkins, TerminationReason::Killed, now).details();
        assert_eq!(killed["by"], "operator");
        assert_eq!(killed["backchannel"], "jenkins");
    }
}
