//! `Watcher`: pings, leases and how soon items are free again.

use crate::support::{fixture::*, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    domain::{active_run::ActiveRun, caller::Caller, queue::Bucket, watch::Ping},
    ports::{
        ActiveRunStore, Backchannel, Parking, RunStore,
        active_runs::{ClaimRequest, MockActiveRunStore},
        backchannel::MockBackchannel,
    },
    services::watch::{PollConfig, Watcher, WatcherPorts},
};
use std::{sync::Arc, time::Duration};

async fn run_round(fixture: &Fixture, backchannel: Arc<dyn Backchannel>) {
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), working_logs());
    fixture
        .watcher(backchannel, finisher)
        .round()
        .await
        .unwrap();
}

#[tokio::test]
async fn run_without_backchannel_disappears_after_a_day() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    fixture.clock.advance(TimeDelta::hours(23));
    run_round(&fixture, Arc::new(NoBackchannel)).await;
    assert!(fixture.store.get(&id).await.unwrap().is_some());
    fixture.clock.advance(TimeDelta::hours(2));
    run_round(&fixture, Arc::new(NoBackchannel)).await;
    let run = fixture.store.run(&id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "run-disappeared");
    assert_eq!(run.transient, Some(true));
    assert_eq!(fixture.store.get(&id).await.unwrap(), None);
}

#[tokio::test]
async fn alive_ping_renews_the_run() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut backchannel = MockBackchannel::new();
    backchannel
        .expect_ping()
        .times(1)
        .returning(|_| Ping::Alive);
    fixture.clock.advance(TimeDelta::minutes(30));
    let backchannel = Arc::new(backchannel);
    run_round(&fixture, backchannel.clone()).await;
    run_round(&fixture, backchannel).await;
    assert_eq!(
        fixture.store.get(&id).await.unwrap().unwrap().keepalive,
        start() + TimeDelta::minutes(30)
    );
}

fn backchannel_returning(ping: Ping) -> Arc<MockBackchannel> {
    let mut backchannel = MockBackchannel::new();
    backchannel.expect_ping().returning(move |_| ping.clone());
    backchannel.expect_kill().returning(|_| Ok(()));
    Arc::new(backchannel)
}

#[tokio::test]
async fn three_fatal_pings_end_a_run_and_an_alive_one_resets_the_count() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let finisher = fixture.working_finisher();
    let (lost, alive) = (
        backchannel_returning(Ping::Fatal("idle".into())),
        backchannel_returning(Ping::Alive),
    );
    let lost = fixture.watcher(lost, finisher.clone());
    let alive = fixture.watcher(alive, finisher);
    fixture.clock.advance(TimeDelta::seconds(61));
    lost.clone().round().await.unwrap();
    // It is not pinged again before the next interval.
    lost.clone().round().await.unwrap();
    assert_eq!(fixture.store.get(&id).await.unwrap().unwrap().failures, 1);
    fixture.clock.advance(TimeDelta::seconds(30));
    alive.clone().round().await.unwrap();
    assert_eq!(fixture.store.get(&id).await.unwrap().unwrap().failures, 0);
    for _ in 0..3 {
        assert!(fixture.store.get(&id).await.unwrap().is_some());
        fixture.clock.advance(TimeDelta::seconds(61));
        lost.clone().round().await.unwrap();
    }
    let run = fixture.store.run(&id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "run-disappeared");
    assert_eq!(run.transient, Some(true));
    assert!(run.given_up);
    assert_eq!(run.description.as_deref(), Some("asked 3 times: idle"));
}

#[tokio::test]
async fn timed_out_run_is_killed_through_its_backchannel() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let (sender, mut killed) = tokio::sync::mpsc::unbounded_channel();
    let mut backchannel = MockBackchannel::new();
    backchannel
        .expect_ping()
        .returning(|_| Ping::Failed("no answer".into()));
    backchannel.expect_kill().times(1).returning(move |run| {
        sender.send(run.id.clone()).unwrap();
        Ok(())
    });
    let watcher = fixture.watcher(Arc::new(backchannel), fixture.working_finisher());
    fixture.clock.advance(TimeDelta::minutes(61));
    watcher.round().await.unwrap();
    assert_eq!(
        fixture.store.run(&id).await.unwrap().unwrap().code.as_str(),
        "worker-timeout"
    );
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), killed.recv())
            .await
            .unwrap()
            .unwrap(),
        id
    );
}

