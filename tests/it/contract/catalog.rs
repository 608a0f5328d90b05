//! `Catalog`.

use super::contract;
use crate::support::{start, values::*};
use janitor_runner::{
    domain::{
        candidate::NameLookup,
        codebase::Codebase,
        name::RunId,
        publish::{BranchPolicy, PublishMode, PublishPolicy},
        queue::Bucket,
    },
    ports::{ActiveRunStore, Catalog, CatalogError, QueueStore, RunRecorder, RunStore},
};

contract!(
    codebase_round_trips_every_field,
    codebases_are_listed_in_order_of_first_upload,
    list_of_codebases_is_complete_past_a_page,
    reupload_replaces_codebase_and_returns_moved_ones,
    nameless_codebase_is_identified_by_location,
    duplicate_location_is_rejected,
    candidate_round_trips_every_field_and_is_enqueued,
    reupload_updates_candidate_in_place,
    followup_for_unknown_run_is_rejected,
    deleting_candidate_removes_its_item,
    deleting_candidate_leaves_claimed_item,
    known_returns_only_stored_names,
);

async fn codebase_round_trips_every_field<S: Catalog>(store: &S) {
    store
        .upload_codebases(vec![full_codebase("aa")])
        .await
        .unwrap();
    assert_eq!(
        store.codebase(&codebase_name("aa")).await.unwrap().unwrap(),
        full_codebase("aa")
    );
    assert_eq!(store.codebase(&codebase_name("bb")).await.unwrap(), None);
    assert_eq!(store.upload_codebases(vec![]).await.unwrap(), vec![]);
}

async fn codebases_are_listed_in_order_of_first_upload<S: Catalog>(store: &S) {
    store
        .upload_codebases(["cc", "aa", "bb"].map(bare_codebase).into())
        .await
        .unwrap();
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("0a")])
        .await
        .unwrap();
    let names: Vec<String> = store
        .codebases(99)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|c| c.name)
        .map(String::from)
        .collect();
    assert_eq!(names, ["cc", "aa", "bb", "0a"]);
}

async fn list_of_codebases_is_complete_past_a_page<S: Catalog>(store: &S) {
    for count in [1000_usize, 1001, 2500] {
        let names: Vec<String> = (0..count)
            .map(|number| format!("long-{number:04}"))
            .collect();
        store
            .upload_codebases(names.iter().map(|name| bare_codebase(name)).collect())
            .await
            .unwrap();
        for limit in [usize::MAX, 1500, 3, 0] {
            let listed: Vec<String> = store
                .codebases(limit)
                .await
                .unwrap()
                .into_iter()
                .filter_map(|c| c.name)
                .map(String::from)
                .collect();
            assert_eq!(listed, names[..limit.min(count)]);
        }
    }
}

async fn reupload_replaces_codebase_and_returns_moved_ones<S: Catalog>(store: &S) {
    assert_eq!(
        store
            .upload_codebases(vec![full_codebase("aa"), bare_codebase("bb")])
            .await
            .unwrap(),
        vec![]
    );
    let revalued = Codebase {
        value: Some(1),
        vcs_last_revision: None,
        ..full_codebase("aa")
    };
    assert_eq!(
        store
            .upload_codebases(vec![revalued.clone()])
            .await
            .unwrap(),
        vec![]
    );
    assert_eq!(
        store.codebase(&codebase_name("aa")).await.unwrap().unwrap(),
        revalued
    );
    let moved = Codebase {
        subpath: None,
        ..full_codebase("aa")
    };
    let located = codebase_at("bb", "https://example.com/b");
    assert_eq!(
        store.upload_codebases(vec![moved, located]).await.unwrap(),
        [codebase_name("aa"), codebase_name("bb")]
    );
}

async fn nameless_codebase_is_identified_by_location<S: Catalog>(store: &S) {
    let nameless = Codebase {
        name: None,
        value: Some(1),
        ..codebase_at("aa", "https://example.com/n")
    };
    store
        .upload_codebases(vec![nameless.clone()])
        .await
        .unwrap();
    store
        .upload_codebases(vec![Codebase {
            value: Some(2),
            ..nameless.clone()
        }])
        .await
        .unwrap();
    let all = store.codebases(99).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].value, Some(2));
    assert_eq!(all[0].name, None);
}

async fn duplicate_location_is_rejected<S: Catalog>(store: &S) {
    store
        .upload_codebases(vec![full_codebase("aa")])
        .await
        .unwrap();
    let refused = store
        .upload_codebases(vec![bare_codebase("bb"), full_codebase("cc")])
        .await;
    assert!(
        matches!(refused, Err(CatalogError::DuplicateLocation { holder, .. }) if holder == "aa")
    );
    assert_eq!(store.codebases(99).await.unwrap().len(), 1);
    // Once the other codebase has moved, the location is free.
    store
        .upload_codebases(vec![bare_codebase("aa"), full_codebase("cc")])
        .await
        .unwrap();
}

