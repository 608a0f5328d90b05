//! Makes one adapter for each port, as the settings say.

use crate::{
    adapters::{
        backchannel::Backchannels,
        clock::{RandomIds, SystemClock, SystemRandomness},
        embedded::{Embedded, Kv},
        fallback::{Drainer, FallbackArtifacts, FallbackLogs, SpooledFiles},
        gcs::GcsBucket,
        in_process::InProcessEvents,
        local::{LocalArtifacts, LocalLogs, Spool},
        memory::MemoryKv,
        objects::{ObjectArtifacts, ObjectLogs},
        postgres::Postgres,
        redb::RedbKv,
        redis::{self, ClaimMirror, MirrorStores, MirroredStores, RedisEvents},
        s3::S3Bucket,
        sled::SledKv,
        support::guarded_http::GuardedClient,
        vcs::{BranchProber, none::NoVcs},
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, AuditLog, Backchannel, Catalog, Clock, Credentials,
        EventBus, Fault, HostBackoffs, Ids, LeaderElection, LiveLogs, LogStore, Outbox, Parking,
        PauseStore, QueueNotifier, QueueStore, Randomness, RunHistory, RunRecorder, RunStore,
        ScheduleStore, Vcs,
    },
    settings::{FileStore, Settings, StoreChoice, VcsSettings},
};
use anyhow::Context;
use backon::{ConstantBuilder, Retryable};
use std::{path::Path, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The number of attempts to reach a database that is unavailable, before the start fails.
const MAX_ATTEMPTS: usize = 30;
/// The delay between two attempts.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The ports that one store implements. A new port of a store is named only here.
pub(super) trait Store:
    QueueStore
    + ActiveRunStore
    + HostBackoffs
    + RunStore
    + RunHistory
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
    + AuditLog
{
}

impl<S> Store for S where
    S: QueueStore
        + ActiveRunStore
        + HostBackoffs
        + RunStore
        + RunHistory
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
        + AuditLog
{
}

/// One adapter for each port. Ports of the store that nothing wraps have no field of their own.
pub(super) struct Ports {
    /// The store itself, for the ports that nothing wraps.
    pub(super) store: Arc<dyn Store>,
    /// Cancelled when the store fails for good.
    pub(super) store_failed: CancellationToken,
    /// The active runs of the store, mirrored in Redis where that is set.
    pub(super) active_runs: Arc<dyn ActiveRunStore>,
    /// The backoffs of hosts, mirrored likewise.
    pub(super) host_backoffs: Arc<dyn HostBackoffs>,
    /// The recorder of runs, which also updates the mirror.
    pub(super) recorder: Arc<dyn RunRecorder>,
    /// The accounts of workers.
    pub(super) credentials: Arc<dyn Credentials>,
    /// The store of artifacts, with a fallback where that is set.
    pub(super) artifacts: Arc<dyn ArtifactStore>,
    /// The store of logs, with a fallback where that is set.
    pub(super) logs: Arc<dyn LogStore>,
    /// The bus that events are published on.
    pub(super) events: Arc<dyn EventBus>,
    /// The way to reach workers.
    pub(super) backchannel: Arc<dyn Backchannel>,
    /// The probe of branches.
    pub(super) vcs: Arc<dyn Vcs>,
    /// The clock.
    pub(super) clock: Arc<dyn Clock>,
    /// The source of ids.
    pub(super) ids: Arc<dyn Ids>,
    /// The source of randomness.
    pub(super) randomness: Arc<dyn Randomness>,
    /// The folder of uploads in progress.
    pub(super) spool: Spool,
    /// The mirror of active runs in Redis.
    pub(super) claim_mirror: Option<Arc<ClaimMirror>>,
    /// Moves files from the fallback directory to their stores.
    pub(super) drainer: Option<Arc<Drainer>>,
}

/// A store, and what is cancelled when it fails for good.
struct Opened {
    store: Arc<dyn Store>,
    failed: CancellationToken,
}

/// Opens an embedded store off the async threads.
async fn open_embedded(
    name: &'static str,
    metrics: &Arc<Metrics>,
    open: impl FnOnce() -> Result<Arc<dyn Kv>, Fault> + Send + 'static,
) -> anyhow::Result<Opened> {
    let metrics = metrics.clone();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(open()?, name, metrics));
    let store = match opened.await {
        // Engines panic about some kinds of damage.
        Err(error) if error.is_panic() => anyhow::bail!(
            "it cannot be read and may be damaged: it is left as it is; restore it from a backup, or \
             move it away ({error})"
        ),
        opened => opened??,
    };
    Ok(Opened {
        failed: store.failed(),
        store: Arc::new(store),
    })
}

