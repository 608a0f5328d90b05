//! When a candidate runs next: the arithmetic of the regular schedule.

use super::{
    candidate::Candidate,
    name::{CampaignName, CodebaseName},
    queue::{Bucket, EnqueueRequest, QueueKey},
    run::{ResultCode, WORKER_FAILURE},
    time::Time,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// Seconds that a run is taken to last when nothing is known.
pub const DEFAULT_DURATION: f64 = 15.0;
/// The smallest share of the highest value that a codebase is taken to have.
const LOWEST_CODEBASE_VALUE: f64 = 0.1;
const UNKNOWN_CODEBASE_VALUE: f64 = 0.5;
const FIRST_RUN_BONUS: f64 = 100.0;
/// What starting any run costs, in milliseconds.
const BASE_COST: f64 = 20_000.0;
/// The offset of a run that somebody asked for.
pub const MANUAL_OFFSET: f64 = -1.0;

/// What the schedule needs to know of an earlier run. Transient ones are not among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct PastRun {
    pub code: ResultCode,
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// Seconds.
    pub duration: f64,
    pub instigated_context: Option<String>,
    pub context: Option<String>,
    /// It failed for want of dependencies that are there now.
    #[serde(default)]
    pub dependencies_satisfied_now: bool,
}

/// Mean durations in seconds over non-transient runs; none without runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs)]
pub struct MeanDurations {
    pub pair: Option<f64>,
    pub codebase: Option<f64>,
    pub campaign: Option<f64>,
}

impl MeanDurations {
    /// The closest mean that is known, else [`DEFAULT_DURATION`].
    pub fn estimate(&self) -> f64 {
        self.pair
            .or(self.codebase)
            .or(self.campaign)
            .unwrap_or(DEFAULT_DURATION)
    }
}

/// How much a codebase is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodebaseValue {
    /// No such codebase.
    Unknown,
    /// The codebase has no value.
    Unset,
    /// Its value.
    Of(i32),
}

/// Everything that the schedule of one (codebase, campaign, change set) depends on.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct ScheduleFacts {
    pub candidate: Option<Candidate>,
    pub codebase_value: CodebaseValue,
    /// The highest value of all codebases.
    pub highest_value: Option<i32>,
    /// All earlier non-transient runs of the pair.
    pub history: Vec<PastRun>,
    pub means: MeanDurations,
    /// The command of the last effective run, when that run has an open merge proposal.
    pub open_proposal_command: Option<String>,
}

/// The outcome of the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The normalised value of the codebase.
    pub codebase_value: f64,
    /// How likely success is taken to be.
    pub probability: f64,
    /// The candidate's value, with the first-run bonus.
    pub candidate_value: f64,
    /// Seconds.
    pub estimated_duration: f64,
    /// What the item is queued behind the first one by.
    pub offset: f64,
}

fn counts(run: &PastRun, now: Time) -> bool {
    run.code.as_str() != WORKER_FAILURE || now - run.start_time <= TimeDelta::days(1)
}

fn probability(counted: &[&PastRun], context: Option<&str>) -> f64 {
    let succeeded = |run: &&&PastRun| run.code.is_success() || run.dependencies_satisfied_now;
    let success = counted.iter().filter(succeeded).count();
    let same_context = |run: &&PastRun| {
        let seen = [&run.instigated_context, &run.context];
        !run.dependencies_satisfied_now
            && context.is_some_and(|c| seen.iter().any(|s| s.as_deref() == Some(c)))
    };
    let multiplier = match context {
        _ if counted.is_empty() => 1.0,
        None => 0.5,
        Some(_) if counted.iter().any(same_context) => 0.1,
        Some(_) => 1.0,
    };
    // Counts of runs are far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    let (success, total) = (success as f64, counted.len() as f64);
    (success * 10.0 + 1.0) / (total * 10.0 + 1.0) * multiplier
}

fn normalised(value: CodebaseValue, highest: Option<i32>) -> f64 {
    let share = match value {
        CodebaseValue::Unknown => UNKNOWN_CODEBASE_VALUE,
        CodebaseValue::Unset => 1.0,
        CodebaseValue::Of(value) => {
            let highest = highest.filter(|h| *h > 0).map_or(1.0, f64::from);
            (f64::from(value) / highest).min(1.0)
        }
    };
    share.max(LOWEST_CODEBASE_VALUE)
}

