//! Postgres and Redis are stopped, killed and cut off under load.

use crate::support::{
    load::{Load, assert_nothing_lost},
    process::Server,
    servers::{self, Private},
    values::*,
};
use futures::StreamExt;
use janitor_runner::{
    adapters::postgres::schema,
    domain::queue::Bucket,
    ports::{Catalog, QueueStore},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const CLIENTS: usize = 6;
/// The longest that a request may take while a store is down.
const MAX_OUTAGE_RESPONSE: Duration = Duration::from_secs(2);

async fn migrated(private: &Private) -> String {
    let url = private.url("postgres");
    assert_eq!(
        schema::migrate(&url).await.unwrap().problems,
        Vec::<String>::new()
    );
    url
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// While the database is down, requests that need it get a 503 in time, and others are served.
async fn unavailable_is_reported_in_time(server: &Server) {
    let started = Instant::now();
    let response = server
        .request("POST", "/active-runs")
        .json(&serde_json::json!({}))
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    let has_retry_after = response.headers().contains_key("retry-after");
    let body = response.text().await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(has_retry_after, "{body}");
    assert!(
        started.elapsed() < MAX_OUTAGE_RESPONSE,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(server.get("/health").await.0, 200);
    assert_eq!(server.get("/metrics").await.0, 200);
    assert_eq!(
        server
            .request("GET", "/ready")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        503
    );
}

async fn wait_until_ready(server: &Server, within: Duration) {
    let started = Instant::now();
    while server
        .request("GET", "/ready")
        .send()
        .await
        .unwrap()
        .status()
        != 200
    {
        assert!(
            started.elapsed() < within,
            "not ready again: {}",
            server.log()
        );
        seconds(0.05).await;
    }
}

/// Sends `down` and then `up` to the database, three times, under load.
async fn interrupt_postgres_under_load(down: &str, up: &str) {
    let mut private = Private::start(&["postgres"]);
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &migrated(&private).await, "").await;
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], CLIENTS);
    let mut before = 0;
    for _ in 0..3 {
        seconds(1.0).await;
        private.control(down, "postgres");
        // Longer than the monitor takes to notice, so that later requests are refused immediately.
        unavailable_is_reported_in_time(&server).await;
        seconds(2.0).await;
        unavailable_is_reported_in_time(&server).await;
        private.control(up, "postgres");
        wait_until_ready(&server, Duration::from_secs(10)).await;
        seconds(1.0).await;
        assert!(
            load.load.finished() > before,
            "nothing is finished after the database came back"
        );
        before = load.load.finished();
    }
    let seen = load.stop().await;
    println!(
        "{down}: {} results acknowledged, responses {:?}, slowest {:?}",
        seen.results.len(),
        seen.statuses,
        seen.slowest
    );
    assert_nothing_lost(&server, &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_postgres_loses_nothing() {
    interrupt_postgres_under_load("stop", "continue").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_postgres_loses_nothing() {
    interrupt_postgres_under_load("kill", "start").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_connections_lose_nothing() {
    let url = servers::database().await;
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &url, "").await;
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], CLIENTS);
    for _ in 0..20 {
        seconds(0.2).await;
        servers::execute(
            &url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    }
    seconds(1.0).await;
    let seen = load.stop().await;
    println!(
        "cut connections: {} results acknowledged, responses {:?}",
        seen.results.len(),
        seen.statuses
    );
    assert!(seen.results.len() > 20);
    assert_nothing_lost(&server, &seen).await;
}

/// A request that is dropped at any moment leaves no transaction open: the next user of its connection would run in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_requests_leave_no_transaction() {
    let url = servers::database().await;
    let store = servers::open_postgres(&url).await;
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    let mut open: Vec<String> = vec![];
    for number in 0..250_u64 {
        let queueing = store.enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]));
        drop(tokio::time::timeout(Duration::from_micros(number * 6), queueing).await);
        seconds(0.005).await;
        let query = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        open.extend(
            sqlx::query_scalar::<_, String>(query)
                .fetch_all(&mut connection)
                .await
                .unwrap(),
        );
    }
    assert_eq!(open, Vec::<String>::new());
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
}

