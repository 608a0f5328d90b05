//! Sockets that systemd opens and passes on, which outlive the process.

use crate::support::process::{PROGRAM, Server, free_port, root};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What holds the sockets, as systemd does.
struct Launcher {
    child: Child,
    responses: BufReader<ChildStdout>,
    /// The ports of the sockets.
    ports: Vec<u16>,
}

impl Launcher {
    fn new(home: &Path, names: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(root().join("tests/it/server/sockets.py"))
            .arg(names);
        let settings = home.join("settings.toml");
        let at = |name: &str| home.join(name).display().to_string();
        std::fs::write(
            &settings,
            format!(
                "spool = {:?}\nartifacts = {:?}\nlogs = {:?}\nstore = \"sled:{}\"\n",
                at("spool"),
                at("artifacts"),
                at("logs"),
                at("db")
            ),
        )
        .unwrap();
        let mut child = command
            .args([PROGRAM, "serve", "--config"])
            .arg(settings)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(home.join("log")).unwrap())
            .spawn()
            .unwrap();
        let responses = BufReader::new(child.stdout.take().unwrap());
        let mut launcher = Self {
            child,
            responses,
            ports: vec![],
        };
        let ports = launcher.response();
        launcher.ports = ports.split(' ').map(|port| port.parse().unwrap()).collect();
        launcher
    }

    fn response(&mut self) -> String {
        let mut line = String::new();
        self.responses.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn command(&mut self, command: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.response()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// A client that opens a connection for each request.
fn client() -> reqwest::Client {
    janitor_runner::tls::install();
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

async fn get(client: &reqwest::Client, port: u16, path: &str) -> reqwest::Result<u16> {
    let response = client
        .get(format!("http://127.0.0.1:{port}{path}"))
        .send()
        .await?;
    let status = response.status().as_u16();
    response.bytes().await?;
    Ok(status)
}

#[tokio::test]
async fn inherited_sockets_serve_both_apis() {
    for (names, admin, public) in [("admin:public", 0, 1), ("public:admin", 1, 0), ("", 0, 1)] {
        let home = tempfile::tempdir().unwrap();
        let mut launcher = Launcher::new(home.path(), names, &[]);
        let client = client();
        launcher.command("start");
        // Only the admin API has the queue, and only the public one asks for a login.
        let (admin, public) = (launcher.ports[admin], launcher.ports[public]);
        assert_eq!(get(&client, admin, "/queue").await.unwrap(), 200, "{names}");
        assert_eq!(
            get(&client, public, "/queue").await.unwrap(),
            404,
            "{names}"
        );
        assert_eq!(
            get(&client, public, "/runner/active-runs/x").await.unwrap(),
            401,
            "{names}"
        );
        assert_eq!(launcher.command("stop"), "0", "{names}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_on_inherited_sockets_refuses_nobody() {
    let home = tempfile::tempdir().unwrap();
    let mut launcher = Launcher::new(home.path(), "admin:public", &[]);
    launcher.command("start");
    let (admin, public) = (launcher.ports[0], launcher.ports[1]);
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [(admin, "/health"), (public, "/")]
        .into_iter()
        .cycle()
        .take(6)
        .map(|(port, path)| {
            let (ended, client) = (ended.clone(), client());
            tokio::spawn(async move {
                let mut served = 0;
                while !ended.load(Ordering::Relaxed) {
                    let status = get(&client, port, path)
                        .await
                        .unwrap_or_else(|error| panic!("{error:?}"));
                    assert_eq!(status, 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let launcher = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(launcher.command("stop"), "0");
            std::thread::sleep(Duration::from_millis(300));
            launcher.command("start");
        }
        launcher
    })
    .await
    .unwrap();
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.expect("nobody is refused") > 0);
    }
    drop(launcher);
}

#[tokio::test]
async fn public_port_zero_opens_no_public_api() {
    let home = tempfile::tempdir().unwrap();
    let (client, port) = (client(), free_port());
    let settings = "[telemetry]\nlog = \"info\"\n";
    let mut server = Server::start(home.path(), "memory:", settings).await;
    server.kill();
    // The last of two flags counts.
    let mut child = server
        .command()
        .args(["--public-port", "0", "--port", &port.to_string()])
        .args([
            "--listen-address",
            "nowhere.invalid",
            "--listen-address",
            "localhost",
        ])
        .stderr(std::fs::File::create(home.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(home.path().join("log")).unwrap();
    for _ in 0..1000 {
        if log().contains("serving") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(log().contains("public=none"), "{}", log());
    assert_eq!(get(&client, port, "/status").await.unwrap(), 200);
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn unknown_listen_address_is_named() {
    let output = Command::new(PROGRAM)
        .args([
            "--store",
            "memory:",
            "--listen-address",
            "no-such-host.invalid",
        ])
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("listen_address"), "{text}");
    assert!(text.contains("no-such-host.invalid"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}
