//! `ActiveRunStore`: claims, leases and cancelling.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::{ActiveRun, Claimant, RunVcs},
        codebase::Codebase,
        name::RunId,
        queue::Bucket,
        time::Time,
        vcs::VcsType,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Catalog, Credentials, QueueStore,
        active_runs::{ActiveRunUpdate, ClaimRequest, Renewal},
        queue_store::ClaimFilter,
    },
};
use std::{collections::BTreeSet, sync::Arc};

contract!(
    probed_vcs_type_is_kept_with_a_codebase_that_had_none,
    claim_round_trips_every_field,
    claimed_item_is_not_assigned_again,
    concurrent_claims_get_each_item_once,
    released_item_returns_to_its_position,
    stale_tokens_are_rejected,
    claim_of_another_runner_is_adopted_once,
    renewal_extends_the_lease,
    renewal_updates_last_seen_of_the_worker,
    renewal_adds_no_lease_to_a_claim_without_one,
    ping_failures_are_reset_by_renewal,
    first_cancel_reason_is_kept,
    first_response_is_remembered,
);

fn renewal(now: Time) -> Renewal {
    Renewal {
        now,
        lease: TimeDelta::seconds(120),
    }
}

async fn claim_round_trips_every_field<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    store
        .upload_codebases(vec![full_codebase("aa")])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let now = start() + TimeDelta::microseconds(123_456);
    let claimed = store
        .claim(ClaimRequest { now, ..claim("r1") })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claimed.codebase, full_codebase("aa"));
    assert_eq!(claimed.run.start_time, now);
    assert_eq!(claimed.run.keepalive, now);
    assert_eq!(
        store.get(&RunId::new("r1")).await.unwrap().unwrap(),
        claimed.run
    );
    let vcs = RunVcs {
        vcs_type: Some(VcsType::Bzr),
        branch_url: Some("u".into()),
        subpath: Some("s".into()),
    };
    let details = ActiveRunUpdate::Probed {
        vcs: vcs.clone(),
        resume_from: Some(RunId::new("r0")),
    };
    store
        .update(&claimed.run.id, &claimed.run.token, details)
        .await
        .unwrap();
    let amended = store.get(&RunId::new("r1")).await.unwrap().unwrap();
    assert_eq!(amended.vcs, vcs);
    assert_eq!(amended.resume_from, Some(RunId::new("r0")));
    assert_eq!(store.get(&RunId::new("r2")).await.unwrap(), None);
}

async fn probed_vcs_type_is_kept_with_a_codebase_that_had_none<
    S: QueueStore + ActiveRunStore + Catalog,
>(
    store: &S,
) {
    let typed = Codebase {
        vcs_type: Some(VcsType::Bzr),
        ..codebase_at("bb", "https://bb.example/x")
    };
    let untyped = Codebase {
        vcs_type: None,
        ..codebase_at("aa", "https://aa.example/x")
    };
    store.upload_codebases(vec![untyped, typed]).await.unwrap();
    for (name, id, kept) in [("aa", "r1", VcsType::Git), ("bb", "r2", VcsType::Bzr)] {
        let request = batch(vec![enqueue_request(name, Bucket::Default, 1.0)]);
        store.enqueue(request).await.unwrap();
        let run = store.claim(claim(id)).await.unwrap().unwrap().run;
        let vcs = RunVcs {
            vcs_type: Some(VcsType::Git),
            ..RunVcs::default()
        };
        let update = ActiveRunUpdate::Probed {
            vcs,
            resume_from: None,
        };
        store.update(&run.id, &run.token, update).await.unwrap();
        let codebase = store.codebase(&codebase_name(name)).await.unwrap().unwrap();
        assert_eq!(codebase.vcs_type, Some(kept), "{name}");
    }
}

async fn claimed_item_is_not_assigned_again<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    assert_eq!(
        store.peek(&ClaimFilter::default(), start()).await.unwrap(),
        None
    );
    let by_codebase = ClaimFilter {
        codebase: Some(codebase_name("aa")),
        ..Default::default()
    };
    assert_eq!(
        store
            .claim(ClaimRequest {
                filter: by_codebase,
                ..claim("r3")
            })
            .await
            .unwrap(),
        None
    );
    assert_eq!(queue_order(store).await, ["aa"]);
}

async fn concurrent_claims_get_each_item_once<
    S: QueueStore + ActiveRunStore + Catalog + Clone + 'static,
>(
    store: &S,
) {
    let names: Vec<String> = (0..200).map(|n| format!("cb{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    codebases(store, &names).await;
    store
        .enqueue(batch(
            names
                .iter()
                .map(|name| enqueue_request(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
    let store = Arc::new(store.clone());
    let claimers = (0..32).map(|claimer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut claimed = vec![];
            for number in 0.. {
                match store
                    .claim(claim(&format!("r{claimer}-{number}")))
                    .await
                    .unwrap()
                {
                    Some(next) => claimed.push(next.run.item.id),
                    None => return claimed,
                }
            }
            claimed
        })
    });
    let mut all = vec![];
    for claimer in claimers.collect::<Vec<_>>() {
        all.extend(claimer.await.unwrap());
    }
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), 200);
    assert_eq!(distinct.len(), 200);
}

async fn released_item_returns_to_its_position<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let claimed = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .release(&claimed.id, &claimed.token, start())
        .await
        .unwrap();
    assert_eq!(store.get(&claimed.id).await.unwrap(), None);
    assert_eq!(
        store.claim(claim("r2")).await.unwrap().unwrap().run.item,
        claimed.item
    );
}

