//! The real program as a process, and a client of it.

use serde_json::{Value, json};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_janitor-runner");

const TEST_PORTS: std::ops::Range<u16> = 20_000..28_000;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A port that nobody listens on, and that no other test gets while this process runs: the lock of a
/// file named after it is held until then. The ports lie below those that the kernel gives to
/// connections, so that none of these takes it meanwhile. `tests/servers.py` has the same rule.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join("janitor-test-ports");
    std::fs::create_dir_all(&locks).unwrap();
    let random = RandomState::new().build_hasher().finish() % TEST_PORTS.len() as u64;
    let first = TEST_PORTS.start + u16::try_from(random).unwrap();
    for port in (first..TEST_PORTS.end).chain(TEST_PORTS.start..first) {
        let lock = std::fs::File::create(locks.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().unwrap().push(lock);
            return port;
        }
    }
    panic!("no port of {TEST_PORTS:?} is free");
}

/// A client with the settings of the bundled worker.
pub fn client() -> reqwest::Client {
    janitor_runner::http_client::http_client().unwrap()
}

/// A client that opens a connection for each request. The server closes a connection when it responds before the end of an
/// upload, maybe just when the next request is being sent on it.
fn unpooled_client() -> reqwest::Client {
    janitor_runner::tls::install();
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

/// A server in a process of its own, which is killed when this is dropped.
pub struct Server {
    pub home: PathBuf,
    pub admin: String,
    pub public: String,
    /// Its `store`, as in the settings.
    pub store: String,
    program: Vec<String>,
    child: Option<Child>,
    http: reqwest::Client,
}

/// A finish upload: a report, and files as (name, content).
pub fn upload(report: &Value, files: &[(&str, &[u8])]) -> reqwest::multipart::Form {
    let part = |name: &str, bytes: Vec<u8>| {
        reqwest::multipart::Part::bytes(bytes).file_name(name.to_owned())
    };
    let form = reqwest::multipart::Form::new().part(
        "metadata",
        part("result.json", report.to_string().into_bytes()),
    );
    files.iter().fold(form, |form, (name, bytes)| {
        form.part("file", part(name, bytes.to_vec()))
    })
}

impl Server {
    /// Starts a server with its files below `home`; `settings` is TOML that adds to the golden campaigns.
    pub async fn start(home: &Path, store: &str, settings: &str) -> Self {
        let policies =
            "[publish_policies]\ndefault-policy = [{ role = \"main\", mode = \"propose\" }]\n";
        Self::launch(home, store, &format!("{settings}\n{policies}"), &[]).await
    }

    /// Starts a server without publish policies.
    pub async fn start_plain(home: &Path, store: &str) -> Self {
        Self::launch(home, store, "", &[]).await
    }

    /// Starts a server whose spool is on a file system of one megabyte, in a mount namespace of its own.
    pub async fn on_small_spool(home: &Path, store: &str) -> Self {
        let spool = home.join("spool");
        std::fs::create_dir_all(&spool).unwrap();
        let mount = format!(
            "mount -t tmpfs -o size=1m tmpfs '{}' && exec \"$@\"",
            spool.display()
        );
        Self::launch(
            home,
            store,
            "",
            &["unshare", "--mount", "sh", "-c", &mount, "sh"],
        )
        .await
    }

    /// Starts a server that may have so many files open.
    pub async fn with_descriptors(home: &Path, store: &str, descriptors: u32) -> Self {
        let limit = format!("ulimit -n {descriptors} && exec \"$@\"");
        Self::launch(home, store, "", &["sh", "-c", &limit, "sh"]).await
    }

    /// The resident memory of the process, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// Starts a server as the last words of a command.
    pub async fn start_below(home: &Path, store: &str, settings: &str, before: &[&str]) -> Self {
        Self::launch(home, store, settings, before).await
    }

    async fn launch(home: &Path, store: &str, settings: &str, before: &[&str]) -> Self {
        let (port, public_port) = (free_port(), free_port());
        let file = home.join("settings.toml");
        let at = |name: &str| {
            if settings.contains(&format!("{name} = ")) {
                String::new()
            } else {
                format!("{name} = \"{}\"\n", home.join(name).display())
            }
        };
        // No host beyond this machine is asked for branches.
        let vcs = match settings.contains("[vcs]") {
            true => "",
            false => "\n[vcs]\nallowed_hosts = [\"127.0.0.1\", \"localhost\"]\n",
        };
        let folders = [at("spool"), at("artifacts"), at("logs")].concat();
        std::fs::write(&file, format!("{folders}{settings}{vcs}")).unwrap();
        let golden = root()
            .join("tests/golden/campaigns.conf")
            .display()
            .to_string();
        let vcs = "git=http://127.0.0.1:28080/git/,bzr=http://127.0.0.1:28080/bzr/".to_owned();
        let vcs = Some(("--public-vcs-location", vcs))
            .filter(|_| !settings.contains("public_vcs_location = "));
        let options = [
            ("--config", golden),
            ("--config", file.display().to_string()),
            ("--store", store.to_owned()),
            ("--port", port.to_string()),
            ("--public-port", public_port.to_string()),
        ];
        let options = options
            .into_iter()
            .chain(vcs)
            .flat_map(|(option, value)| [option.to_owned(), value]);
        let program = before
            .iter()
            .copied()
            .chain([PROGRAM, "serve"])
            .map(str::to_owned)
            .chain(options)
            .collect();
        let mut server = Self {
            home: home.to_owned(),
            admin: format!("http://127.0.0.1:{port}"),
            public: format!("http://127.0.0.1:{public_port}"),
            store: store.to_owned(),
            program,
            child: None,
            http: unpooled_client(),
        };
        server.run().await;
        server
    }

    pub async fn sled(home: &Path) -> Self {
        Self::start(home, &format!("sled:{}", home.join("db").display()), "").await
    }

    /// Starts the process, for the first time or after a kill, and waits until it is ready.
    pub async fn run(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.join("server.log"))
            .unwrap();
        self.run_with(log).await;
    }

    /// Starts the process with another standard error, and waits until it is ready.
    pub async fn run_with(&mut self, stderr: impl Into<Stdio>) {
        let child = self.command().stderr(stderr).spawn().unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while self
            .http
            .get(format!("{}/ready", self.admin))
            .send()
            .await
            .map_or(true, |response| !response.status().is_success())
        {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "not ready: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The command that starts the process.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("server.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &self.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until the process exits and returns whether it succeeded.
    pub async fn wait_for_exit(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap().success())
            .await
            .unwrap()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.admin))
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        send(self.request("POST", path).json(body)).await
    }

    pub fn public_request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.public))
    }

    /// Claims the item of a codebase and returns the id of the run.
    pub async fn claim_of(&self, codebase: &str) -> String {
        let taken = self
            .post(
                "/active-runs",
                &json!({ "worker": "w1", "codebase": codebase }),
            )
            .await;
        taken.1["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{taken:?}"))
            .to_owned()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        send(self.request("GET", path)).await
    }

    pub async fn add_worker(&self, name: &str, password: &str) {
        let added = self
            .post(
                "/admin/workers",
                &json!({ "name": name, "password": password }),
            )
            .await;
        assert_eq!(added.0, 201, "{added:?}");
    }

    /// Adds a codebase with a candidate of a campaign.
    pub async fn queue(&self, codebase: &str, campaign: &str) {
        assert_eq!(
            self.post("/codebases", &json!([{ "name": codebase }]))
                .await
                .0,
            200
        );
        let uploaded = self
            .post(
                "/candidates",
                &json!([{ "codebase": codebase, "campaign": campaign }]),
            )
            .await;
        assert_eq!(
            uploaded.1["success"].as_array().map(Vec::len),
            Some(1),
            "{uploaded:?}"
        );
    }

    /// Waits until all of these are queued.
    pub async fn queued_are(&self, codebases: &[&str]) {
        let queued = |queue: &Value, codebase: &str| {
            queue
                .as_array()
                .is_some_and(|items| items.iter().any(|item| item["codebase"] == *codebase))
        };
        self.until("/queue", |queue| {
            codebases.iter().all(|codebase| queued(queue, codebase))
        })
        .await;
    }

    /// Repeats a request until its response is as wanted, and returns that. A server that is down is retried too.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (started, mut last) = (Instant::now(), Value::Null);
        loop {
            if let Ok(response) = self.request("GET", path).send().await {
                let text = response.text().await.unwrap_or_default();
                last = serde_json::from_str(&text).unwrap_or(Value::String(text));
                if wanted(&last) {
                    return last;
                }
            }
            assert!(
                started.elapsed() < Duration::from_secs(40),
                "{path} still returns {last}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// Claims the item of a codebase and returns the assignment.
    pub async fn take(&self, codebase: &str) -> Value {
        let taken = self
            .post(
                "/active-runs",
                &json!({ "worker": "w1", "codebase": codebase }),
            )
            .await;
        assert_eq!(taken.0, 201, "{taken:?}");
        taken.1
    }

    pub async fn finish(&self, id: &str, report: &Value, files: &[(&str, &[u8])]) -> (u16, Value) {
        send(
            self.request("POST", &format!("/active-runs/{id}/finish"))
                .multipart(upload(report, files)),
        )
        .await
    }
}

/// Sends a request and returns the status, and the body as JSON or as text.
pub async fn send(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
