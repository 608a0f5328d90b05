//! The use cases with failing ports: what happens when a store is away at the wrong moment, and when time passes.

mod watching;

use crate::support::{FakeClock, in_memory, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::{
        backchannel::none::NoBackchannel,
        clock::{RandomIds, SystemRandomness},
        embedded::Embedded,
        in_process::InProcessEvents,
    },
    domain::{
        build::BuildSettings,
        campaign::{BuildTarget, Campaign, Campaigns},
        codebase::Codebase,
        name::{CampaignName, RunId},
        quarantine::QuarantinePolicy,
        queue::Bucket,
        retry::{Afterwards, RetryRule, RetryRules},
        vcs::{VcsStore, VcsType},
        watch::{Ping, WatchRules},
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ArtifactStore, Backchannel, Catalog, Event, Fault, LogStore, QueueStore,
        RunRecorder, RunStore, SpooledFile, Vcs,
        artifact_store::{Content, MockArtifactStore},
        backchannel::MockBackchannel,
        log_store::MockLogStore,
        queue_store::ClaimFilter,
        run_recorder::MockRunRecorder,
        run_store::MockRunStore,
        vcs::{EarlierBranch, MockVcs, Probe},
    },
    services::{
        CoordinatorConfig, Overview, ServiceError,
        assign::{AssignRequest, Assigner},
        finish::{Finishable, Finished, Finisher, RunLocks, Upload},
        follow_up::FollowUps,
        keepalive::Keepalive,
        leadership::Leader,
        live_log::LiveLogIngest,
        outbox_publisher::OutboxPublisher,
        retry::RetryPolicy,
        status_publisher::StatusPublisher,
        watch::{PollConfig, Watcher, WatcherPorts},
    },
};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

struct Place {
    store: Arc<Embedded>,
    clock: Arc<FakeClock>,
    config: Arc<CoordinatorConfig>,
    events: Arc<InProcessEvents>,
    status_publisher: Arc<StatusPublisher>,
    leader: Arc<Leader>,
    outbox_publisher: Arc<OutboxPublisher>,
    follow_ups: Arc<FollowUps>,
    keepalive: Arc<Keepalive>,
    live_log: Arc<LiveLogIngest>,
    retry_policy: Arc<RetryPolicy>,
}

fn vanished_rule() -> RetryRule {
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

fn deployment() -> CoordinatorConfig {
    let campaign = Campaign {
        name: campaign_name("gen"),
        command: Some("true".into()),
        branch_name: None,
        force_build: false,
        skip_setup_validation: false,
        default_empty: true,
        build: Some(BuildTarget::Generic { chroot: None }),
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
        },
        retries: RetryRules(vec![vanished_rule()]),
        quarantine: QuarantinePolicy {
            codes: vec!["worker-failure".into()],
            quarantine_after: 2,
        },
        live_logs: 1000,
        use_cached_only: false,
    }
}

fn place() -> Place {
    let (store, clock, config) = (
        Arc::new(in_memory()),
        FakeClock::new(),
        Arc::new(deployment()),
    );
    let events = Arc::new(InProcessEvents::default());
    let overview = Arc::new(Overview::new(
        store.clone(),
        store.clone(),
        store.clone(),
        store.clone(),
        clock.clone(),
        config.clone(),
    ));
    let status_publisher = Arc::new(StatusPublisher::new(overview, events.clone()));
    let leader = Arc::new(Leader::new(store.clone(), "this".to_owned()));
    let follow_ups = Arc::new(FollowUps::new(
        store.clone(),
        store.clone(),
        clock.clone(),
        leader.clone(),
    ));
    let outbox_publisher = Arc::new(OutboxPublisher::new(
        store.clone(),
        events.clone(),
        leader.clone(),
        Arc::new(Metrics::new()),
    ));
    let keepalive = Arc::new(Keepalive::new(
        store.clone(),
        store.clone(),
        clock.clone(),
        config.clone(),
    ));
    let live_log = Arc::new(LiveLogIngest::new(
        store.clone(),
        keepalive.clone(),
        config.clone(),
    ));
    let retry_policy = Arc::new(RetryPolicy {
        parking: store.clone(),
        pauses: store.clone(),
        credentials: store.clone(),
        clock: clock.clone(),
        randomness: Arc::new(SystemRandomness),
        config: config.clone(),
    });
    Place {
        store,
        clock,
        config,
        events,
        status_publisher,
        leader,
        outbox_publisher,
        follow_ups,
        keepalive,
        live_log,
        retry_policy,
    }
}

