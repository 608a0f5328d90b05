//! `ActiveRunStore`: finding the runs that a worker holds.

use super::{contract, steps::*};
use crate::support::values::*;
use janitor_runner::{
    domain::active_run::{BackchannelAddress, Claimant},
    ports::{ActiveRunStore, Catalog, QueueStore, active_runs::ClaimRequest},
};

contract!(runs_held_with_a_backchannel_are_found);

async fn runs_held_with_a_backchannel_are_found<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb", "cc", "dd"]).await;
    queued(store, &["aa", "bb", "cc", "dd"]).await;
    let by = |worker: Option<&str>, url: Option<&str>| Claimant {
        worker: worker.map(Into::into),
        backchannel: url.map(|url| BackchannelAddress::Http { url: url.into() }),
        ..Claimant::default()
    };
    for (number, (worker, url)) in [
        (Some("w1"), Some("http://a/")),
        (Some("w1"), Some("http://b/")),
        (Some("w2"), Some("http://a/")),
        (Some("w1"), None),
    ]
    .into_iter()
    .enumerate()
    {
        let request = ClaimRequest {
            claimant: by(worker, url),
            ..claim(&format!("r{number}"))
        };
        store.claim(request).await.unwrap().unwrap();
    }
    let held = async |claimant: Claimant| {
        let runs = store.held_by(&claimant).await.unwrap();
        let ids: Vec<String> = runs.iter().map(|run| run.id.to_string()).collect();
        ids
    };
    assert_eq!(held(by(Some("w1"), Some("http://a/"))).await, ["r0"]);
    assert_eq!(held(by(Some("w2"), Some("http://a/"))).await, ["r2"]);
    assert!(held(by(Some("w2"), Some("http://b/"))).await.is_empty());
    assert!(held(by(None, Some("http://a/"))).await.is_empty());
    assert!(held(by(Some("w1"), None)).await.is_empty());
    for (worker, count) in [("w1", 3), ("w2", 1), ("w3", 0)] {
        assert_eq!(
            store.count_held_by(worker).await.unwrap(),
            count,
            "{worker}"
        );
    }
    let jenkins = BackchannelAddress::Jenkins {
        url: "http://a/".into(),
    };
    let as_jenkins = Claimant {
        backchannel: Some(jenkins),
        ..by(Some("w1"), None)
    };
    assert!(held(as_jenkins).await.is_empty());
}
