//! The servers that tests need, started by `tests/servers.py`: shared ones, each test with a database, a key prefix or a
//! bucket of its own; and private ones, for tests that stop them.

use super::process::root;
use janitor_runner::{
    adapters::{
        clock::RandomIds,
        postgres::{Postgres, PostgresSettings, schema},
    },
    metrics::Metrics,
    ports::Ids,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

fn script() -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join("tests/servers.py"));
    command
}

fn folder() -> PathBuf {
    root().join("target/test-servers")
}

/// The addresses of the shared servers. While the lock is held, they do not stop.
struct Shared {
    found: Value,
    _in_use: File,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        std::fs::create_dir_all(folder()).unwrap();
        let in_use = File::create(folder().join("in-use")).unwrap();
        in_use.lock_shared().unwrap();
        let output = script()
            .arg("shared")
            .arg(folder())
            .stdin(Stdio::null())
            .output()
            .expect("python3 starts the test servers");
        assert!(
            output.status.success(),
            "no test servers (`python3 tests/servers.py install` installs them): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Shared {
            found: serde_json::from_slice(&output.stdout).unwrap(),
            _in_use: in_use,
        }
    })
}

/// The address of a shared server.
pub fn url(kind: &str) -> String {
    shared().found[kind]["url"].as_str().unwrap().to_owned()
}

pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", RandomIds.fresh().replace('-', ""))
}

pub async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Another database of the same server.
pub fn with_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

/// Creates a database with all tables from a template, which the first test creates.
pub async fn database() -> String {
    let server = url("postgres");
    let template = "migrated";
    {
        let once = File::create(folder().join("template.lock")).unwrap();
        once.lock().unwrap();
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(template)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        if !exists {
            execute(&server, "DROP DATABASE IF EXISTS template_in_progress").await;
            execute(&server, "CREATE DATABASE template_in_progress").await;
            let plan = schema::migrate(&with_database(&server, "template_in_progress"))
                .await
                .unwrap();
            assert_eq!(plan.problems, Vec::<String>::new());
            execute(
                &server,
                "ALTER DATABASE template_in_progress RENAME TO migrated",
            )
            .await;
        }
    }
    let name = unique("test");
    execute(
        &server,
        &format!("CREATE DATABASE {name} TEMPLATE {template}"),
    )
    .await;
    with_database(&server, &name)
}

/// Creates an empty database.
pub async fn empty_database() -> String {
    let (server, name) = (url("postgres"), unique("empty"));
    execute(&server, &format!("CREATE DATABASE {name}")).await;
    with_database(&server, &name)
}

pub fn postgres_settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: url.to_owned(),
        max_connections: 6,
        statement_timeout: Duration::from_secs(30),
        read_connections: 2,
        read_timeout: Duration::from_secs(30),
    }
}

pub async fn open_postgres(url: &str) -> Postgres {
    Postgres::open(&postgres_settings(url), Arc::new(Metrics::new()))
        .await
        .unwrap()
}

/// Creates a bucket of the fake GCS and returns its name.
pub async fn new_bucket(gcs: &str) -> String {
    let name = unique("bucket").replace('_', "-");
    create_bucket(gcs, &name).await;
    name
}

pub async fn create_bucket(gcs: &str, name: &str) {
    let created = super::process::client()
        .post(format!("{gcs}/storage/v1/b"))
        .json(&serde_json::json!({ "name": name }))
        .send()
        .await
        .unwrap();
    assert!(created.status().is_success());
}

/// Settings for artifacts and logs in a bucket of the shared fake GCS.
pub async fn bucket() -> String {
    let gcs = url("gcs");
    let name = new_bucket(&gcs).await;
    format!(
        "artifacts = \"gs://{name}/\"\nlogs = \"gs://{name}/\"\ngcs = {{ endpoint = \"{gcs}\", credentials = \"anonymous\" }}\n"
    )
}

/// Servers of one test alone, which it may stop and kill.
pub struct Private {
    child: Child,
    responses: BufReader<ChildStdout>,
    found: Value,
}

impl Private {
    pub fn start(kinds: &[&str]) -> Self {
        let mut child = script()
            .arg("private")
            .args(kinds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut responses = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        responses.read_line(&mut line).unwrap();
        Self {
            found: serde_json::from_str(&line).expect("private servers start"),
            child,
            responses,
        }
    }

    pub fn url(&self, kind: &str) -> String {
        self.found[kind]["url"].as_str().unwrap().to_owned()
    }

    /// Sends a command: `stop`, `continue`, `kill` or `start`.
    pub fn control(&mut self, command: &str, kind: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command} {kind}").unwrap();
        let mut line = String::new();
        self.responses.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n", "{command} {kind}");
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // The script stops the servers when its input ends.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}
