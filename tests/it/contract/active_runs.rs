//! `ActiveRunStore`: claims, leases and cancelling.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::{ActiveRun, Claimant, RunVcs},
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
    a_claim_keeps_every_field,
    a_held_item_is_not_handed_out,
    many_claimers_get_each_item_once,
    a_released_item_is_back_in_its_place,
    stale_tokens_are_refused,
    a_claim_of_another_runner_is_taken_over,
    a_lease_lasts_from_each_sign_of_life,
    a_sign_of_life_is_one_of_the_worker,
    claims_without_a_lease_stay_without,
    suspicion_is_kept_until_a_sign_of_life,
    a_cancelled_claim_says_why,
);

fn sign(now: Time) -> Renewal {
    Renewal {
        now,
        lease: TimeDelta::seconds(120),
    }
}

async fn a_claim_keeps_every_field<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    store
        .upload_codebases(vec![full_codebase("aa")])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
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

async fn a_held_item_is_not_handed_out<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
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
    assert_eq!(order(store).await, ["aa"]);
}

async fn many_claimers_get_each_item_once<
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
                .map(|name| wish(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
    let store = Arc::new(store.clone());
    let claimers = (0..32).map(|claimer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut got = vec![];
            for number in 0.. {
                match store
                    .claim(claim(&format!("r{claimer}-{number}")))
                    .await
                    .unwrap()
                {
                    Some(claimed) => got.push(claimed.run.item.id),
                    None => return got,
                }
            }
            got
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

async fn a_released_item_is_back_in_its_place<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let held = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store.release(&held.id, &held.token, start()).await.unwrap();
    assert_eq!(store.get(&held.id).await.unwrap(), None);
    assert_eq!(
        store.claim(claim("r2")).await.unwrap().unwrap().run.item,
        held.item
    );
}

async fn stale_tokens_are_refused<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let held = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let later = start() + TimeDelta::seconds(5);
    assert!(matches!(
        store.renew(&held.id, "wrong", sign(later)).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store.release(&held.id, "wrong", later).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store
            .update(&held.id, "wrong", ActiveRunUpdate::Pinged { failures: 1 })
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    store
        .renew(&held.id, &held.token, sign(later))
        .await
        .unwrap();
    store
        .renew(&held.id, &held.token, sign(start()))
        .await
        .unwrap();
    assert_eq!(store.get(&held.id).await.unwrap().unwrap().keepalive, later);
    store.release(&held.id, &held.token, later).await.unwrap();
    assert!(matches!(
        store.renew(&held.id, &held.token, sign(later)).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
}

async fn a_claim_of_another_runner_is_taken_over<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
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
        .renew(&foreign.id, "theirs", sign(start()))
        .await
        .unwrap();
}

async fn a_lease_lasts_from_each_sign_of_life<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
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

async fn a_sign_of_life_is_one_of_the_worker<
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

async fn claims_without_a_lease_stay_without<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
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

async fn suspicion_is_kept_until_a_sign_of_life<S: QueueStore + Catalog + ActiveRunStore>(
    store: &S,
) {
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

async fn a_cancelled_claim_says_why<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
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
