//! `Watcher`: pings, leases and how soon items are free again.

use crate::support::{fixture::*, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    domain::{active_run::ActiveRun, queue::Bucket, watch::Ping},
    ports::{
        ActiveRunStore, Backchannel, Parking, RunStore,
        active_runs::{ClaimRequest, MockActiveRunStore},
        backchannel::MockBackchannel,
    },
    services::watch::{PollConfig, Watcher, WatcherPorts},
};
use std::{sync::Arc, time::Duration};

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
    assert_eq!(run.code.as_str(), "run-disappeared");
    assert_eq!(run.transient, Some(true));
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

fn answering(ping: Ping) -> Arc<MockBackchannel> {
    let mut backchannel = MockBackchannel::new();
    backchannel.expect_ping().returning(move |_| ping.clone());
    backchannel.expect_kill().returning(|_| Ok(()));
    Arc::new(backchannel)
}

#[tokio::test]
async fn three_fatal_answers_end_a_run_and_a_good_one_clears_the_worker() {
    let place = place();
    let id = place.held().await;
    let finisher = place.working_finisher();
    let (lost, alive) = (
        answering(Ping::Fatal("idle".into())),
        answering(Ping::Alive),
    );
    let lost = place.watcher(lost, finisher.clone());
    let alive = place.watcher(alive, finisher);
    place.clock.advance(TimeDelta::seconds(61));
    lost.clone().round().await.unwrap();
    // Not asked again at once.
    lost.clone().round().await.unwrap();
    assert_eq!(place.store.get(&id).await.unwrap().unwrap().failures, 1);
    place.clock.advance(TimeDelta::seconds(30));
    alive.clone().round().await.unwrap();
    assert_eq!(place.store.get(&id).await.unwrap().unwrap().failures, 0);
    for _ in 0..3 {
        assert!(place.store.get(&id).await.unwrap().is_some());
        place.clock.advance(TimeDelta::seconds(61));
        lost.clone().round().await.unwrap();
    }
    let run = place.store.run(&id).await.unwrap().unwrap();
    assert_eq!(run.code.as_str(), "run-disappeared");
    assert_eq!(run.transient, Some(true));
    assert!(run.given_up);
    assert_eq!(run.description.as_deref(), Some("asked 3 times: idle"));
}

#[tokio::test]
async fn a_run_that_times_out_is_told_to_stop() {
    let place = place();
    let id = place.held().await;
    let (told, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let mut backchannel = MockBackchannel::new();
    backchannel
        .expect_ping()
        .returning(|_| Ping::Failed("no answer".into()));
    backchannel.expect_kill().times(1).returning(move |run| {
        told.send(run.id.clone()).unwrap();
        Ok(())
    });
    let watcher = place.watcher(Arc::new(backchannel), place.working_finisher());
    place.clock.advance(TimeDelta::minutes(61));
    watcher.round().await.unwrap();
    assert_eq!(
        place.store.run(&id).await.unwrap().unwrap().code.as_str(),
        "worker-timeout"
    );
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), stopped.recv())
            .await
            .unwrap()
            .unwrap(),
        id
    );
}

#[tokio::test]
async fn a_lease_that_runs_out_frees_the_item_and_the_third_time_parks_it() {
    let place = place();
    let watcher = place.watcher(answering(Ping::Alive), place.working_finisher());
    for round in 1..=3 {
        let run = place.leased("aa", &format!("r{round}")).await;
        assert_eq!(run.item.bucket, Bucket::Default, "its own place");
        assert_eq!(run.item.id, 1, "its own place");
        place.clock.advance(TimeDelta::seconds(119));
        watcher.clone().round().await.unwrap();
        assert!(
            place.store.get(&run.id).await.unwrap().is_some(),
            "a worker with a lease is not pinged"
        );
        place.clock.advance(TimeDelta::seconds(2));
        watcher.clone().round().await.unwrap();
        let ended = place.store.run(&run.id).await.unwrap().unwrap();
        assert_eq!(ended.code.as_str(), "worker-timeout");
        assert_eq!(ended.transient, Some(true));
        assert_eq!(
            place.store.parked(None, 9).await.unwrap().len(),
            usize::from(round == 3)
        );
    }
    assert!(
        place.store.parked(None, 9).await.unwrap()[0]
            .state
            .parked
            .clone()
            .unwrap()
            .reason
            .contains("3 runs in a row")
    );
    assert_eq!(place.store.claim(claim("r9")).await.unwrap(), None);
}

