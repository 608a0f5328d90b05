//! Watching, leases, late results, live logs and waiting for work, on a clock that the test sets.

use super::{Place, SUCCESS, away, finish, place, upload, working_artifacts, working_logs};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::{backchannel::none::NoBackchannel, vcs::none::NoVcs},
    domain::{
        active_run::{ActiveRun, Claimant},
        caller::Caller,
        pause::{Pause, Scope},
        queue::Bucket,
        watch::Ping,
    },
    ports::{
        ActiveRunStore, Backchannel, Credentials, LiveLogs, Parking, PauseStore, QueueStore,
        RunStore,
        active_runs::{ClaimRequest, MockActiveRunStore},
        backchannel::MockBackchannel,
        log_store::MockLogStore,
    },
    services::{
        ServiceError,
        assign::AssignRequest,
        finish::Finishable,
        logs::{LogPart, Logs},
        long_poll::LongPoll,
        watch::{PollConfig, Watcher, WatcherPorts},
    },
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

impl Place {
    fn working_finisher(&self) -> Arc<janitor_runner::services::finish::Finisher> {
        self.finisher(self.store.clone(), working_artifacts(), working_logs())
    }

    async fn leased(&self, codebase: &str, run: &str) -> ActiveRun {
        self.queued(&[codebase]).await;
        let request = ClaimRequest {
            lease: Some(self.config.watch.lease),
            now: self.now(),
            ..claim(run)
        };
        self.store.claim(request).await.unwrap().unwrap().run
    }

    fn now(&self) -> janitor_runner::domain::time::Time {
        use janitor_runner::ports::Clock;
        self.clock.now()
    }