async fn open_store(choice: &StoreChoice, metrics: &Arc<Metrics>) -> anyhow::Result<Opened> {
    Ok(match choice {
        StoreChoice::Sled(path) => {
            let path = path.clone();
            let open = move || Ok(Arc::new(SledKv::open(&path)?) as Arc<dyn Kv>);
            open_embedded("sled", metrics, open).await?
        }
        StoreChoice::Redb(path) => {
            let path = path.clone();
            let open = move || Ok(Arc::new(RedbKv::open(&path)?) as Arc<dyn Kv>);
            open_embedded("redb", metrics, open).await?
        }
        StoreChoice::Memory => {
            let open = || Ok(Arc::new(MemoryKv::default()) as Arc<dyn Kv>);
            open_embedded("memory", metrics, open).await?
        }
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
            Opened {
                store: Arc::new(opened.await?),
                // It connects again by itself.
                failed: CancellationToken::new(),
            }
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

/// The file stores, wrapped by a local fallback.
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
    let spooled: Vec<Arc<dyn SpooledFiles>> =
        vec![Arc::new(spooled_logs), Arc::new(spooled_artifacts)];
    let drainer = Drainer::new(directory, spooled, metrics.clone())
        .with_context(|| format!("backup directory {}", directory.display()))?;
    Ok(WithFallback {
        artifacts: Arc::new(artifacts),
        logs: Arc::new(logs),
        drainer: Arc::new(drainer),
    })
}

/// The ports that the mirror of active runs wraps.
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

fn vcs(settings: &VcsSettings, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Vcs>> {
    if settings.use_cached_only {
        return Ok(Arc::new(NoVcs));
    }
    let http = GuardedClient::new(settings.into())?;
    let prober = BranchProber::new(http, clock.clone(), settings.into());
    Ok(Arc::new(prober))
}

impl Ports {
    /// Opens every adapter.
    ///
    /// # Errors
    ///
    /// Returns an error when one of them cannot be opened.
    pub(super) async fn open(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        crate::tls::install();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        let Opened {
            store,
            failed: store_failed,
        } = open_store(&settings.store, metrics)
            .await
            .with_context(|| format!("store = {:?}", settings.store.to_string()))?;
        let claims = claims(settings.coordination.as_deref(), &store, &ids, &clock)?;
        let events: Arc<dyn EventBus> = match settings.events.as_deref() {
            Some(url) => Arc::new(RedisEvents::new(
                redis::connect(url)?,
                settings.coordinator.watch.run_timeout,
            )),
            None => Arc::new(InProcessEvents::default()),
        };
        let artifacts = artifacts(&settings.artifacts)
            .await
            .with_context(|| format!("artifacts = {:?}", settings.artifacts.to_string()))?;
        let logs = logs(&settings.logs)
            .await
            .with_context(|| format!("logs = {:?}", settings.logs.to_string()))?;
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
            credentials: store.clone(),
            active_runs: claims.active_runs,
            host_backoffs: claims.host_backoffs,
            recorder: claims.recorder,
            claim_mirror: claims.mirror,
            store,
            store_failed,
            artifacts,
            logs,
            events,
            backchannel: Arc::new(Backchannels::new(guarded)),
            vcs: vcs(&settings.vcs, &clock)?,
            clock,
            ids,
            randomness: Arc::new(SystemRandomness),
            spool,
            drainer,
        })
    }
}
