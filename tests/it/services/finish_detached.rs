//! Finishing a run goes on without its caller.

use crate::support::fixture::{Fixture, SUCCESS_REPORT, upload, working_logs};
use async_trait::async_trait;
use janitor_runner::{
    domain::{caller::Caller, name::RunId},
    ports::{ArtifactStore, Fault, RunStore, SpooledFile, artifact_store::FileReader},
    services::finish::Finishable,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Stores nothing, and waits until it may go on.
#[derive(Default)]
struct SlowArtifacts {
    started: Notify,
    go_on: Notify,
}

#[async_trait]
impl ArtifactStore for SlowArtifacts {
    async fn store(&self, _: &RunId, _: &[SpooledFile]) -> Result<(), Fault> {
        self.started.notify_one();
        self.go_on.notified().await;
        Ok(())
    }

    async fn open(&self, _: &RunId, _: &str) -> Result<Option<FileReader>, Fault> {
        Ok(None)
    }

    async fn health_check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[tokio::test]
async fn result_is_stored_when_the_caller_goes_away() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let artifacts = Arc::new(SlowArtifacts::default());
    let finisher = fixture.finisher(fixture.store.clone(), artifacts.clone(), working_logs());
    let Finishable::Active(held) = finisher.find(&id, &Caller::Operator).await.unwrap() else {
        panic!("the run is active");
    };
    let caller = {
        let finisher = finisher.clone();
        tokio::spawn(async move { finisher.finish(*held, upload(SUCCESS_REPORT)).await })
    };
    artifacts.started.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    artifacts.go_on.notify_one();
    finisher.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), finisher.tasks.wait())
        .await
        .unwrap();
    let run = fixture.store.run(&id).await.unwrap().unwrap();
    assert!(run.code.is_success(), "{}", run.code);
}