fn working_artifacts() -> Arc<dyn ArtifactStore> {
    let mut artifacts = MockArtifactStore::new();
    artifacts.expect_store().returning(|_, _| Ok(()));
    Arc::new(artifacts)
}

fn working_logs() -> Arc<dyn LogStore> {
    let mut logs = MockLogStore::new();
    logs.expect_store().returning(|_, _, _| Ok(()));
    Arc::new(logs)
}

fn away() -> Fault {
    Fault::unavailable("try", "it is away")
}

impl Place {
    fn finisher(
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
            turns: RunLocks::default(),
        })
    }

    fn assigner(&self, runs: Arc<dyn RunStore>, vcs: Arc<dyn Vcs>) -> Arc<Assigner> {
        Arc::new(Assigner {
            queue: self.store.clone(),
            active_runs: self.store.clone(),
            host_backoffs: self.store.clone(),
            runs,
            vcs,
            finisher: self.finisher(self.store.clone(), working_artifacts(), working_logs()),
            status_publisher: self.status_publisher.clone(),
            clock: self.clock.clone(),
            ids: Arc::new(RandomIds),
            config: self.config.clone(),
            metrics: Arc::new(Metrics::new()),
            tasks: TaskTracker::new(),
        })
    }

    fn watcher(&self, backchannel: Arc<dyn Backchannel>, finisher: Arc<Finisher>) -> Arc<Watcher> {
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
                at_once: 8,
            },
        ))
    }

    async fn queued(&self, codebases: &[&str]) {
        let at = |name: &&str| codebase_at(name, &format!("https://{name}.example/x"));
        self.store
            .upload_codebases(codebases.iter().map(at).collect())
            .await
            .unwrap();
        self.store
            .enqueue(batch(
                codebases
                    .iter()
                    .map(|name| wish(name, Bucket::Default, 1.0))
                    .collect(),
            ))
            .await
            .unwrap();
    }

    async fn held(&self) -> RunId {
        self.queued(&["aa"]).await;
        self.store.claim(claim("r1")).await.unwrap().unwrap().run.id
    }

    async fn nothing_is_held(&self) -> bool {
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

fn upload(report: &str) -> Upload {
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
        report: report.as_bytes().to_vec(),
        files: vec![file, log],
        changes: vec![],
    }
}

const SUCCESS: &str = r#"{"code": "success", "revision": "r", "target": {"name": "generic"}}"#;

#[tokio::test]
async fn artifacts_that_cannot_be_stored_fail_the_run_but_keep_it() {
    let place = place();
    let id = place.held().await;
    let mut artifacts = MockArtifactStore::new();
    artifacts
        .expect_store()
        .times(1)
        .returning(|_, _| Err(away()));
    let finisher = place.finisher(place.store.clone(), Arc::new(artifacts), working_logs());
    let finished = finish(&finisher, &id, SUCCESS).await.unwrap();
    assert_eq!(
        (finished.run.code.as_str(), finished.run.revision.as_deref()),
        ("artifact-upload-failed", Some("r"))
    );
    assert_eq!(place.store.run(&id).await.unwrap().unwrap(), finished.run);
}

#[tokio::test]
async fn logs_that_cannot_be_stored_are_not_claimed_to_be() {
    let place = place();
    let id = place.held().await;
    let mut logs = MockLogStore::new();
    logs.expect_store()
        .times(1)
        .returning(|_, _, _| Err(away()));
    let finisher = place.finisher(place.store.clone(), working_artifacts(), Arc::new(logs));
    let finished = finish(&finisher, &id, SUCCESS).await.unwrap();
    assert_eq!(
        (finished.run.code.as_str(), finished.run.logfilenames.len()),
        ("success", 0)
    );
}

