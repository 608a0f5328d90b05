//! From settings to one adapter for each port.

use crate::{
    adapters::{
        backchannel::Backchannels,
        clock::{RandomIds, SystemClock, SystemRandomness},
        embedded::Embedded,
        fallback::{Drainer, FallbackArtifacts, FallbackLogs, Waiting},
        gcs::GcsBucket,
        in_process::InProcessEvents,
        local::{LocalArtifacts, LocalLogs, Spool},
        memory::MemoryKv,
        objects::{ObjectArtifacts, ObjectLogs},
        postgres::Postgres,
        redis::{self, ClaimMirror, MirrorStores, MirroredStores, RedisEvents},
        s3::S3Bucket,
        sled::SledKv,
        support::credentials_cache::CachedCredentials,
        support::guarded_http::GuardedClient,
        vcs::none::NoVcs,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Backchannel, Catalog, Clock, Credentials, EventBus, Fault,
        HostBackoffs, Ids, LeaderElection, LiveLogs, LogStore, Outbox, Parking, PauseStore,
        QueueNotifier, QueueStore, Randomness, RunRecorder, RunStore, ScheduleStore, Vcs,
    },
    settings::{FileStore, Settings, StoreChoice},
};
use anyhow::Context;
use backon::{ConstantBuilder, Retryable};
use std::{path::Path, sync::Arc, time::Duration};

/// How often the start tries to reach a database that is away.
const MAX_ATTEMPTS: usize = 30;
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The ports that one store serves. Naming them here is all that a new one takes.
pub(super) trait Store:
    QueueStore
    + ActiveRunStore
    + HostBackoffs
    + RunStore
    + RunRecorder
    + ScheduleStore
    + Outbox
    + LeaderElection
    + LiveLogs
    + QueueNotifier
    + Parking
    + PauseStore
    + Catalog
    + Credentials
{
}

impl<S> Store for S where
    S: QueueStore
        + ActiveRunStore
        + HostBackoffs
        + RunStore
        + RunRecorder
        + ScheduleStore
        + Outbox
        + LeaderElection
        + LiveLogs
        + QueueNotifier
        + Parking
        + PauseStore
        + Catalog
        + Credentials
{
}

/// One adapter for each port. What `store` serves and nothing stands before is taken from there.
pub(super) struct Ports {
    pub(super) store: Arc<dyn Store>,
    pub(super) active_runs: Arc<dyn ActiveRunStore>,
    pub(super) host_backoffs: Arc<dyn HostBackoffs>,
    pub(super) recorder: Arc<dyn RunRecorder>,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) artifacts: Arc<dyn ArtifactStore>,
    pub(super) logs: Arc<dyn LogStore>,
    pub(super) events: Arc<dyn EventBus>,
    pub(super) backchannel: Arc<dyn Backchannel>,
    pub(super) vcs: Arc<dyn Vcs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn Ids>,
    pub(super) randomness: Arc<dyn Randomness>,
    pub(super) spool: Spool,
    pub(super) claim_mirror: Option<Arc<ClaimMirror>>,
    pub(super) drainer: Option<Arc<Drainer>>,
}

async fn open_store(
    choice: &StoreChoice,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match choice {
        StoreChoice::Sled(path) => {
            let (path, metrics) = (path.clone(), metrics.clone());
            let opening = tokio::task::spawn_blocking(move || {
                Embedded::open(Arc::new(SledKv::open(&path)?), "sled", metrics)
            });
            Arc::new(opening.await??)
        }
        StoreChoice::Memory => Arc::new(Embedded::open(
            Arc::new(MemoryKv::default()),
            "memory",
            metrics.clone(),
        )?),
        StoreChoice::Postgres(settings) => {
            let settings = settings.into();
            let open = || Postgres::open(&settings, metrics.clone());
            let delays = ConstantBuilder::default()
                .with_delay(RETRY_DELAY)
                .with_max_times(MAX_ATTEMPTS);
            let opened = open
                .retry(delays)
                .when(Fault::is_unavailable)
                .notify(|fault, _| {
                    tracing::warn!(
                        error = fault as &dyn std::error::Error,
                        "the database is not available yet"
                    );
                });
            Arc::new(opened.await?)
        }
    })
}

