//! Uploads that are too large, malformed, cut off, or with a broken report.

use super::{server, server_with};
use crate::support::process::send;
use janitor_runner::domain::log_name::is_log;
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
    let large = [b'x'; 6000];
    // Nothing of the report has arrived when the upload becomes too large.
    let part = |name: &str, bytes: &[u8]| {
        reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(name.to_owned())
    };
    let form = reqwest::multipart::Form::new()
        .part("file", part("a", &large))
        .part("metadata", part("result.json", b"{}"));
    let request = server.request("POST", &format!("/active-runs/{id}/finish"));
    let (status, response) = send(request.multipart(form)).await;
    assert_eq!(status, 413, "{response}");
    wait_until_empty(&home.path().join("spool")).await;
    assert_eq!(server.get(&format!("/active-runs/{id}")).await.0, 200);
    let report = json!({ "code": "success" });
    let small = [b'x'; 1500];
    assert_eq!(server.finish(&id, &report, &[("a", &small)]).await.0, 201);
}

/// Limits that the tests exceed.
const SMALL_LIMITS: &str = "[limits]\nreport = 1000\nupload_file = 2000\nupload = 9000\nupload_files = 3\nupload_memory = 0";

#[tokio::test]
async fn files_over_the_limits_are_left_out_and_the_report_is_kept() {
    let (_home, server) = server_with(SMALL_LIMITS).await;
    let (small, large) = ([b'x'; 1500], [b'y'; 2001]);
    let report = json!({ "code": "success", "revision": "r9", "target": { "name": "generic" } });
    for (codebase, files, kept, code) in [
        (
            "lim-a",
            vec![("a", &small[..]), ("b", &large[..]), ("c", &small[..])],
            vec!["a", "c"],
            "artifact-invalid",
        ),
        (
            "lim-b",
            vec![("a", &b""[..]), ("b", b""), ("c", b""), ("d", b"")],
            vec!["a", "b", "c"],
            "artifact-invalid",
        ),
        (
            "lim-c",
            vec![("a", &small[..]), ("w.log", &large[..])],
            vec!["a"],
            "success",
        ),
    ] {
        server.queue(codebase, "gen").await;
        let id = server.claim_of(codebase).await;
        let (status, finished) = server.finish(&id, &report, &files).await;
        assert_eq!(status, 201, "{codebase}: {finished}");
        assert_eq!(finished["result"]["code"], code, "{codebase}");
        assert_eq!(finished["artifacts"], json!(kept), "{codebase}");
        assert_eq!(finished["result"]["revision"], "r9", "{codebase}");
        let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
        assert_eq!(full["report_notes"].as_array().unwrap().len(), 1, "{full}");
    }
    server.queue("lim-d", "gen").await;
    let id = server.claim_of("lim-d").await;
    let long = json!({ "code": "x".repeat(1000) });
    let (status, finished) = server.finish(&id, &long, &[]).await;
    assert_eq!(status, 201);
    assert_eq!(finished["result"]["code"], "worker-invalid-result");
}

