//! Whether what a run says that it resumed from can be true.

use super::{name::RunId, run::ResultCode, schedule::Pair, time::Time};

/// A run and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// The codebase and campaign.
    pub pair: Pair,
    /// When it started.
    pub start_time: Time,
    /// The run that it resumed from.
    pub from: RunId,
}

/// The run that it names, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The codebase and campaign.
    pub pair: Pair,
    /// When it started.
    pub start_time: Time,
    /// Its code.
    pub code: ResultCode,
}

/// What is wrong with what a run resumed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResumeProblem {
    /// There is no such run.
    Missing,
    /// It resumed, by way of others, from itself.
    Cycle,
    /// The run is one of another codebase.
    OtherCodebase,
    /// The run is one of another campaign.
    OtherCampaign,
    /// The run was no success.
    NotSuccessful,
    /// The run did not start before.
    NotEarlier,
}

impl ResumeProblem {
    /// Returns the name that clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Cycle => "cycle",
            Self::OtherCodebase => "other-codebase",
            Self::OtherCampaign => "other-campaign",
            Self::NotSuccessful => "not-successful",
            Self::NotEarlier => "not-earlier",
        }
    }
}

/// Returns what is wrong with a run that resumed from another, except for cycles, each of which has
/// a run that is not earlier.
pub fn problems(run: &Resumption, from: Option<&Resumed>) -> Vec<ResumeProblem> {
    let Some(from) = from else {
        return vec![ResumeProblem::Missing];
    };
    let found = [
        (from.pair.codebase != run.pair.codebase).then_some(ResumeProblem::OtherCodebase),
        (from.pair.campaign != run.pair.campaign).then_some(ResumeProblem::OtherCampaign),
        (!from.code.is_success()).then_some(ResumeProblem::NotSuccessful),
        (from.start_time >= run.start_time).then_some(ResumeProblem::NotEarlier),
    ];
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        name::{CampaignName, CodebaseName},
        time,
    };
    use chrono::TimeDelta;

    fn pair(codebase: &str, campaign: &str) -> Pair {
        Pair {
            codebase: CodebaseName::new(codebase).unwrap(),
            campaign: CampaignName::new(campaign).unwrap(),
        }
    }

    #[test]
    fn each_problem_is_found() {
        let start_time = time::parse("t", "2026-11-26T10:00:00").unwrap();
        let run = Resumption {
            pair: pair("aa", "gen"),
            start_time,
            from: RunId::new("r1"),
        };
        let good = Resumed {
            pair: pair("aa", "gen"),
            start_time: start_time - TimeDelta::hours(1),
            code: ResultCode::success(),
        };
        assert_eq!(problems(&run, Some(&good)), []);
        assert_eq!(problems(&run, None), [ResumeProblem::Missing]);
        let bad = Resumed {
            pair: pair("bb", "other"),
            start_time,
            code: ResultCode::new("build-failed"),
        };
        assert_eq!(
            problems(&run, Some(&bad)),
            [
                ResumeProblem::OtherCodebase,
                ResumeProblem::OtherCampaign,
                ResumeProblem::NotSuccessful,
                ResumeProblem::NotEarlier,
            ]
        );
    }
}
