//! Logins: floods of guesses, revoked accounts, and what one worker may use.

use crate::support::{
    for_each_store,
    process::{Server, client, send, upload},
    servers,
    worker_harness::store,
};
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

for_each_store!(
    flood_of_guesses_delays_no_worker,
    worker_that_waits_is_assigned_nothing_once_removed,
    rotated_password_is_refused_at_once,
    upload_of_a_removed_worker_is_refused,
    worker_holds_so_many_runs,
);

/// A request by a worker, with its password.
fn by(server: &Server, login: (&str, &str), method: &str, path: &str) -> reqwest::RequestBuilder {
    server
        .public_request(method, &format!("/runner{path}"))
        .basic_auth(login.0, Some(login.1))
}

async fn claim(server: &Server, login: (&str, &str)) -> (u16, Value) {
    send(by(server, login, "POST", "/active-runs").json(&json!({ "lease": true }))).await
}

#[tokio::test]
async fn guesses_of_clients_that_do_not_wait_are_counted() {
    use std::io::Write;
    let home = tempfile::tempdir().unwrap();
    let settings = "[workers]\nwrong_logins_of_address = 10\nrefusal_delay_milliseconds = 0\n";
    let store = format!("sled:{}", home.path().join("db").display());
    let server = Server::start(home.path(), &store, settings).await;
    server.add_worker("w1", "secret1").await;
    let address = server.public.strip_prefix("http://").unwrap();
    for number in 0..15 {
        let login = base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD,
            format!("w1:guess{number}"),
        );
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        let request = format!(
            "POST /runner/active-runs HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).unwrap();
        // Long enough for the request to be read, and not for a hash.
        tokio::time::sleep(Duration::from_millis(3)).await;
        drop(connection);
    }
    // One hash at a time is being made; those that wait when their clients go are not made.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (_, figures) = server.get("/admin/security/stats").await;
    let wrong = figures["wrong"].as_u64().unwrap();
    assert!(wrong > 0, "{figures}");
    let mut refused = false;
    for number in 0..=10_u64 {
        let password = format!("more{number}");
        let guess = by(&server, ("w1", &password), "POST", "/active-runs");
        let status = send(guess).await.0;
        assert!([401, 429].contains(&status), "{status}");
        if status == 429 {
            refused = true;
            assert!(number + wrong <= 11, "{number} {figures}");
            break;
        }
    }
    assert!(refused, "{figures}");
}