/// Scores a candidate, to be run in `context`, by what is known of it.
pub fn score(
    candidate: &Candidate,
    context: Option<&str>,
    facts: &ScheduleFacts,
    now: Time,
) -> Score {
    let counted: Vec<&PastRun> = facts
        .history
        .iter()
        .filter(|run| counts(run, now))
        .collect();
    #[expect(clippy::cast_precision_loss)]
    let mean = (!counted.is_empty())
        .then(|| counted.iter().map(|r| r.duration).sum::<f64>() / counted.len() as f64);
    let estimated_duration = MeanDurations {
        pair: mean,
        ..facts.means
    }
    .estimate();
    let codebase_value = normalised(facts.codebase_value, facts.highest_value);
    let probability = probability(&counted, context);
    let bonus = if counted.is_empty() {
        FIRST_RUN_BONUS
    } else {
        0.0
    };
    let candidate_value = candidate
        .value
        .map_or(1.0, |value| f64::from(value) + bonus);
    let cost = BASE_COST + estimated_duration * 1000.0;
    let offset = cost / (codebase_value * probability * candidate_value);
    Score {
        codebase_value,
        probability,
        candidate_value,
        estimated_duration,
        offset,
    }
}

/// Where a regular schedule goes, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRequest {
    /// The bucket.
    pub bucket: Bucket,
    /// Start afresh rather than resume.
    pub refresh: bool,
    /// Who asked.
    pub requester: String,
    /// What the last run reported; none means the candidate's own context.
    pub context: Option<String>,
}

/// The regular schedule of a candidate.
pub fn regular(
    candidate: &Candidate,
    facts: &ScheduleFacts,
    request: ScheduleRequest,
    now: Time,
) -> (EnqueueRequest, Score) {
    let context = request.context.or_else(|| candidate.context.clone());
    let score = score(candidate, context.as_deref(), facts, now);
    let enqueue = EnqueueRequest {
        key: candidate.key.clone(),
        bucket: request.bucket,
        offset: score.offset,
        command: candidate.command.clone(),
        context,
        estimated_duration: Some(score.estimated_duration),
        refresh: request.refresh,
        requester: Some(request.requester),
    };
    (enqueue, score)
}

/// A run that somebody asked for.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct ManualSchedule {
    pub key: QueueKey,
    pub bucket: Option<Bucket>,
    pub offset: Option<f64>,
    pub refresh: bool,
    pub requester: Option<String>,
    /// Seconds.
    pub estimated_duration: Option<f64>,
}

impl ManualSchedule {
    /// The queue item to be: `command` as found, the request's own duration or the closest mean.
    pub fn enqueue(
        self,
        command: String,
        context: Option<String>,
        default_bucket: Bucket,
        means: MeanDurations,
    ) -> EnqueueRequest {
        EnqueueRequest {
            key: self.key,
            bucket: self.bucket.unwrap_or(default_bucket),
            offset: self.offset.unwrap_or(MANUAL_OFFSET),
            command,
            context,
            estimated_duration: Some(self.estimated_duration.unwrap_or_else(|| means.estimate())),
            refresh: self.refresh,
            requester: self.requester,
        }
    }
}

/// The command of a control run: brings the unchanged branch to `revision`.
pub fn control_command(revision: &str) -> Option<String> {
    let quoted = shlex::try_quote(revision).ok()?;
    Some(format!("brz up --revision={quoted}"))
}

/// Names one pair of codebase and campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Pair {
    pub codebase: CodebaseName,
    pub campaign: CampaignName,
}