async fn stale_tokens_are_rejected<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let claimed = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let later = start() + TimeDelta::seconds(5);
    assert!(matches!(
        store.renew(&claimed.id, "wrong", renewal(later)).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store.release(&claimed.id, "wrong", later).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store
            .update(
                &claimed.id,
                "wrong",
                ActiveRunUpdate::Pinged { failures: 1 }
            )
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    store
        .renew(&claimed.id, &claimed.token, renewal(later))
        .await
        .unwrap();
    store
        .renew(&claimed.id, &claimed.token, renewal(start()))
        .await
        .unwrap();
    assert_eq!(
        store.get(&claimed.id).await.unwrap().unwrap().keepalive,
        later
    );
    store
        .release(&claimed.id, &claimed.token, later)
        .await
        .unwrap();
    assert!(matches!(
        store
            .renew(&claimed.id, &claimed.token, renewal(later))
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
}

async fn claim_of_another_runner_is_adopted_once<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let mut foreign = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .release(&foreign.id, &foreign.token, start())
        .await
        .unwrap();
    foreign.token = "theirs".into();
    assert!(store.adopt(foreign.clone()).await.unwrap());
    assert_eq!(store.get(&foreign.id).await.unwrap().unwrap(), foreign);
    assert!(!store.adopt(foreign.clone()).await.unwrap());
    let other = janitor_runner::domain::active_run::ActiveRun {
        id: RunId::new("r2"),
        ..foreign.clone()
    };
    assert!(!store.adopt(other).await.unwrap());
    assert_eq!(
        store
            .claim(claim("r3"))
            .await
            .unwrap()
            .unwrap()
            .run
            .item
            .key
            .codebase
            .as_str(),
        "bb"
    );
    store
        .renew(&foreign.id, "theirs", renewal(start()))
        .await
        .unwrap();
}

async fn renewal_extends_the_lease<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert_eq!(run.lease_until, Some(at(120)));
    assert_eq!(store.get(&run.id).await.unwrap().unwrap(), run);
    let renewed = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(50),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(renewed.keepalive, at(50));
    assert_eq!(renewed.lease_until, Some(at(170)));
    let older = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(10),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(older, renewed);
    assert_eq!(store.get(&run.id).await.unwrap().unwrap(), renewed);
}

async fn renewal_updates_last_seen_of_the_worker<
    S: QueueStore + Catalog + ActiveRunStore + Credentials,
>(
    store: &S,
) {
    store.add("w1", "secret", None).await.unwrap();
    queued(store, &["aa"]).await;
    let claimant = Claimant {
        worker: Some("w1".into()),
        ..Claimant::default()
    };
    let run = store
        .claim(ClaimRequest {
            claimant,
            ..claim("r1")
        })
        .await
        .unwrap()
        .unwrap()
        .run;
    store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(50),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        store.account("w1").await.unwrap().unwrap().last_seen,
        Some(at(50))
    );
}

async fn renewal_adds_no_lease_to_a_claim_without_one<S: QueueStore + Catalog + ActiveRunStore>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let renewed = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(50),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(renewed.lease_until, None);
    assert_eq!(renewed.keepalive, at(50));
}

async fn ping_failures_are_reset_by_renewal<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert!(matches!(
        store
            .update(&run.id, "wrong", ActiveRunUpdate::Pinged { failures: 1 })
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    store
        .update(&run.id, &run.token, ActiveRunUpdate::Pinged { failures: 2 })
        .await
        .unwrap();
    assert_eq!(store.get(&run.id).await.unwrap().unwrap().failures, 2);
    assert_eq!(
        store
            .renew(
                &run.id,
                &run.token,
                Renewal {
                    now: at(1),
                    lease: lease()
                }
            )
            .await
            .unwrap()
            .failures,
        0
    );
}

async fn first_cancel_reason_is_kept<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert_eq!(
        store.cancel(&RunId::new("nosuch"), "x").await.unwrap(),
        None
    );
    let cancelled = store.cancel(&run.id, "enough").await.unwrap().unwrap();
    assert_eq!(
        cancelled,
        ActiveRun {
            cancel: Some("enough".into()),
            ..run.clone()
        }
    );
    assert_eq!(
        store
            .cancel(&run.id, "more")
            .await
            .unwrap()
            .unwrap()
            .cancel
            .as_deref(),
        Some("enough")
    );
    let renewed = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(1),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(renewed.cancel.as_deref(), Some("enough"));
}

async fn first_response_is_remembered<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    let run = active(store, "aa", "r1").await;
    assert!(!run.claimant.has_responded);
    for _ in 0..2 {
        store
            .update(&run.id, &run.token, ActiveRunUpdate::Responded)
            .await
            .unwrap();
    }
    let marked = store.get(&run.id).await.unwrap().unwrap();
    assert!(marked.claimant.has_responded);
    let unmarked = ActiveRun {
        claimant: run.claimant.clone(),
        ..marked
    };
    assert_eq!(unmarked, run);
    let renewed = store
        .renew(&run.id, &run.token, renewal(at(5)))
        .await
        .unwrap();
    assert!(renewed.claimant.has_responded);
    let stale = store
        .update(&run.id, "other", ActiveRunUpdate::Responded)
        .await;
    assert!(matches!(stale, Err(ActiveRunStoreError::ClaimLost(_))));
}
