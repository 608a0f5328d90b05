//! Finishing a run goes on without its caller.

use super::{SUCCESS, place, upload, working_logs};
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
    let place = place();
    let id = place.held().await;
    let artifacts = Arc::new(SlowArtifacts::default());
    let finisher = place.finisher(place.store.clone(), artifacts.clone(), working_logs());
    let Finishable::Active(held) = finisher.find(&id, &Caller::Operator).await.unwrap() else {
        panic!("the run is active");
    };
    let caller = {
        let finisher = finisher.clone();
        tokio::spawn(async move { finisher.finish(*held, upload(SUCCESS)).await })
    };
    artifacts.started.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    artifacts.go_on.notify_one();
    finisher.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), finisher.tasks.wait())
        .await
        .unwrap();
    let run = place.store.run(&id).await.unwrap().unwrap();
    assert!(run.code.is_success(), "{}", run.code);
}
