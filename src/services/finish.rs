//! Takes results in: logs and artifacts to their stores, the run to its own, and the news to whoever listens.

use super::{
    ServiceError, follow_up::FollowUps, keepalive::is_mine, live_log::LiveLogIngest,
    outbox_publisher::OutboxPublisher, retry::RetryPolicy, status_publisher::StatusPublisher,
};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        changes,
        finish::{ARTIFACT_UPLOAD_FAILED, UploadedFiles, conclude, end, failed, invalid, vanished},
        log_name::is_log,
        name::RunId,
        report::{self, Report},
        run::{Run, WORKER_INVALID_RESULT},
        time::Time,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Clock, Fault, LogStore, RunRecorder, RunStore,
        RunStoreError, SpooledFile,
        log_store::LogFolder,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// An upload that was received whole.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// `result.json`.
    pub report: Vec<u8>,
    /// All other files, in order of arrival.
    pub files: Vec<SpooledFile>,
    /// The text of the `.changes` files among them, by name.
    pub changes: Vec<(String, String)>,
}

/// A run that may be finished, or that is finished already.
#[derive(Debug, Clone)]
pub enum Finishable {
    /// A worker holds it.
    Active(Box<Held>),
    /// It is stored.
    Finished(Box<Run>),
}

/// A run that a worker holds, or held until the runner gave it up, as it was found.
#[derive(Debug, Clone)]
pub struct Held {
    /// The run.
    pub run: ActiveRun,
    /// It was given up meanwhile.
    late: bool,
    turn: Arc<RunLock>,
}

/// A stored run, and whether this call stored it.
#[derive(Debug, Clone)]
#[expect(missing_docs)]
pub struct Finished {
    pub run: Run,
    pub first_time: bool,
}

/// Takes results in.
pub struct Finisher {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// Where they are recorded.
    pub recorder: Arc<dyn RunRecorder>,
    /// Artifacts.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Logs.
    pub logs: Arc<dyn LogStore>,
    /// Logs that workers sent while their runs were active.
    pub live_log: Arc<LiveLogIngest>,
    /// What becomes of items and workers.
    pub retry_policy: Arc<RetryPolicy>,
    /// Schedules the next run.
    pub follow_ups: Arc<FollowUps>,
    /// Tells of each result.
    pub outbox_publisher: Arc<OutboxPublisher>,
    /// Tells what runs now.
    pub status_publisher: Arc<StatusPublisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Uploads of one run take turns, so that a repeat cannot overwrite the files of the first.
    pub turns: RunLocks,
}

/// One turn at a time for each run.
#[derive(Debug, Default)]
pub struct RunLocks {
    runs: Mutex<HashMap<RunId, Weak<RunLock>>>,
}

/// Locked by whoever stores files and result of a run; tells whether somebody has done so.
type RunLock = tokio::sync::Mutex<bool>;

impl RunLocks {
    fn of(&self, id: &RunId) -> Arc<RunLock> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = runs.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        runs.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        runs.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}

fn described(
    files: &[SpooledFile],
    changes: &[(String, String)],
) -> (UploadedFiles, Option<Invalid>) {
    let names = |wanted: bool| {
        files
            .iter()
            .filter(|f| is_log(&f.name) == wanted)
            .map(|f| f.name.clone())
            .collect()
    };
    let read: Result<Vec<_>, _> = changes
        .iter()
        .map(|(name, text)| Ok((name.clone(), changes::read(name, text)?)))
        .collect();
    let merged = read.and_then(|read| changes::merge(&read));
    let described = UploadedFiles {
        logs: names(true),
        others: names(false),
        all: files.iter().map(|f| f.name.clone()).collect(),
        changes: merged.clone().ok().flatten(),
        changes_filenames: changes.iter().map(|(name, _)| name.clone()).collect(),
    };
    (described, merged.err())
}

fn chosen<'a>(files: &'a [SpooledFile], names: &'a [String]) -> Vec<SpooledFile> {
    files
        .iter()
        .filter(|file| names.contains(&file.name))
        .cloned()
        .collect()
}

