//! Passwords and tokens are not sent in the clear where TLS is set, and certificates are renewed
//! without an interruption.

use crate::support::process::{PROGRAM, free_port};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Makes a certificate for `127.0.0.1`, signed by itself, and its key.
fn certificate(folder: &Path, name: &str) {
    let at = |end: &str| folder.join(format!("{name}.{end}"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(at("key"))
        .arg("-out")
        .arg(at("pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn client(folder: &Path, name: &str) -> reqwest::Client {
    janitor_runner::tls::install();
    let pem = std::fs::read(folder.join(format!("{name}.pem"))).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap()
}

/// Replaces the files of the service by those of another certificate.
fn install(folder: &Path, name: &str) {
    for end in ["key", "pem"] {
        let new = folder.join(format!("new.{end}"));
        std::fs::copy(folder.join(format!("{name}.{end}")), &new).unwrap();
        std::fs::rename(new, folder.join(format!("used.{end}"))).unwrap();
    }
}

/// A service, which is killed when this is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "not: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_served(client: &reqwest::Client, url: &str) -> bool {
    let response = client.get(url).send().await;
    response.is_ok_and(|response| response.status().is_success())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_without_an_interruption() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    for name in ["first", "second"] {
        certificate(folder, name);
    }
    install(folder, "first");
    let (port, public_port) = (free_port(), free_port());
    let files = format!(
        "certificate = \"{0}/used.pem\"\nkey = \"{0}/used.key\"\n",
        folder.display()
    );
    let settings = format!(
        "store = \"memory:\"\nport = {port}\npublic_port = {public_port}\n[admin.tls]\n{files}[tls]\n{files}"
    );
    std::fs::write(folder.join("settings.toml"), settings).unwrap();
    let _service = Service(
        Command::new(PROGRAM)
            .args(["serve", "--config", "settings.toml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap(),
    );
    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
    let (admin, public) = (
        format!("https://127.0.0.1:{port}/status"),
        format!("https://127.0.0.1:{public_port}/queue/stats"),
    );
    let first = client(folder, "first");
    until("served", async || is_served(&first, &admin).await).await;
    assert!(is_served(&first, &public).await, "{}", log());
    let plain = first.get(admin.replace("https", "http")).send().await;
    assert!(plain.is_err(), "{plain:?}");

    // Files that cannot be used change nothing.
    std::fs::write(folder.join("used.pem"), "no certificate").unwrap();
    until("a warning", async || log().contains("the old one stays")).await;
    assert!(
        is_served(&client(folder, "first"), &admin).await,
        "{}",
        log()
    );
    std::fs::copy(folder.join("second.pem"), folder.join("used.pem")).unwrap();
    until("a second warning", async || {
        log().matches("the old one stays").count() >= 2
    })
    .await;
    assert!(
        is_served(&client(folder, "first"), &admin).await,
        "{}",
        log()
    );

    install(folder, "second");
    for url in [&admin, &public] {
        until("renewed", async || {
            is_served(&client(folder, "second"), url).await
        })
        .await;
        assert!(!is_served(&client(folder, "first"), url).await);
        // The connection from before goes on.
        assert!(is_served(&first, url).await, "{}", log());
    }
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    certificate(home.path(), "a");
    certificate(home.path(), "b");
    for (certificate, key, named) in [
        ("none.pem", "a.key", "none.pem"),
        ("a.pem", "none.key", "none.key"),
        ("a.key", "a.key", "a.key"),
        ("a.pem", "b.key", "b.key"),
    ] {
        let settings = format!(
            "store = \"memory:\"\nport = 0\n[admin.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"
        );
        std::fs::write(home.path().join("settings.toml"), settings).unwrap();
        let output = Command::new(PROGRAM)
            .args(["serve", "--public-port", "0", "--config", "settings.toml"])
            .current_dir(home.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("admin.tls") && text.contains(named), "{text}");
    }
}
