//! The services over an embedded store, with a clock that the test sets and ports that it may replace.

use crate::support::{FakeClock, in_memory, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::{
        clock::{RandomIds, SystemRandomness},
        embedded::Embedded,
        in_process::InProcessEvents,
        vcs::none::NoVcs,
    },
    domain::{
        active_run::ActiveRun,
        build::BuildSettings,
        caller::Caller,
        campaign::{BuildTarget, Campaign, Campaigns},
        interval::IntervalRules,
        name::RunId,
        quarantine::QuarantinePolicy,
        queue::Bucket,
        report,
        retry::{Afterwards, RetryRule, RetryRules},
        vcs::VcsStore,
        watch::WatchRules,
        worker_limits::{LoginLimits, MaxOfWorker},
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Backchannel, Catalog, Fault, LogStore, QueueStore,
        RunRecorder, RunStore, SpooledFile, Vcs,
        active_runs::ClaimRequest,
        artifact_store::{Content, MockArtifactStore},
        log_store::MockLogStore,
        queue_store::ClaimFilter,
    },
    services::{
        CoordinatorConfig, Overview, ServiceError,
        assign::Assigner,
        finish::{Finishable, Finished, Finisher, RunLocks, Upload},
        follow_up::FollowUps,
        keepalive::Keepalive,
        leadership::Leader,
        live_log::LiveLogIngest,
        long_poll::LongPoll,
        outbox_publisher::OutboxPublisher,
        prober::Prober,
        resumption::Resumption,
        retry::RetryPolicy,
        status_publisher::StatusPublisher,
        watch::{PollConfig, Watcher, WatcherPorts},
        worker_limits::WorkerLimits,
    },
};
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct Fixture {
    pub store: Arc<Embedded>,
    pub clock: Arc<FakeClock>,
    pub config: Arc<CoordinatorConfig>,
    pub events: Arc<InProcessEvents>,
    pub status_publisher: Arc<StatusPublisher>,
    pub leader: Arc<Leader>,
    pub outbox_publisher: Arc<OutboxPublisher>,
    pub follow_ups: Arc<FollowUps>,
    pub keepalive: Arc<Keepalive>,
    pub live_log: Arc<LiveLogIngest>,
    pub retry_policy: Arc<RetryPolicy>,
}

pub fn vanished_rule() -> RetryRule {
    RetryRule {
        name: "vanished".into(),
        codes: vec!["worker-timeout".into(), "run-disappeared".into()],
        stage: None,
        transient: None,
        attempts: 3,
        delay: TimeDelta::zero(),
        factor: 1.0,
        max_delay: TimeDelta::zero(),
        jitter: 0.0,
        afterwards: Afterwards::Park,
    }
}

pub fn coordinator_config() -> CoordinatorConfig {
    let campaign = Campaign {
        name: campaign_name("gen"),
        command: Some("true".into()),
        branch_name: None,
        force_build: false,
        skip_setup_validation: false,
        default_empty: true,
        build: Some(BuildTarget::Generic { chroot: None }),
        max_run_duration_minutes: None,
    };
    CoordinatorConfig {
        campaigns: Campaigns {
            campaigns: vec![campaign],
            distributions: vec![],
        },
        build: BuildSettings::default(),
        vcs_store: VcsStore::default(),
        committer: None,
        avoid_hosts: vec![],
        watch: WatchRules {
            ping_after: TimeDelta::minutes(1),
            suspect_after: TimeDelta::seconds(30),
            run_timeout: TimeDelta::minutes(60),
            lease: TimeDelta::minutes(2),
            max_duration: Some(TimeDelta::days(2)),
        },
        retries: RetryRules(vec![vanished_rule()]),
        logins: LoginLimits {
            by_address: 30,
            by_name: 100,
        },
        max_of_worker: MaxOfWorker {
            runs: 100,
            requests_per_second: 500,
        },
        intervals: IntervalRules {
            first: TimeDelta::zero(),
            longest: TimeDelta::zero(),
        },
        quarantine: QuarantinePolicy {
            codes: vec!["worker-failure".into()],
            quarantine_after: 2,
        },
        live_logs: 1000,
        forges: vec![],
        probing: janitor_runner::domain::probe_limits::ProbeLimits::default(),
    }
}