impl Finisher {
    /// Looks up a run that a worker wants to finish or that it finished before. On the public API the worker must be
    /// the one that holds it.
    pub async fn find(&self, id: &RunId, worker: Option<&str>) -> Result<Finishable, ServiceError> {
        let mine = |holder: &Option<String>| is_mine(holder.as_deref(), worker);
        // Before the look: whoever finishes the run after it leaves a mark there.
        let turn = self.turns.of(id);
        if let Some(run) = self.active_runs.get(id).await? {
            let held = mine(&run.claimant.worker);
            return if held {
                Ok(Finishable::Active(Box::new(Held {
                    run,
                    late: false,
                    turn,
                })))
            } else {
                Err(ServiceError::NotYours(id.clone()))
            };
        }
        let run = self
            .runs
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))?;
        if !mine(&run.worker) {
            return Err(ServiceError::NotYours(id.clone()));
        }
        Ok(match run.given_up {
            true => Finishable::Active(Box::new(Held {
                run: ActiveRun::of_ended(&run),
                late: true,
                turn,
            })),
            false => Finishable::Finished(Box::new(run)),
        })
    }

    /// Stores what a worker uploaded. A run that was finished meanwhile stays as it is, and is the answer.
    pub async fn finish(&self, held: Held, upload: &Upload) -> Result<Finished, ServiceError> {
        let mut done = held.turn.lock().await;
        let earlier = if *done {
            self.runs.run(&held.run.id).await?
        } else {
            None
        };
        if let Some(run) = earlier.clone().filter(|run| !run.given_up) {
            return Ok(Finished {
                run,
                first_time: false,
            });
        }
        let (files, problem) = described(&upload.files, &upload.changes);
        let mut report = report::read(&upload.report);
        if report
            .target
            .as_ref()
            .is_some_and(|target| target.name == "debian")
        {
            report.problems.extend(problem);
        }
        let original = report.clone();
        let run = conclude(&held.run, report, &files, self.clock.now());
        let (logs, artifacts) = tokio::join!(
            self.store_logs(&run, &upload.files),
            self.store_artifacts(&run, &upload.files)
        );
        let run = with_stored(run, logs, artifacts);
        let finished = if held.late || earlier.is_some() {
            self.record_late(run, &original).await?
        } else {
            match self
                .record(&held.run, run.clone(), Some(&original), None)
                .await
            {
                // Given up between the look and now.
                Err(ServiceError::NotFound { .. }) => self.record_late(run, &original).await?,
                Ok(Finished {
                    run: known,
                    first_time: false,
                }) if known.given_up => self.record_late(run, &original).await?,
                finished => finished?,
            }
        };
        *done = true;
        Ok(finished)
    }

    /// Ends a run that nobody will work on.
    pub async fn end(
        &self,
        active: &ActiveRun,
        code: &str,
        description: String,
    ) -> Result<Finished, ServiceError> {
        self.end_as(
            active,
            end(active, code, description, false, self.clock.now()),
            None,
        )
        .await
    }

    /// Ends a run whose worker is gone, with the logs that it sent; not when it gave a sign of life meanwhile.
    pub async fn give_up(
        &self,
        active: &ActiveRun,
        code: &str,
        description: String,
    ) -> Result<Finished, ServiceError> {
        let run = vanished(active, code, description, self.clock.now());
        let run = self
            .live_log
            .collect(&active.id, async |files| {
                self.with_live_logs(run, files).await
            })
            .await?;
        self.end_as(active, run, Some(active.keepalive)).await
    }

    async fn with_live_logs(&self, run: Run, files: Vec<SpooledFile>) -> Run {
        let logfilenames: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        let run = Run {
            filenames: logfilenames.clone(),
            logfilenames,
            ..run
        };
        let stored = if files.is_empty() {
            Ok(())
        } else {
            self.store_logs(&run, &files).await
        };
        with_stored(run, stored, Ok(()))
    }

    async fn end_as(
        &self,
        active: &ActiveRun,
        run: Run,
        unless_seen_after: Option<Time>,
    ) -> Result<Finished, ServiceError> {
        let turn = self.turns.of(&active.id);
        let mut done = turn.lock().await;
        let finished = self.record(active, run, None, unless_seen_after).await?;
        *done = true;
        Ok(finished)
    }

    async fn store_logs(&self, run: &Run, files: &[SpooledFile]) -> Result<(), Fault> {
        let logs = chosen(files, &run.logfilenames);
        let folder = LogFolder {
            codebase: run.codebase.clone(),
            run: run.id.clone(),
        };
        let stored = self.logs.store(&folder, &logs, run.finish_time).await;
        match &stored {
            Ok(()) => self.metrics.logs_stored(logs.len()),
            Err(error) => {
                self.metrics.logs_not_stored();
                tracing::error!(run.id = %run.id, error = error as &dyn std::error::Error, "the logs of a run are lost");
            }
        }
        stored
    }

    async fn store_artifacts(&self, run: &Run, files: &[SpooledFile]) -> Result<(), Fault> {
        let artifacts = chosen(files, run.artifacts.as_deref().unwrap_or_default());
        let stored = self.artifacts.store(&run.id, &artifacts).await;
        if let Err(error) = &stored {
            self.metrics.artifacts_not_stored();
            tracing::error!(run.id = %run.id, error = error as &dyn std::error::Error, "the artifacts of a run are lost");
        }
        stored
    }

    async fn record(
        &self,
        active: &ActiveRun,
        run: Run,
        report: Option<&Report>,
        unless_seen_after: Option<Time>,
    ) -> Result<Finished, ServiceError> {
        let record = async |run: &Run| {
            let (disposition, worker_at_fault) = (
                self.retry_policy.of(run).await?,
                self.retry_policy.config.quarantine.worker_at_fault(run),
            );
            let new = NewRun {
                run: run.clone(),
                token: active.token.clone(),
                now: self.clock.now(),
                disposition,
                unless_seen_after,
                worker_at_fault,
            };
            Ok::<_, ServiceError>(self.recorder.record(new).await)
        };
        let (run, recorded) = match record(&run).await? {
            Err(RunStoreError::UnknownWorker(name)) => {
                let run = by_unknown_worker(run, &name, report);
                let recorded = record(&run).await??;
                (run, recorded)
            }
            Err(RunStoreError::Refused(rule)) => {
                let run = broken(active, run, &rule, report);
                let recorded = record(&run).await??;
                (run, recorded)
            }
            recorded => (run, recorded?),
        };
        match recorded {
            Recorded::AlreadyStored(known) => Ok(Finished {
                run: *known,
                first_time: false,
            }),
            Recorded::Stored => {
                self.tell(&run);
                self.retry_policy.quarantine(&run).await;
                Ok(Finished {
                    run,
                    first_time: true,
                })
            }
        }
    }

    /// Stores a result whose run was given up: in the place of that.
    async fn record_late(&self, run: Run, report: &Report) -> Result<Finished, ServiceError> {
        let record = async |run: &Run| {
            self.recorder
                .record_late(LateRun {
                    run: run.clone(),
                    now: self.clock.now(),
                })
                .await
        };
        let (run, late) = match record(&run).await {
            Err(RunStoreError::UnknownWorker(name)) => {
                let run = by_unknown_worker(run, &name, Some(report));
                let late = record(&run).await?;
                (run, late)
            }
            Err(RunStoreError::Refused(rule)) => {
                let run = broken(&ActiveRun::of_ended(&run), run, &rule, Some(report));
                let late = record(&run).await?;
                (run, late)
            }
            late => (run, late?),
        };
        match late {
            LateOutcome::NotGivenUp(known) => Ok(Finished {
                run: *known,
                first_time: false,
            }),
            LateOutcome::Replaced | LateOutcome::ReplacedButRequeued => {
                tracing::info!(run.id = %run.id, kept = late == LateOutcome::Replaced, "a result came after its run was given up");
                self.tell(&run);
                Ok(Finished {
                    run,
                    first_time: true,
                })
            }
        }
    }

    fn tell(&self, run: &Run) {
        self.metrics.run_stored(run);
        self.follow_ups.wake();
        self.outbox_publisher.wake();
        self.status_publisher.queue_changed();
    }
}

