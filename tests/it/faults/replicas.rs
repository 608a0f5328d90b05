//! Several server processes on one database: each item is assigned once, and the death of some loses nothing.

use crate::support::{
    load::{Load, assert_nothing_lost},
    process::{Server, send},
    servers,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const ITEMS: usize = 1500;
const CLAIMERS: usize = 32;

async fn replicas(count: usize, store: &str, home: &std::path::Path) -> Vec<Server> {
    let mut servers = vec![];
    for number in 0..count {
        let home = home.join(number.to_string());
        std::fs::create_dir_all(&home).unwrap();
        // Artifacts and logs are shared, as they are in a deployment.
        let shared = home.parent().unwrap().display().to_string();
        let settings = format!("artifacts = \"{shared}/artifacts\"\nlogs = \"{shared}/logs\"\n");
        servers.push(Server::start(&home, store, &settings).await);
    }
    servers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_servers_assign_each_item_once() {
    let home = tempfile::tempdir().unwrap();
    let servers = replicas(4, &servers::database().await, home.path()).await;
    for round in 0..2 {
        let names: Vec<String> = (0..ITEMS)
            .map(|number| format!("cb-{round}-{number}"))
            .collect();
        let codebases: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        let candidates: Vec<Value> = names
            .iter()
            .map(|name| json!({ "codebase": name, "campaign": "gen" }))
            .collect();
        assert_eq!(
            send(servers[0].request("POST", "/codebases").json(&codebases))
                .await
                .0,
            200
        );
        assert_eq!(
            send(servers[1].request("POST", "/candidates").json(&candidates))
                .await
                .0,
            200
        );
        let claimers: Vec<_> = (0..CLAIMERS)
            .map(|number| {
                let server = &servers[number % servers.len()];
                let claim = server.request("POST", "/active-runs").json(&json!({}));
                tokio::spawn(async move {
                    let mut claimed = vec![];
                    loop {
                        let (status, taken) = send(claim.try_clone().unwrap()).await;
                        if status != 201 {
                            assert_eq!(status, 503);
                            assert_eq!(taken["reason"], json!("queue empty"));
                            return claimed;
                        }
                        claimed.push(taken["queue_id"].as_i64().unwrap());
                    }
                })
            })
            .collect();
        let mut all = vec![];
        for claimer in claimers {
            all.extend(claimer.await.unwrap());
        }
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), ITEMS, "round {round}");
        assert_eq!(distinct.len(), ITEMS, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dead_servers_of_four_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut all = replicas(4, &servers::database().await, home.path()).await;
    all[0].add_worker("w1", "secret1").await;
    let load = Load::start(&all.iter().collect::<Vec<_>>(), 12);
    load.finishes(20).await;
    // The first server leads, because it started first. Another one dies after it.
    all[0].kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    all[2].kill();
    load.finishes(31).await;
    let seen = load.stop().await;
    println!(
        "two of four killed: {} results acknowledged, responses {:?}",
        seen.results.len(),
        seen.statuses
    );
    assert!(seen.results.len() > 50);
    // Another one leads once the lease of the first has expired, and processes the follow-ups.
    assert_nothing_lost(&all[1], &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_taken_over_within_seconds() {
    let home = tempfile::tempdir().unwrap();
    let mut all = replicas(2, &servers::database().await, home.path()).await;
    all[0].add_worker("w1", "secret1").await;
    all[0].kill();
    let died = Instant::now();
    let server = &all[1];
    assert_eq!(
        send(
            server
                .request("POST", "/codebases")
                .json(&json!([{ "name": "aa" }]))
        )
        .await
        .0,
        200
    );
    assert_eq!(
        send(
            server
                .request("POST", "/candidates")
                .json(&json!([{ "codebase": "aa", "campaign": "gen" }]))
        )
        .await
        .0,
        200
    );
    let id = send(
        server
            .request("POST", "/active-runs")
            .json(&json!({ "worker": "w1" })),
    )
    .await
    .1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        server
            .finish(&id, &json!({ "code": "success" }), &[])
            .await
            .0,
        201
    );
    while server.get("/queue").await.1.as_array().unwrap().is_empty() {
        assert!(
            died.elapsed() < Duration::from_secs(8),
            "no follow-up was processed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("taken over after {:?}", died.elapsed());
}