/// A store that is away does not end the watching.
#[tokio::test]
async fn a_watcher_survives_every_error_of_a_store() {
    let place = place();
    let mut active_runs = MockActiveRunStore::new();
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    active_runs.expect_list().returning(move || {
        told.send(()).unwrap();
        Err(away().into())
    });
    let ports = WatcherPorts {
        active_runs: Arc::new(active_runs),
        backchannel: Arc::new(NoBackchannel),
        finisher: place.working_finisher(),
        live_log: place.live_log.clone(),
        clock: place.clock.clone(),
        config: place.config.clone(),
        leader: place.leader.clone(),
        metrics: Arc::new(janitor_runner::metrics::Metrics::new()),
    };
    place.leader.renew().await;
    let watcher = Arc::new(Watcher::new(
        ports,
        PollConfig {
            interval: Duration::from_millis(5),
            at_once: 2,
        },
    ));
    let going = tokio::spawn(watcher.clone().run());
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(5), asked.recv())
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!going.is_finished());
    assert!(watcher.stands_still().is_none());
    going.abort();
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_died_is_said_to_stand_still() {
    let place = place();
    let watcher = place.watcher(Arc::new(NoBackchannel), place.working_finisher());
    assert_eq!(watcher.stands_still(), None);
    tokio::time::advance(Duration::from_secs(91)).await;
    assert!(watcher.stands_still().unwrap().contains("91 s ago"));
}

/// Answers for one run, and never for the other.
struct Half;

#[async_trait::async_trait]
impl Backchannel for Half {
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
async fn one_slow_worker_delays_no_other() {
    let place = place();
    place.queued(&["aa", "bb"]).await;
    for run in ["r1", "r2"] {
        place.store.claim(claim(run)).await.unwrap().unwrap();
    }
    place.clock.advance(TimeDelta::seconds(61));
    let watcher = place.watcher(Arc::new(Half), place.working_finisher());
    let round = tokio::spawn(watcher.round());
    let second = janitor_runner::domain::name::RunId::new("r2");
    let renewed = async {
        while place.store.get(&second).await.unwrap().unwrap().keepalive == start() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), renewed)
        .await
        .unwrap();
    round.abort();
}

/// The promise of the defaults: a worker with a lease that died blocks its item for at most 150 s, one without a lease that
/// refuses connections for at most three minutes.
#[tokio::test]
async fn how_soon_items_are_free_with_the_defaults() {
    let settings = janitor_runner::settings::load(
        &[],
        janitor_runner::settings::Flags(figment::value::Dict::new()),
    )
    .unwrap()
    .settings;
    for (lease, at_most) in [(true, 150), (false, 180)] {
        for late in 0..10 {
            let place = place();
            assert_eq!(
                settings.config.watch, place.config.watch,
                "the rules of these tests are the defaults"
            );
            place.queued(&["aa"]).await;
            let lease = lease.then_some(place.config.watch.lease);
            let run = place
                .store
                .claim(ClaimRequest {
                    lease,
                    ..claim("r1")
                })
                .await
                .unwrap()
                .unwrap()
                .run;
            let watcher = place.watcher(
                answering(Ping::Fatal("nobody listens".into())),
                place.working_finisher(),
            );
            // The looks come at any time after the last sign of life.
            place.clock.advance(TimeDelta::seconds(late));
            let mut silent = late;
            while place.store.get(&run.id).await.unwrap().is_some() {
                let interval = i64::try_from(settings.pace.interval.as_secs()).unwrap();
                place.clock.advance(TimeDelta::seconds(interval));
                silent += interval;
                watcher.clone().round().await.unwrap();
                assert!(silent <= at_most, "held for more than {at_most} s");
            }
            assert!(
                place
                    .store
                    .claim(ClaimRequest {
                        now: place.now(),
                        ..claim("r2")
                    })
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
}