async fn artifacts(choice: &FileStore) -> anyhow::Result<Arc<dyn ArtifactStore>> {
    Ok(match choice {
        FileStore::Directory(path) => Arc::new(LocalArtifacts::new(path.clone())),
        FileStore::Gcs(settings) => Arc::new(ObjectArtifacts::new(Arc::new(
            GcsBucket::open(&settings.into()).await?,
        ))),
        FileStore::S3(settings) => Arc::new(ObjectArtifacts::new(Arc::new(S3Bucket::open(
            &settings.into(),
        )?))),
    })
}

async fn logs(choice: &FileStore) -> anyhow::Result<Arc<dyn LogStore>> {
    Ok(match choice {
        FileStore::Directory(path) => Arc::new(LocalLogs::new(path.clone())),
        FileStore::Gcs(settings) => Arc::new(ObjectLogs::new(
            Arc::new(GcsBucket::open(&settings.into()).await?),
            "",
        )),
        FileStore::S3(settings) => Arc::new(ObjectLogs::new(
            Arc::new(S3Bucket::open(&settings.into())?),
            "logs/",
        )),
    })
}

/// The file stores with a local fallback before them.
struct WithFallback {
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    drainer: Arc<Drainer>,
}

fn with_fallback(
    directory: &Path,
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<WithFallback> {
    let (artifacts, spooled_artifacts) =
        FallbackArtifacts::new(artifacts, directory.join("artifacts"));
    let (logs, spooled_logs) = FallbackLogs::new(logs, directory.join("logs"));
    let spooled: Vec<Arc<dyn Waiting>> = vec![Arc::new(spooled_logs), Arc::new(spooled_artifacts)];
    let drainer = Drainer::new(directory, spooled, metrics.clone())
        .with_context(|| format!("backup directory {}", directory.display()))?;
    Ok(WithFallback {
        artifacts: Arc::new(artifacts),
        logs: Arc::new(logs),
        drainer: Arc::new(drainer),
    })
}

/// The ports that the mirror of the claims stands before.
struct Claims {
    active_runs: Arc<dyn ActiveRunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    recorder: Arc<dyn RunRecorder>,
    mirror: Option<Arc<ClaimMirror>>,
}

fn claims(
    url: Option<&str>,
    store: &Arc<dyn Store>,
    ids: &Arc<dyn Ids>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Claims> {
    let Some(url) = url else {
        return Ok(Claims {
            active_runs: store.clone(),
            host_backoffs: store.clone(),
            recorder: store.clone(),
            mirror: None,
        });
    };
    let stores = MirrorStores {
        active_runs: store.clone(),
        host_backoffs: store.clone(),
        runs: store.clone(),
        recorder: store.clone(),
    };
    let mirror = Arc::new(ClaimMirror::new(
        redis::connect(url)?,
        stores,
        ids.clone(),
        clock.clone(),
    ));
    let mirrored = Arc::new(MirroredStores(mirror.clone()));
    Ok(Claims {
        active_runs: mirrored.clone(),
        host_backoffs: mirrored.clone(),
        recorder: mirrored,
        mirror: Some(mirror),
    })
}

impl Ports {
    pub(super) async fn open(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        crate::tls::install();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        let store = open_store(&settings.store, metrics).await?;
        let claims = claims(settings.coordination.as_deref(), &store, &ids, &clock)?;
        let events: Arc<dyn EventBus> = match settings.events.as_deref() {
            Some(url) => Arc::new(RedisEvents::new(
                redis::connect(url)?,
                settings.coordinator.watch.run_timeout,
            )),
            None => Arc::new(InProcessEvents::default()),
        };
        let artifacts = artifacts(&settings.artifacts).await?;
        let logs = logs(&settings.logs).await?;
        let (artifacts, logs, drainer) = match &settings.backup_directory {
            None => (artifacts, logs, None),
            Some(directory) => {
                let stores = with_fallback(directory, artifacts, logs, metrics)?;
                (stores.artifacts, stores.logs, Some(stores.drainer))
            }
        };
        let spool = Spool::open(&settings.spool, settings.upload_memory)
            .with_context(|| format!("spool {}", settings.spool.display()))?;
        let guarded = GuardedClient::new((&settings.guarded_http).into())?;
        Ok(Self {
            credentials: Arc::new(CachedCredentials::new(store.clone())),
            active_runs: claims.active_runs,
            host_backoffs: claims.host_backoffs,
            recorder: claims.recorder,
            claim_mirror: claims.mirror,
            store,
            artifacts,
            logs,
            events,
            backchannel: Arc::new(Backchannels::new(guarded)),
            vcs: Arc::new(NoVcs),
            clock,
            ids,
            randomness: Arc::new(SystemRandomness),
            spool,
            drainer,
        })
    }
}
