//! `FollowUps`.

use crate::support::{fixture::*, start, values::*};
use janitor_runner::{
    domain::queue::Bucket,
    ports::{ActiveRunStore, Catalog, QueueStore},
};

#[tokio::test]
async fn follow_ups_are_carried_out_once_and_dropped_without_a_candidate() {
    let place = place();
    place
        .store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    place
        .store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    place
        .store
        .enqueue(batch(vec![wish("bb", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    for run in ["r1", "r2"] {
        let active = place.store.claim(claim(run)).await.unwrap().unwrap().run;
        finish(&finisher, &active.id, SUCCESS).await.unwrap();
    }
    assert_eq!(place.follow_ups.carry_out().await.unwrap(), 2);
    assert_eq!(place.follow_ups.carry_out().await.unwrap(), 0);
    let queued = QueueStore::list(place.store.as_ref(), 9).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].key.codebase.as_str(), "aa");
    assert_eq!(queued[0].requester.as_deref(), Some("after run schedule"));
}
