//! Workers: who may log in, and who is busy.

use super::ServiceError;
use crate::{
    domain::{
        Invalid,
        name::RunId,
        pause::{Pause, Scope},
    },
    ports::{ActiveRunStore, Clock, Credentials, Ids, PauseStore, credentials::WorkerAccount},
};
use std::{collections::BTreeMap, sync::Arc};

const LONGEST_NAME: usize = 100;

/// A worker with the runs that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct WorkerState {
    pub account: WorkerAccount,
    pub holds: Vec<RunId>,
    /// Why it gets no work, if it is paused.
    pub pause: Option<Pause>,
}

/// Keeps the workers' accounts.
pub struct Workers {
    credentials: Arc<dyn Credentials>,
    active_runs: Arc<dyn ActiveRunStore>,
    pauses: Arc<dyn PauseStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

impl Workers {
    /// Works through these ports.
    pub fn new(
        credentials: Arc<dyn Credentials>,
        active_runs: Arc<dyn ActiveRunStore>,
        pauses: Arc<dyn PauseStore>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Self {
        Self {
            credentials,
            active_runs,
            pauses,
            clock,
            ids,
        }
    }

    /// Whether a login is right.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<bool, ServiceError> {
        Ok(self.credentials.verify(name, password).await?)
    }

    /// All workers, by name.
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

    /// Two random UUIDs: 244 random bits.
    fn password(&self) -> String {
        format!("{}{}", self.ids.fresh(), self.ids.fresh()).replace('-', "")
    }

    /// Adds a worker; answers the password that was made when none was given.
    pub async fn add(
        &self,
        name: &str,
        password: Option<String>,
        link: Option<String>,
    ) -> Result<Option<String>, ServiceError> {
        let bad = name.is_empty()
            || name.len() > LONGEST_NAME
            || name.contains([':', '/', '?', '#'])
            || name.chars().any(|c| c.is_control() || c.is_whitespace());
        if bad {
            return Err(Invalid::new(
                "name",
                format!("1 to {LONGEST_NAME} characters without spaces, colons, slashes, ? or #"),
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
        let made = password.is_none().then(|| self.password());
        let password = password.or_else(|| made.clone()).unwrap_or_default();
        self.credentials.add(name, &password, link).await?;
        Ok(made)
    }

    /// Gives a worker a new password, which is answered.
    pub async fn rotate(&self, name: &str) -> Result<String, ServiceError> {
        let password = self.password();
        match self.credentials.set_password(name, &password).await? {
            true => Ok(password),
            false => Err(ServiceError::not_found("worker", name)),
        }
    }

    /// Takes a worker away; one that holds a run only by force.
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
            true => Ok(()),
            false => Err(ServiceError::not_found("worker", name)),
        }
    }
}
