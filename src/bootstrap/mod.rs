//! The one room that names concrete adapters: from settings to ports (`ports.rs`), services, servers, and their end.

mod ports;

use crate::{
    adapters::{
        fallback::Drainer,
        http::{self, AppState},
        postgres::schema::{self, Plan},
        redis::ClaimMirror,
    },
    metrics::Metrics,
    ports::ArtifactStore,
    services::{
        CoordinatorConfig,
        assign::Assigner,
        explain::Explainer,
        finish::{Finisher, RunLocks},
        follow_up::FollowUps,
        health::{Check, Health},
        ingest::Ingest,
        keepalive::Keepalive,
        leadership::Leader,
        live_log::LiveLogIngest,
        logs::Logs,
        long_poll::LongPoll,
        outbox_publisher::OutboxPublisher,
        overview::Overview,
        parking::ParkedItems,
        pauses::Restraints,
        retry::RetryPolicy,
        runs::Runs,
        schedule::Scheduler,
        status_publisher::StatusPublisher,
        watch::{Watcher, WatcherPorts},
        workers::Workers,
    },
    settings::{Settings, StoreChoice},
};
use anyhow::Context;
use ports::Ports;
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A background task that died is started again after this long.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What runs beside the requests.
struct Background {
    status_publisher: Arc<StatusPublisher>,
    follow_ups: Arc<FollowUps>,
    leader: Arc<Leader>,
    outbox_publisher: Arc<OutboxPublisher>,
    watcher: Arc<Watcher>,
    waiting_room: Arc<LongPoll>,
    coordination: Option<Arc<ClaimMirror>>,
    mover: Option<Arc<Drainer>>,
    /// The end has come: nothing new is begun.
    ending: CancellationToken,
    /// What was begun for clients, and goes on without them.
    tasks: TaskTracker,
}

