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

/// Where the shared servers are; the lock tells them that they are in use.
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

/// Where a shared server is.
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

/// The same server's other database.
pub fn with_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

/// A database with all tables, made by copying; the first test of all makes the one that is copied.
pub async fn database() -> String {
    let server = url("postgres");
    let template = "migrated";
    {
        let once = File::create(folder().join("template.lock")).unwrap();
        once.lock().unwrap();
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let there: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(template)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        if !there {
            execute(&server, "DROP DATABASE IF EXISTS being_migrated").await;
            execute(&server, "CREATE DATABASE being_migrated").await;
            let plan = schema::migrate(&with_database(&server, "being_migrated"))
                .await
                .unwrap();
            assert_eq!(plan.problems, Vec::<String>::new());
            execute(&server, "ALTER DATABASE being_migrated RENAME TO migrated").await;
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

/// An empty database.
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
    }
}

pub async fn open_postgres(url: &str) -> Postgres {
    Postgres::open(&postgres_settings(url), Arc::new(Metrics::new()))
        .await
        .unwrap()
}

/// A bucket of the fake GCS, as its name.
pub async fn new_bucket(gcs: &str) -> String {
    let name = unique("bucket").replace('_', "-");
    let answer = super::process::client()
        .post(format!("{gcs}/storage/v1/b"))
        .json(&serde_json::json!({ "name": name }))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success());
    name
}

/// Settings for artifacts and logs in a bucket of the shared fake GCS.
pub async fn bucket() -> String {
    let gcs = url("gcs");
    let name = new_bucket(&gcs).await;
    format!(
        "artifacts = \"gs://{name}/\"\nlogs = \"gs://{name}/\"\ngcs = {{ endpoint = \"{gcs}\", credentials = \"anonymous\" }}\n"
    )
}

/// Servers of one test, which it may stop and kill.
pub struct Private {
    child: Child,
    answers: BufReader<ChildStdout>,
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
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Self {
            found: serde_json::from_str(&line).expect("private servers start"),
            child,
            answers,
        }
    }

    pub fn url(&self, kind: &str) -> String {
        self.found[kind]["url"].as_str().unwrap().to_owned()
    }

    /// `stop`, `continue`, `kill` or `start`.
    pub fn control(&mut self, command: &str, kind: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command} {kind}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n", "{command} {kind}");
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // The end of its input ends them.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}
