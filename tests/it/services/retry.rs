//! `RetryPolicy`: workers that fail repeatedly.

use crate::support::{fixture::*, start, values::*};
use janitor_runner::{
    domain::{active_run::Claimant, pause::Scope},
    ports::{ActiveRunStore, Credentials, PauseStore, active_runs::ClaimRequest},
};

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