#[tokio::test]
async fn a_result_store_that_is_away_leaves_the_run_to_be_finished_again() {
    let place = place();
    let id = place.held().await;
    let mut recorder = MockRunRecorder::new();
    recorder
        .expect_record()
        .times(1)
        .returning(|_| Err(away().into()));
    let finisher = place.finisher(Arc::new(recorder), working_artifacts(), working_logs());
    let refused = finish(&finisher, &id, SUCCESS).await;
    assert!(matches!(refused, Err(ServiceError::Fault(fault)) if fault.is_unavailable()));
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    assert!(finish(&finisher, &id, SUCCESS).await.unwrap().first_time);
}

#[tokio::test]
async fn a_result_is_told() {
    let place = place();
    let id = place.held().await;
    let mut listener = place.events.listen();
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    let first = finish(&finisher, &id, SUCCESS).await.unwrap();
    place.outbox_publisher.tell().await.unwrap();
    assert_eq!(
        listener.try_recv().unwrap(),
        Event::Result(Box::new(first.run.clone()))
    );
    let again = finish(&finisher, &id, "{}").await.unwrap();
    assert_eq!((again.first_time, again.run), (false, first.run));
    assert_eq!(place.outbox_publisher.tell().await.unwrap(), 0);
    assert!(listener.try_recv().is_err());
}

#[tokio::test]
async fn a_failure_on_the_way_lets_the_item_go() {
    let place = place();
    place.queued(&["aa"]).await;
    let mut vcs = MockVcs::new();
    vcs.expect_probe().returning(|_| Probe::Unknown("x".into()));
    vcs.expect_earlier_branch().returning(|_, _| {
        Some(EarlierBranch {
            url: "u".into(),
            revision: "r".into(),
        })
    });
    let mut runs = MockRunStore::new();
    runs.expect_run_of_revision()
        .returning(|_, _| Err(away().into()));
    let refused = place
        .assigner(Arc::new(runs), Arc::new(vcs))
        .assign(AssignRequest::default())
        .await;
    assert!(matches!(refused, Err(ServiceError::Fault(_))));
    assert!(place.nothing_is_held().await);
}

