//! Uploads that are too large, malformed, cut off, or with a broken report.

use super::{server, server_with};
use crate::support::process::send;
use serde_json::{Value, json};

#[tokio::test]
async fn oversized_bodies_are_rejected() {
    let (home, server) = server_with("[limits]\njson_body = 1000\nupload_file = 2000\nupload = 5000\nupload_files = 3\nupload_memory = 0").await;
    server.queue("big-a", "gen").await;
    let id = server.take("big-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let long = json!([{ "name": "x".repeat(1000) }]);
    assert_eq!(server.post("/codebases", &long).await.0, 413);
    let (small, large) = ([b'x'; 1500], [b'x'; 2001]);
    let report = json!({ "code": "success" });
    for (what, report, files) in [
        ("a file", report.clone(), vec![("a", &large[..])]),
        (
            "the whole",
            report.clone(),
            vec![
                ("a", &small[..]),
                ("b", &small[..]),
                ("c", &small[..]),
                ("d", &small[..]),
            ],
        ),
        ("the report", json!({ "code": "x".repeat(1000) }), vec![]),
        (
            "the number of files",
            report.clone(),
            vec![
                ("a", &b""[..]),
                ("b", &b""[..]),
                ("c", &b""[..]),
                ("d", &b""[..]),
            ],
        ),
    ] {
        let (status, response) = server.finish(&id, &report, &files).await;
        assert_eq!(status, 413, "{what}: {response}");
    }
    wait_until_empty(&home.path().join("spool")).await;
    assert_eq!(server.get(&format!("/active-runs/{id}")).await.0, 200);
    assert_eq!(server.finish(&id, &report, &[("a", &small)]).await.0, 201);
}

async fn wait_until_empty(folder: &std::path::Path) {
    for _ in 0..100 {
        // Nothing is left but the folder of the process with its lock.
        let own = std::fs::read_dir(folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        if std::fs::read_dir(own).unwrap().count() == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} is not empty", folder.display());
}

fn raw_upload(boundary: &str, body: &str) -> (String, String) {
    (
        format!("multipart/form-data; boundary={boundary}"),
        body.replace('\n', "\r\n"),
    )
}

/// Uploads that are no valid report with files: what is wrong, the content type and the body.
fn malformed_uploads() -> Vec<(&'static str, (String, String))> {
    let part = |disposition: &str| {
        format!("--b\nContent-Disposition: form-data; name=\"f\"{disposition}\n\nx\n")
    };
    vec![
        (
            "no report",
            raw_upload("b", &format!("{}--b--\n", part("; filename=\"x.log\""))),
        ),
        (
            "no file name",
            raw_upload("b", &format!("{}--b--\n", part(""))),
        ),
        (
            "a path",
            raw_upload("b", &format!("{}--b--\n", part("; filename=\"../../x\""))),
        ),
        (
            "dots",
            raw_upload("b", &format!("{}--b--\n", part("; filename=\"..\""))),
        ),
        (
            "a control character",
            raw_upload("b", &format!("{}--b--\n", part("; filename=\"a\u{1}b\""))),
        ),
        (
            "twice",
            raw_upload("b", &format!("{0}{0}--b--\n", part("; filename=\"x\""))),
        ),
        ("cut off", raw_upload("b", &part("; filename=\"x\""))),
        (
            "another boundary",
            raw_upload("c", &format!("{}--b--\n", part("; filename=\"x\""))),
        ),
        (
            "nested",
            raw_upload(
                "b",
                "--b\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\nContent-Type: multipart/mixed; boundary=c\n\n--c--\n--b--\n",
            ),
        ),
        (
            "no multipart",
            ("application/json".to_owned(), "{}".to_owned()),
        ),
        (
            "no boundary",
            ("multipart/form-data".to_owned(), "x".to_owned()),
        ),
    ]
}

#[tokio::test]
async fn malformed_uploads_change_nothing() {
    let (home, server) = server_with("[limits]\nupload_memory = 0").await;
    server.queue("up-a", "gen").await;
    let id = server.take("up-a").await["id"].as_str().unwrap().to_owned();
    for (what, (kind, body)) in malformed_uploads() {
        let request = server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .header("Content-Type", kind)
            .body(body);
        let (status, response) = send(request).await;
        assert_eq!(status, 400, "{what}: {response}");
    }
    assert_eq!(server.get(&format!("/runs/{id}")).await.0, 404);
    wait_until_empty(&home.path().join("spool")).await;
    assert!(!home.path().join("x").exists());
    assert!(!home.path().join("artifacts").join(&id).exists());
    assert_eq!(
        server
            .finish(&id, &json!({ "code": "success" }), &[("x.log", b"x")])
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn interrupted_upload_leaves_no_files() {
    use tokio::io::AsyncWriteExt;
    let (home, server) = server_with("[limits]\nupload_memory = 0").await;
    server.queue("van-a", "gen").await;
    let id = server.take("van-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let address = server.admin.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /active-runs/{id}/finish HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n\
         --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.bin\"\r\n\r\n{}",
        "x".repeat(600_000)
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..100 {
        if std::fs::read_dir(home.path().join("spool"))
            .unwrap()
            .count()
            == 1
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(connection);
    wait_until_empty(&home.path().join("spool")).await;
    assert_eq!(server.get(&format!("/runs/{id}")).await.0, 404);
    assert_eq!(
        server
            .finish(&id, &json!({ "code": "success" }), &[])
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn malformed_report_is_stored_as_invalid_result() {
    let (_home, server) = server().await;
    let cases: &[(&str, Value, &str)] = &[
        (
            "brk-a",
            json!({ "code": "success", "start_time": "2026-01-02T03:04:05", "finish_time": "2026-01-02T03:04:04" }),
            "finish_time",
        ),
        ("brk-b", json!({ "code": "nothing-new-to-do" }), "code"),
        (
            "brk-c",
            json!({ "code": "success", "branches": [["main", "a", "b", "c"], ["main", "d", "e", "f"]] }),
            "branches",
        ),
        (
            "brk-d",
            json!({ "code": "success", "codebase": "another" }),
            "codebase",
        ),
        (
            "brk-e",
            json!({ "code": 5, "value": "x", "description": "\u{0}" }),
            "description",
        ),
        ("brk-f", json!([1, 2]), "result.json"),
    ];
    for (codebase, report, field) in cases {
        server.queue(codebase, "gen").await;
        let id = server.take(codebase).await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let (status, finished) = server.finish(&id, report, &[]).await;
        assert_eq!(status, 201, "{codebase}: {finished}");
        assert_eq!(
            finished["result"]["code"], "worker-invalid-result",
            "{codebase}"
        );
        let problems = finished["result"]["failure_details"]["problems"].to_string();
        assert!(problems.contains(field), "{codebase}: {problems}");
        assert_eq!(server.get(&format!("/runs/{id}")).await.0, 200);
    }
}

#[tokio::test]
async fn report_of_unknown_worker_is_stored_as_invalid_result() {
    let (_home, server) = server().await;
    server.queue("brk-g", "gen").await;
    let (_, taken) = server
        .post(
            "/active-runs",
            &json!({ "worker": "ghost", "codebase": "brk-g" }),
        )
        .await;
    let (status, finished) = server
        .finish(
            taken["id"].as_str().unwrap(),
            &json!({ "code": "success", "revision": "r" }),
            &[],
        )
        .await;
    assert_eq!(status, 201);
    assert_eq!(finished["result"]["code"], json!("worker-invalid-result"));
}

#[tokio::test]
async fn truncated_report_is_stored_as_it_came() {
    let (_home, server) = server().await;
    server.queue("brk-h", "gen").await;
    let id = server.take("brk-h").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let form = reqwest::multipart::Form::new().part(
        "m",
        reqwest::multipart::Part::bytes(b"{cut off".to_vec()).file_name("result.json"),
    );
    let (status, finished) = send(
        server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .multipart(form),
    )
    .await;
    assert_eq!(status, 201);
    assert_eq!(
        finished["result"]["failure_details"]["report"],
        json!("{cut off")
    );
}
