//! The Python runner and ours take turns on the same Redis, and each keeps the active runs of the other.

use crate::support::{
    process::{Server, send},
    servers::{self, Private},
};
use futures::StreamExt;
use janitor_runner::{adapters::clock::SystemClock, domain::time::iso, ports::Clock};
use redis::{AsyncCommands, aio::PubSub};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

async fn hash(redis: &str, name: &str) -> BTreeMap<String, String> {
    redis::Client::open(redis)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
        .hgetall(name)
        .await
        .unwrap()
}

async fn put(redis: &str, name: &str, field: &str, value: &str) {
    let mut connection = redis::Client::open(redis)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let () = connection.hset(name, field, value).await.unwrap();
}

struct MirrorFixture {
    redis: Private,
    database: String,
    home: tempfile::TempDir,
}

impl MirrorFixture {
    async fn new() -> Self {
        Self {
            redis: Private::start(&["redis"]),
            database: servers::database().await,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn url(&self) -> String {
        self.redis.url("redis")
    }

    async fn server(&self) -> Server {
        let settings = format!("events = \"{0}\"\ncoordination = \"{0}\"\n", self.url());
        Server::start(self.home.path(), &self.database, &settings).await
    }
}

async fn queued(server: &Server, names: &[&str]) {
    for name in names {
        server.queue(name, "gen").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_the_python_runner_are_adopted() {
    let fixture = MirrorFixture::new().await;
    let mut server = fixture.server().await;
    server.add_worker("w1", "secret1").await;
    queued(&server, &["aa", "bb"]).await;
    let queue = server.get("/queue").await.1;
    server.kill();
    let item = queue[0]["queue_id"].as_i64().unwrap();
    let entry = json!({ "queue_id": item, "id": "their-run", "codebase": "aa", "change_set": null, "campaign": "gen", "command": "true",
        "estimated_duration": 15.0, "current_duration": 1.5, "start_time": "2026-11-23T10:00:00.250000", "worker": "w1", "worker_link": null,
        "vcs": {}, "backchannel": {"my_url": "http://127.0.0.1:1/"}, "instigated_context": null, "resume_from": null });
    let (entry_text, item) = (entry.to_string(), item.to_string());
    let keepalive = iso(SystemClock.now());
    for (name, field, value) in [
        ("active-runs", "their-run", entry_text.as_str()),
        ("assigned-queue-items", item.as_str(), "their-run"),
        ("last-keepalive", "their-run", keepalive.as_str()),
        ("rate-limit-hosts", "slow.example", "2999-01-01T00:00:00"),
    ] {
        put(&fixture.url(), name, field, value).await;
    }
    server.run().await;
    let (status, found) = server.get("/active-runs/their-run").await;
    assert_eq!(status, 200);
    assert_eq!(found["start_time"], entry["start_time"]);
    assert_eq!(found["backchannel"], entry["backchannel"]);
    assert_eq!(
        server.get("/status").await.1["rate_limit_hosts"],
        json!({ "slow.example": "2999-01-01T00:00:00" })
    );
    // Its item is not assigned again.
    let taken = send(
        server
            .request("POST", "/active-runs")
            .json(&json!({ "worker": "w1" })),
    )
    .await
    .1;
    assert_eq!(taken["codebase"], "bb");
    let (status, finished) = server
        .finish(
            "their-run",
            &json!({ "code": "success", "revision": "r" }),
            &[("w.log", b"x")],
        )
        .await;
    assert_eq!(status, 201, "{finished}");
    assert_eq!(finished["result"]["code"], json!("success"), "{finished}");
    assert_eq!(
        hash(&fixture.url(), "active-runs")
            .await
            .keys()
            .collect::<Vec<_>>(),
        [taken["id"].as_str().unwrap()]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_finished_by_the_python_runner_are_released() {
    let fixture = MirrorFixture::new().await;
    let mut server = fixture.server().await;
    server.add_worker("w1", "secret1").await;
    queued(&server, &["aa", "bb"]).await;
    let request = json!({ "worker": "w1", "backchannel": { "kind": "jenkins", "url": "http://127.0.0.1:1/job" } });
    let taken = send(server.request("POST", "/active-runs").json(&request))
        .await
        .1;
    let id = taken["id"].as_str().unwrap().to_owned();
    let (active, assigned) = (
        hash(&fixture.url(), "active-runs").await,
        hash(&fixture.url(), "assigned-queue-items").await,
    );
    let entry: Value = serde_json::from_str(&active[&id]).unwrap();
    assert_eq!(
        assigned,
        BTreeMap::from([(taken["queue_id"].to_string(), id.clone())])
    );
    assert_eq!(entry["codebase"], json!("aa"));
    assert_eq!(
        entry["backchannel"],
        json!({ "my_url": "http://127.0.0.1:1/job", "jenkins": null })
    );
    assert!(hash(&fixture.url(), "last-keepalive").await[&id].starts_with("20"));
    // The Python runner adopts the run and finishes it while ours is down: it is not active any more afterwards.
    server.kill();
    let finished = format!(
        "INSERT INTO change_set (id, campaign) VALUES ('{id}', 'gen');
         INSERT INTO run (id, command, start_time, finish_time, result_code, suite, logfilenames, worker, change_set, codebase)
             VALUES ('{id}', 'true', '2026-11-24T10:00:00', '2026-11-24T10:01:00', 'success', 'gen', '{{}}', 'w1', '{id}', 'aa');
         DELETE FROM queue WHERE codebase = 'aa'"
    );
    servers::execute(&fixture.database, &finished).await;
    for name in ["active-runs", "last-keepalive"] {
        let mut connection = redis::Client::open(fixture.url())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let () = connection.hdel(name, &id).await.unwrap();
    }
    server.run().await;
    assert_eq!(server.get("/active-runs").await.1, json!([]));
    assert_eq!(server.get(&format!("/runs/{id}")).await.1["codebase"], "aa");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_are_reconciled_after_a_redis_outage() {
    let mut fixture = MirrorFixture::new().await;
    let server = fixture.server().await;
    server.add_worker("w1", "secret1").await;
    queued(&server, &["aa", "bb"]).await;
    let claim = || {
        send(
            server
                .request("POST", "/active-runs")
                .json(&json!({ "worker": "w1" })),
        )
    };
    let first = claim().await.1["id"].as_str().unwrap().to_owned();
    fixture.redis.control("stop", "redis");
    let second = claim().await.1["id"].as_str().unwrap().to_owned();
    assert_eq!(
        server
            .finish(&first, &json!({ "code": "success" }), &[])
            .await
            .0,
        201
    );
    fixture.redis.control("continue", "redis");
    for _ in 0..200 {
        if hash(&fixture.url(), "active-runs")
            .await
            .keys()
            .eq([&second])
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", hash(&fixture.url(), "active-runs").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_published_on_their_channels() {
    let fixture = MirrorFixture::new().await;
    let server = fixture.server().await;
    server.add_worker("w1", "secret1").await;
    let mut channel = redis::Client::open(fixture.url())
        .unwrap()
        .get_async_pubsub()
        .await
        .unwrap();
    channel
        .subscribe(&["queue", "result", "publish-status"])
        .await
        .unwrap();
    queued(&server, &["aa"]).await;
    let id = server.claim_of("aa").await;
    assert_eq!(
        server
            .finish(
                &id,
                &json!({ "code": "success", "revision": "r" }),
                &[("w.log", b"x")]
            )
            .await
            .0,
        201
    );
    assert_eq!(
        send(
            server
                .request("POST", &format!("/runs/{id}"))
                .json(&json!({ "publish_status": "approved" }))
        )
        .await
        .0,
        200
    );
    let received = receive_until_idle(channel).await;
    let result = &received["result"][0];
    assert_eq!(result["log_id"], json!(id));
    assert_eq!(result["code"], json!("success"));
    assert_eq!(result["logfilenames"], json!(["w.log"]));
    assert_eq!(
        received["publish-status"],
        [
            json!({ "run_id": id, "publish_status": "approved", "codebase": "aa", "campaign": "gen" })
        ]
    );
    let status = received["queue"]
        .iter()
        .find(|status| status["processing"] != json!([]))
        .unwrap();
    assert_eq!(status["processing"][0]["id"], json!(id));
    assert!(status["processing"][0]["last-keepalive"].is_string());
    assert!(status["rate_limit_hosts"].is_object());
}

/// Collects messages by channel, until there is one on each and the last status has no active run.
async fn receive_until_idle(channel: PubSub) -> BTreeMap<String, Vec<Value>> {
    let mut received: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut messages = channel.into_on_message();
    while received.len() < 3 || received["queue"].last().unwrap()["processing"] != json!([]) {
        let message = tokio::time::timeout(Duration::from_secs(10), messages.next())
            .await
            .unwrap_or_else(|_| panic!("{received:?}"))
            .unwrap();
        let text: String = message.get_payload().unwrap();
        received
            .entry(message.get_channel_name().to_owned())
            .or_default()
            .push(serde_json::from_str(&text).unwrap());
    }
    received
}