#[tokio::test]
async fn expired_lease_requeues_the_item_and_the_third_parks_it() {
    let fixture = Fixture::new();
    let watcher = fixture.watcher(
        backchannel_returning(Ping::Alive),
        fixture.working_finisher(),
    );
    for round in 1..=3 {
        let run = fixture.leased("aa", &format!("r{round}")).await;
        assert_eq!(run.item.bucket, Bucket::Default, "its own fixture");
        assert_eq!(run.item.id, 1, "its own fixture");
        fixture.clock.advance(TimeDelta::seconds(119));
        watcher.clone().round().await.unwrap();
        assert!(
            fixture.store.get(&run.id).await.unwrap().is_some(),
            "a worker with a lease is not pinged"
        );
        fixture.clock.advance(TimeDelta::seconds(2));
        watcher.clone().round().await.unwrap();
        let ended = fixture.store.run(&run.id).await.unwrap().unwrap();
        assert_eq!(ended.code.as_str(), "worker-timeout");
        assert_eq!(ended.transient, Some(true));
        assert_eq!(
            fixture.store.parked(None, 9).await.unwrap().len(),
            usize::from(round == 3)
        );
    }
    assert!(
        fixture.store.parked(None, 9).await.unwrap()[0]
            .state
            .parked
            .clone()
            .unwrap()
            .reason
            .contains("3 runs in a row")
    );
    assert_eq!(fixture.store.claim(claim("r9")).await.unwrap(), None);
}

#[tokio::test]
async fn watcher_survives_store_errors() {
    let fixture = Fixture::new();
    let mut active_runs = MockActiveRunStore::new();
    let (sender, mut listed) = tokio::sync::mpsc::unbounded_channel();
    active_runs.expect_list().returning(move || {
        sender.send(()).unwrap();
        Err(unavailable().into())
    });
    let ports = WatcherPorts {
        active_runs: Arc::new(active_runs),
        backchannel: Arc::new(NoBackchannel),
        finisher: fixture.working_finisher(),
        live_log: fixture.live_log.clone(),
        clock: fixture.clock.clone(),
        config: fixture.config.clone(),
        leader: fixture.leader.clone(),
        metrics: Arc::new(janitor_runner::metrics::Metrics::new()),
    };
    fixture.leader.renew().await;
    let watcher = Arc::new(Watcher::new(
        ports,
        PollConfig {
            interval: Duration::from_millis(5),
            max_concurrent_pings: 2,
        },
    ));
    let going = tokio::spawn(watcher.clone().run());
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(5), listed.recv())
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!going.is_finished());
    assert!(watcher.stalled_for().is_none());
    going.abort();
}

#[tokio::test(start_paused = true)]
async fn dead_watcher_is_reported_as_stalled() {
    let fixture = Fixture::new();
    let watcher = fixture.watcher(Arc::new(NoBackchannel), fixture.working_finisher());
    assert_eq!(watcher.stalled_for(), None);
    tokio::time::advance(Duration::from_secs(91)).await;
    assert!(watcher.stalled_for().unwrap().contains("91 s ago"));
}

/// Responds to pings of one run, and never to those of the other.
struct HangsOnFirstRun;

#[async_trait::async_trait]
impl Backchannel for HangsOnFirstRun {
    async fn ping(&self, run: &ActiveRun) -> Ping {
        if run.id.as_str() == "r1" {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        Ping::Alive
    }
    async fn kill(&self, _: &ActiveRun) -> Result<(), janitor_runner::ports::BackchannelError> {
        Ok(())
    }
    async fn list_logs(
        &self,
        _: &ActiveRun,
    ) -> Result<Vec<String>, janitor_runner::ports::BackchannelError> {
        Ok(vec![])
    }
    async fn read_log(
        &self,
        _: &ActiveRun,
        _: &str,
        _: u64,
    ) -> Result<
        janitor_runner::ports::artifact_store::FileReader,
        janitor_runner::ports::BackchannelError,
    > {
        Ok(Box::new(tokio::io::empty()))
    }
}

#[tokio::test]
async fn slow_worker_delays_no_other_ping() {
    let fixture = Fixture::new();
    fixture.queued(&["aa", "bb"]).await;
    for run in ["r1", "r2"] {
        fixture.store.claim(claim(run)).await.unwrap().unwrap();
    }
    fixture.clock.advance(TimeDelta::seconds(61));
    let watcher = fixture.watcher(Arc::new(HangsOnFirstRun), fixture.working_finisher());
    let round = tokio::spawn(watcher.round());
    let second = janitor_runner::domain::name::RunId::new("r2");
    let renewed = async {
        while fixture.store.get(&second).await.unwrap().unwrap().keepalive == start() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), renewed)
        .await
        .unwrap();
    round.abort();
}