    fn waiting_room(&self, ending: &CancellationToken) -> Arc<LongPoll> {
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
    assert_eq!(
        (run.code.as_str(), run.transient, run.given_up),
        ("run-disappeared", Some(true), true)
    );
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
        assert_eq!(
            (run.item.bucket, run.item.id),
            (Bucket::Default, 1),
            "its own place"
        );
        place.clock.advance(TimeDelta::seconds(119));
        watcher.clone().round().await.unwrap();
        assert!(
            place.store.get(&run.id).await.unwrap().is_some(),
            "a worker with a lease is not pinged"
        );
        place.clock.advance(TimeDelta::seconds(2));
        watcher.clone().round().await.unwrap();
        let ended = place.store.run(&run.id).await.unwrap().unwrap();
        assert_eq!(
            (ended.code.as_str(), ended.transient),
            ("worker-timeout", Some(true))
        );
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

#[tokio::test]
async fn a_keepalive_renews_and_says_when_to_stop() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place.clock.advance(TimeDelta::seconds(60));
    let renewed = place
        .keepalive
        .renew(&run.id, &Caller::Operator)
        .await
        .unwrap();
    assert_eq!(
        (renewed.lease_until, renewed.cancel),
        (Some(start() + TimeDelta::seconds(180)), None)
    );
    assert!(matches!(
        place
            .keepalive
            .renew(&run.id, &Caller::Worker("other".to_owned()))
            .await,
        Err(ServiceError::NotYours(_))
    ));
    place.store.cancel(&run.id, "enough").await.unwrap();
    assert_eq!(
        place
            .keepalive
            .renew(&run.id, &Caller::Operator)
            .await
            .unwrap()
            .cancel
            .as_deref(),
        Some("enough")
    );
    place.clock.advance(TimeDelta::seconds(121));
    place
        .watcher(Arc::new(NoBackchannel), place.working_finisher())
        .round()
        .await
        .unwrap();
    assert!(matches!(
        place.keepalive.renew(&run.id, &Caller::Operator).await,
        Err(ServiceError::Gone { stop: false, .. })
    ));
    place.leased("aa", "r2").await;
    assert!(matches!(
        place.keepalive.renew(&run.id, &Caller::Operator).await,
        Err(ServiceError::Gone { stop: true, .. })
    ));
    let never = janitor_runner::domain::name::RunId::new("never");
    assert!(matches!(
        place.keepalive.renew(&never, &Caller::Operator).await,
        Err(ServiceError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_late_result_is_kept_and_said_twice_only_once() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    let finisher = place.working_finisher();
    // Found while it was active, handed in after it was given up.
    let Finishable::Active(held) = finisher.find(&run.id, &Caller::Operator).await.unwrap() else {
        panic!("it is active")
    };
    place.clock.advance(TimeDelta::seconds(200));
    place
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    assert_eq!(
        place
            .store
            .run(&run.id)
            .await
            .unwrap()
            .unwrap()
            .code
            .as_str(),
        "worker-timeout"
    );
    let late = finisher.finish(*held, upload(SUCCESS)).await.unwrap();
    assert!(late.first_time && late.run.code.is_success() && !late.run.given_up);
    assert_eq!(place.store.run(&run.id).await.unwrap().unwrap(), late.run);
    assert_eq!(
        QueueStore::list(place.store.as_ref(), 9).await.unwrap(),
        vec![]
    );
    let again = finish(&finisher, &run.id, "{}").await.unwrap();
    assert_eq!((again.first_time, again.run), (false, late.run));
}

#[tokio::test]
async fn a_broken_late_report_is_kept_too() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place.clock.advance(TimeDelta::seconds(200));
    let finisher = place.working_finisher();
    place
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    let late = finish(&finisher, &run.id, "nonsense").await.unwrap();
    assert_eq!(
        (late.first_time, late.run.code.as_str()),
        (true, "worker-invalid-result")
    );
}

#[tokio::test]
async fn what_a_vanished_worker_sent_of_its_log_is_kept() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place
        .live_log
        .append(
            &run.id,
            &Caller::Operator,
            "worker.log",
            0,
            "half of it".into(),
        )
        .await
        .unwrap();
    let mut logs = MockLogStore::new();
    logs.expect_store().times(1).returning(|folder, files, _| {
        assert_eq!(
            (
                folder.run.as_str(),
                files.len(),
                files[0].name.as_str(),
                files[0].size
            ),
            ("r1", 1, "worker.log", 10)
        );
        Ok(())
    });
    place.clock.advance(TimeDelta::seconds(200));
    let finisher = place.finisher(place.store.clone(), working_artifacts(), Arc::new(logs));
    let watcher = place.watcher(Arc::new(NoBackchannel), finisher);
    watcher.clone().round().await.unwrap();
    assert_eq!(
        place
            .store
            .run(&run.id)
            .await
            .unwrap()
            .unwrap()
            .logfilenames,
        ["worker.log"]
    );
    watcher.round().await.unwrap();
    assert_eq!(place.store.runs().await.unwrap(), vec![]);
}

#[tokio::test]
async fn logs_of_runs_that_ended_are_swept_away() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place
        .store
        .append(&run.id, "w.log", 0, "x".into(), 9)
        .await
        .unwrap();
    place
        .store
        .append(
            &janitor_runner::domain::name::RunId::new("gone"),
            "w.log",
            0,
            "x".into(),
            9,
        )
        .await
        .unwrap();
    place
        .watcher(Arc::new(NoBackchannel), place.working_finisher())
        .round()
        .await
        .unwrap();
    assert_eq!(place.store.runs().await.unwrap(), [run.id]);
}

#[tokio::test]
async fn a_log_is_refused_when_it_is_too_large_or_none() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    let append = |name: &'static str, offset, bytes: Vec<u8>| {
        let (live_log, id) = (place.live_log.clone(), run.id.clone());
        async move {
            live_log
                .append(&id, &Caller::Operator, name, offset, bytes.into())
                .await
        }
    };
    assert_eq!(append("a.log", 0, vec![b'x'; 600]).await.unwrap().0, 600);
    assert!(matches!(
        append("b.log", 0, vec![b'x'; 500]).await,
        Err(ServiceError::TooLarge { limit: 1000, .. })
    ));
    assert!(matches!(
        append("a.log", 601, vec![b'x'; 5]).await,
        Err(ServiceError::Gap(600))
    ));
    assert!(matches!(
        append("a.txt", 0, vec![b'x']).await,
        Err(ServiceError::Invalid(_))
    ));
    assert!(matches!(
        append("../a.log", 0, vec![b'x']).await,
        Err(ServiceError::Invalid(_))
    ));
}