// One line for each thing that is made, in the order in which they need each other.
#[expect(clippy::too_many_lines)]
fn services(
    ports: Ports,
    settings: &Settings,
    metrics: Arc<Metrics>,
) -> (Arc<AppState>, Background) {
    let config: Arc<CoordinatorConfig> = Arc::new(settings.config.clone());
    let Ports {
        queue,
        active_runs,
        runs,
        schedules,
        outbox,
        leader_election,
        live_logs,
        queue_notifier,
        parking,
        pauses,
        catalog,
        credentials,
        ..
    } = ports;
    let Ports {
        artifacts,
        logs,
        events,
        backchannel,
        vcs,
        clock,
        ids,
        spool,
        coordination,
        mover,
        ..
    } = ports;
    let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
    let status_publisher = Arc::new(StatusPublisher::new(
        active_runs.clone(),
        events.clone(),
        clock.clone(),
        config.clone(),
    ));
    let leader = Arc::new(Leader::new(leader_election, ids.fresh()));
    let outbox_publisher = Arc::new(OutboxPublisher::new(
        outbox,
        events.clone(),
        leader.clone(),
        metrics.clone(),
    ));
    let follow_ups = Arc::new(FollowUps::new(
        schedules.clone(),
        queue.clone(),
        clock.clone(),
        leader.clone(),
    ));
    let keepalive = Arc::new(Keepalive::new(
        active_runs.clone(),
        runs.clone(),
        clock.clone(),
        config.clone(),
    ));
    let live_log = Arc::new(LiveLogIngest::new(
        live_logs,
        keepalive.clone(),
        config.clone(),
    ));
    let retry_policy = RetryPolicy {
        parking: parking.clone(),
        pauses: pauses.clone(),
        credentials: credentials.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        config: config.clone(),
    };
    let finisher = Arc::new(Finisher {
        active_runs: active_runs.clone(),
        runs: runs.clone(),
        artifacts: artifacts.clone(),
        logs: logs.clone(),
        live_log: live_log.clone(),
        retry_policy: Arc::new(retry_policy),
        follow_ups: follow_ups.clone(),
        outbox_publisher: outbox_publisher.clone(),
        status_publisher: status_publisher.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        turns: RunLocks::default(),
    });
    let assigner = Arc::new(Assigner {
        queue: queue.clone(),
        active_runs: active_runs.clone(),
        runs: runs.clone(),
        vcs,
        finisher: finisher.clone(),
        status_publisher: status_publisher.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        config: config.clone(),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
    });
    let watched = WatcherPorts {
        active_runs: active_runs.clone(),
        backchannel: backchannel.clone(),
        finisher: finisher.clone(),
        live_log: live_log.clone(),
        clock: clock.clone(),
        config: config.clone(),
        leader: leader.clone(),
        metrics: metrics.clone(),
    };
    let watcher = Arc::new(Watcher::new(watched, settings.pace));
    let waiting_room = Arc::new(LongPoll::new(
        assigner.clone(),
        queue_notifier,
        pauses.clone(),
        clock.clone(),
        ending.clone(),
    ));
    let shown = Logs {
        active_runs: active_runs.clone(),
        runs: runs.clone(),
        stored: logs.clone(),
        live_log: live_log.clone(),
        backchannel,
        ending: ending.clone(),
    };
    let explainer = Explainer {
        queue: queue.clone(),
        parking: parking.clone(),
        pauses: pauses.clone(),
        active_runs: active_runs.clone(),
        catalog: catalog.clone(),
        schedules: schedules.clone(),
        clock: clock.clone(),
        config: config.clone(),
    };
    let health = Health {
        runs: runs.clone(),
        active_runs: active_runs.clone(),
        artifacts,
        logs,
        events,
        has_backup: mover.is_some(),
        watcher: watcher.clone(),
        ending: ending.clone(),
    };
    let app = AppState {
        overview: Overview::new(
            queue.clone(),
            active_runs.clone(),
            runs.clone(),
            clock.clone(),
            config.clone(),
        ),
        assigner,
        finisher,
        ingest: Ingest::new(
            catalog.clone(),
            schedules.clone(),
            queue.clone(),
            clock.clone(),
            config.clone(),
        ),
        scheduler: Scheduler::new(
            catalog,
            schedules,
            runs.clone(),
            queue,
            clock.clone(),
            config.clone(),
        ),
        runs: Runs::new(runs, outbox_publisher.clone()),
        logs: Arc::new(shown),
        live_log,
        keepalive,
        waiting_room: waiting_room.clone(),
        explainer,
        parked: ParkedItems::new(parking),
        restraints: Restraints::new(pauses.clone(), active_runs.clone(), clock.clone()),
        workers: Workers::new(credentials, active_runs, pauses, clock.clone(), ids),
        watcher: watcher.clone(),
        health,
        metrics,
        clock,
        config,
        spool,
        limits: settings.limits,
        tasks: tasks.clone(),
    };
    (
        Arc::new(app),
        Background {
            status_publisher,
            follow_ups,
            leader,
            outbox_publisher,
            watcher,
            waiting_room,
            coordination,
            mover,
            ending,
            tasks,
        },
    )
}

/// Runs a task until the end comes; one that dies is a defect, is said to be one, and is started again.
fn supervise<F>(
    name: &'static str,
    end: CancellationToken,
    metrics: Arc<Metrics>,
    start: impl Fn() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while !end.is_cancelled() {
            let mut task = tokio::spawn(start());
            tokio::select! {
                () = end.cancelled() => return task.abort(),
                died = &mut task => {
                    tracing::error!(task = name, ?died, "a background task has died and is started again");
                    metrics.failed("task", name);
                }
            }
            tokio::time::sleep(RESTART_AFTER).await;
        }
    });
}