pub fn working_artifacts() -> Arc<dyn ArtifactStore> {
    let mut artifacts = MockArtifactStore::new();
    artifacts.expect_store().returning(|_, _| Ok(()));
    Arc::new(artifacts)
}

pub fn working_logs() -> Arc<dyn LogStore> {
    let mut logs = MockLogStore::new();
    logs.expect_store().returning(|_, _, _| Ok(()));
    logs.expect_open().returning(|_, _| Ok(None));
    Arc::new(logs)
}

pub fn unavailable() -> Fault {
    Fault::unavailable("try", "it is down")
}

/// The publisher of what is running, on the events of this process.
fn status_publisher(
    store: &Arc<Embedded>,
    clock: &Arc<FakeClock>,
    config: &Arc<CoordinatorConfig>,
    events: &Arc<InProcessEvents>,
) -> Arc<StatusPublisher> {
    let prober = Prober::new(
        Arc::new(NoVcs),
        clock.clone(),
        Arc::new(Metrics::new()),
        config.probing,
    );
    let overview = Overview::new(
        store.clone(),
        store.clone(),
        store.clone(),
        store.clone(),
        clock.clone(),
        config.clone(),
        Arc::new(prober),
    );
    Arc::new(StatusPublisher::new(Arc::new(overview), events.clone()))
}

impl Fixture {
    /// Services over an empty store, at the time of [`start`].
    pub fn new() -> Self {
        Self::with_config(|_| {})
    }

    /// The same with a configuration that `change` changes.
    pub fn with_config(change: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        let store = Arc::new(in_memory());
        let clock = FakeClock::new();
        let mut config = coordinator_config();
        change(&mut config);
        let config = Arc::new(config);
        let events = Arc::new(InProcessEvents::default());
        let leader = Arc::new(Leader::new(store.clone(), "this".to_owned()));
        let keepalive = Arc::new(Keepalive::new(
            store.clone(),
            store.clone(),
            clock.clone(),
            config.clone(),
        ));
        Self {
            status_publisher: status_publisher(&store, &clock, &config, &events),
            outbox_publisher: Arc::new(OutboxPublisher::new(
                store.clone(),
                events.clone(),
                leader.clone(),
                Arc::new(Metrics::new()),
            )),
            follow_ups: Arc::new(FollowUps::new(
                store.clone(),
                store.clone(),
                clock.clone(),
                leader.clone(),
                config.intervals,
            )),
            live_log: Arc::new(LiveLogIngest::new(
                store.clone(),
                keepalive.clone(),
                config.clone(),
            )),
            retry_policy: Arc::new(RetryPolicy {
                parking: store.clone(),
                pauses: store.clone(),
                credentials: store.clone(),
                clock: clock.clone(),
                randomness: Arc::new(SystemRandomness),
                config: config.clone(),
            }),
            store,
            clock,
            config,
            events,
            leader,
            keepalive,
        }
    }

