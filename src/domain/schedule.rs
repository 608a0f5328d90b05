//! When a candidate runs next: the score that places it in the queue.

use super::{
    candidate::{Candidate, NewCandidate},
    name::{CampaignName, CodebaseName},
    queue::{Bucket, EnqueueRequest, QueueKey},
    run::{ResultCode, Run, WORKER_FAILURE},
    time::Time,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// The estimated duration, in seconds, of a run about which nothing is known.
pub const DEFAULT_DURATION: f64 = 15.0;
/// The smallest normalised value of a codebase.
const MIN_CODEBASE_VALUE: f64 = 0.1;
/// The normalised value of a codebase that is not stored.
const UNKNOWN_CODEBASE_VALUE: f64 = 0.5;
/// Added to the value of a candidate that has not run yet.
const FIRST_RUN_BONUS: f64 = 100.0;
/// The cost of starting any run, in milliseconds.
const BASE_COST: f64 = 20_000.0;

/// The facts of an earlier run that the score depends on. Transient failures are not counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    /// The result code.
    pub code: ResultCode,
    /// The start of the run.
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// The duration, in seconds.
    pub duration: f64,
    /// The context that the run was queued with.
    pub instigated_context: Option<String>,
    /// The context that the run reported.
    pub context: Option<String>,
    /// Whether the run failed because of missing dependencies that are available now.
    #[serde(default)]
    pub dependencies_satisfied_now: bool,
}

impl From<&Run> for PastRun {
    fn from(run: &Run) -> Self {
        Self {
            code: run.code.clone(),
            start_time: run.start_time,
            duration: run.duration(),
            instigated_context: run.instigated_context.clone(),
            context: run.context.clone(),
            dependencies_satisfied_now: false,
        }
    }
}

/// Mean durations, in seconds, of the runs that did not fail transiently; `None` without such runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeanDurations {
    /// The mean of the same codebase and campaign.
    pub pair: Option<f64>,
    /// The mean of the same codebase.
    pub codebase: Option<f64>,
    /// The mean of the same campaign.
    pub campaign: Option<f64>,
}

impl MeanDurations {
    /// Returns the most specific mean that is known, else [`DEFAULT_DURATION`].
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
    /// There is no such codebase.
    Unknown,
    /// The codebase has no value.
    Unset,
    /// The value of the codebase.
    Of(i32),
}

/// Everything that the schedule of one (codebase, campaign, change set) depends on.
///
/// ```
/// use janitor_runner::domain::{
///     candidate::Candidate,
///     name::{CampaignName, CodebaseName},
///     queue::QueueKey,
///     schedule::{CodebaseValue, MeanDurations, ScheduleFacts, score},
///     time,
/// };
///
/// let candidate = Candidate {
///     id: 1,
///     key: QueueKey {
///         codebase: CodebaseName::new("hello")?,
///         campaign: CampaignName::new("lintian-fixes")?,
///         change_set: None,
///     },
///     command: "lintian-brush".into(),
///     context: None,
///     value: None,
///     success_chance: None,
///     publish_policy: None,
/// };
/// let facts = ScheduleFacts {
///     candidate: Some(candidate.clone()),
///     codebase_value: CodebaseValue::Unset,
///     highest_value: None,
///     history: vec![],
///     means: MeanDurations::default(),
///     open_proposal_command: None,
/// };
/// let now = time::parse("now", "2026-11-23T10:00:00")?;
/// // 20 s to start and the default duration of 15 s, in milliseconds.
/// assert_eq!(score(&candidate, None, &facts, now).offset, 35_000.0);
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleFacts {
    /// The stored candidate, if there is one.
    pub candidate: Option<Candidate>,
    /// The value of the codebase.
    pub codebase_value: CodebaseValue,
    /// The highest value of all codebases.
    pub highest_value: Option<i32>,
    /// All earlier runs of the pair that did not fail transiently.
    pub history: Vec<PastRun>,
    /// The mean durations of similar runs.
    pub means: MeanDurations,
    /// The command of the last effective run, when that run has an open merge proposal.
    pub open_proposal_command: Option<String>,
}

/// The score of a candidate, with the factors that it was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The normalised value of the codebase.
    pub codebase_value: f64,
    /// The estimated probability of success.
    pub probability: f64,
    /// The candidate's value, with the bonus for the first run.
    pub candidate_value: f64,
    /// The estimated duration, in seconds.
    pub estimated_duration: f64,
    /// The distance of the new priority from the smallest one in the queue.
    pub offset: f64,
}

/// Returns whether a run is evidence for the candidate: a failure of the worker is none after a
/// day.
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
    share.max(MIN_CODEBASE_VALUE)
}

/// Scores a candidate that is to be run in `context`; a smaller offset is sooner.
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

/// How a candidate is scheduled: in which bucket, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRequest {
    /// The bucket of the queue item.
    pub bucket: Bucket,
    /// Whether the run starts afresh rather than resumes an earlier one.
    pub refresh: bool,
    /// Who asked for it.
    pub requester: String,
    /// The context that the last run reported; `None` means the candidate's own.
    pub context: Option<String>,
}

