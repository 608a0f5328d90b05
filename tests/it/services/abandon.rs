//! `Finisher::abandon`: a result that comes while its run is being ended for a vanished worker.

use crate::support::{files::memory_file, fixture::*, values::full_run};
use async_trait::async_trait;
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::ActiveRun,
        caller::Caller,
        run::Run,
        termination::{Abandonment, WORKER_TIMEOUT},
        time::Time,
        watch::Ping,
    },
    ports::{
        BackchannelError, Fault, LogStore, RunStore, SpooledFile,
        artifact_store::{Content, FileReader},
        backchannel::MockBackchannel,
        log_store::LogFolder,
        run_recorder::{LateOutcome, MockRunRecorder, Recorded},
    },
    services::{
        ServiceError,
        finish::{Finished, Finisher},
    },
};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// A log store whose first write waits, and that remembers the last content of each log.
struct SlowLogs {
    /// Gets a permit when the first write has begun.
    begun: Semaphore,
    /// The first write takes a permit of it.
    released: Semaphore,
    stored: Mutex<Vec<(String, Vec<u8>)>>,
}

impl SlowLogs {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Semaphore::new(0),
            released: Semaphore::new(0),
            stored: Mutex::default(),
        })
    }

    fn put(&self, file: &SpooledFile) {
        let Content::Memory(content) = &file.content else {
            panic!("{file:?}")
        };
        let entry = (file.name.clone(), content.to_vec());
        self.stored.lock().unwrap().push(entry);
    }

    fn writes_of(&self, name: &str) -> Vec<Vec<u8>> {
        let stored = self.stored.lock().unwrap();
        let named = stored.iter().filter(|(stored, _)| stored == name);
        named.map(|(_, content)| content.clone()).collect()
    }
}

#[async_trait]
impl LogStore for SlowLogs {
    async fn store(&self, _: &LogFolder, files: &[SpooledFile], _: Time) -> Result<(), Fault> {
        let is_first = self.stored.lock().unwrap().is_empty();
        for file in files {
            self.put(file);
        }
        if is_first {
            self.begun.add_permits(1);
            drop(self.released.acquire().await.unwrap());
        }
        Ok(())
    }

    async fn open(&self, _: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        let content = self.writes_of(name).pop();
        Ok(content.map(|content| Box::new(std::io::Cursor::new(content)) as FileReader))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A run whose worker has sent `text` of `w.log`, and was silent since.
async fn silent_run(fixture: &Fixture, text: &'static str) -> ActiveRun {
    let run = fixture.leased("aa", "r1").await;
    fixture
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 0, text.into())
        .await
        .unwrap();
    fixture.clock.advance(TimeDelta::seconds(200));
    run
}

async fn abandon(
    finisher: &Finisher,
    run: &ActiveRun,
    now: Time,
) -> Result<Finished, ServiceError> {
    let how = Abandonment::new(run, WORKER_TIMEOUT, "silent".to_owned(), now);
    finisher.abandon(run, how, Some(run.keepalive)).await
}

fn given_up(run: &ActiveRun) -> Run {
    Run {
        given_up: true,
        ..full_run(run)
    }
}

#[tokio::test]
async fn log_of_a_result_is_not_replaced_by_what_was_sent_before() {
    let fixture = Fixture::new();
    let run = silent_run(&fixture, "live").await;
    let logs = SlowLogs::new();
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), logs.clone());
    let uploading = tokio::spawn({
        let (finisher, id) = (finisher.clone(), run.id.clone());
        async move { finish(&finisher, &id, SUCCESS_REPORT).await }
    });
    drop(logs.begun.acquire().await.unwrap());
    let (abandoned, ()) = tokio::join!(abandon(&finisher, &run, fixture.now()), async {
        tokio::task::yield_now().await;
        logs.released.add_permits(1);
    });
    assert!(
        matches!(abandoned, Err(ServiceError::NotFound { .. })),
        "{abandoned:?}"
    );
    assert!(uploading.await.unwrap().unwrap().first_time);
    assert_eq!(logs.writes_of("w.log"), [b"x"]);
    let stored = fixture.store.run(&run.id).await.unwrap().unwrap();
    assert_eq!(stored.code.as_str(), "success");
}

#[tokio::test]
async fn longer_log_in_the_store_stays() {
    for (stored, writes) in [("live and more", 1), ("li", 2)] {
        let fixture = Fixture::new();
        let run = silent_run(&fixture, "live").await;
        let logs = SlowLogs::new();
        // An upload that was cut off after its log.
        logs.put(&memory_file("w.log", stored.as_bytes()));
        let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), logs.clone());
        let ended = abandon(&finisher, &run, fixture.now()).await.unwrap();
        assert_eq!(ended.run.logfilenames, ["w.log"]);
        assert_eq!(logs.writes_of("w.log").len(), writes, "{stored}");
    }
}

#[tokio::test]
async fn logs_are_stored_again_when_another_runner_abandoned_the_run_meanwhile() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    let mut recorder = MockRunRecorder::new();
    let known = given_up(&run);
    recorder
        .expect_record()
        .times(1)
        .returning(move |_| Ok(Recorded::AlreadyStored(Box::new(known.clone()))));
    recorder
        .expect_record_late()
        .times(1)
        .returning(|_| Ok(LateOutcome::Replaced));
    let logs = SlowLogs::new();
    logs.released.add_permits(1);
    let finisher = fixture.finisher(Arc::new(recorder), working_artifacts(), logs.clone());
    let finished = finish(&finisher, &run.id, SUCCESS_REPORT).await.unwrap();
    assert!(finished.first_time);
    assert_eq!(logs.writes_of("w.log").len(), 2);
}

#[tokio::test]
async fn worker_of_a_run_with_a_result_is_not_stopped() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut backchannel = MockBackchannel::new();
    backchannel
        .expect_ping()
        .returning(|_| Ping::Failed("no answer".into()));
    let (killed, mut kills) = tokio::sync::mpsc::unbounded_channel();
    backchannel.expect_kill().returning(move |run| {
        drop(killed.send(run.id.clone()));
        Ok::<(), BackchannelError>(())
    });
    let mut recorder = MockRunRecorder::new();
    recorder.expect_record().times(1).returning(|new| {
        let run = Run {
            given_up: false,
            ..new.run
        };
        Ok(Recorded::AlreadyStored(Box::new(run)))
    });
    let finisher = fixture.finisher(Arc::new(recorder), working_artifacts(), working_logs());
    let watcher = fixture.watcher(Arc::new(backchannel), finisher);
    fixture.clock.advance(TimeDelta::minutes(61));
    watcher.round().await.unwrap();
    // All that the watcher started on the side has run by then.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(kills.try_recv().is_err(), "{id} was killed");
}
