//! `FollowUps`.

use crate::support::{fixture::*, start, values::*};
use janitor_runner::{
    domain::queue::Bucket,
    ports::{ActiveRunStore, Catalog, QueueStore},
};

#[tokio::test]
async fn follow_ups_are_processed_once_and_dropped_without_a_candidate() {
    let fixture = Fixture::new();
    fixture
        .store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    fixture
        .store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    fixture
        .store
        .enqueue(batch(vec![enqueue_request("bb", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), working_logs());
    for run in ["r1", "r2"] {
        let active = fixture.store.claim(claim(run)).await.unwrap().unwrap().run;
        finish(&finisher, &active.id, SUCCESS_REPORT).await.unwrap();
    }
    assert_eq!(fixture.follow_ups.run_batch().await.unwrap(), 2);
    assert_eq!(fixture.follow_ups.run_batch().await.unwrap(), 0);
    let queued = QueueStore::list(fixture.store.as_ref(), 9).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].key.codebase.as_str(), "aa");
    assert_eq!(queued[0].requester.as_deref(), Some("after run schedule"));
}