impl ScheduleRequest {
    /// Creates the request for a candidate that was uploaded. When its command differs from that of
    /// the run whose merge proposal is open, the proposal is updated before anything else runs.
    pub fn for_upload(new: &NewCandidate, open_proposal_command: Option<&str>) -> Self {
        let command = &new.candidate.command;
        let (bucket, refresh, reason) = match open_proposal_command.filter(|old| old != command) {
            Some(old) => (
                Bucket::UpdateExistingMp,
                true,
                format!("command changed for existing mp: '{old}' ⇒ '{command}'"),
            ),
            None => (
                new.bucket.unwrap_or_default(),
                false,
                "candidate update".to_owned(),
            ),
        };
        let requester = match &new.requester {
            Some(who) => format!("{reason} {who}"),
            None => reason,
        };
        Self {
            bucket,
            refresh,
            requester,
            context: None,
        }
    }
}

/// Returns the regular schedule of a candidate, and the score that places it.
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
        interval: None,
    };
    (enqueue, score)
}

/// A pair of codebase and campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// The codebase.
    pub codebase: CodebaseName,
    /// The campaign.
    pub campaign: CampaignName,
}

impl QueueKey {
    /// Returns its codebase and campaign.
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
    fn offsets_match_the_specification() {
        let of = |value, history| offset(&candidate(value, None), &facts(history));
        assert!((of(None, vec![]) - 35_000.0).abs() < 1e-9);
        assert!((of(None, vec![run("failed", 60.0)]) - 1_760_000.0).abs() < 1e-6);
        assert!((of(Some(5), vec![]) - 1000.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn worker_failures_stop_counting_after_a_day() {
        let mut old = run(WORKER_FAILURE, 60.0);
        old.start_time = now() - TimeDelta::hours(25);
        let of = |run| offset(&candidate(None, None), &facts(vec![run]));
        assert!((of(old.clone()) - 35_000.0).abs() < 1e-9);
        old.start_time = now() - TimeDelta::hours(23);
        assert!(of(old) > 35_000.0);
    }

    #[test]
    fn repeated_context_lowers_the_probability() {
        let mut seen = run("success", 15.0);
        seen.context = Some("1.0".into());
        let with = |context, seen: &PastRun| {
            let facts = facts(vec![seen.clone()]);
            score(&candidate(None, None), context, &facts, now())
        };
        let again = with(Some("1.0"), &seen);
        let other = with(Some("2.0"), &seen);
        let none = with(None, &seen);
        assert!((again.probability - 0.1).abs() < 1e-9, "{again:?}");
        assert!((other.probability - 1.0).abs() < 1e-9, "{other:?}");
        assert!((none.probability - 0.5).abs() < 1e-9, "{none:?}");
        seen.code = ResultCode::new("install-deps-unsatisfied-dependencies");
        seen.dependencies_satisfied_now = true;
        let cured = with(Some("1.0"), &seen);
        assert!((cured.probability - 1.0).abs() < 1e-9, "{cured:?}");
    }

    #[test]
    fn codebase_values_are_relative_to_the_highest() {
        assert!((normalised(CodebaseValue::Unknown, Some(7)) - 0.5).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(5), Some(10)) - 0.5).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(0), Some(10)) - 0.1).abs() < 1e-9);
        assert!((normalised(CodebaseValue::Of(-4), Some(0)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn estimate_uses_the_most_specific_mean() {
        let means = MeanDurations {
            pair: None,
            codebase: Some(9.0),
            campaign: Some(4.0),
        };
        assert!((means.estimate() - 9.0).abs() < 1e-9);
        assert!((MeanDurations::default().estimate() - 15.0).abs() < 1e-9);
    }

    #[test]
    fn changed_command_updates_the_open_proposal_first() {
        let new = NewCandidate {
            candidate: candidate(None, None),
            bucket: Some(Bucket::Hook),
            requester: Some("me".into()),
            followup_for: vec![],
        };
        let same = ScheduleRequest::for_upload(&new, Some("true"));
        assert_eq!(same.bucket, Bucket::Hook);
        assert!(!same.refresh);
        assert_eq!(same.requester, "candidate update me");
        let changed = ScheduleRequest::for_upload(&new, Some("old"));
        assert_eq!(changed.bucket, Bucket::UpdateExistingMp);
        assert!(changed.refresh);
        assert_eq!(
            changed.requester,
            "command changed for existing mp: 'old' ⇒ 'true' me"
        );
    }

    proptest! {
        #[test]
        fn offsets_are_positive_and_finite(
            value in proptest::option::of(1..i32::MAX),
            codebase in any::<i32>(),
            highest in proptest::option::of(any::<i32>()),
            good in 0_usize..20,
            bad in 0_usize..20,
            seconds in 0.0..1e7_f64,
        ) {
            let mut history = vec![run("success", seconds); good];
            history.extend(vec![run("failed", seconds); bad]);
            let facts = ScheduleFacts {
                codebase_value: CodebaseValue::Of(codebase),
                highest_value: highest,
                ..facts(history)
            };
            let offset = offset(&candidate(value, None), &facts);
            prop_assert!(offset.is_finite());
            prop_assert!(offset > 0.0);
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
        fn higher_value_is_sooner(value in 1..1_000_000_i32) {
            let with = |value| offset(&candidate(Some(value), None), &facts(vec![]));
            prop_assert!(with(value + 1) < with(value));
        }
    }
}
