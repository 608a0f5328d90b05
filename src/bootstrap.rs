//! The one file that names concrete adapters: from settings to ports, services, servers, and their end.

use crate::{
    adapters::{
        clock::{RandomIds, SystemClock},
        credentials_cache::CachedCredentials,
        embedded::Embedded,
        http::{self, App},
        in_process::InProcessEvents,
        local::{LocalArtifacts, LocalLogs, Spool},
        memory::MemoryKv,
        none::{NoBackchannel, NoVcs},
        sled::SledKv,
    },
    metrics::Metrics,
    ports::{
        ArtifactStore, Backchannel, Catalog, Claims, Clock, Credentials, EventBus, Ids, Leases, LogStore, Outbox, QueueStore, ResultStore,
        ScheduleStore, Vcs,
    },
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
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long requests under way may take once the end has come.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// A background task that died is started again after this long.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// One adapter for each port.
struct Ports {
    queue: Arc<dyn QueueStore>,
    claims: Arc<dyn Claims>,
    results: Arc<dyn ResultStore>,
    schedules: Arc<dyn ScheduleStore>,
    outbox: Arc<dyn Outbox>,
    leases: Arc<dyn Leases>,
    catalog: Arc<dyn Catalog>,
    credentials: Arc<dyn Credentials>,
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    events: Arc<dyn EventBus>,
    backchannel: Arc<dyn Backchannel>,
    vcs: Arc<dyn Vcs>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    spool: Spool,
}

fn embedded(choice: &StoreChoice, metrics: Arc<Metrics>) -> anyhow::Result<Embedded> {
    Ok(match choice {
        StoreChoice::Sled(path) => Embedded::open(Arc::new(SledKv::open(path)?), "sled", metrics)?,
        StoreChoice::Memory => Embedded::open(Arc::new(MemoryKv::default()), "memory", metrics)?,
    })
}

impl Ports {
    fn open(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let store = Arc::new(embedded(&settings.store, metrics.clone())?);
        let spool = Spool::open(&settings.spool, settings.upload_memory).with_context(|| format!("spool {}", settings.spool.display()))?;
        Ok(Self {
            queue: store.clone(),
            claims: store.clone(),
            results: store.clone(),
            schedules: store.clone(),
            outbox: store.clone(),
            leases: store.clone(),
            catalog: store.clone(),
            credentials: Arc::new(CachedCredentials::new(store)),
            artifacts: Arc::new(LocalArtifacts::new(settings.artifacts.clone())),
            logs: Arc::new(LocalLogs::new(settings.logs.clone())),
            events: Arc::new(InProcessEvents::default()),
            backchannel: Arc::new(NoBackchannel),
            vcs: Arc::new(NoVcs),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            spool,
        })
    }
}

/// What runs beside the requests.
struct Background {
    announcer: Arc<Announcer>,
    follow_ups: Arc<FollowUps>,
    leader: Arc<Leader>,
    relay: Arc<Relay>,
    watcher: Arc<Watcher>,
}

fn services(ports: Ports, settings: &Settings, metrics: Arc<Metrics>) -> (Arc<App>, Background) {
    let deployment: Arc<Deployment> = Arc::new(settings.deployment.clone());
    let Ports {
        queue,
        claims,
        results,
        schedules,
        outbox,
        leases,
        catalog,
        credentials,
        artifacts,
        logs,
        events,
        backchannel,
        vcs,
        clock,
        ids,
        spool,
    } = ports;
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
        workers: Workers::new(credentials, claims, ids),
        health: Health::new(results, artifacts, logs, events),
        metrics,
        clock,
        deployment,
        spool,
        limits: settings.limits,
    };
    (Arc::new(app), Background { announcer, follow_ups, leader, relay, watcher })
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
        let Self { announcer, follow_ups, leader, relay, watcher } = self;
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
    let (opening, counting) = (settings.clone(), metrics.clone());
    let ports = tokio::task::spawn_blocking(move || Ports::open(&opening, &counting)).await??;
    if !settings.publish_policies.is_empty() {
        ports.catalog.put_publish_policies(settings.publish_policies.clone()).await?;
    }
    let (app, background) = services(ports, settings, metrics.clone());
    let end = CancellationToken::new();
    background.start(settings, &end, &metrics);
    let addresses = (admin.local_addr()?, public.local_addr()?);
    let servers = vec![serve(admin, http::admin(app.clone()), end.clone()), serve(public, http::public(app), end.clone())];
    Ok(Running { admin: addresses.0, public: addresses.1, end, servers })
}

impl Running {
    /// Ends the service: nothing new is taken in, requests under way are answered.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.end.cancel();
        for server in self.servers {
            if let Ok(ended) = timeout(LAST_REQUESTS, server).await { ended?? } else { tracing::warn!("requests that take too long are cut off") }
        }
        Ok(())
    }
}

/// Opens every store, without serving; answers what works and what does not.
pub async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let metrics = Arc::new(Metrics::new());
    let ports = Ports::open(settings, &metrics)?;
    let (app, _) = services(ports, settings, metrics);
    Ok(app.health.checks().await)
}