#[tokio::test]
async fn upload_over_the_limit_is_refused_and_its_report_is_stored_as_a_failure() {
    let (home, server) = server_with(SMALL_LIMITS).await;
    server.queue("lim-e", "gen").await;
    let id = server.claim_of("lim-e").await;
    let report = json!({ "code": "success", "revision": "r9" });
    let large = vec![b'x'; 10_000];
    assert_eq!(server.finish(&id, &report, &[("a", &large)]).await.0, 413);
    let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
    assert_eq!(full["code"], "artifact-invalid");
    assert_eq!(full["revision"], "r9");
    let description = full["description"].as_str().unwrap();
    assert!(
        description.contains("larger than 9000 bytes"),
        "{description}"
    );
    assert_eq!(server.finish(&id, &report, &[]).await.0, 200);
    wait_until_empty(&home.path().join("spool")).await;
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
async fn file_names_that_cannot_be_stored_are_changed() {
    let (home, server) = server().await;
    server.queue("nam-a", "gen").await;
    let id = server.claim_of("nam-a").await;
    let names: &[(&[u8], &str)] = &[
        (b"filename=\"../../x\"", "x"),
        (b"filename=\"..\"", "file"),
        (b"filename=\"\"", "file-2"),
        (b"filename=\"a\x01b\"", "a_b"),
        (b"filename=\"x\"", "x-2"),
        (b"filename=\"result.json\"", "result-2.json"),
        (b"FILENAME=plain.bin", "plain.bin"),
        (b"filename=\"l\xe4tin.bin\"", "lätin.bin"),
        (b"filename*=utf-8''%C3%BC.log", "ü.log"),
        (b"filename=\"ok.log\"", "ok.log"),
    ];
    let mut body = b"--b\r\nContent-Disposition: attachment; filename*=utf-8''result.json\r\n\r\n\
        {\"code\": \"success\", \"revision\": \"r\", \"target\": {\"name\": \"generic\"}}\r\n"
        .to_vec();
    for (disposition, stored) in names {
        body.extend_from_slice(b"--b\r\ncontent-disposition: attachment; ");
        body.extend_from_slice(disposition);
        body.extend_from_slice(format!("\r\n\r\n{stored}\r\n").as_bytes());
    }
    body.extend_from_slice(b"--b--\r\n");
    let request = server
        .request("POST", &format!("/active-runs/{id}/finish"))
        .header("Content-Type", "multipart/mixed; boundary=\"b\"")
        .body(body);
    let (status, finished) = send(request).await;
    assert_eq!(status, 201, "{finished}");
    let stored: Vec<&str> = names.iter().map(|(_, stored)| *stored).collect();
    assert_eq!(finished["filenames"], json!(stored));
    assert_eq!(finished["result"]["code"], "success");
    for name in stored.iter().filter(|name| !is_log(name)) {
        let path = home.path().join("artifacts").join(&id).join(name);
        assert_eq!(std::fs::read_to_string(path).unwrap(), *name);
    }
    assert_eq!(
        server.get(&format!("/log/{id}/ok.log")).await.1,
        json!("ok.log")
    );
    let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
    assert_eq!(full["report_notes"].as_array().unwrap().len(), 6, "{full}");
    assert!(server.log().contains("a file was not stored as sent"));
}

#[tokio::test]
async fn generic_build_may_have_a_file_of_any_size_that_ends_like_a_changes_file() {
    let (home, server) = server().await;
    for (name, target, code) in [
        ("gen-a", "generic", "success"),
        ("gen-b", "debian", "artifact-invalid"),
    ] {
        server.queue(name, "gen").await;
        let id = server.claim_of(name).await;
        let report = json!({ "code": "success", "target": { "name": target, "details": {} } });
        let large = vec![b'x'; 17 << 20];
        let finished = server
            .finish(&id, &report, &[("notes.changes", &large)])
            .await;
        assert_eq!(finished.0, 201, "{target}: {}", finished.1);
        assert_eq!(finished.1["result"]["code"], code, "{}", finished.1);
        let artifact = home
            .path()
            .join("artifacts")
            .join(&id)
            .join("notes.changes");
        assert_eq!(artifact.exists(), target == "generic", "{target}");
    }
}

#[tokio::test]
async fn large_changes_file_is_read() {
    let (_home, server) = server().await;
    server.queue("chg-a", "gen").await;
    let id = server.claim_of("chg-a").await;
    let mut changes = "Source: h\nBinary: h h-doc\nVersion: 1\nDistribution: d\nFiles:\n \
                       a 1 devel optional h_1_all.deb\nDescription:\n"
        .to_owned();
    changes.push_str(&" a line of the description\n".repeat(100_000));
    assert!(changes.len() > 2 << 20);
    let signed = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{changes}\n\
         -----BEGIN PGP SIGNATURE-----\n\nxxx\n-----END PGP SIGNATURE-----\n"
    )
    .replace('\n', "\r\n");
    let report = json!({ "code": "success", "target": { "name": "debian", "details": {} } });
    let files = [("h.changes", signed.as_bytes()), ("h_1_all.deb", b"x")];
    let (status, finished) = server.finish(&id, &report, &files).await;
    assert_eq!(status, 201, "{finished}");
    assert_eq!(finished["result"]["code"], "success", "{finished}");
    let details = &finished["result"]["target"]["details"];
    assert_eq!(details["binary_packages"], json!(["h"]));
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
            "code",
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