/// Collects the ids of runs that are published on the channel `result`.
struct Listener(tokio::sync::mpsc::UnboundedReceiver<String>);

impl Listener {
    async fn start(url: &str) -> Self {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let client = redis::Client::open(url).unwrap();
        let mut channel = client.get_async_pubsub().await.unwrap();
        channel.subscribe("result").await.unwrap();
        tokio::spawn(async move {
            let mut messages = channel.into_on_message();
            while let Some(message) = messages.next().await {
                let text: String = message.get_payload().unwrap();
                let result: serde_json::Value = serde_json::from_str(&text).unwrap();
                drop(sender.send(result["log_id"].as_str().unwrap().to_owned()));
            }
        });
        Self(receiver)
    }

    fn received(&mut self) -> BTreeSet<String> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }

    async fn receives_all(&mut self, wanted: &BTreeSet<String>) {
        let mut received = BTreeSet::new();
        for _ in 0..200 {
            received.extend(self.received());
            if wanted.is_subset(&received) {
                return;
            }
            seconds(0.05).await;
        }
        panic!(
            "not published: {:?}",
            wanted.difference(&received).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_redis_delays_only_events() {
    let mut private = Private::start(&["redis"]);
    let home = tempfile::tempdir().unwrap();
    let settings = format!(
        "events = \"{0}\"\ncoordination = \"{0}\"\n",
        private.url("redis")
    );
    let server = Server::start(home.path(), &servers::database().await, &settings).await;
    server.add_worker("w1", "secret1").await;
    let mut listener = Listener::start(&private.url("redis")).await;
    let load = Load::start(&[&server], CLIENTS);
    for _ in 0..2 {
        seconds(1.0).await;
        private.control("stop", "redis");
        let before = load.load.finished();
        seconds(3.0).await;
        assert!(
            load.load.finished() > before + 10,
            "runs are not finished while Redis is unavailable"
        );
        assert_eq!(server.get("/ready").await.0, 200);
        let health = server
            .request("GET", "/health")
            .header("accept", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(health.status().as_u16(), 503);
        private.control("continue", "redis");
    }
    let seen = load.stop().await;
    println!(
        "Redis stopped: {} results acknowledged, responses {:?}, slowest {:?}",
        seen.results.len(),
        seen.statuses,
        seen.slowest
    );
    assert!(
        !seen
            .statuses
            .keys()
            .any(|status| *status >= 500 && *status != 503 || *status == 0),
        "{:?}",
        seen.statuses
    );
    listener
        .receives_all(&seen.results.keys().cloned().collect())
        .await;
    assert_nothing_lost(&server, &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_delays_only_events() {
    let mut private = Private::start(&["redis"]);
    let home = tempfile::tempdir().unwrap();
    let settings = format!(
        "events = \"{0}\"\ncoordination = \"{0}\"\n",
        private.url("redis")
    );
    let server = Server::start(home.path(), &servers::database().await, &settings).await;
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], CLIENTS);
    seconds(1.0).await;
    private.control("kill", "redis");
    seconds(1.5).await;
    let seen = load.stop().await;
    // Nobody subscribed before the kill; what came after it waits in the outbox.
    let waiting: i64 = sqlx_scalar(&server, "SELECT count(*) FROM runner_outbox").await;
    assert!(waiting > 10, "{waiting} entries wait");
    private.control("start", "redis");
    // Nobody could subscribe earlier. The publisher retries within a second, so some entries may reach no subscriber.
    let mut listener = Listener::start(&private.url("redis")).await;
    for _ in 0..200 {
        if sqlx_scalar(&server, "SELECT count(*) FROM runner_outbox").await == 0 {
            break;
        }
        seconds(0.05).await;
    }
    assert_eq!(
        sqlx_scalar(&server, "SELECT count(*) FROM runner_outbox").await,
        0
    );
    seconds(0.2).await;
    assert!(!listener.received().is_empty());
    println!(
        "Redis killed: {} results acknowledged, {waiting} waited, responses {:?}",
        seen.results.len(),
        seen.statuses
    );
    assert_nothing_lost(&server, &seen).await;
}

async fn sqlx_scalar(server: &Server, sql: &'static str) -> i64 {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server.store)
        .await
        .unwrap();
    sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}
