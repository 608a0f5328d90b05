//! Leases, live logs, waiting for work, pauses, limits, parked items and explanations, as clients see them.

use super::{server, server_with};
use crate::support::{
    fake_backchannel::FakeWorker,
    process::{Server, answer, upload},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Leases of a second, looked at each second.
const QUICK: &str = "keepalive_interval_seconds = 1\n[watch]\nlease_seconds = 2\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\ntimeout_seconds = 1\n";

async fn leased(server: &Server, codebase: &str) -> Value {
    let taken = server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "codebase": codebase, "lease": true }),
        )
        .await;
    assert_eq!(taken.0, 201, "{taken:?}");
    taken.1
}

fn id_of(run: &Value) -> String {
    run["id"].as_str().unwrap().to_owned()
}

async fn append(server: &Server, id: &str, name: &str, range: &str, bytes: &str) -> (u16, Value) {
    let path = format!("/active-runs/{id}/logs/{name}");
    answer(
        server
            .request("PATCH", &path)
            .header("Content-Range", range)
            .body(bytes.to_owned()),
    )
    .await
}

#[tokio::test]
async fn a_lease_is_given_renewed_and_lost() {
    let (_home, server) = server_with(QUICK).await;
    server.queue("lease-a", "gen").await;
    let run = leased(&server, "lease-a").await;
    let (id, until) = (id_of(&run), run["lease_until"].as_str().unwrap().to_owned());
    let (status, kept) = server
        .post(&format!("/active-runs/{id}/keepalive"), &json!(null))
        .await;
    assert_eq!((status, &kept["cancel"]), (200, &json!(null)));
    assert!(kept["lease_until"].as_str().unwrap() >= until.as_str());
    assert!(server.get(&format!("/active-runs/{id}")).await.1["lease_until"].is_string());
    assert_eq!(
        server
            .post("/active-runs/nosuch/keepalive", &json!(null))
            .await
            .0,
        404
    );
    // On the public API only the worker that holds it.
    for (worker, password, expected) in [
        ("w1", "secret1", 200),
        ("w2", "secret2", 403),
        ("w1", "wrong", 401),
    ] {
        let request = server
            .public_request("POST", &format!("/runner/active-runs/{id}/keepalive"))
            .basic_auth(worker, Some(password));
        assert_eq!(answer(request).await.0, expected, "{worker}");
    }
    let ended = server
        .until(&format!("/runs/{id}?full=1"), |run| run["code"].is_string())
        .await;
    assert_eq!(
        (&ended["code"], &ended["transient"]),
        (&json!("worker-timeout"), &json!(true))
    );
    let (status, gone) = server
        .post(&format!("/active-runs/{id}/keepalive"), &json!(null))
        .await;
    assert_eq!(
        (status, &gone["run_id"], &gone["stop"]),
        (410, &json!(id), &json!(false))
    );
    // The item is in its own place, with its own id; the result is taken late, and the item goes.
    let (_, queue) = server.get("/queue").await;
    assert_eq!(
        (queue.as_array().unwrap().len(), &queue[0]["queue_id"]),
        (1, &run["queue_id"])
    );
    assert_eq!(
        server
            .finish(
                &id,
                &json!({ "revision": "r", "code": "success" }),
                &[("w.log", b"late\n")]
            )
            .await
            .0,
        201
    );
    assert_eq!(
        server.get(&format!("/runs/{id}?full=1")).await.1["code"],
        "success"
    );
    assert_eq!(server.get(&format!("/log/{id}/w.log")).await.1, "late\n");
    assert_eq!(server.finish(&id, &json!({}), &[]).await.0, 200);
    server
        .until("/queue", |queue| {
            queue[0]["queue_id"].as_i64() > run["queue_id"].as_i64()
        })
        .await;
}

