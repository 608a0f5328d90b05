//! The one layer that names concrete adapters: from settings to ports (`ports.rs`, `convert.rs`),
//! use cases (`app.rs`), background tasks (`background.rs`), servers, and their shutdown.

mod app;
mod background;
mod convert;
mod descriptors;
mod listeners;
mod machine_names;
mod ports;
mod private_folders;
mod unix_socket;

use crate::{
    adapters::{
        clock::SystemClock,
        http,
        postgres::{
            Postgres,
            schema::{self, Plan},
        },
    },
    domain::audit::{Action, Actor, AuditRecord, Change},
    metrics::Metrics,
    ports::{ArtifactStore, AuditLog, Clock},
    services::{health::Check, leadership::Leader},
    settings::{Settings, StoreChoice},
};
use app::Builder;
use listeners::Listeners;
use ports::Ports;
use rustix::{
    fs::Mode,
    process::{getuid, umask},
};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long requests in progress may take once the store has failed.
const SHUTDOWN_WITHOUT_STORE: Duration = Duration::from_secs(1);

/// A running service.
pub struct Running {
    /// The address of the admin API.
    pub admin: http::Address,
    /// The address of the public API, if there is one.
    pub public: Option<http::Address>,
    /// Cancelled first: no new requests are accepted.
    ending: CancellationToken,
    /// Cancelled next: background tasks end.
    end: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    leader: Arc<Leader>,
    shutdown: Duration,
    store_failed: CancellationToken,
    /// The store of artifacts, for those who want to see the results.
    pub artifacts: Arc<dyn ArtifactStore>,
}

fn builder(ports: Ports, settings: &Settings, metrics: Arc<Metrics>) -> Builder {
    Builder {
        ports,
        config: Arc::new(settings.coordinator.clone()),
        metrics,
        ending: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }
}

/// Opens the stores and starts the service.
///
/// # Errors
///
/// Returns an error when an address cannot be listened on, or a store not be opened.
pub async fn start(settings: &Settings) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::new());
    let Listeners { admin, public } = Listeners::open(settings).await?;
    let ports = Ports::open(settings, &metrics).await?;
    if let Some(mirror) = &ports.claim_mirror
        && let Err(error) = mirror.reconcile().await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "active runs in Redis are reconciled once it is available"
        );
    }
    if !settings.publish_policies.is_empty() {
        ports
            .store
            .put_publish_policies(settings.publish_policies.clone())
            .await?;
    }
    let artifacts = ports.artifacts.clone();
    let store_failed = ports.store_failed.clone();
    let builder = builder(ports, settings, metrics.clone());
    let (ending, tasks, end) = (
        builder.ending.clone(),
        builder.tasks.clone(),
        CancellationToken::new(),
    );
    let (app, background) = builder.build(settings);
    let leader = background.leader.clone();
    background.start(&end, &metrics);
    let addresses = (
        admin.address()?,
        public.as_ref().map(http::Listener::address).transpose()?,
    );
    let (of_admin, of_public) =
        descriptors::limits(descriptors::raise_limit(), &settings.connections);
    let servers = std::iter::once((admin, http::admin(app.clone()), of_admin))
        .chain(public.map(|public| (public, http::public(app), of_public)))
        .map(|(listener, router, limits)| {
            let (tasks, ending) = (tasks.clone(), ending.clone());
            let limits = (limits, settings.limits.into());
            let served = http::serve(listener, router, limits, tasks, ending);
            tokio::spawn(served)
        })
        .collect();
    Ok(Running {
        admin: addresses.0,
        public: addresses.1,
        ending,
        end,
        servers,
        tasks,
        leader,
        shutdown: settings.shutdown,
        store_failed,
        artifacts,
    })
}

impl Running {
    /// Waits until the store fails for good. The process should end then: the next one opens the store
    /// again, with everything that was said to be stored.
    pub async fn store_failed(&self) {
        self.store_failed.cancelled().await;
    }

    /// Shuts the service down: nothing is assigned and no connection is accepted any more, long
    /// polls return, and uploads in progress are completed, also those whose clients have left,
    /// within the time of the settings.
    ///
    /// # Errors
    ///
    /// Returns an error when a server has panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.ending.cancel();
        self.end.cancel();
        // Otherwise no other process could lead before the lease of this one expires.
        self.leader.resign().await;
        // What is in progress fails without its store.
        let shutdown = match self.store_failed.is_cancelled() {
            true => self.shutdown.min(SHUTDOWN_WITHOUT_STORE),
            false => self.shutdown,
        };
        let last = tokio::time::Instant::now() + shutdown;
        for server in self.servers {
            if let Ok(ended) = timeout_at(last, server).await {
                ended?;
            } else {
                tracing::warn!("requests that take too long are aborted");
            }
        }
        self.tasks.close();
        if timeout_at(last, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "results that take too long to store are aborted; their workers upload them again"
            );
        }
        Ok(())
    }
}

/// Makes everything that the process creates from now on private: sled and the libraries below
/// create files with the mode 666, and leave the rest to the umask.
pub fn create_privately() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Makes everything that the process creates from now on private, and the folders of the settings
/// that exist already; returns a warning for each that stays open to other users of the machine.
pub fn make_private(settings: &Settings) -> Vec<String> {
    create_privately();
    private_folders::tighten_all(settings)
}

/// Opens every store, without serving; returns the result of each check.
///
/// # Errors
///
/// Returns an error when a store cannot be opened.
pub async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let metrics = Arc::new(Metrics::new());
    let ports = Ports::open(settings, &metrics).await?;
    let (app, _) = builder(ports, settings, metrics).build(settings);
    Ok(app.health.checks().await)
}

/// Returns whom the database of the settings is for; `None` for a store that is no database.
///
/// # Errors
///
/// Returns an error when the database fails.
pub async fn database_kind(settings: &Settings) -> anyhow::Result<Option<&'static str>> {
    Ok(match &settings.store {
        StoreChoice::Postgres(postgres) => Some(schema::kind(&postgres.url).await?.describe()),
        _ => None,
    })
}

/// Migrates the tables of the store, or only plans that; returns the plan.
///
/// # Errors
///
/// Returns an error when the store has no tables, or the database fails.
pub async fn migrate(settings: &Settings, dry_run: bool) -> anyhow::Result<Plan> {
    let StoreChoice::Postgres(postgres) = &settings.store else {
        anyhow::bail!(
            "only a store at postgresql://… has tables; this one makes what it needs by itself"
        );
    };
    Ok(if dry_run {
        schema::plan(&postgres.url).await?
    } else {
        schema::migrate(&postgres.url).await?
    })
}

/// Records a migration in the audit log, which is there only afterwards.
///
/// # Errors
///
/// Returns an error when the database fails.
pub async fn record_migration(settings: &Settings, plan: &Plan) -> anyhow::Result<()> {
    let StoreChoice::Postgres(postgres) = &settings.store else {
        return Ok(());
    };
    let actor = Actor {
        who: format!("user {} of the command line", getuid().as_raw()),
        ..Actor::default()
    };
    let change = Change::new(Action::Migrate, settings.store.to_string())
        .after(serde_json::json!(plan.steps));
    let store = Postgres::open(&postgres.into(), Arc::new(Metrics::new())).await?;
    let record = AuditRecord::new(change, &actor, SystemClock.now());
    store.append(vec![record]).await?;
    Ok(())
}
