//! Finishes runs: stores the logs and artifacts, records the run, and publishes that.
//!
//! Files are stored first, and the run is recorded in one step after that. A crash between the two
//! leaves files of a run that is still active: its worker uploads them again, over the first.

mod abandon;
mod files;
mod record;
mod run_locks;

pub use run_locks::RunLocks;

use super::{
    ServiceError, follow_up::FollowUps, live_log::LiveLogIngest, outbox_publisher::OutboxPublisher,
    retry::RetryPolicy, status_publisher::StatusPublisher,
};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        caller::Caller,
        changes::Changes,
        finish::conclude,
        name::RunId,
        report::{Report, ReportTarget},
        run::Run,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Clock, Fault, LogStore, RunRecorder, RunStore, SpooledFile,
    },
};
use files::{add_log_bytes, described, with_stored};
use record::Recording;
use run_locks::RunLock;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A worker's upload, received completely.
#[derive(Debug, Clone)]
pub struct Upload {
    /// What `result.json` says.
    pub report: Report,
    /// All other files, in the order in which they arrived.
    pub files: Vec<SpooledFile>,
    /// What the `.changes` files among them say.
    pub changes: Result<Option<Changes>, Invalid>,
    /// The names of the `.changes` files.
    pub changes_filenames: Vec<String>,
    /// The artifacts that were not accepted, each with the reason.
    pub left_out: Vec<Invalid>,
    /// The `.changes` files that are too large to be read, each with the reason.
    pub unread_changes: Vec<Invalid>,
    /// What was changed of the names and contents of the files.
    pub notes: Vec<Invalid>,
    /// Why the rest of the upload was refused, if it was.
    pub refused: Option<Invalid>,
}

impl Upload {
    /// Returns an upload of a report without files.
    pub fn new(report: Report) -> Self {
        Self {
            report,
            files: vec![],
            changes: Ok(None),
            changes_filenames: vec![],
            left_out: vec![],
            unread_changes: vec![],
            notes: vec![],
            refused: None,
        }
    }
}

impl AsRef<Upload> for Upload {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A run that a worker wants to finish.
#[derive(Debug, Clone)]
pub enum Finishable {
    /// Its result is still to be stored.
    Active(Box<Held>),
    /// Its result is stored already.
    Finished(Box<Run>),
}

/// A run that a worker holds, or held until the runner abandoned it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The run as it was found.
    pub run: ActiveRun,
    /// Whether the runner had abandoned it by then.
    late: bool,
    lock: Arc<RunLock>,
}

/// The outcome of finishing a run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The stored run.
    pub run: Run,
    /// Whether this call stored it.
    pub first_time: bool,
}

/// Finishes runs: the ports and services that this needs.
pub struct Finisher {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// The step that records a run and ends its claim.
    pub recorder: Arc<dyn RunRecorder>,
    /// The store of artifacts.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// The store of logs.
    pub logs: Arc<dyn LogStore>,
    /// The logs that workers sent while their runs were active.
    pub live_log: Arc<LiveLogIngest>,
    /// The rules for the queue item and the worker of a run that has ended.
    pub retry_policy: Arc<RetryPolicy>,
    /// The schedules that follow a run.
    pub follow_ups: Arc<FollowUps>,
    /// Publishes each result.
    pub outbox_publisher: Arc<OutboxPublisher>,
    /// Publishes the active runs after each change.
    pub status_publisher: Arc<StatusPublisher>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// One lock for each run, so that a repeated upload cannot overwrite the files of the first
    /// one while they are stored.
    pub run_locks: RunLocks,
    /// The tasks that go on after their caller has gone; the process ends after them.
    pub tasks: TaskTracker,
}