#[tokio::test]
async fn a_log_is_followed_from_the_worker_to_the_store() {
    use futures::StreamExt;
    let place = place();
    let run = place.leased("aa", "r1").await;
    place
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 0, "one ".into())
        .await
        .unwrap();
    let mut stored = MockLogStore::new();
    stored.expect_open().returning(|_, _| {
        Ok(Some(Box::new(std::io::Cursor::new(
            b"one two three".to_vec(),
        ))))
    });
    let logs = Arc::new(Logs {
        active_runs: place.store.clone(),
        runs: place.store.clone(),
        stored: Arc::new(stored),
        live_log: place.live_log.clone(),
        backchannel: Arc::new(NoBackchannel),
        ending: CancellationToken::new(),
    });
    let part = LogPart {
        offset: 1,
        follow: true,
    };
    let reading = logs.open(&run.id, "w.log", part).await.unwrap();
    let all = tokio::spawn(
        reading
            .map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
            .collect::<Vec<_>>(),
    );
    place
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 4, "two".into())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!all.is_finished());
    finish(&place.working_finisher(), &run.id, SUCCESS)
        .await
        .unwrap();
    let all = tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (all[0].as_str(), all.concat().as_str()),
        ("ne ", "ne two three")
    );
    // One that nobody follows is what there is now.
    let now: Vec<_> = logs
        .open(
            &run.id,
            "w.log",
            LogPart {
                offset: 8,
                follow: false,
            },
        )
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].as_ref().unwrap(), "three");
}

