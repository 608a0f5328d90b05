//! Workers: their accounts, and the runs that they hold.

use super::{ServiceError, logins::Logins, status_publisher::StatusPublisher};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        invalid::bounded_text,
        name::RunId,
        pause::{Pause, Scope},
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Clock, Credentials, Ids, PauseStore,
        credentials::WorkerAccount,
    },
};
use std::{collections::BTreeMap, error::Error, sync::Arc};

/// The length of the longest name, in bytes.
const MAX_NAME_LENGTH: usize = 100;
/// The length of the longest link, in characters.
const MAX_LINK_LENGTH: usize = 4096;

/// A worker with the runs that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// The account.
    pub account: WorkerAccount,
    /// The active runs that it holds.
    pub holds: Vec<RunId>,
    /// The pause of the worker, if it is paused.
    pub pause: Option<Pause>,
}

/// Manages the accounts of workers: the ports and use cases that this needs.
pub struct Workers {
    /// The accounts.
    pub credentials: Arc<dyn Credentials>,
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The pauses.
    pub pauses: Arc<dyn PauseStore>,
    /// The logins, which learn of changes.
    pub logins: Arc<Logins>,
    /// Learns of items that return to the queue.
    pub status_publisher: Arc<StatusPublisher>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Makes passwords.
    pub ids: Arc<dyn Ids>,
}

fn stay_claimed(worker: &str, error: &(dyn Error + 'static)) {
    tracing::error!(
        worker,
        error,
        "items of a worker whose login is revoked stay claimed for now"
    );
}

impl Workers {
    /// Returns all workers, by name.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when a store fails.
    #[tracing::instrument(name = "services.workers.list", skip_all)]
    pub async fn list(&self) -> Result<Vec<WorkerState>, ServiceError> {
        let mut held: BTreeMap<String, Vec<RunId>> = BTreeMap::new();
        for run in self.active_runs.list().await? {
            if let Some(worker) = run.claimant.worker {
                held.entry(worker).or_default().push(run.id);
            }
        }
        let mut paused: BTreeMap<String, Pause> = BTreeMap::new();
        for pause in self.pauses.pauses(self.clock.now()).await? {
            if let Scope::Worker(worker) = &pause.scope {
                paused.insert(worker.clone(), pause);
            }
        }
        let state = |account: WorkerAccount| WorkerState {
            holds: held.remove(&account.name).unwrap_or_default(),
            pause: paused.remove(&account.name),
            account,
        };
        Ok(self
            .credentials
            .list()
            .await?
            .into_iter()
            .map(state)
            .collect())
    }

    /// Generates a password of two random UUIDs, which have 244 random bits.
    fn password(&self) -> String {
        format!("{}{}", self.ids.fresh(), self.ids.fresh()).replace('-', "")
    }

    /// Adds a worker. Returns the password that was generated when none was given.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Invalid`] when the name or the password is not acceptable;
    /// [`ServiceError::Conflict`] when there is a worker of that name.
    #[tracing::instrument(name = "services.workers.add", skip_all, fields(worker = name))]
    pub async fn add(
        &self,
        name: &str,
        password: Option<String>,
        link: Option<String>,
    ) -> Result<Option<String>, ServiceError> {
        let bad = name.is_empty()
            || name.len() > MAX_NAME_LENGTH
            || name.contains([':', '/', '?', '#'])
            || name.chars().any(|c| c.is_control() || c.is_whitespace());
        if bad {
            return Err(Invalid::new(
                "name",
                format!(
                    "1 to {MAX_NAME_LENGTH} characters without spaces, colons, slashes, ? or #"
                ),
            )
            .into());
        }
        if password.as_deref() == Some("") {
            return Err(Invalid::new(
                "password",
                "must not be empty; leave it out to have one made",
            )
            .into());
        }
        let link = link
            .map(|link| bounded_text("link", MAX_LINK_LENGTH, link))
            .transpose()?;
        let generated = password.is_none().then(|| self.password());
        let password = password.or_else(|| generated.clone()).unwrap_or_default();
        self.credentials.add(name, &password, link).await?;
        Ok(generated)
    }

    /// Ends what a worker has begun by a login that is revoked: its items return to the queue.
    ///
    /// The login is revoked by now, whatever fails here: an item that stays claimed returns to the
    /// queue when its worker, which can send nothing any more, counts as vanished.
    async fn revoke(&self, name: &str) {
        self.logins.account_changed();
        let runs = match self.active_runs.list().await {
            Ok(runs) => runs,
            Err(error) => {
                stay_claimed(name, &error);
                return;
            }
        };
        for run in runs {
            if run.claimant.worker.as_deref() == Some(name)
                && let Err(error) = self.release(&run).await
            {
                stay_claimed(name, &error);
            }
        }
    }

    /// Returns an item to the queue, because the login that claimed it is revoked.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails.
    pub async fn release(&self, run: &ActiveRun) -> Result<(), ServiceError> {
        let released = self
            .active_runs
            .release(&run.id, &run.token, self.clock.now())
            .await;
        match released {
            // It was finished meanwhile.
            Err(ActiveRunStoreError::ClaimLost(_)) => return Ok(()),
            released => released?,
        }
        tracing::info!(run.id = %run.id, worker = run.claimant.worker, "a claim was revoked");
        self.status_publisher.queue_changed();
        Ok(())
    }

    /// Replaces the password of a worker, and returns the new one. The items that the worker has
    /// claimed return to the queue.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotFound`] when there is no such worker.
    #[tracing::instrument(name = "services.workers.rotate", skip_all, fields(worker = name))]
    pub async fn rotate(&self, name: &str) -> Result<String, ServiceError> {
        let password = self.password();
        match self.credentials.set_password(name, &password).await? {
            true => {
                self.revoke(name).await;
                Ok(password)
            }
            false => Err(ServiceError::not_found("worker", name)),
        }
    }

    /// Removes a worker. The items that it has claimed return to the queue.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Conflict`] when the worker holds a run and `force` is not set;
    /// [`ServiceError::NotFound`] when there is no such worker.
    #[tracing::instrument(name = "services.workers.remove", skip_all, fields(worker = name))]
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), ServiceError> {
        let holds = self
            .active_runs
            .list()
            .await?
            .into_iter()
            .find(|run| run.claimant.worker.as_deref() == Some(name));
        if let Some(run) = holds.filter(|_| !force) {
            return Err(ServiceError::Conflict(format!(
                "worker {name} holds run {}",
                run.id
            )));
        }
        match self.credentials.remove(name).await? {
            true => {
                self.revoke(name).await;
                Ok(())
            }
            false => Err(ServiceError::not_found("worker", name)),
        }
    }
}