impl Background {
    fn start(self, end: &CancellationToken, metrics: &Arc<Metrics>) {
        let Self {
            status_publisher,
            follow_ups,
            leader,
            outbox_publisher,
            watcher,
            waiting_room,
            coordination,
            mover,
            ..
        } = self;
        let metrics = || metrics.clone();
        supervise("announcer", end.clone(), metrics(), move || {
            let status_publisher = status_publisher.clone();
            async move { status_publisher.run().await }
        });
        supervise("follow-ups", end.clone(), metrics(), move || {
            let follow_ups = follow_ups.clone();
            async move { follow_ups.run().await }
        });
        supervise("leader", end.clone(), metrics(), move || {
            let leader = leader.clone();
            async move { leader.run().await }
        });
        supervise("relay", end.clone(), metrics(), move || {
            let outbox_publisher = outbox_publisher.clone();
            async move { outbox_publisher.run().await }
        });
        supervise("watcher", end.clone(), metrics(), move || {
            watcher.clone().run()
        });
        supervise("waiting room", end.clone(), metrics(), move || {
            let waiting_room = waiting_room.clone();
            async move { waiting_room.run().await }
        });
        if let Some(coordination) = coordination {
            supervise("coordination", end.clone(), metrics(), move || {
                let coordination = coordination.clone();
                async move { coordination.run().await }
            });
        }
        if let Some(mover) = mover {
            supervise("mover", end.clone(), metrics(), move || {
                let mover = mover.clone();
                async move { mover.run().await }
            });
        }
    }
}

/// A service that runs.
pub struct Running {
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Where the public API listens.
    pub public: SocketAddr,
    /// Nothing new is begun.
    ending: CancellationToken,
    /// Timers end.
    end: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    leader: Arc<Leader>,
    shutdown: Duration,
    /// For whoever wants to look at what came out.
    pub artifacts: Arc<dyn ArtifactStore>,
}

async fn listen(settings: &Settings, port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.listen_address, port);
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}

/// Opens the stores and starts the service.
pub async fn start(settings: &Settings) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::new());
    let (admin, public) = (
        listen(settings, settings.port).await?,
        listen(settings, settings.public_port).await?,
    );
    let ports = Ports::open(settings, &metrics).await?;
    if let Some(coordination) = &ports.coordination
        && let Err(error) = coordination.compare().await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "active runs in Redis are taken over once it answers"
        );
    }
    if !settings.publish_policies.is_empty() {
        ports
            .catalog
            .put_publish_policies(settings.publish_policies.clone())
            .await?;
    }
    let artifacts = ports.artifacts.clone();
    let (app, background) = services(ports, settings, metrics.clone());
    let (leader, ending, tasks, end) = (
        background.leader.clone(),
        background.ending.clone(),
        background.tasks.clone(),
        CancellationToken::new(),
    );
    background.start(&end, &metrics);
    let addresses = (admin.local_addr()?, public.local_addr()?);
    let servers = [
        (admin, http::admin(app.clone())),
        (public, http::public(app)),
    ]
    .map(|(listener, router)| tokio::spawn(http::serve(listener, router, ending.clone())))
    .into();
    Ok(Running {
        admin: addresses.0,
        public: addresses.1,
        ending,
        end,
        servers,
        tasks,
        leader,
        shutdown: settings.shutdown,
        artifacts,
    })
}

impl Running {
    /// Ends the service: nothing is handed out and no connection taken in any more, those who wait are answered, and
    /// uploads under way are finished, also those whose clients have left, within the time of the settings.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.ending.cancel();
        self.end.cancel();
        // What this process led, another one takes over at once.
        self.leader.resign().await;
        let last = tokio::time::Instant::now() + self.shutdown;
        for server in self.servers {
            if let Ok(ended) = timeout_at(last, server).await {
                ended?
            } else {
                tracing::warn!("requests that take too long are cut off")
            }
        }
        self.tasks.close();
        if timeout_at(last, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "results that take too long to store are cut off; their workers hand them in again"
            );
        }
        Ok(())
    }
}

/// Opens every store, without serving; answers what works and what does not.
pub async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let metrics = Arc::new(Metrics::new());
    let ports = Ports::open(settings, &metrics).await?;
    let (app, _) = services(ports, settings, metrics);
    Ok(app.health.checks().await)
}

/// Brings the tables of the store up to date; or only answers what that would take.
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