async fn candidate_round_trips_every_field_and_is_enqueued<S: Catalog + QueueStore>(store: &S) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    let mut new = new_candidate("aa");
    new.new.candidate.key.change_set = Some("set".into());
    new.enqueue.key.change_set = Some("set".into());
    new.new.candidate.publish_policy = Some("p".into());
    store
        .put_publish_policies(vec![PublishPolicy {
            name: "p".into(),
            per_branch: vec![],
            rate_limit_bucket: None,
        }])
        .await
        .unwrap();
    let queued = store
        .upload_candidates(vec![new.clone()], start())
        .await
        .unwrap();
    let stored = store.candidates(None, 99).await.unwrap().pop().unwrap();
    let mut expected = new.new.candidate;
    expected.id = stored.id;
    assert_eq!(stored, expected);
    let items = QueueStore::list(store, 9).await.unwrap();
    assert_eq!(items[0].id, queued[0].queue_id);
    assert_eq!(items[0].key, expected.key);
}

async fn reupload_updates_candidate_in_place<S: Catalog + QueueStore>(store: &S) {
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    store
        .upload_candidates(vec![new_candidate("aa"), new_candidate("bb")], start())
        .await
        .unwrap();
    let before = store.candidates(None, 99).await.unwrap();
    assert_eq!(store.candidates(None, 1).await.unwrap(), before[..1]);
    let mut again = new_candidate("aa");
    again.new.candidate.command = "other".into();
    store.upload_candidates(vec![again], start()).await.unwrap();
    let after = store.candidates(None, 99).await.unwrap();
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].id, before[0].id);
    assert_eq!(after[0].command.as_str(), "other");
    assert_eq!(
        store
            .candidates(Some(codebase_name("bb")), 99)
            .await
            .unwrap(),
        [before[1].clone()]
    );
    assert_eq!(QueueStore::list(store, 9).await.unwrap().len(), 2);
}

async fn followup_for_unknown_run_is_rejected<
    S: Catalog + ActiveRunStore + RunRecorder + QueueStore + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    let mut follows = new_candidate("bb");
    follows.new.followup_for = vec![RunId::new("r1")];
    let mut wrong = new_candidate("aa");
    wrong.new.followup_for = vec![RunId::new("nosuch")];
    let refused = store
        .upload_candidates(vec![follows.clone(), wrong], start())
        .await;
    assert!(matches!(refused, Err(CatalogError::UnknownRun(id)) if id.as_str() == "nosuch"));
    assert_eq!(store.candidates(None, 99).await.unwrap().len(), 0);
    assert_eq!(QueueStore::list(store, 9).await.unwrap().len(), 0);
    store
        .upload_candidates(vec![follows], start())
        .await
        .unwrap();
    assert_eq!(store.candidates(None, 99).await.unwrap().len(), 1);
}

async fn deleting_candidate_removes_its_item<S: Catalog + QueueStore>(store: &S) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    let id = store.candidates(None, 99).await.unwrap()[0].id;
    assert!(store.delete_candidate(id).await.unwrap());
    assert!(!store.delete_candidate(id).await.unwrap());
    assert_eq!(store.candidates(None, 99).await.unwrap().len(), 0);
    assert_eq!(QueueStore::list(store, 9).await.unwrap().len(), 0);
}

async fn deleting_candidate_leaves_claimed_item<S: Catalog + QueueStore + ActiveRunStore>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let id = store.candidates(None, 99).await.unwrap()[0].id;
    assert!(store.delete_candidate(id).await.unwrap());
    assert_eq!(store.get(&active.id).await.unwrap(), Some(active));
}

async fn known_returns_only_stored_names<S: Catalog>(store: &S) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    let rule = BranchPolicy {
        role: "main".into(),
        mode: PublishMode::Propose,
        frequency_days: Some(7),
    };
    let policy = PublishPolicy {
        name: "p".into(),
        per_branch: vec![rule],
        rate_limit_bucket: None,
    };
    store
        .put_publish_policies(vec![policy.clone()])
        .await
        .unwrap();
    store.put_publish_policies(vec![policy]).await.unwrap();
    let known = store
        .known(
            &["aa".into(), "bb".into(), "NOT A NAME".into()],
            &["p".into(), "q".into()],
            &[RunId::new("nosuch")],
        )
        .await
        .unwrap();
    assert!(!known.has_run(&RunId::new("nosuch")));
    assert!(known.has_codebase(&codebase_name("aa")));
    assert!(!known.has_codebase(&codebase_name("bb")));
    assert!(known.has_publish_policy("p"));
    assert!(!known.has_publish_policy("q"));
}
