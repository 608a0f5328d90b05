//! From settings to one adapter for each port.

use crate::{
    adapters::{
        backchannel::Backchannels,
        clock::{RandomIds, SystemClock},
        embedded::Embedded,
        fallback::{Drainer, FallbackArtifacts, FallbackLogs, Waiting},
        gcs::GcsBucket,
        in_process::InProcessEvents,
        local::{LocalArtifacts, LocalLogs, Spool},
        memory::MemoryKv,
        objects::{ObjectArtifacts, ObjectLogs},
        postgres::Postgres,
        redis::{self, ClaimMirror, MirroredStores, RedisEvents},
        s3::S3Bucket,
        sled::SledKv,
        support::credentials_cache::CachedCredentials,
        support::guarded_http::GuardedClient,
        vcs::none::NoVcs,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Backchannel, Catalog, Clock, Credentials, EventBus, Fault,
        Ids, LeaderElection, LiveLogs, LogStore, Outbox, Parking, PauseStore, QueueNotifier,
        QueueStore, RunStore, ScheduleStore, Vcs,
    },
    settings::{FileStore, Settings, StoreChoice},
};
use anyhow::Context;
use backon::{ConstantBuilder, Retryable};
use std::{path::Path, sync::Arc, time::Duration};

/// How long the start waits for a database that is away.
const PATIENCE: usize = 30;

/// One adapter for each port.
pub(super) struct Ports {
    pub(super) queue: Arc<dyn QueueStore>,
    pub(super) active_runs: Arc<dyn ActiveRunStore>,
    pub(super) runs: Arc<dyn RunStore>,
    pub(super) schedules: Arc<dyn ScheduleStore>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) leader_election: Arc<dyn LeaderElection>,
    pub(super) live_logs: Arc<dyn LiveLogs>,
    pub(super) queue_notifier: Arc<dyn QueueNotifier>,
    pub(super) parking: Arc<dyn Parking>,
    pub(super) pauses: Arc<dyn PauseStore>,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) artifacts: Arc<dyn ArtifactStore>,
    pub(super) logs: Arc<dyn LogStore>,
    pub(super) events: Arc<dyn EventBus>,
    pub(super) backchannel: Arc<dyn Backchannel>,
    pub(super) vcs: Arc<dyn Vcs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn Ids>,
    pub(super) spool: Spool,
    pub(super) coordination: Option<Arc<ClaimMirror>>,
    pub(super) mover: Option<Arc<Drainer>>,
}

/// The ports that one store serves.
struct StorePorts {
    queue: Arc<dyn QueueStore>,
    active_runs: Arc<dyn ActiveRunStore>,
    runs: Arc<dyn RunStore>,
    schedules: Arc<dyn ScheduleStore>,
    outbox: Arc<dyn Outbox>,
    leader_election: Arc<dyn LeaderElection>,
    live_logs: Arc<dyn LiveLogs>,
    queue_notifier: Arc<dyn QueueNotifier>,
    parking: Arc<dyn Parking>,
    pauses: Arc<dyn PauseStore>,
    catalog: Arc<dyn Catalog>,
    credentials: Arc<dyn Credentials>,
}

impl StorePorts {
    fn of<S>(store: S) -> Self
    where
        S: QueueStore
            + ActiveRunStore
            + RunStore
            + ScheduleStore
            + Outbox
            + LeaderElection
            + LiveLogs
            + QueueNotifier
            + Parking
            + PauseStore
            + Catalog
            + Credentials
            + 'static,
    {
        let store = Arc::new(store);
        Self {
            queue: store.clone(),
            active_runs: store.clone(),
            runs: store.clone(),
            schedules: store.clone(),
            outbox: store.clone(),
            leader_election: store.clone(),
            live_logs: store.clone(),
            queue_notifier: store.clone(),
            parking: store.clone(),
            pauses: store.clone(),
            catalog: store.clone(),
            credentials: Arc::new(CachedCredentials::new(store)),
        }
    }

    async fn open(choice: &StoreChoice, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        Ok(match choice {
            StoreChoice::Sled(path) => {
                let (path, metrics) = (path.clone(), metrics.clone());
                let opening = tokio::task::spawn_blocking(move || {
                    Embedded::open(Arc::new(SledKv::open(&path)?), "sled", metrics)
                });
                Self::of(opening.await??)
            }
            StoreChoice::Memory => Self::of(Embedded::open(
                Arc::new(MemoryKv::default()),
                "memory",
                metrics.clone(),
            )?),
            StoreChoice::Postgres(settings) => {
                let open = || Postgres::open(settings, metrics.clone());
                let pauses = ConstantBuilder::default()
                    .with_delay(Duration::from_secs(1))
                    .with_max_times(PATIENCE);
                let opened = open
                    .retry(pauses)
                    .when(Fault::is_unavailable)
                    .notify(|fault, _| {
                        tracing::warn!(
                            error = fault as &dyn std::error::Error,
                            "waits for the database"
                        );
                    });
                Self::of(opened.await?)
            }
        })
    }
}

