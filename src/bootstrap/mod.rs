//! The one room that names concrete adapters: from settings to ports (`ports.rs`), services, servers, and their end.

mod ports;

use crate::{
    adapters::{
        backup::Mover,
        http::{self, App},
        postgres::schema::{self, Plan},
        redis::Coordination,
    },
    metrics::Metrics,
    ports::ArtifactStore,
    services::{
        Deployment,
        announce::Announcer,
        assign::Assigner,
        finish::{Finisher, Turns},
        follow_up::FollowUps,
        health::{Check, Health},
        ingest::Ingest,
        lead::Leader,
        logs::Logs,
        overview::Overview,
        relay::Relay,
        runs::Runs,
        schedule::Scheduler,
        watch::Watcher,
        workers::Workers,
    },
    settings::{Settings, StoreChoice},
};
use anyhow::Context;
use axum::serve::ListenerExt;
use ports::Ports;
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long requests under way may take once the end has come.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// A background task that died is started again after this long.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What runs beside the requests.
struct Background {
    announcer: Arc<Announcer>,
    follow_ups: Arc<FollowUps>,
    leader: Arc<Leader>,
    relay: Arc<Relay>,
    watcher: Arc<Watcher>,
    coordination: Option<Arc<Coordination>>,
    mover: Option<Arc<Mover>>,
}

fn services(ports: Ports, settings: &Settings, metrics: Arc<Metrics>) -> (Arc<App>, Background) {
    let deployment: Arc<Deployment> = Arc::new(settings.deployment.clone());
    let Ports { queue, claims, results, schedules, outbox, leases, catalog, credentials, .. } = ports;
    let Ports { artifacts, logs, events, backchannel, vcs, clock, ids, spool, coordination, mover, .. } = ports;
    let announcer = Arc::new(Announcer::new(claims.clone(), events.clone(), clock.clone(), deployment.clone()));
    let leader = Arc::new(Leader::new(leases, ids.fresh()));
    let relay = Arc::new(Relay::new(outbox, events.clone(), leader.clone(), metrics.clone()));
    let follow_ups = Arc::new(FollowUps::new(schedules.clone(), queue.clone(), clock.clone(), leader.clone()));
    let finisher = Arc::new(Finisher {
        claims: claims.clone(),
        results: results.clone(),
        artifacts: artifacts.clone(),
        logs: logs.clone(),
        follow_ups: follow_ups.clone(),
        relay: relay.clone(),
        announcer: announcer.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        turns: Turns::default(),
    });
    let assigner = Arc::new(Assigner {
        queue: queue.clone(),
        claims: claims.clone(),
        results: results.clone(),
        vcs,
        finisher: finisher.clone(),
        announcer: announcer.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        deployment: deployment.clone(),
        metrics: metrics.clone(),
    });
    let watcher = Arc::new(Watcher::new(
        claims.clone(),
        backchannel.clone(),
        finisher.clone(),
        clock.clone(),
        deployment.clone(),
        leader.clone(),
        metrics.clone(),
    ));
    let app = App {
        overview: Overview::new(queue.clone(), claims.clone(), results.clone(), clock.clone(), deployment.clone()),
        assigner,
        finisher,
        ingest: Ingest::new(catalog.clone(), schedules.clone(), queue.clone(), clock.clone(), deployment.clone()),
        scheduler: Scheduler::new(catalog, schedules, results.clone(), queue, clock.clone(), deployment.clone()),
        runs: Runs::new(results.clone(), relay.clone()),
        logs: Logs::new(claims.clone(), results.clone(), logs.clone(), backchannel),
        workers: Workers::new(credentials, claims.clone(), ids),
        health: Health { results, claims, artifacts, logs, events, has_backup: mover.is_some() },
        metrics,
        clock,
        deployment,
        spool,
        limits: settings.limits,
    };
    (Arc::new(app), Background { announcer, follow_ups, leader, relay, watcher, coordination, mover })
}

/// Runs a task until the end comes; one that dies is a defect, is said to be one, and is started again.
fn supervise<F>(name: &'static str, end: CancellationToken, metrics: Arc<Metrics>, start: impl Fn() -> F + Send + 'static)
where
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
    fn start(self, settings: &Settings, end: &CancellationToken, metrics: &Arc<Metrics>) {
        let Self { announcer, follow_ups, leader, relay, watcher, coordination, mover } = self;
        let interval = settings.watch_interval;
        let metrics = || metrics.clone();
        supervise("announcer", end.clone(), metrics(), move || {
            let announcer = announcer.clone();
            async move { announcer.run().await }
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
            let relay = relay.clone();
            async move { relay.run().await }
        });
        supervise("watcher", end.clone(), metrics(), move || watcher.clone().run(interval));
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
    end: CancellationToken,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    leader: Arc<Leader>,
    /// For whoever wants to look at what came out.
    pub artifacts: Arc<dyn ArtifactStore>,
}

async fn listen(settings: &Settings, port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.listen_address, port);
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

fn serve(listener: TcpListener, router: axum::Router, end: CancellationToken) -> JoinHandle<std::io::Result<()>> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await })
}

/// Opens the stores and starts the service.
pub async fn start(settings: &Settings) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::new());
    let (admin, public) = (listen(settings, settings.port).await?, listen(settings, settings.public_port).await?);
    let ports = Ports::open(settings, &metrics).await?;
    if let Some(coordination) = &ports.coordination
        && let Err(error) = coordination.compare().await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "active runs in Redis are taken over once it answers");
    }
    if !settings.publish_policies.is_empty() {
        ports.catalog.put_publish_policies(settings.publish_policies.clone()).await?;
    }
    let artifacts = ports.artifacts.clone();
    let (app, background) = services(ports, settings, metrics.clone());
    let leader = background.leader.clone();
    let end = CancellationToken::new();
    background.start(settings, &end, &metrics);
    let addresses = (admin.local_addr()?, public.local_addr()?);
    let servers = vec![serve(admin, http::admin(app.clone()), end.clone()), serve(public, http::public(app), end.clone())];
    Ok(Running { admin: addresses.0, public: addresses.1, end, servers, leader, artifacts })
}

impl Running {
    /// Ends the service: nothing new is taken in, requests under way are answered.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.end.cancel();
        // What this process led, another one takes over at once.
        self.leader.resign().await;
        for server in self.servers {
            if let Ok(ended) = timeout(LAST_REQUESTS, server).await { ended?? } else { tracing::warn!("requests that take too long are cut off") }
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
        anyhow::bail!("only a store at postgresql://… has tables; this one makes what it needs by itself");
    };
    Ok(if dry_run { schema::plan(&postgres.url).await? } else { schema::migrate(&postgres.url).await? })
}