impl QueueKey {
    /// Its codebase and campaign.
    pub fn pair(&self) -> Pair {
        Pair {
            codebase: self.codebase.clone(),
            campaign: self.campaign.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Time {
        super::super::time::parse("now", "2026-11-23T10:00:00").unwrap()
    }

    fn candidate(value: Option<i32>, context: Option<&str>) -> Candidate {
        Candidate {
            id: 1,
            key: QueueKey {
                codebase: CodebaseName::new("cb").unwrap(),
                campaign: CampaignName::new("gen").unwrap(),
                change_set: None,
            },
            command: "true".into(),
            context: context.map(Into::into),
            value,
            success_chance: Some(0.1),
            publish_policy: None,
        }
    }

    fn run(code: &str, seconds: f64) -> PastRun {
        PastRun {
            code: ResultCode::new(code),
            start_time: now() - TimeDelta::hours(1),
            duration: seconds,
            instigated_context: None,
            context: None,
            dependencies_satisfied_now: false,
        }
    }

    fn facts(history: Vec<PastRun>) -> ScheduleFacts {
        ScheduleFacts {
            candidate: None,
            codebase_value: CodebaseValue::Unset,
            highest_value: None,
            history,
            means: MeanDurations::default(),
            open_proposal_command: None,
        }
    }

    fn offset(candidate: &Candidate, facts: &ScheduleFacts) -> f64 {
        score(candidate, candidate.context.as_deref(), facts, now()).offset
    }

    #[test]
    fn the_figures_of_the_specification() {
        assert!((offset(&candidate(None, None), &facts(vec![])) - 35_000.0).abs() < 1e-9);
        assert!(
            (offset(&candidate(None, None), &facts(vec![run("failed", 60.0)])) - 1_760_000.0).abs()
                < 1e-6
        );
        assert!((offset(&candidate(Some(5), None), &facts(vec![])) - 1000.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn old_worker_failures_say_nothing() {
        let mut old = run(WORKER_FAILURE, 60.0);
        old.start_time = now() - TimeDelta::hours(25);
        assert!(
            (offset(&candidate(None, None), &facts(vec![old.clone()])) - 35_000.0).abs() < 1e-9
        );
        old.start_time = now() - TimeDelta::hours(23);
        assert!(offset(&candidate(None, None), &facts(vec![old])) > 35_000.0);
    }

    #[test]
    fn the_same_context_makes_a_repeat_unlikely() {
        let mut seen = run("success", 15.0);
        seen.context = Some("1.0".into());
        let again = score(
            &candidate(None, None),
            Some("1.0"),
            &facts(vec![seen.clone()]),
            now(),
        );
        let other = score(
            &candidate(None, None),
            Some("2.0"),
            &facts(vec![seen.clone()]),
            now(),
        );
        let none = score(
            &candidate(None, None),
            None,
            &facts(vec![seen.clone()]),
            now(),
        );
        assert!(
            (again.probability - 0.1).abs() < 1e-9
                && (other.probability - 1.0).abs() < 1e-9
                && (none.probability - 0.5).abs() < 1e-9
        );
        seen.code = ResultCode::new("install-deps-unsatisfied-dependencies");
        seen.dependencies_satisfied_now = true;
        assert!(
            (score(
                &candidate(None, None),
                Some("1.0"),
                &facts(vec![seen]),
                now()
            )
            .probability
                - 1.0)
                .abs()
                < 1e-9
        );
    }

    #[test]
    fn codebase_values_are_shares_of_the_highest() {
        assert!((normalised(CodebaseValue::Unknown, Some(7)) - 0.5).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(5), Some(10)) - 0.5).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(0), Some(10)) - 0.1).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(-4), Some(0)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn means_are_taken_from_the_closest() {
        let means = MeanDurations {
            pair: None,
            codebase: Some(9.0),
            campaign: Some(4.0),
        };
        assert!((means.estimate() - 9.0).abs() < 1e-9);
        assert!((MeanDurations::default().estimate() - 15.0).abs() < 1e-9);
    }

    #[test]
    fn control_runs_quote_the_revision() {
        assert_eq!(control_command("rev1").unwrap(), "brz up --revision=rev1");
        assert_eq!(
            control_command("rev 1").unwrap(),
            "brz up --revision='rev 1'"
        );
        assert_eq!(control_command("a\0b"), None);
    }

    proptest! {
        #[test]
        fn offsets_are_positive_and_finite(
            value in proptest::option::of(1..i32::MAX), codebase in any::<i32>(), highest in proptest::option::of(any::<i32>()),
            good in 0_usize..20, bad in 0_usize..20, seconds in 0.0..1e7_f64,
        ) {
            let mut history = vec![run("success", seconds); good];
            history.extend(vec![run("failed", seconds); bad]);
            let facts = ScheduleFacts { codebase_value: CodebaseValue::Of(codebase), highest_value: highest, ..facts(history) };
            let offset = offset(&candidate(value, None), &facts);
            prop_assert!(offset.is_finite() && offset > 0.0);
        }

        #[test]
        fn more_success_is_sooner(good in 0_usize..20, bad in 1_usize..20) {
            let with = |good, bad| {
                let mut history = vec![run("success", 60.0); good];
                history.extend(vec![run("failed", 60.0); bad]);
                offset(&candidate(None, None), &facts(history))
            };
            prop_assert!(with(good + 1, bad - 1) < with(good, bad));
        }

        #[test]
        fn a_higher_value_is_sooner(value in 1..1_000_000_i32) {
            prop_assert!(offset(&candidate(Some(value + 1), None), &facts(vec![])) < offset(&candidate(Some(value), None), &facts(vec![])));
        }
    }
}