#[tokio::test]
async fn a_worker_without_a_lease_is_pinged_and_says_so_everywhere() {
    let (_home, server) = server_with(QUICK).await;
    server.queue("ping-a", "gen").await;
    let play = FakeWorker::start().await;
    let backchannel = json!({ "kind": "http", "url": play.url() });
    let taken = server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "backchannel": backchannel }),
        )
        .await
        .1;
    let id = id_of(&taken);
    assert!(taken.get("lease_until").is_none());
    play.answer("/log-id", 200, &id);
    let pings = |outcome: &'static str| {
        move |figures: &Value| {
            figures.to_string().contains(&format!(
                "backchannel_pings_total{{kind=\\\"http\\\",outcome=\\\"{outcome}\\\"}}"
            ))
        }
    };
    server.until("/metrics", pings("alive")).await;
    let (status, told) = server.get("/watchdog/health").await;
    assert_eq!(
        (
            status,
            &told["status"],
            &told["active_runs"],
            &told["runs"][0]["alive"]
        ),
        (200, &json!("ok"), &json!(1), &json!(true))
    );
    play.answer("/log-id", 200, "null");
    server
        .until("/watchdog/health", |told| {
            told["runs"][0]["status"] == "suspect"
        })
        .await;
    let ended = server
        .until(&format!("/runs/{id}?full=1"), |run| run["code"].is_string())
        .await;
    assert_eq!(
        (&ended["code"], &ended["description"]),
        (
            &json!("run-disappeared"),
            &json!("asked 3 times: the worker is idle")
        )
    );
}

