//! `RunHistory`.

use super::contract;
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        codebase::Codebase,
        name::RunId,
        queue::Bucket,
        run::{ResultCode, Run},
    },
    ports::{ActiveRunStore, Catalog, QueueStore, RunHistory, RunRecorder},
};

contract!(
    runs_are_found_by_what_they_resumed_from,
    run_is_found_with_what_it_resumed_from,
    links_come_page_by_page,
    codebase_is_found_by_its_branch,
);

async fn recorded<S: QueueStore + ActiveRunStore + RunRecorder>(
    store: &S,
    id: &str,
    codebase: &str,
    change: impl FnOnce(&mut Run),
) {
    store
        .enqueue(batch(vec![enqueue_request(codebase, Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let active = store.claim(claim(id)).await.unwrap().unwrap().run;
    let mut run = full_run(&active);
    change(&mut run);
    store.record(new_run(&active, run)).await.unwrap();
}

async fn codebases<S: Catalog>(store: &S) {
    let uploads = ["aa", "bb"].map(|name| codebase_at(name, &format!("https://{name}.example/x")));
    store.upload_codebases(uploads.into()).await.unwrap();
}

async fn runs_are_found_by_what_they_resumed_from<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunHistory,
>(
    store: &S,
) {
    codebases(store).await;
    recorded(store, "r1", "aa", |_| {}).await;
    for (id, minutes) in [("r3", 20), ("r2", 30)] {
        recorded(store, id, "aa", |run| {
            run.code = ResultCode::new("nothing-new-to-do");
            run.resume_from = Some(RunId::new("r1"));
            run.start_time = start() + TimeDelta::minutes(minutes);
            run.finish_time = run.start_time;
        })
        .await;
    }
    recorded(store, "r4", "bb", |_| {}).await;
    let after = async |codebase: &str, id: &str, cursor: Option<&str>, limit: usize| {
        let pair = pair(codebase, "gen");
        let after = match cursor {
            Some(cursor) => store.link(&RunId::new(cursor)).await.unwrap(),
            None => None,
        };
        store
            .resumed_from(&pair, &RunId::new(id), after, limit)
            .await
            .unwrap()
    };
    let of = async |codebase: &str, id: &str, limit| after(codebase, id, None, limit).await;
    assert_eq!(of("aa", "r1", 10).await, ["r3", "r2"].map(RunId::new));
    assert_eq!(of("aa", "r1", 1).await, ["r3"].map(RunId::new));
    assert_eq!(of("aa", "r2", 10).await, []);
    assert_eq!(of("bb", "r1", 10).await, []);
    assert_eq!(
        after("aa", "r1", Some("r3"), 10).await,
        ["r2"].map(RunId::new)
    );
    assert_eq!(after("aa", "r1", Some("r2"), 10).await, []);
    // A cursor that is no descendant (any more) has a place in time all the same.
    assert_eq!(
        after("aa", "r1", Some("r1"), 10).await,
        ["r3", "r2"].map(RunId::new)
    );
}

async fn run_is_found_with_what_it_resumed_from<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunHistory,
>(
    store: &S,
) {
    codebases(store).await;
    recorded(store, "r1", "aa", |_| {}).await;
    recorded(store, "r2", "aa", |run| {
        run.resume_from = Some(RunId::new("r1"));
    })
    .await;
    let link = store.link(&RunId::new("r2")).await.unwrap().unwrap();
    assert_eq!(link.id.as_str(), "r2");
    assert_eq!(link.codebase.as_str(), "aa");
    assert_eq!(link.campaign.as_str(), "gen");
    assert!(link.code.is_success());
    assert_eq!(link.resume_from, Some(RunId::new("r1")));
    let first = store.link(&RunId::new("r1")).await.unwrap().unwrap();
    assert_eq!(first.resume_from, None);
    assert_eq!(store.link(&RunId::new("nosuch")).await.unwrap(), None);
}

async fn links_come_page_by_page<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunHistory,
>(
    store: &S,
) {
    codebases(store).await;
    for id in ["r1", "r3", "r2"] {
        recorded(store, id, "aa", |run| {
            run.resume_from = (id == "r2").then(|| RunId::new("r1"));
        })
        .await;
    }
    let after = async |id: &str, limit: usize| {
        let page = store.links_after(&RunId::new(id), limit).await.unwrap();
        let ids: Vec<String> = page.links.iter().map(|link| link.id.to_string()).collect();
        (ids.join(" "), page)
    };
    let (ids, page) = after("", 2).await;
    assert_eq!((ids.as_str(), page.next), ("r1 r2", Some(RunId::new("r2"))));
    let (ids, page) = after("r2", 2).await;
    assert_eq!((ids.as_str(), page.next), ("r3", None));
    assert_eq!(after("r3", 2).await.0, "");
    let link = after("r1", 1).await.1.links.remove(0);
    assert_eq!(link.codebase.as_str(), "aa");
    assert_eq!(link.campaign.as_str(), "gen");
    assert!(link.code.is_success());
    assert_eq!(link.resume_from, Some(RunId::new("r1")));
}

async fn codebase_is_found_by_its_branch<S: Catalog + RunHistory>(store: &S) {
    codebases(store).await;
    let folder = Codebase {
        subpath: Some("folder".into()),
        ..codebase_at("cc", "https://cc.example/x")
    };
    store.upload_codebases(vec![folder]).await.unwrap();
    let at = async |url: &str| {
        let name = store.codebase_at(url).await.unwrap();
        name.map(|name| name.to_string())
    };
    assert_eq!(at("https://bb.example/x").await.as_deref(), Some("bb"));
    assert_eq!(at("https://cc.example/x").await.as_deref(), Some("cc"));
    assert_eq!(at("https://bb.example/").await, None);
}
