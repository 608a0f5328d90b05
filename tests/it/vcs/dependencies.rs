//! Runs that lacked dependencies, on a database that has the Janitor's table of known versions.

use crate::support::{servers, values::*};
use janitor_runner::{
    domain::{
        queue::Bucket,
        run::{ResultCode, UNSATISFIED_DEPENDENCIES},
    },
    ports::{ActiveRunStore, Catalog, QueueStore, RunRecorder, ScheduleStore},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_lacked_dependencies_counts_as_a_success_once_they_are_there() {
    let url = servers::database().await;
    let store = servers::open_postgres(&url).await;
    let codebases = vec![codebase_at("aa", "https://aa.example/x")];
    store.upload_codebases(codebases).await.unwrap();
    let request = batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]);
    store.enqueue(request).await.unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let mut run = full_run(&active);
    run.code = ResultCode::new(UNSATISFIED_DEPENDENCIES);
    run.transient = None;
    run.failure_details = Some(json!({
        "relations": [[{ "name": "libx-dev", "archqual": null, "version": [">=", "2.0"] }]]
    }));
    store.record(new_run(&active, run)).await.unwrap();
    let satisfied = async || {
        let facts = store.facts(&[key("aa", "gen")]).await.unwrap().remove(0);
        assert_eq!(facts.history.len(), 1);
        facts.history[0].dependencies_satisfied_now
    };
    assert!(!satisfied().await, "there is no table");
    let table = "CREATE TABLE all_debian_versions (source text, distribution text, version text)";
    servers::execute(&url, table).await;
    assert!(!satisfied().await, "the package is not known");
    for (version, expected) in [("1.9", false), ("2.0-1", true)] {
        let row =
            format!("INSERT INTO all_debian_versions VALUES ('libx-dev', 'unstable', '{version}')");
        servers::execute(&url, &row).await;
        assert_eq!(satisfied().await, expected, "{version}");
    }
}