#[tokio::test]
async fn a_live_log_is_appended_read_and_followed() {
    let (_home, server) = server().await;
    server.queue("live-a", "gen").await;
    let id = id_of(&leased(&server, "live-a").await);
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-3/*", "one\n").await,
        (202, json!({ "size": 4, "cancel": null }))
    );
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-3/*", "one\n")
            .await
            .0,
        202
    );
    let (status, gap) = append(&server, &id, "worker.log", "bytes 9-9/*", "x").await;
    assert_eq!((status, &gap["size"]), (416, &json!(4)));
    for (range, bytes, status) in [
        ("bytes 4-9/*", "x", 400),
        ("nonsense", "x", 400),
        ("bytes 4-4/*", "", 400),
    ] {
        assert_eq!(
            append(&server, &id, "worker.log", range, bytes).await.0,
            status,
            "{range}"
        );
    }
    assert_eq!(
        append(&server, &id, "data.bin", "bytes 0-0/*", "x").await.0,
        422
    );
    assert_eq!(
        append(&server, &id, "..%2Fx.log", "bytes 0-0/*", "x")
            .await
            .0,
        422
    );
    assert_eq!(
        append(
            &server,
            &id,
            "worker.log",
            "bytes 4-2000003/*",
            &"x".repeat(2_000_000)
        )
        .await
        .0,
        413
    );
    assert_eq!(
        append(&server, "nosuch", "worker.log", "bytes 0-0/*", "x")
            .await
            .0,
        404
    );
    let log = format!("/log/{id}/worker.log");
    assert_eq!(
        (
            server.get(&format!("/log/{id}")).await.1,
            server.get(&format!("{log}?offset=2")).await.1
        ),
        (json!(["worker.log"]), json!("e\n"))
    );
    let following = tokio::spawn(server.request("GET", &format!("{log}?follow=1")).send());
    let events = tokio::spawn(
        server
            .request("GET", &format!("{log}?follow=1&offset=4"))
            .header("Accept", "text/event-stream")
            .send(),
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    append(&server, &id, "worker.log", "bytes 4-11/*", "two\nthr").await;
    append(&server, &id, "worker.log", "bytes 4-10/*", "two\nthr").await;
    server
        .finish(
            &id,
            &json!({ "revision": "r" }),
            &[("worker.log", b"one\ntwo\nthree\n")],
        )
        .await;
    assert_eq!(
        following.await.unwrap().unwrap().text().await.unwrap(),
        "one\ntwo\nthree\n"
    );
    let events = events.await.unwrap().unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let told = events.text().await.unwrap();
    assert!(
        told.contains("data: two\n") && told.contains("data: three\n") && told.contains("id: 14\n"),
        "{told:?}"
    );
    assert!(
        told.ends_with("event: end\ndata: the run has ended\n\n"),
        "{told:?}"
    );
    assert_eq!(server.get(&log).await.1, "one\ntwo\nthree\n");
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-0/*", "x")
            .await
            .0,
        410
    );
}

#[tokio::test]
async fn the_logs_of_workers_are_shown_through_their_backchannels() {
    let (_home, server) = server().await;
    let play = FakeWorker::start().await;
    play.answer("/logs", 200, r#"["w.log"]"#);
    play.answer("/logs/w.log", 200, "from the worker");
    play.progressive("/job/logText/progressiveText", "from Jenkins");
    for (codebase, kind, url, name, text) in [
        ("shown-a", "http", play.url(), "w.log", "from the worker"),
        (
            "shown-b",
            "jenkins",
            format!("{}job/", play.url()),
            "worker.log",
            "from Jenkins",
        ),
    ] {
        server.queue(codebase, "gen").await;
        let body = json!({ "worker": "w1", "codebase": codebase, "backchannel": { "kind": kind, "url": url } });
        let id = id_of(&server.post("/active-runs", &body).await.1);
        assert_eq!(
            server.get(&format!("/log/{id}")).await,
            (200, json!([name]))
        );
        assert_eq!(
            server.get(&format!("/log/{id}/{name}")).await,
            (200, json!(text))
        );
        assert_eq!(
            server.get(&format!("/log/{id}/{name}?offset=5")).await.1,
            text[5..]
        );
        assert_eq!(
            server.get(&format!("/log/{id}/other.log")).await,
            (404, json!("No such log file"))
        );
    }
    let refusing = json!({ "worker": "w1", "codebase": "shown-c", "backchannel": { "kind": "http", "url": "http://127.0.0.1:1/" } });
    server.queue("shown-c", "gen").await;
    let id = id_of(&server.post("/active-runs", &refusing).await.1);
    assert_eq!(server.get(&format!("/log/{id}")).await.0, 502);
}

#[tokio::test]
async fn kill_reaches_the_worker_or_says_that_it_cannot() {
    let (_home, server) = server().await;
    let play = FakeWorker::start().await;
    play.answer("/kill", 200, "ok");
    let take = |codebase: &'static str, more: Value| {
        let server = &server;
        async move {
            server.queue(codebase, "gen").await;
            let mut body = json!({ "worker": "w1", "codebase": codebase });
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            id_of(&server.post("/active-runs", &body).await.1)
        }
    };
    let reached = take(
        "kill-a",
        json!({ "backchannel": { "kind": "http", "url": play.url() } }),
    )
    .await;
    play.answer("/log-id", 200, &reached);
    assert_eq!(
        server.post(&format!("/kill/{reached}"), &json!({})).await.0,
        200
    );
    assert_eq!(play.asked("/kill"), 1);
    let leased = take("kill-b", json!({ "lease": true })).await;
    assert_eq!(
        server.post(&format!("/kill/{leased}"), &json!({})).await.1["cancel"],
        "killed by an operator"
    );
    assert_eq!(
        server
            .post(&format!("/active-runs/{leased}/keepalive"), &json!(null))
            .await
            .1["cancel"],
        "killed by an operator"
    );
    let newer = take(
        "kill-c",
        json!({ "backchannel": { "kind": "http", "url": format!("{}new/", play.url()) } }),
    )
    .await;
    play.answer("/new/log-id", 200, &format!("\"{newer}\""));
    assert_eq!(
        server.post(&format!("/kill/{newer}"), &json!({})).await.0,
        501
    );
    let neither = take("kill-d", json!({})).await;
    assert_eq!(
        server.post(&format!("/kill/{neither}"), &json!({})).await.0,
        501
    );
    for id in [reached, leased, newer, neither] {
        assert_eq!(
            server.get(&format!("/active-runs/{id}")).await.1["cancel"],
            "killed by an operator"
        );
    }
}

#[tokio::test]
async fn a_worker_that_waits_gets_what_comes() {
    let (_home, server) = server().await;
    let waiting = tokio::spawn(
        server
            .request("POST", "/active-runs?wait=20")
            .json(&json!({ "worker": "w1" }))
            .send(),
    );
    let other = server
        .public_request("POST", "/runner/active-runs?wait=1")
        .basic_auth("w2", Some("secret2"))
        .json(&json!({ "campaign": "strict" }));
    let began = Instant::now();
    assert_eq!(
        answer(other).await,
        (503, json!({ "reason": "queue empty" }))
    );
    assert!(began.elapsed() > Duration::from_millis(900));
    assert_eq!(
        answer(
            server
                .request("POST", "/active-runs?wait=soon")
                .json(&json!({}))
        )
        .await
        .0,
        400
    );
    server.queue("wait-a", "gen").await;
    let began = Instant::now();
    let got = waiting.await.unwrap().unwrap();
    assert_eq!(got.status(), 201);
    assert!(
        began.elapsed() < Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn pauses_and_limits_are_set_shown_explained_and_ended() {
    let (_home, server) = server().await;
    server.queue("rest-a", "gen").await;
    let item = server.get("/queue").await.1[0]["queue_id"]
        .as_i64()
        .unwrap();
    let path = format!("/queue/{item}/explain");
    let explain = || server.get(&path);
    let (_, free) = explain().await;
    assert_eq!(
        (
            &free["can_be_handed_out"],
            &free["position"],
            &free["blockers"]
        ),
        (&json!(true), &json!(1), &json!([]))
    );
    assert!(free["score"]["offset"].as_f64().unwrap() > 0.0);
    let put = |path: &'static str, body: Value| {
        let server = &server;
        async move { answer(server.request("PUT", path).json(&body)).await }
    };
    for (body, field) in [
        (json!({ "kind": "moon" }), "kind"),
        (json!({ "kind": "campaign" }), "name"),
        (
            json!({ "kind": "campaign", "name": "gen", "until": "2001-01-01T00:00:00" }),
            "until",
        ),
        (
            json!({ "kind": "campaign", "name": "gen", "until": "soon" }),
            "until",
        ),
    ] {
        let (status, problem) = put("/pauses", body).await;
        assert_eq!(
            (status, &problem["field"]),
            (422, &json!(field)),
            "{problem}"
        );
    }
    assert_eq!(put("/pauses", json!({ "kind": "campaign", "name": "gen", "reason": "holiday", "until": "2999-01-01T00:00:00" })).await.0, 200);
    assert_eq!(
        server.get("/pauses").await.1["pauses"][0]["reason"],
        "holiday"
    );
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    let (_, paused) = explain().await;
    assert_eq!(
        (&paused["can_be_handed_out"], &paused["blockers"][0]["kind"]),
        (&json!(false), &json!("paused"))
    );
    assert_eq!(
        put(
            "/limits",
            json!({ "kind": "campaign", "name": "gen", "most": 0 })
        )
        .await
        .0,
        200
    );
    assert_eq!(
        put(
            "/limits",
            json!({ "kind": "worker", "name": "w1", "most": 0 })
        )
        .await
        .1["field"],
        "kind"
    );
    assert_eq!(
        explain().await.1["blockers"][1]["detail"],
        "campaign gen: 0 of 0 run"
    );
    assert_eq!(
        server.get("/limits").await.1["limits"],
        json!([{ "kind": "campaign", "name": "gen", "most": 0, "running": 0 }])
    );
    for (path, status) in [
        ("/pauses?kind=campaign&name=gen", 204),
        ("/pauses?kind=campaign&name=gen", 404),
        ("/limits?kind=campaign&name=gen", 204),
        ("/pauses?kind=moon", 422),
    ] {
        assert_eq!(
            answer(server.request("DELETE", path)).await.0,
            status,
            "{path}"
        );
    }
    let held = server.take("rest-a").await;
    assert_eq!(explain().await.1["blockers"][0]["kind"], "held");
    assert_eq!(server.get("/queue/99999/explain").await.0, 404);
    drop(held);
}

#[tokio::test]
async fn transient_failures_come_back_later_and_are_parked_in_the_end() {
    let (_home, server) =
        server_with("[[retry]]\nname = \"flaky\"\ntransient = true\nattempts = 2\ndelay_seconds = 2\njitter = 0\nthen = \"park\"\n").await;
    server.queue("retry-a", "gen").await;
    let flaky = json!({ "code": "flaky", "description": "it rained", "transient": true });
    let first = server.take("retry-a").await;
    server.finish(&id_of(&first), &flaky, &[]).await;
    let item = first["queue_id"].as_i64().unwrap();
    let (_, snoozed) = server.get(&format!("/queue/{item}/explain")).await;
    assert_eq!(snoozed["blockers"][0]["kind"], "snoozed");
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    // It comes back by itself, to somebody who waits for it.
    let second = answer(
        server
            .request("POST", "/active-runs?wait=10")
            .json(&json!({ "worker": "w1" })),
    )
    .await;
    assert_eq!((second.0, &second.1["queue_id"]), (201, &first["queue_id"]));
    server.finish(&id_of(&second.1), &flaky, &[]).await;
    let (_, parked) = server.get("/parked").await;
    assert_eq!(
        (
            &parked["parked"][0]["queue_id"],
            &parked["parked"][0]["tries"],
            &parked["next"]
        ),
        (&json!(item), &json!({ "flaky": 2 }), &json!(null))
    );
    assert_eq!(
        parked["parked"][0]["reason"],
        "flaky: 2 runs in a row, the last was flaky (it rained)"
    );
    assert_eq!(server.post("/parked/unpark", &json!({})).await.0, 422);
    assert_eq!(
        server
            .post("/parked/unpark", &json!({ "campaign": "other" }))
            .await
            .1,
        json!({ "unparked": [] })
    );
    assert_eq!(
        server
            .post("/parked/unpark", &json!({ "campaign": "gen" }))
            .await
            .1,
        json!({ "unparked": [item] })
    );
    assert_eq!(server.take("retry-a").await["queue_id"], item);
}

#[tokio::test]
async fn a_quarantined_worker_is_shown_and_let_back() {
    let (_home, server) =
        server_with("[workers]\nquarantine_after = 2\nquarantine_codes = [\"worker-*\"]\n").await;
    server.queue("sick-a", "gen").await;
    for _ in 0..2 {
        let id = id_of(&server.take("sick-a").await);
        server
            .finish(&id, &json!({ "code": "worker-failure" }), &[])
            .await;
        server.queued_are(&["sick-a"]).await;
    }
    let (_, workers) = server.get("/admin/workers").await;
    assert_eq!(
        (
            &workers["workers"][0]["failures"],
            &workers["workers"][0]["paused"]["kind"]
        ),
        (&json!(2), &json!("worker"))
    );
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    assert_eq!(
        answer(server.request("DELETE", "/pauses?kind=worker&name=w1"))
            .await
            .0,
        204
    );
    server.take("sick-a").await;
}

#[tokio::test]
async fn told_to_end_it_answers_who_waits_and_finishes_uploads() {
    let (_home, mut server) = server().await;
    server.queue("end-a", "gen").await;
    let id = id_of(&server.take("end-a").await);
    let waiting = tokio::spawn(
        server
            .request("POST", "/active-runs?wait=50")
            .json(&json!({ "worker": "w2" }))
            .send(),
    );
    let (send, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let form = upload(&json!({ "revision": "r" }), &[]);
    let slow = reqwest::Body::wrap_stream(futures::stream::unfold(body, |mut body| async {
        body.recv().await.map(|part| (part, body))
    }));
    let form = form.part(
        "file",
        reqwest::multipart::Part::stream(slow).file_name("out"),
    );
    let uploading = tokio::spawn(
        server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .multipart(form)
            .send(),
    );
    send.send(Ok("first ".into())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    server.signal("TERM");
    let waited = waiting.await.unwrap().unwrap();
    assert_eq!(
        (waited.status(), waited.json::<Value>().await.unwrap()),
        (
            reqwest::StatusCode::SERVICE_UNAVAILABLE,
            json!({ "reason": "the runner is stopping" })
        )
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    send.send(Ok("second".into())).await.unwrap();
    drop(send);
    assert_eq!(uploading.await.unwrap().unwrap().status(), 201);
    assert!(
        server.ended().await && began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_a_client_sent_whole_before_it_left_is_stored_before_the_end() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::sled(home.path()).await;
    server.add_worker("w1", "secret1").await;
    let log: String = (0_u32..24_000_000)
        .map(|n| char::from(b'a' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 28).unwrap()))
        .collect();
    server.queue("left-a", "gen").await;
    let id = id_of(&server.take("left-a").await);
    let form = upload(&json!({ "revision": "r" }), &[("w.log", log.as_bytes())]);
    let sending = tokio::spawn(
        server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .multipart(form)
            .send(),
    );
    let unfinished = home.path().join("logs/.part");
    let is_being_stored =
        || std::fs::read_dir(&unfinished).is_ok_and(|mut files| files.next().is_some());
    while !is_being_stored() {
        assert!(!sending.is_finished());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sending.abort();
    server.signal("TERM");
    assert!(server.ended().await);
    assert!(sending.await.is_err(), "it was answered before it left");
    server.run().await;
    assert_eq!(
        server.get(&format!("/runs/{id}?full=1")).await.1["code"],
        "success"
    );
    assert!(server.get(&format!("/log/{id}/w.log")).await.1 == log);
}

#[tokio::test]
async fn it_ends_within_the_time_that_is_set() {
    let (_home, mut server) = server_with("shutdown_seconds = 1\n").await;
    server.queue("stuck-a", "gen").await;
    let id = id_of(&server.take("stuck-a").await);
    let (send, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let slow = reqwest::Body::wrap_stream(futures::stream::unfold(body, |mut body| async {
        body.recv().await.map(|part| (part, body))
    }));
    let form = upload(&json!({ "revision": "r" }), &[]).part(
        "file",
        reqwest::multipart::Part::stream(slow).file_name("out"),
    );
    let uploading = tokio::spawn(
        server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .multipart(form)
            .send(),
    );
    send.send(Ok("first ".into())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    server.signal("TERM");
    assert!(server.ended().await);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(uploading.await.unwrap().is_err());
}
