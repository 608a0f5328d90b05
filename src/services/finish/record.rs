//! Recording a run in one step with the end of its claim, on time or late.

use super::{Finished, Finisher};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        finish::{end, invalid},
        report::Report,
        run::{Run, WORKER_INVALID_RESULT},
        time::Time,
    },
    ports::{
        RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
    },
    services::ServiceError,
};

/// How a result is recorded.
#[derive(Clone, Copy)]
pub(super) enum Recording<'a> {
    /// Its claim is still held, and ends with it.
    OnTime {
        /// The claim.
        active: &'a ActiveRun,
        /// Record it only if the worker's last heartbeat is still this one.
        unless_seen_after: Option<Time>,
    },
    /// The runner abandoned the run: the result replaces what was recorded then.
    Late,
}

/// What the store did with a run that was to be recorded.
enum Outcome {
    /// It is stored.
    Stored,
    /// It replaced an abandoned run.
    ReplacedAbandoned {
        /// Whether its item was assigned again meanwhile, and has another result to come.
        requeued: bool,
    },
    /// A run of this id was stored before, and stays.
    AlreadyStored(Box<Run>),
}

impl Finisher {
    /// Records a run; one that the store refuses is recorded without what it refuses.
    pub(super) async fn record(
        &self,
        run: Run,
        report: Option<&Report>,
        recording: Recording<'_>,
    ) -> Result<Finished, ServiceError> {
        // Each fall-back is tried once. Were the second attempt refused too, that would be a
        // defect of the runner, and the worker uploads its result again.
        let (run, outcome) = match self.attempt(&run, recording).await? {
            Err(RunStoreError::UnknownWorker(name)) => {
                let run = by_unknown_worker(run, &name, report);
                let outcome = self.attempt(&run, recording).await??;
                (run, outcome)
            }
            Err(RunStoreError::Refused(rule)) => {
                let run = match recording {
                    Recording::OnTime { active, .. } => bare(active, run, &rule, report),
                    Recording::Late => bare(&ActiveRun::of_ended(&run), run, &rule, report),
                };
                let outcome = self.attempt(&run, recording).await??;
                (run, outcome)
            }
            outcome => (run, outcome?),
        };
        match outcome {
            Outcome::AlreadyStored(known) => {
                return Ok(Finished {
                    run: *known,
                    first_time: false,
                });
            }
            Outcome::Stored => {
                self.publish(&run);
                if let Recording::OnTime { active, .. } = recording
                    && let Some(name) = counted_name(&run, active)
                {
                    self.retry_policy.quarantine(&run, &name).await;
                }
            }
            Outcome::ReplacedAbandoned { requeued } => {
                let kept = !requeued;
                tracing::info!(run.id = %run.id, kept, "a result came after its run was abandoned");
                self.publish(&run);
            }
        }
        Ok(Finished {
            run,
            first_time: true,
        })
    }

    /// Has the store record a run.
    ///
    /// The outer result fails when it cannot be decided what becomes of its item; the inner one is
    /// what the store returned.
    async fn attempt(
        &self,
        run: &Run,
        recording: Recording<'_>,
    ) -> Result<Result<Outcome, RunStoreError>, ServiceError> {
        let run = run.clone();
        Ok(match recording {
            Recording::OnTime {
                active,
                unless_seen_after,
            } => {
                let new = NewRun {
                    disposition: self.retry_policy.of(&run).await?,
                    worker_at_fault: self.retry_policy.config.quarantine.worker_at_fault(&run),
                    counted_name: counted_name(&run, active),
                    run,
                    token: active.token.clone(),
                    now: self.clock.now(),
                    unless_seen_after,
                };
                let recorded = self.recorder.record(new).await;
                recorded.map(|recorded| match recorded {
                    Recorded::Stored => Outcome::Stored,
                    Recorded::AlreadyStored(known) => Outcome::AlreadyStored(known),
                })
            }
            Recording::Late => {
                let now = self.clock.now();
                let recorded = self.recorder.record_late(LateRun { run, now }).await;
                recorded.map(|recorded| match recorded {
                    LateOutcome::Replaced => Outcome::ReplacedAbandoned { requeued: false },
                    LateOutcome::ReplacedButRequeued => {
                        Outcome::ReplacedAbandoned { requeued: true }
                    }
                    LateOutcome::NotGivenUp(known) => Outcome::AlreadyStored(known),
                })
            }
        })
    }

    /// Wakes whatever publishes and follows up on a run that was stored.
    fn publish(&self, run: &Run) {
        self.metrics.run_stored(run);
        self.follow_ups.wake();
        self.outbox_publisher.wake();
        self.status_publisher.queue_changed();
    }
}

/// Returns the name under which the failures of a run's worker are counted.
fn counted_name(run: &Run, active: &ActiveRun) -> Option<String> {
    run.worker.as_ref().and(active.claimant.counted_name())
}

/// Returns the run without its worker, which has no account any more.
///
/// The store refuses a run that names such a worker. Its report is stored as an invalid one.
fn by_unknown_worker(run: Run, name: &str, report: Option<&Report>) -> Run {
    let run = Run {
        worker: None,
        ..run
    };
    match report {
        Some(report) => {
            let mut problems = report.problems.clone();
            problems.push(Invalid::new(
                "worker",
                format!("there is no worker {name:?}"),
            ));
            invalid(run, &problems, &report.original)
        }
        None => run,
    }
}

/// Returns what remains of a run that the store refuses: nothing that it could refuse, with the
/// report as it came.
fn bare(active: &ActiveRun, run: Run, rule: &str, report: Option<&Report>) -> Run {
    let ended = Run {
        resume_from: None,
        ..end(
            active,
            WORKER_INVALID_RESULT,
            String::new(),
            false,
            run.finish_time,
        )
    };
    let run = Run {
        filenames: run.filenames,
        logfilenames: run.logfilenames,
        artifacts: run.artifacts,
        report: run.report,
        ..ended
    };
    let mut problems = report
        .map(|report| report.problems.clone())
        .unwrap_or_default();
    problems.push(Invalid::new("run", rule));
    invalid(
        run,
        &problems,
        &report.map_or(serde_json::Value::Null, |report| report.original.clone()),
    )
}
