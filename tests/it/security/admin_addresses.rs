//! The admin API has an address of its own, and is not open to others by mistake.

use crate::support::process::{PROGRAM, client, free_port};
use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// An address of this machine that others may reach. Nothing is sent to find it.
fn outer_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

/// A service, which is killed when this is dropped.
struct Service {
    child: Child,
    home: tempfile::TempDir,
    port: u16,
    public_port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(home: &Path, settings: &str, arguments: &[&str]) -> Command {
    let file = home.join("settings.toml");
    std::fs::write(&file, format!("store = \"memory:\"\n{settings}")).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--config"])
        .arg(file)
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

impl Service {
    async fn start(settings: &str, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self::start_in(home, settings, arguments).await
    }

    async fn start_in(home: tempfile::TempDir, settings: &str, arguments: &[&str]) -> Self {
        let (port, public_port) = (free_port(), free_port());
        let child = command(home.path(), settings, arguments)
            .args(["--port", &port.to_string()])
            .args(["--public-port", &public_port.to_string()])
            .stderr(std::fs::File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut service = Self {
            child,
            home,
            port,
            public_port,
        };
        for _ in 0..1000 {
            if service.log().contains("serving") {
                return service;
            }
            assert!(
                service.child.try_wait().unwrap().is_none(),
                "{}",
                service.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not serve: {}", service.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

fn connects(address: std::net::IpAddr, port: u16) -> bool {
    let address = SocketAddr::new(address, port);
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_address_is_that_of_the_public_api_only() {
    let service = Service::start("listen_address = \"0.0.0.0\"\n", &[]).await;
    let (outer, own) = (outer_address(), [127, 0, 0, 1].into());
    assert!(connects(own, service.port));
    assert!(connects(own, service.public_port));
    if !outer.is_loopback() {
        assert!(connects(outer, service.public_port));
        assert!(
            !connects(outer, service.port),
            "the admin API is open to others"
        );
    }
    assert!(
        service.log().contains("passwords of workers"),
        "{}",
        service.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn flag_of_the_python_runner_sets_both_and_warns() {
    let service = Service::start("", &["--listen-address", "0.0.0.0"]).await;
    let outer = outer_address();
    assert!(connects(outer, service.port));
    assert!(connects(outer, service.public_port));
    assert!(service.log().contains("has no login"), "{}", service.log());
    let local = Service::start("", &["--listen-address", "localhost"]).await;
    assert!(!local.log().contains("WARN"), "{}", local.log());
}

#[test]
fn open_admin_api_needs_consent() {
    let home = tempfile::tempdir().unwrap();
    let settings = "admin_listen_address = \"0.0.0.0\"\nport = 0\npublic_port = 0\n";
    let output = command(home.path(), settings, &[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for named in ["[[admin.token]]", "admin.open", "admin_listen_address"] {
        assert!(text.contains(named), "{text}");
    }
    let check = Command::new(PROGRAM)
        .args(["check", "--config", "settings.toml"])
        .current_dir(home.path())
        .output()
        .unwrap();
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(
        text.contains("admin_listen_address 0.0.0.0: the service does not start"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_api_with_consent_or_tokens_is_served_to_others() {
    let hash = "0".repeat(64);
    let token =
        format!("[[admin.token]]\nname = \"a\"\nrole = \"viewer\"\nsecret = \"sha256:{hash}\"\n");
    for (who, status) in [("[admin]\nopen = true\n", 200), (token.as_str(), 401)] {
        let settings = format!("admin_listen_address = \"0.0.0.0\"\n{who}");
        let service = Service::start(&settings, &[]).await;
        let url = format!("http://{}:{}/status", outer_address(), service.port);
        assert_eq!(
            client().get(url).send().await.unwrap().status(),
            status,
            "{who}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_apis_listen_on_unix_sockets() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (admin, public) = (path("admin.sock"), path("public.sock"));
    // What a killed process has left behind.
    drop(std::os::unix::net::UnixListener::bind(&admin).unwrap());
    let settings = format!(
        "listen_address = \"unix:{}\"\nadmin_listen_address = \"unix:{}\"\n",
        public.display(),
        admin.display()
    );
    let service = Service::start_in(home, &settings, &[]).await;
    for (socket, url, expected) in [
        (&admin, "http://localhost/status", 200),
        (&public, "http://localhost/runner/active-runs/x", 401),
    ] {
        let mode = std::fs::metadata(socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{}", socket.display());
        let client = janitor_runner::http_client::http_client_builder()
            .unix_socket(socket.as_path())
            .build()
            .unwrap();
        assert_eq!(client.get(url).send().await.unwrap().status(), expected);
    }
    let status = Command::new(PROGRAM)
        .args(["status", "--server", &format!("unix:{}", admin.display())])
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    // A socket in use is not taken from its process.
    let other = tempfile::tempdir().unwrap();
    let second = command(other.path(), &settings, &[]).output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains("another process listens there"), "{text}");
    drop(service);
}

/// Opens a Unix socket, passes it on as systemd does, and becomes the program.
const PASS_ON: &str = "import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='admin', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";

#[tokio::test(flavor = "multi_thread")]
async fn unix_socket_of_systemd_is_used() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("passed.sock");
    let child = Command::new("python3")
        .args(["-c", PASS_ON])
        .arg(&socket)
        .args([PROGRAM, "serve", "--store", "memory:", "--public-port", "0"])
        .current_dir(home.path())
        .stderr(std::fs::File::create(home.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let service = Service {
        child,
        home,
        port: 0,
        public_port: 0,
    };
    let client = janitor_runner::http_client::http_client_builder()
        .unix_socket(socket.as_path())
        .build()
        .unwrap();
    // The socket is there before the service; it responds once it has started.
    for _ in 0..500 {
        if let Ok(response) = client.get("http://localhost/status").send().await {
            assert_eq!(response.status(), 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not serve: {}", service.log());
}