#[tokio::test]
async fn a_host_that_is_rate_limited_is_skipped_and_its_item_kept() {
    let place = place();
    place.queued(&["aa", "bb"]).await;
    let until = start() + TimeDelta::minutes(2);
    let mut vcs = MockVcs::new();
    vcs.expect_earlier_branch().returning(|_, _| None);
    vcs.expect_probe()
        .returning(move |codebase| match codebase.host().as_deref() {
            Some("aa.example") => Probe::RateLimited(until),
            _ => Probe::Availability {
                url: "https://elsewhere/x".into(),
                vcs_type: VcsType::Git,
            },
        });
    let assigner = place.assigner(place.store.clone(), Arc::new(vcs));
    let assignment = assigner.assign(AssignRequest::default()).await.unwrap();
    assert_eq!(assignment.run.item.key.codebase.as_str(), "bb");
    assert_eq!(
        assignment.branch_url.as_deref(),
        Some("https://elsewhere/x")
    );
    let stored = place.store.get(&assignment.run.id).await.unwrap().unwrap();
    assert_eq!(
        stored.vcs.branch_url.as_deref(),
        Some("https://elsewhere/x")
    );
    assert!(matches!(
        assigner.assign(AssignRequest::default()).await,
        Err(ServiceError::QueueEmpty)
    ));
    assert_eq!(place.store.latest(9).await.unwrap(), vec![]);
    place.clock.advance(TimeDelta::minutes(3));
    assert!(
        place
            .store
            .peek(&ClaimFilter::default(), until)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn when_only_limited_hosts_are_left_the_worker_is_told_until_when() {
    let place = place();
    place.queued(&["aa"]).await;
    let until = start() + TimeDelta::minutes(2);
    let mut vcs = MockVcs::new();
    vcs.expect_probe()
        .returning(move |_| Probe::RateLimited(until));
    let assigner = place.assigner(place.store.clone(), Arc::new(vcs));
    assert!(
        matches!(assigner.assign(AssignRequest::default()).await, Err(ServiceError::RateLimited(told)) if told == until)
    );
    assert!(
        ActiveRunStore::list(place.store.as_ref())
            .await
            .unwrap()
            .is_empty()
    );
}

/// Says when it is asked, and answers when it is told to.
struct SlowVcs(Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>);
#[async_trait::async_trait]
impl Vcs for SlowVcs {
    async fn probe(&self, _: &Codebase) -> Probe {
        self.0.notify_one();
        self.1.notified().await;
        Probe::Unknown("slow".into())
    }
    async fn earlier_branch(&self, _: &Codebase, _: &CampaignName) -> Option<EarlierBranch> {
        None
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_claimed() {
    let place = place();
    place.queued(&["aa"]).await;
    let (asked, wait) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let assigner = place.assigner(
        place.store.clone(),
        Arc::new(SlowVcs(asked.clone(), wait.clone())),
    );
    let caller = tokio::spawn(async move { assigner.assign(AssignRequest::default()).await });
    asked.notified().await;
    caller.abort();
    assert!(caller.await.is_err());
    wait.notify_one();
    let free = async {
        while !place.nothing_is_held().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), free)
        .await
        .unwrap();
}

/// Finishes a run as the API does.
async fn finish(finisher: &Finisher, id: &RunId, report: &str) -> Result<Finished, ServiceError> {
    match finisher.find(id, None).await? {
        Finishable::Active(held) => finisher.finish(*held, &upload(report)).await,
        Finishable::Finished(run) => Ok(Finished {
            run: *run,
            first_time: false,
        }),
    }
}

async fn watched(place: &Place, backchannel: Arc<dyn Backchannel>) {
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    place.watcher(backchannel, finisher).round().await.unwrap();
}

#[tokio::test]
async fn a_run_nobody_can_ask_about_is_ended_after_a_day() {
    let place = place();
    let id = place.held().await;
    place.clock.advance(TimeDelta::hours(23));
    watched(&place, Arc::new(NoBackchannel)).await;
    assert!(place.store.get(&id).await.unwrap().is_some());
    place.clock.advance(TimeDelta::hours(2));
    watched(&place, Arc::new(NoBackchannel)).await;
    let run = place.store.run(&id).await.unwrap().unwrap();
    assert_eq!(
        (run.code.as_str(), run.transient),
        ("run-disappeared", Some(true))
    );
    assert_eq!(place.store.get(&id).await.unwrap(), None);
}

#[tokio::test]
async fn a_worker_that_answers_keeps_its_run() {
    let place = place();
    let id = place.held().await;
    let mut backchannel = MockBackchannel::new();
    backchannel
        .expect_ping()
        .times(1)
        .returning(|_| Ping::Alive);
    place.clock.advance(TimeDelta::minutes(30));
    let backchannel = Arc::new(backchannel);
    watched(&place, backchannel.clone()).await;
    watched(&place, backchannel).await;
    assert_eq!(
        place.store.get(&id).await.unwrap().unwrap().keepalive,
        start() + TimeDelta::minutes(30)
    );
}

#[tokio::test]
async fn follow_ups_are_carried_out_once_and_dropped_without_a_candidate() {
    let place = place();
    place
        .store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    place
        .store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    place
        .store
        .enqueue(batch(vec![wish("bb", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    for run in ["r1", "r2"] {
        let active = place.store.claim(claim(run)).await.unwrap().unwrap().run;
        finish(&finisher, &active.id, SUCCESS).await.unwrap();
    }
    assert_eq!(place.follow_ups.carry_out().await.unwrap(), 2);
    assert_eq!(place.follow_ups.carry_out().await.unwrap(), 0);
    let queued = QueueStore::list(place.store.as_ref(), 9).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(
        (
            queued[0].key.codebase.as_str(),
            queued[0].requester.as_deref()
        ),
        ("aa", Some("after run schedule"))
    );
}
