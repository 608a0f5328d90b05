//! `RetryPolicy`: workers that fail repeatedly.

use crate::support::{fixture::*, start, values::*};
use janitor_runner::{
    domain::{active_run::Claimant, pause::Scope},
    ports::{ActiveRunStore, Credentials, PauseStore, active_runs::ClaimRequest},
};

#[tokio::test]
async fn repeatedly_failing_worker_is_quarantined() {
    let fixture = Fixture::new();
    fixture.store.add("w1", "secret", None).await.unwrap();
    let finisher = fixture.working_finisher();
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
        assert!(fixture.store.pauses(start()).await.unwrap().is_empty());
        fixture.queued(&["aa"]).await;
        let active = fixture.store.claim(by_w1(run)).await.unwrap().unwrap().run;
        finish(&finisher, &active.id, &format!(r#"{{"code": "{report}"}}"#))
            .await
            .unwrap();
    }
    let pauses = fixture.store.pauses(start()).await.unwrap();
    assert_eq!(pauses[0].scope, Scope::Worker("w1".into()));
    assert!(
        pauses[0].reason.contains("2 failures in a row"),
        "{}",
        pauses[0].reason
    );
    fixture.queued(&["aa"]).await;
    assert_eq!(fixture.store.claim(by_w1("r5")).await.unwrap(), None);
}

#[tokio::test]
async fn node_of_a_shared_account_is_quarantined_alone() {
    let fixture = Fixture::new();
    fixture.store.add("fleet", "secret", None).await.unwrap();
    let finisher = fixture.working_finisher();
    let by = |node: &str, run: &str| ClaimRequest {
        claimant: Claimant {
            worker: Some("fleet".into()),
            node: Some(node.into()),
            ..Claimant::default()
        },
        ..claim(run)
    };
    for (node, run, code) in [
        ("bad", "r1", "worker-failure"),
        ("good", "r2", "nothing-to-do"),
        ("bad", "r3", "worker-failure"),
    ] {
        assert!(fixture.store.pauses(start()).await.unwrap().is_empty());
        fixture.queued(&["aa"]).await;
        let claimed = fixture.store.claim(by(node, run)).await.unwrap().unwrap();
        finish(
            &finisher,
            &claimed.run.id,
            &format!(r#"{{"code": "{code}"}}"#),
        )
        .await
        .unwrap();
    }
    let pauses = fixture.store.pauses(start()).await.unwrap();
    assert_eq!(pauses.len(), 1);
    assert_eq!(pauses[0].scope, Scope::Worker("fleet/bad".into()));
    fixture.queued(&["aa"]).await;
    assert_eq!(fixture.store.claim(by("bad", "r4")).await.unwrap(), None);
    assert!(
        fixture
            .store
            .claim(by("good", "r5"))
            .await
            .unwrap()
            .is_some()
    );
}