/// Guesses passwords over so many connections until it is to end; counts the responses.
fn guess(server: &Server, connections: usize) -> (Arc<AtomicBool>, Arc<[AtomicU64; 2]>) {
    let end = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let url = server.public_request("POST", "/runner/active-runs").build();
    let url = url.unwrap().url().clone();
    for number in 0..connections {
        let (end, counts, url) = (end.clone(), counts.clone(), url.clone());
        tokio::spawn(async move {
            let client = client();
            for attempt in 0..100_000 {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let name = ["w1", "w2", "nobody"][attempt % 3];
                let guess = client
                    .post(url.clone())
                    .basic_auth(name, Some(format!("{number} {attempt}")));
                let Ok(response) = guess.send().await else {
                    continue;
                };
                let kind = match response.status() {
                    StatusCode::UNAUTHORIZED => 0,
                    StatusCode::TOO_MANY_REQUESTS => 1,
                    other => panic!("{other}"),
                };
                counts[kind].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (end, counts)
}

async fn flood_of_guesses_delays_no_worker(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let settings = "[workers]\nrefusal_delay_milliseconds = 0\n";
    let server = Server::start(home, store, settings).await;
    server.add_worker("w1", "secret1").await;
    server.queue("aa", "gen").await;
    let login = ("w1", "secret1");
    let (status, assignment) = claim(&server, login).await;
    assert_eq!(status, 201, "{assignment}");
    let id = assignment["id"].as_str().unwrap();
    let (end, counts) = guess(&server, 80);
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        let path = format!("/active-runs/{id}/keepalive");
        let (status, response) = send(by(&server, login, "POST", &path).json(&json!({}))).await;
        assert_eq!(status, 200, "{response}");
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    end.store(true, Ordering::Relaxed);
    let [wrong, refused] = [0, 1].map(|kind| counts[kind].load(Ordering::Relaxed));
    println!("{wrong} wrong, {refused} refused; slowest keepalive {slowest:?}");
    // The lease is two minutes. All of it runs unoptimised, on the same processors.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // 30 of the address, and 30 of the worker that is known there.
    assert!((10..=62).contains(&wrong), "{wrong} passwords were hashed");
    assert!(refused > 200, "{refused}");
    // Whoever guesses is named, once.
    let stats = server.get("/admin/security/stats").await.1;
    assert!(stats["refused"].as_u64().unwrap() >= refused, "{stats}");
    assert_eq!(stats["addresses"][0]["address"], "127.0.0.1", "{stats}");
    let metrics = server.request("GET", "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("janitor_runner_logins_total{outcome=\"refused\"}"),
        "{metrics}"
    );
    let log = server.log();
    let lines = log.matches("wrong logins from 127.0.0.1").count();
    assert_eq!(lines, 1, "{log}");
}

async fn worker_that_waits_is_assigned_nothing_once_removed(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let server = Server::start(home, store, "").await;
    server.add_worker("w1", "secret1").await;
    let waiting = by(&server, ("w1", "secret1"), "POST", "/active-runs?wait=20");
    let waiting = tokio::spawn(send(waiting.json(&json!({ "lease": true }))));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let removed = send(server.request("DELETE", "/admin/workers/w1")).await;
    assert!(removed.0 < 300, "{removed:?}");
    server.queue("aa", "gen").await;
    let (status, response) = waiting.await.unwrap();
    assert_eq!(status, 401, "{response}");
    server.queued_are(&["aa"]).await;
    let active = server.get("/active-runs").await.1;
    assert_eq!(active, json!([]), "its claim went back");
}

async fn rotated_password_is_refused_at_once(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let server = Server::start(home, store, "").await;
    server.add_worker("w1", "secret0").await;
    server.queue("aa", "gen").await;
    let (status, assignment) = claim(&server, ("w1", "secret0")).await;
    assert_eq!(status, 201, "{assignment}");
    let mut password = "secret0".to_owned();
    for attempt in 0..12 {
        // Logins with the old password are on their way while it is replaced.
        let old = password.clone();
        let logins = (0..8).map(|_| {
            let login = ("w1", old.as_str());
            tokio::spawn(send(by(&server, login, "GET", "/active-runs/none")))
        });
        let logins: Vec<_> = logins.collect();
        tokio::time::sleep(Duration::from_millis(attempt * 3)).await;
        let rotate = server.request("POST", "/admin/workers/w1/rotate");
        let (status, rotated) = send(rotate).await;
        assert!(status < 300, "{rotated}");
        password = rotated["password"].as_str().unwrap().to_owned();
        for (login, refused) in [(old.as_str(), true), (password.as_str(), false)] {
            let request = by(&server, ("w1", login), "GET", "/active-runs/none");
            let status = send(request).await.0;
            assert_eq!(status == 401, refused, "{attempt}: {status}");
        }
        for login in logins {
            login.await.unwrap();
        }
        let request = by(&server, ("w1", &old), "GET", "/active-runs/none");
        assert_eq!(send(request).await.0, 401, "{attempt}: remembered");
    }
    let active = server.get("/active-runs").await.1;
    assert_eq!(active, json!([]), "its claim went back");
}

async fn upload_of_a_removed_worker_is_refused(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let server = Server::start(home, store, "").await;
    server.add_worker("w1", "secret1").await;
    server.queue("aa", "gen").await;
    let (_, assignment) = claim(&server, ("w1", "secret1")).await;
    let id = assignment["id"].as_str().unwrap().to_owned();
    let path = format!("/active-runs/{id}/finish");
    // The upload begins, and ends after the worker is removed.
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let start = "--B\r\nContent-Disposition: form-data; name=\"result.json\"; \
                 filename=\"result.json\"\r\nContent-Type: application/json\r\n\r\n";
    let rest = async move {
        receiver.await.unwrap();
        Ok("{\"code\": \"success\"}\r\n--B--\r\n")
    };
    let body = futures::stream::iter([Ok::<_, std::io::Error>(start)]);
    let body = body.chain(futures::stream::once(rest));
    let finish = by(&server, ("w1", "secret1"), "POST", &path)
        .header("Content-Type", "multipart/form-data; boundary=B")
        .body(reqwest::Body::wrap_stream(body));
    let finish = tokio::spawn(send(finish));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let removed = send(server.request("DELETE", "/admin/workers/w1?force=1")).await;
    assert!(removed.0 < 300, "{removed:?}");
    sender.send(()).unwrap();
    let (status, response) = finish.await.unwrap();
    assert_eq!(status, 401, "{response}");
    assert_eq!(server.get(&format!("/runs/{id}")).await.0, 404);
    server.queued_are(&["aa"]).await;
}

async fn worker_holds_so_many_runs(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let settings = "[workers]\nmax_runs = 5\n";
    let server = Server::start(home, store, settings).await;
    server.add_worker("w1", "secret1").await;
    server.add_worker("w2", "secret2").await;
    for number in 0..20 {
        server.queue(&format!("c{number}"), "gen").await;
    }
    let claims = (0..12).map(|_| claim(&server, ("w1", "secret1")));
    let claims = futures::future::join_all(claims).await;
    let claimed = claims.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(claimed, 5, "{claims:?}");
    let refused = claims.iter().find(|(status, _)| *status != 201).unwrap();
    assert_eq!(refused.0, 429, "{refused:?}");
    let reason = refused.1["reason"].as_str().unwrap();
    assert!(reason.contains("5 runs"), "{reason}");
    assert_eq!(claim(&server, ("w2", "secret2")).await.0, 201);
    // A finished run makes place for another.
    let id = claims.iter().find(|(status, _)| *status == 201).unwrap();
    let path = format!("/active-runs/{}/finish", id.1["id"].as_str().unwrap());
    let report = json!({ "code": "nothing-to-do", "description": "x" });
    let finish = by(&server, ("w1", "secret1"), "POST", &path).multipart(upload(&report, &[]));
    assert_eq!(send(finish).await.0, 201);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(claim(&server, ("w1", "secret1")).await.0, 201);
    assert_eq!(claim(&server, ("w1", "secret1")).await.0, 429);
}

/// What one runner revokes, another refuses a second later at the latest, also while it is used all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_runners_refuse_what_one_revokes() {
    let (home, other_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = servers::database().await;
    let server = Server::start(home.path(), &database, "").await;
    let other = Server::start(other_home.path(), &database, "").await;
    server.add_worker("w1", "secret1").await;
    let status = async || {
        let login = ("w1", "secret1");
        send(by(&other, login, "GET", "/active-runs/none")).await.0
    };
    assert_eq!(status().await, 404);
    let removed = send(server.request("DELETE", "/admin/workers/w1")).await;
    assert!(removed.0 < 300, "{removed:?}");
    let revoked = Instant::now();
    while status().await != 401 {
        let elapsed = revoked.elapsed();
        assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(status().await, 401);
}

/// Guesses at a worker's name from many addresses do not shut the worker out when the runner has not seen it before.
#[tokio::test]
async fn worker_is_not_shut_out_by_guesses_at_its_name() {
    let home = tempfile::tempdir().unwrap();
    let settings = "trusted_proxies = [\"127.0.0.1/32\"]\n\
                    [workers]\nwrong_logins_of_name = 5\nrefusal_delay_milliseconds = 0\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret1").await;
    let log_in = async |from: &str, password: &str| {
        let request = by(&server, ("w1", password), "GET", "/active-runs/none");
        send(request.header("X-Forwarded-For", from)).await.0
    };
    for number in 0..12 {
        let from = format!("192.0.2.{number}");
        assert_eq!(log_in(&from, "guess").await, 401);
    }
    assert_eq!(log_in("192.0.2.3", "another").await, 429);
    // The header is a proxy's, which adds the last address.
    assert_eq!(log_in("203.0.113.1, 192.0.2.3", "another").await, 429);
    assert_eq!(log_in("198.51.100.1", "secret1").await, 404);
}

#[tokio::test]
async fn requests_of_a_worker_are_limited() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[workers]\nmax_requests_per_second = 5\nrefusal_delay_milliseconds = 0\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret1").await;
    let mut refused = 0;
    for _ in 0..30 {
        let request = by(&server, ("w1", "secret1"), "GET", "/active-runs/none");
        match send(request).await.0 {
            404 => {}
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused >= 10, "{refused}");
    // A result waits for its turn instead.
    let path = "/active-runs/none/finish";
    let finish = by(&server, ("w1", "secret1"), "POST", path).multipart(upload(&json!({}), &[]));
    let (status, response) = send(finish).await;
    assert_eq!(status, 404, "{response}");
}

/// The time that a login takes does not reveal names of workers, whoever has made
/// the hash of their password; a weak hash is replaced once its worker logs in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_of_a_login_reveals_no_names() {
    let home = tempfile::tempdir().unwrap();
    let database = servers::database().await;
    let settings = "[workers]\nwrong_logins_of_address = 100000\nwrong_logins_of_name = 100000\n\
                    refusal_delay_milliseconds = 0\n";
    let server = Server::start(home.path(), &database, settings).await;
    server.add_worker("ours", "secret1").await;
    let pool = sqlx::PgPool::connect(&database).await.unwrap();
    // As the Python runner makes them.
    sqlx::query(
        "INSERT INTO worker (name, password) VALUES ('pythons', crypt('secret2', gen_salt('bf')))",
    )
    .execute(&pool)
    .await
    .unwrap();
    let names = ["nobody", "ours", "pythons"];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for attempt in 0..25 {
        for (name, times) in names.iter().zip(&mut times) {
            let guess = format!("guess {attempt}");
            let asked = Instant::now();
            let request = by(&server, (name, &guess), "GET", "/active-runs/none");
            assert_eq!(send(request).await.0, 401);
            times.push(asked.elapsed());
        }
    }
    let fastest = times.map(|times| times.into_iter().min().unwrap());
    println!("{fastest:?}");
    let (least, most) = (fastest.iter().min().unwrap(), fastest.iter().max().unwrap());
    assert!(
        most.as_secs_f64() / least.as_secs_f64() < 1.25,
        "{fastest:?}"
    );
    let request = by(&server, ("pythons", "secret2"), "GET", "/active-runs/none");
    assert_eq!(send(request).await.0, 404);
    let hash = async || -> String {
        let query = sqlx::query_scalar("SELECT password FROM worker WHERE name = 'pythons'");
        query.fetch_one(&pool).await.unwrap()
    };
    assert!(hash().await.starts_with("$2a$08$"), "{}", hash().await);
    let pythons = sqlx::query_scalar::<_, bool>(
        "SELECT password = crypt('secret2', password) FROM worker WHERE name = 'pythons'",
    );
    assert!(pythons.fetch_one(&pool).await.unwrap(), "pgcrypto knows it");
    let request = by(&server, ("pythons", "secret2"), "GET", "/active-runs/none");
    assert_eq!(send(request).await.0, 404);
}

#[tokio::test]
async fn long_texts_of_a_claim_are_refused_with_their_field() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret1").await;
    let long = "x".repeat(10_000);
    for (field, body) in [
        ("worker_link", json!({ "worker_link": long })),
        ("node", json!({ "node": long })),
        (
            "backchannel.url",
            json!({ "backchannel": { "kind": "http", "url": format!("http://h/{long}") } }),
        ),
    ] {
        let request = by(&server, ("w1", "secret1"), "POST", "/active-runs").json(&body);
        let (status, response) = send(request).await;
        assert_eq!(status, 422, "{response}");
        assert_eq!(response["field"], field, "{response}");
        assert!(response.to_string().len() < 1000);
    }
}