async fn artifacts(choice: &FileStore) -> anyhow::Result<Arc<dyn ArtifactStore>> {
    Ok(match choice {
        FileStore::Directory(path) => Arc::new(LocalArtifacts::new(path.clone())),
        FileStore::Gcs(settings) => Arc::new(ObjectArtifacts::new(Arc::new(
            GcsBucket::open(settings).await?,
        ))),
        FileStore::S3(settings) => {
            Arc::new(ObjectArtifacts::new(Arc::new(S3Bucket::open(settings)?)))
        }
    })
}

async fn logs(choice: &FileStore) -> anyhow::Result<Arc<dyn LogStore>> {
    Ok(match choice {
        FileStore::Directory(path) => Arc::new(LocalLogs::new(path.clone())),
        FileStore::Gcs(settings) => Arc::new(ObjectLogs::new(
            Arc::new(GcsBucket::open(settings).await?),
            "",
        )),
        FileStore::S3(settings) => Arc::new(ObjectLogs::new(
            Arc::new(S3Bucket::open(settings)?),
            "logs/",
        )),
    })
}

/// The file stores with a backup before them.
struct Backed {
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    mover: Arc<Drainer>,
}

fn backed(
    directory: &Path,
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Backed> {
    let (artifacts, waiting_artifacts) =
        FallbackArtifacts::new(artifacts, directory.join("artifacts"));
    let (logs, waiting_logs) = FallbackLogs::new(logs, directory.join("logs"));
    let waiting: Vec<Arc<dyn Waiting>> = vec![Arc::new(waiting_logs), Arc::new(waiting_artifacts)];
    let mover = Drainer::new(directory, waiting, metrics.clone())
        .with_context(|| format!("backup directory {}", directory.display()))?;
    Ok(Backed {
        artifacts: Arc::new(artifacts),
        logs: Arc::new(logs),
        mover: Arc::new(mover),
    })
}

impl Ports {
    pub(super) async fn open(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        crate::tls::install();
        let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) =
            (Arc::new(SystemClock), Arc::new(RandomIds));
        let mut store = StorePorts::open(&settings.store, metrics).await?;
        let coordination = settings.coordination.as_deref().map(|url| {
            let (queue, active_runs, runs) = (
                store.queue.clone(),
                store.active_runs.clone(),
                store.runs.clone(),
            );
            anyhow::Ok(Arc::new(ClaimMirror::new(
                redis::connect(url)?,
                queue,
                active_runs,
                runs,
                ids.clone(),
                clock.clone(),
            )))
        });
        let coordination = coordination.transpose()?;
        if let Some(coordination) = &coordination {
            let coordinated = Arc::new(MirroredStores(coordination.clone()));
            (store.queue, store.active_runs, store.runs) =
                (coordinated.clone(), coordinated.clone(), coordinated);
        }
        let events: Arc<dyn EventBus> = match settings.events.as_deref() {
            Some(url) => Arc::new(RedisEvents::new(
                redis::connect(url)?,
                settings.config.watch.run_timeout,
            )),
            None => Arc::new(InProcessEvents::default()),
        };
        let (artifacts, logs) = (
            artifacts(&settings.artifacts).await?,
            logs(&settings.logs).await?,
        );
        let (artifacts, logs, mover) = match &settings.backup_directory {
            None => (artifacts, logs, None),
            Some(directory) => {
                let backed = backed(directory, artifacts, logs, metrics)?;
                (backed.artifacts, backed.logs, Some(backed.mover))
            }
        };
        let spool = Spool::open(&settings.spool, settings.upload_memory)
            .with_context(|| format!("spool {}", settings.spool.display()))?;
        let StorePorts {
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
        } = store;
        Ok(Self {
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
            artifacts,
            logs,
            events,
            backchannel: Arc::new(Backchannels::new(GuardedClient::new(
                settings.calls.clone(),
            )?)),
            vcs: Arc::new(NoVcs),
            clock,
            ids,
            spool,
            coordination,
            mover,
        })
    }
}