    pub fn finisher(
        &self,
        recorder: Arc<dyn RunRecorder>,
        artifacts: Arc<dyn ArtifactStore>,
        logs: Arc<dyn LogStore>,
    ) -> Arc<Finisher> {
        Arc::new(Finisher {
            active_runs: self.store.clone(),
            runs: self.store.clone(),
            recorder,
            artifacts,
            logs,
            live_log: self.live_log.clone(),
            retry_policy: self.retry_policy.clone(),
            follow_ups: self.follow_ups.clone(),
            outbox_publisher: self.outbox_publisher.clone(),
            status_publisher: self.status_publisher.clone(),
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::new()),
            run_locks: RunLocks::default(),
            tasks: TaskTracker::new(),
        })
    }

    pub fn assigner(&self, runs: Arc<dyn RunStore>, vcs: Arc<dyn Vcs>) -> Arc<Assigner> {
        self.assigner_for(coordinator_config().max_of_worker.runs, runs, vcs)
    }

    /// The same for workers that may have so many runs.
    pub fn assigner_for(
        &self,
        max_runs: u32,
        runs: Arc<dyn RunStore>,
        vcs: Arc<dyn Vcs>,
    ) -> Arc<Assigner> {
        let max_of_worker = MaxOfWorker {
            runs: max_runs,
            ..coordinator_config().max_of_worker
        };
        let prober = Arc::new(Prober::new(
            vcs,
            self.clock.clone(),
            Arc::new(Metrics::new()),
            self.config.probing,
        ));
        let resumption = Resumption::new(
            prober.clone(),
            runs.clone(),
            self.store.clone(),
            self.clock.clone(),
            self.config.clone(),
        );
        Arc::new(Assigner {
            prober,
            resumption: Arc::new(resumption),
            worker_limits: Arc::new(WorkerLimits::new(max_of_worker, self.store.clone())),
            queue: self.store.clone(),
            active_runs: self.store.clone(),
            host_backoffs: self.store.clone(),
            runs,
            finisher: self.finisher(self.store.clone(), working_artifacts(), working_logs()),
            status_publisher: self.status_publisher.clone(),
            clock: self.clock.clone(),
            ids: Arc::new(RandomIds),
            config: self.config.clone(),
            metrics: Arc::new(Metrics::new()),
            tasks: TaskTracker::new(),
        })
    }

    pub fn watcher(
        &self,
        backchannel: Arc<dyn Backchannel>,
        finisher: Arc<Finisher>,
    ) -> Arc<Watcher> {
        let ports = WatcherPorts {
            active_runs: self.store.clone(),
            backchannel,
            finisher,
            live_log: self.live_log.clone(),
            clock: self.clock.clone(),
            config: self.config.clone(),
            leader: self.leader.clone(),
            metrics: Arc::new(Metrics::new()),
        };
        Arc::new(Watcher::new(
            ports,
            PollConfig {
                interval: std::time::Duration::from_secs(1),
                max_concurrent_pings: 8,
            },
        ))
    }

    pub async fn queued(&self, codebases: &[&str]) {
        let at = |name: &&str| codebase_at(name, &format!("https://{name}.example/x"));
        self.store
            .upload_codebases(codebases.iter().map(at).collect())
            .await
            .unwrap();
        self.store
            .enqueue(batch(
                codebases
                    .iter()
                    .map(|name| enqueue_request(name, Bucket::Default, 1.0))
                    .collect(),
            ))
            .await
            .unwrap();
    }

    pub async fn claimed(&self) -> RunId {
        self.queued(&["aa"]).await;
        self.store.claim(claim("r1")).await.unwrap().unwrap().run.id
    }

    pub async fn nothing_is_claimed(&self) -> bool {
        ActiveRunStore::list(self.store.as_ref())
            .await
            .unwrap()
            .is_empty()
            && self
                .store
                .peek(&ClaimFilter::default(), start())
                .await
                .unwrap()
                .is_some()
    }
}

pub fn upload(report: &str) -> Upload {
    let file = SpooledFile {
        name: "out".into(),
        content: Content::Memory(b"x".to_vec().into()),
        size: 1,
    };
    let log = SpooledFile {
        name: "w.log".into(),
        ..file.clone()
    };
    Upload {
        files: vec![file, log],
        ..Upload::new(report::read(report.as_bytes()))
    }
}

pub const SUCCESS_REPORT: &str =
    r#"{"code": "success", "revision": "r", "target": {"name": "generic"}}"#;

/// Finishes a run as the API does.
pub async fn finish(
    finisher: &Arc<Finisher>,
    id: &RunId,
    report: &str,
) -> Result<Finished, ServiceError> {
    match finisher.find(id, &Caller::Operator).await? {
        Finishable::Active(claimed) => finisher.finish(*claimed, upload(report)).await,
        Finishable::Finished(run) => Ok(Finished {
            run: *run,
            first_time: false,
        }),
    }
}

impl Fixture {
    pub fn working_finisher(&self) -> Arc<janitor_runner::services::finish::Finisher> {
        self.finisher(self.store.clone(), working_artifacts(), working_logs())
    }

    pub async fn leased(&self, codebase: &str, run: &str) -> ActiveRun {
        self.queued(&[codebase]).await;
        let request = ClaimRequest {
            lease: Some(self.config.watch.lease),
            now: self.now(),
            ..claim(run)
        };
        self.store.claim(request).await.unwrap().unwrap().run
    }

    pub fn now(&self) -> janitor_runner::domain::time::Time {
        use janitor_runner::ports::Clock;
        self.clock.now()
    }

    pub fn long_poll(&self, ending: &CancellationToken) -> Arc<LongPoll> {
        let assigner = self.assigner(self.store.clone(), Arc::new(NoVcs));
        Arc::new(LongPoll::new(
            assigner,
            self.store.clone(),
            self.store.clone(),
            self.clock.clone(),
            ending.clone(),
        ))
    }
}