/// The run, without the files that could not be stored.
fn with_stored(mut run: Run, logs: Result<(), Fault>, artifacts: Result<(), Fault>) -> Run {
    if logs.is_err() {
        run.logfilenames.clear();
    }
    match artifacts {
        Ok(()) => run,
        Err(fault) => {
            let why = format!("the artifacts could not be stored: {}", fault.cause());
            Run {
                artifacts: Some(vec![]),
                ..failed(run, ARTIFACT_UPLOAD_FAILED, why)
            }
        }
    }
}

/// A run cannot name a worker without an account; a report of such a one is kept as a broken report.
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

/// What stays of a run that the store refuses: nothing that it could refuse, and the report as it came.
fn broken(active: &ActiveRun, run: Run, rule: &str, report: Option<&Report>) -> Run {
    let bare = Run {
        resume_from: None,
        ..end(
            active,
            WORKER_INVALID_RESULT,
            String::new(),
            false,
            run.finish_time,
        )
    };
    let bare = Run {
        filenames: run.filenames,
        logfilenames: run.logfilenames,
        artifacts: run.artifacts,
        ..bare
    };
    let mut problems = report
        .map(|report| report.problems.clone())
        .unwrap_or_default();
    problems.push(Invalid::new("run", rule));
    invalid(
        bare,
        &problems,
        &report.map_or(serde_json::Value::Null, |report| report.original.clone()),
    )
}