impl Finisher {
    /// Looks up a run that a worker wants to finish, or that it finished before.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run, `NotYours` when the caller may not act on it.
    #[tracing::instrument(name = "services.finish.find", skip_all, fields(run.id = %id))]
    pub async fn find(&self, id: &RunId, caller: &Caller) -> Result<Finishable, ServiceError> {
        // The lock is taken out before the look, and not only to be locked later: whoever finishes
        // the run after the look leaves a mark in it, which `finish` then finds.
        let lock = self.run_locks.of(id);
        if let Some(run) = self.active_runs.get(id).await? {
            return if run.may_be_changed_by(caller) {
                Ok(Finishable::Active(Box::new(Held {
                    run,
                    late: false,
                    lock,
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
        if !run.may_be_read_by(caller) {
            return Err(ServiceError::NotYours(id.clone()));
        }
        Ok(match run.given_up {
            true => Finishable::Active(Box::new(Held {
                run: ActiveRun::of_ended(&run),
                late: true,
                lock,
            })),
            false => Finishable::Finished(Box::new(run)),
        })
    }

    /// Stores what a worker uploaded.
    ///
    /// A run that was finished meanwhile stays as it is, and is returned. Storing goes on when the
    /// caller drops the future, on a task that owns the upload, and with it the folder of its
    /// files.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run any more. A result that breaks a rule is no error: it
    /// is stored as an invalid one.
    #[tracing::instrument(
        name = "services.finish.finish",
        skip_all,
        fields(run.id = %held.run.id, late = held.late)
    )]
    pub async fn finish<U>(
        self: &Arc<Self>,
        held: Held,
        upload: U,
    ) -> Result<Finished, ServiceError>
    where
        U: AsRef<Upload> + Send + Sync + 'static,
    {
        let this = self.clone();
        // On a task of its own: a client that goes away now must not stop half-way what is stored.
        let task = async move { this.store(held, upload.as_ref()).await };
        self.tasks
            .spawn(task.in_current_span())
            .await
            .map_err(|error| Fault::backend("finish a run", error))?
    }

    async fn store(&self, held: Held, upload: &Upload) -> Result<Finished, ServiceError> {
        let mut stored = held.lock.lock().await;
        // Only the mark in the lock, or that the run was abandoned, makes a second look at the store
        // necessary.
        let earlier = if *stored || held.late {
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
        let (run, report) = self.concluded(&held.run, upload);
        let (logs, artifacts, missing_logs) = tokio::join!(
            self.store_logs(&run, &upload.files),
            self.store_artifacts(&run, &upload.files),
            self.store_missing_logs(&run, &upload.files)
        );
        let mut run = with_stored(run, logs, artifacts);
        // What the worker sent before is kept, unless it uploaded a log of the same name. The logs
        // of an abandoned run were stored when it was abandoned.
        let known_logs = earlier.iter().flat_map(|run| run.logfilenames.clone());
        let missing_logs = missing_logs?;
        if held.run.cancel.is_some() {
            add_log_bytes(&mut run, missing_logs.iter().map(|log| log.size).sum());
        }
        let missing_logs = missing_logs.into_iter().map(|log| log.name);
        for name in missing_logs.chain(known_logs) {
            if !run.logfilenames.contains(&name) {
                run.logfilenames.push(name);
            }
        }
        let finished = if held.late || earlier.is_some() {
            self.record(run, Some(&report), Recording::Late).await?
        } else {
            let on_time = Recording::OnTime {
                active: &held.run,
                unless_seen_after: None,
            };
            match self.record(run.clone(), Some(&report), on_time).await {
                Err(ServiceError::NotFound { .. }) => {
                    self.store_abandoned(run, &report, upload).await?
                }
                Ok(Finished {
                    run: known,
                    first_time: false,
                }) if known.given_up => self.store_abandoned(run, &report, upload).await?,
                finished => finished?,
            }
        };
        *stored = true;
        Ok(finished)
    }

    /// Records a result whose run the watcher of another runner abandoned while its files were
    /// stored.
    async fn store_abandoned(
        &self,
        run: Run,
        report: &Report,
        upload: &Upload,
    ) -> Result<Finished, ServiceError> {
        // The other runner may have stored what it had of these logs over them. It has recorded the
        // run by now, and stores nothing after that. A failure is logged where it happens.
        drop(self.store_logs(&run, &upload.files).await);
        self.record(run, Some(report), Recording::Late).await
    }

    /// Returns the run that an upload makes of an active run, and the report in it.
    fn concluded(&self, active: &ActiveRun, upload: &Upload) -> (Run, Report) {
        let (files, problem) = described(upload);
        let mut report = upload.report.clone();
        if report.target.as_ref().is_some_and(ReportTarget::is_debian) {
            report.problems.extend(problem);
        }
        let run = conclude(active, report.clone(), &files, self.clock.now());
        (run, report)
    }
}
