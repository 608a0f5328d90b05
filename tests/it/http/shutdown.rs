//! What clients see while the server shuts down.

use super::{id_of, server, server_with};
use crate::support::process::{Server, upload};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn shutdown_ends_long_polls_and_finishes_uploads() {
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
    assert_eq!(waited.status(), reqwest::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        waited.json::<Value>().await.unwrap(),
        json!({ "reason": "the runner is stopping" })
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    send.send(Ok("second".into())).await.unwrap();
    drop(send);
    assert_eq!(uploading.await.unwrap().unwrap().status(), 201);
    assert!(server.wait_for_exit().await, "{:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn complete_upload_of_disconnected_client_is_stored_before_exit() {
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
    assert!(server.wait_for_exit().await);
    assert!(
        sending.await.is_err(),
        "the response came before the client disconnected"
    );
    server.run().await;
    assert_eq!(
        server.get(&format!("/runs/{id}?full=1")).await.1["code"],
        "success"
    );
    assert!(server.get(&format!("/log/{id}/w.log")).await.1 == log);
}

#[tokio::test]
async fn shutdown_respects_its_timeout() {
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
    assert!(server.wait_for_exit().await);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(uploading.await.unwrap().is_err());
}