/// With the default settings, a dead worker with a lease blocks its item for at most 150 s, and one without a lease that
/// refuses connections for at most three minutes.
#[tokio::test]
async fn items_of_dead_workers_are_free_within_three_minutes_by_default() {
    let settings = janitor_runner::settings::load(
        &[],
        janitor_runner::settings::Flags(figment::value::Dict::new()),
    )
    .unwrap()
    .settings;
    for (lease, at_most) in [(true, 150), (false, 180)] {
        for late in 0..10 {
            let fixture = Fixture::new();
            assert_eq!(
                settings.coordinator.watch, fixture.config.watch,
                "the rules of these tests are the defaults"
            );
            fixture.queued(&["aa"]).await;
            let lease = lease.then_some(fixture.config.watch.lease);
            let run = fixture
                .store
                .claim(ClaimRequest {
                    lease,
                    ..claim("r1")
                })
                .await
                .unwrap()
                .unwrap()
                .run;
            let watcher = fixture.watcher(
                backchannel_returning(Ping::Fatal("nobody listens".into())),
                fixture.working_finisher(),
            );
            // A round may come at any time after the last heartbeat.
            fixture.clock.advance(TimeDelta::seconds(late));
            let mut silent = late;
            while fixture.store.get(&run.id).await.unwrap().is_some() {
                let interval = i64::try_from(settings.poll.interval.as_secs()).unwrap();
                fixture.clock.advance(TimeDelta::seconds(interval));
                silent += interval;
                watcher.clone().round().await.unwrap();
                assert!(silent <= at_most, "claimed for more than {at_most} s");
            }
            assert!(
                fixture
                    .store
                    .claim(ClaimRequest {
                        now: fixture.now(),
                        ..claim("r2")
                    })
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
}

#[tokio::test]
async fn refused_connection_counts_only_after_a_response() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let finisher = fixture.working_finisher();
    let with = |ping| fixture.watcher(backchannel_returning(ping), finisher.clone());
    let refused = with(Ping::Refused("nobody listens".into()));
    for _ in 0..10 {
        fixture.clock.advance(TimeDelta::seconds(61));
        refused.clone().round().await.unwrap();
    }
    let run = fixture.store.get(&id).await.unwrap().unwrap();
    assert_eq!(run.failures, 0, "a worker behind a firewall may go on");
    with(Ping::Alive).round().await.unwrap();
    let run = fixture.store.get(&id).await.unwrap().unwrap();
    assert!(run.claimant.has_responded);
    for _ in 0..3 {
        assert!(fixture.store.get(&id).await.unwrap().is_some());
        fixture.clock.advance(TimeDelta::seconds(61));
        refused.clone().round().await.unwrap();
    }
    let run = fixture.store.run(&id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "run-disappeared");
}

#[tokio::test]
async fn unreachable_worker_times_out_after_the_run_timeout() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let refused = fixture.watcher(
        backchannel_returning(Ping::Refused("nobody listens".into())),
        fixture.working_finisher(),
    );
    fixture.clock.advance(TimeDelta::minutes(61));
    refused.round().await.unwrap();
    let run = fixture.store.run(&id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "worker-timeout");
}

#[tokio::test]
async fn maximum_duration_of_the_campaign_comes_before_that_of_all() {
    let fixture = Fixture::with_config(|config| {
        config.campaigns.campaigns[0].max_run_duration_minutes = Some(30);
    });
    let leased = fixture.leased("aa", "r1").await;
    let finisher = fixture.working_finisher();
    let watcher = fixture.watcher(backchannel_returning(Ping::Alive), finisher);
    for (minutes, is_active) in [(29, true), (2, false)] {
        fixture.clock.advance(TimeDelta::minutes(minutes));
        fixture
            .keepalive
            .renew(&leased.id, &Caller::Operator)
            .await
            .unwrap();
        watcher.clone().round().await.unwrap();
        let active = fixture.store.get(&leased.id).await.unwrap();
        assert_eq!(active.is_some(), is_active, "after {minutes} more minutes");
    }
    let run = fixture.store.run(&leased.id).await.unwrap().unwrap();
    let why = run.description.unwrap();
    assert!(why.contains("30 minutes"), "{why}");
}

#[tokio::test]
async fn run_with_heartbeats_ends_after_the_maximum_duration() {
    let fixture = Fixture::new();
    let leased = fixture.leased("aa", "r1").await;
    let watcher = fixture.watcher(
        backchannel_returning(Ping::Alive),
        fixture.working_finisher(),
    );
    for hours in [24, 23, 2] {
        assert!(fixture.store.get(&leased.id).await.unwrap().is_some());
        fixture.clock.advance(TimeDelta::hours(hours));
        fixture
            .keepalive
            .renew(&leased.id, &Caller::Operator)
            .await
            .unwrap();
        watcher.clone().round().await.unwrap();
    }
    let run = fixture.store.run(&leased.id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "worker-timeout");
    assert_eq!(run.transient, Some(true));
    let why = run.description.unwrap();
    assert!(why.contains("2880 minutes"), "{why}");
    let details = run.failure_details.unwrap();
    assert_eq!(details["termination_reason"], "max-duration");
}