#[tokio::test]
async fn a_worker_that_fails_again_and_again_is_quarantined() {
    let place = place();
    place.store.add("w1", "secret", None).await.unwrap();
    let finisher = place.working_finisher();
    let by_w1 = |run: &str| ClaimRequest {
        claimant: Claimant {
            worker: Some("w1".into()),
            ..Claimant::default()
        },
        ..claim(run)
    };
    for (run, report) in [
        ("r1", "worker-failure"),
        ("r2", "build-failed"),
        ("r3", "worker-failure"),
        ("r4", "worker-failure"),
    ] {
        assert!(place.store.pauses(start()).await.unwrap().is_empty());
        place.queued(&["aa"]).await;
        let active = place.store.claim(by_w1(run)).await.unwrap().unwrap().run;
        finish(&finisher, &active.id, &format!(r#"{{"code": "{report}"}}"#))
            .await
            .unwrap();
    }
    let pauses = place.store.pauses(start()).await.unwrap();
    assert_eq!(pauses[0].scope, Scope::Worker("w1".into()));
    assert!(
        pauses[0].reason.contains("2 failures in a row"),
        "{}",
        pauses[0].reason
    );
    place.queued(&["aa"]).await;
    assert_eq!(place.store.claim(by_w1("r5")).await.unwrap(), None);
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
            max_concurrent_pings: 2,
        },
    ));
    let going = tokio::spawn(watcher.clone().run());
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(5), asked.recv())
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!going.is_finished() && watcher.stalled_for().is_none());
    going.abort();
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_died_is_said_to_stand_still() {
    let place = place();
    let watcher = place.watcher(Arc::new(NoBackchannel), place.working_finisher());
    assert_eq!(watcher.stalled_for(), None);
    tokio::time::advance(Duration::from_secs(91)).await;
    assert!(watcher.stalled_for().unwrap().contains("91 s ago"));
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

fn wish_of(worker: &str) -> AssignRequest {
    AssignRequest {
        claimant: Claimant {
            worker: Some(worker.into()),
            ..Claimant::default()
        },
        ..AssignRequest::default()
    }
}

#[tokio::test]
async fn who_waits_gets_what_comes_each_of_them_one() {
    let place = place();
    let room = place.waiting_room(&CancellationToken::new());
    let telling = tokio::spawn({
        let room = room.clone();
        async move { room.run().await }
    });
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let room = room.clone();
            tokio::spawn(async move {
                room.assign(wish_of(&format!("w{number}")), Duration::from_secs(20))
                    .await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let names = ["aa", "bb", "cc", "dd", "ee"];
    place.queued(&names).await;
    let mut got = vec![];
    for waiting in waiting {
        let assignment = tokio::time::timeout(Duration::from_millis(900), waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        got.push(assignment.run.item.key.codebase.to_string());
    }
    got.sort();
    assert_eq!(got, names);
    telling.abort();
}

#[tokio::test]
async fn waiting_ends_with_its_time_or_the_process_and_passes_paused_workers_by() {
    let place = place();
    let ending = CancellationToken::new();
    let room = place.waiting_room(&ending);
    let telling = tokio::spawn({
        let room = room.clone();
        async move { room.run().await }
    });
    assert!(matches!(
        room.assign(wish_of("w1"), Duration::from_millis(30)).await,
        Err(ServiceError::QueueEmpty)
    ));
    place
        .store
        .pause(Pause {
            scope: Scope::Worker("w1".into()),
            reason: "x".into(),
            since: start(),
            until: None,
        })
        .await
        .unwrap();
    let wait = |worker: &'static str| {
        let room = room.clone();
        tokio::spawn(async move { room.assign(wish_of(worker), Duration::from_secs(20)).await })
    };
    let paused = wait("w1");
    // Called by the clock, it stands aside when the first item comes.
    for (worker, item, after) in [("w2", "aa", 1000), ("w3", "bb", 30)] {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let other = wait(worker);
        tokio::time::sleep(Duration::from_millis(after)).await;
        place.queued(&[item]).await;
        let got = tokio::time::timeout(Duration::from_millis(800), other)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(got.run.claimant.worker.as_deref(), Some(worker));
        assert!(!paused.is_finished());
    }
    ending.cancel();
    assert!(matches!(
        tokio::time::timeout(Duration::from_secs(5), paused)
            .await
            .unwrap()
            .unwrap(),
        Err(ServiceError::Stopping)
    ));
    assert!(matches!(
        room.assign(wish_of("w2"), Duration::ZERO).await,
        Err(ServiceError::Stopping)
    ));
    telling.abort();
}

#[tokio::test]
async fn kill_marks_the_claim_whatever_its_worker_can_do() {
    let place = place();
    let unleased = place.held().await;
    let leased = place.leased("bb", "r2").await.id;
    let logs = Arc::new(Logs {
        active_runs: place.store.clone(),
        runs: place.store.clone(),
        stored: Arc::new(MockLogStore::new()),
        live_log: place.live_log.clone(),
        backchannel: Arc::new(NoBackchannel),
        ending: CancellationToken::new(),
    });
    assert!(matches!(
        logs.kill(&unleased).await,
        Err(ServiceError::Unsupported(_))
    ));
    assert!(logs.kill(&leased).await.is_ok());
    for id in [&unleased, &leased] {
        assert!(place.store.get(id).await.unwrap().unwrap().cancel.is_some());
    }
    assert!(matches!(
        logs.kill(&janitor_runner::domain::name::RunId::new("never"))
            .await,
        Err(ServiceError::NotFound { .. })
    ));
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
                settings.coordinator.watch, place.config.watch,
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
                let interval = i64::try_from(settings.poll.interval.as_secs()).unwrap();
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
