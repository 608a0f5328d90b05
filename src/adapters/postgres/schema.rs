//! The tables: created in an empty database, checked in one that the Janitor created, where only
//! our own are added.

use crate::ports::Fault;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::collections::{BTreeMap, BTreeSet};

/// The table that records which migrations are applied.
const APPLIED: &str = "runner_migrations";
/// The Janitor's own tables, only for a database without them.
const JANITOR: (i64, &str, &str) = (
    1,
    "the Janitor's tables",
    include_str!("../../../migrations/janitor/0001_schema.sql"),
);
/// The runner's tables. Append only.
const RUNNER: &[(i64, &str, &str)] = &[
    (
        2,
        "the runner's tables",
        include_str!("../../../migrations/runner/0001_runner.sql"),
    ),
    (
        3,
        "leases, parked items, pauses, limits and logs of active runs",
        include_str!("../../../migrations/runner/0002_watching.sql"),
    ),
    (
        4,
        "names that say what the tables and columns hold",
        include_str!("../../../migrations/runner/0003_names.sql"),
    ),
    (
        5,
        "one rule for the host of a branch URL",
        include_str!("../../../migrations/runner/0004_hosts.sql"),
    ),
    (
        6,
        "what other services write has its effect",
        include_str!("../../../migrations/runner/0005_neighbours.sql"),
    ),
    (
        7,
        "the audit log",
        include_str!("../../../migrations/runner/0006_audit.sql"),
    ),
];

/// What the runner needs of the Janitor's tables: each column with the kind of its type
/// (Postgres's category, or the name of an enum or composite type).
const NEEDED: &[(&str, &str)] = &[
    (
        "codebase",
        "name S, branch_url S, url S, branch S, subpath S, vcs_last_revision S, web_url S, \
         vcs_type vcs_type, value N, inactive B, hostname S",
    ),
    ("worker", "name S, password S, link S"),
    ("change_set", "id S, campaign S, state change_set_state"),
    (
        "run",
        "id S, command S, description S, start_time D, finish_time D, duration T, \
         result_code S, instigated_context S, context S, main_branch_revision S, revision S, \
         result U, suite S, vcs_type vcs_type, branch_url S, logfilenames A, \
         publish_status publish_status, value N, worker S, worker_link S, result_tags A, \
         subpath S, failure_stage S, failure_details U, target_branch_url S, \
         failure_transient B, resume_from S, change_set S, codebase S",
    ),
    (
        "new_result_branch",
        "run_id S, role S, remote_name S, base_revision S, revision S, absorbed B",
    ),
    (
        "queue",
        "id N, bucket queue_bucket, codebase S, suite S, command S, priority N, context S, \
         estimated_duration T, refresh B, requester S, change_set S",
    ),
    (
        "candidate",
        "id N, suite S, codebase S, context S, value N, success_chance N, command S, \
         publish_policy S, change_set S",
    ),
    (
        "named_publish_policy",
        "name S, per_branch_policy A, rate_limit_bucket S",
    ),
    ("followup", "origin S, candidate N"),
    (
        "last_run",
        "codebase S, campaign S, last_run_id S, last_effective_run_id S, \
         last_unabsorbed_run_id S",
    ),
    (
        "merge_proposal",
        "url S, codebase S, status merge_proposal_status, revision S",
    ),
    (
        "debian_build",
        "run_id S, version *, distribution S, source S, binary_packages A, lintian_result U",
    ),
];

/// How a database differs from what this version needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Migrations that are not applied yet: version and title of each.
    pub steps: Vec<String>,
    /// Why the database cannot be used.
    pub problems: Vec<String>,
    /// The versions of `steps`.
    versions: Vec<i64>,
}

impl Plan {
    /// Whether the database is what this version needs.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.problems.is_empty()
    }
}

/// Whom a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// It has the tables of a full Janitor, which its other services need.
    Janitor,
    /// It has only what this runner needs.
    RunnerAlone,
}

impl DatabaseKind {
    /// Returns what an operator is to know about it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Janitor => "a full Janitor's, shared with its publisher and site",
            Self::RunnerAlone => {
                "for this runner alone: it has no tables of a publisher or a site; \
                 a full Janitor loads its own schema before `migrate`"
            }
        }
    }
}

/// Returns whom a database is for: a publisher has the table `publish`, a site the table `review`.
///
/// # Errors
///
/// [`Fault`] when the database cannot be reached.
pub async fn kind(url: &str) -> Result<DatabaseKind, Fault> {
    let look = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query_scalar(
            "SELECT to_regclass('publish') IS NOT NULL AND to_regclass('review') IS NOT NULL",
        )
        .fetch_one(&mut connection)
        .await
    };
    let is_full = look
        .await
        .map_err(|e| super::error::fault("look at the database", e))?;
    Ok(if is_full {
        DatabaseKind::Janitor
    } else {
        DatabaseKind::RunnerAlone
    })
}

async fn columns(
    connection: &mut PgConnection,
) -> sqlx::Result<BTreeMap<String, BTreeMap<String, String>>> {
    let tables: Vec<&str> = NEEDED.iter().map(|(table, _)| *table).collect();
    let rows: Vec<(String, String, String)> = sqlx::query_as(include_str!("sql/list_columns.sql"))
        .bind(tables)
        .fetch_all(connection)
        .await?;
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (table, column, kind) in rows {
        found.entry(table).or_default().insert(column, kind);
    }
    Ok(found)
}

fn missing(found: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<String> {
    let mut problems = vec![];
    for (table, needed) in NEEDED {
        let Some(columns) = found.get(*table) else {
            problems.push(format!("table {table} is missing"));
            continue;
        };
        for (name, kind) in needed
            .split(", ")
            .filter_map(|column| column.trim().split_once(' '))
        {
            match columns.get(name) {
                None => problems.push(format!("column {table}.{name} is missing")),
                Some(found) if found != kind && kind != "*" => {
                    problems.push(format!(
                        "column {table}.{name} is of another type than expected \
                         (kind {found} instead of {kind})"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

async fn applied(connection: &mut PgConnection) -> sqlx::Result<BTreeSet<i64>> {
    let there: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(APPLIED)
        .fetch_one(&mut *connection)
        .await?;
    if there.is_none() {
        return Ok(BTreeSet::new());
    }
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM runner_migrations WHERE success")
            .fetch_all(connection)
            .await?;
    Ok(versions.into_iter().collect())
}

/// Compares a database with what this version needs; changes nothing.
///
/// # Errors
///
/// [`sqlx::Error`] when the database cannot be read.
pub async fn inspect(connection: &mut PgConnection) -> sqlx::Result<Plan> {
    let (applied, found) = (applied(connection).await?, columns(connection).await?);
    let mut plan = Plan {
        steps: vec![],
        problems: vec![],
        versions: vec![],
    };
    let newest = RUNNER
        .iter()
        .map(|(version, ..)| *version)
        .max()
        .unwrap_or_default();
    if let Some(newer) = applied.last().filter(|version| **version > newest) {
        plan.problems.push(format!(
            "the database is of a newer version of the runner (migration {newer}, \
             this one knows {newest}): use that one"
        ));
        return Ok(plan);
    }
    let janitor = found.is_empty().then_some(&JANITOR);
    if !found.is_empty() {
        plan.problems = missing(&found);
    }
    for (version, name, _) in janitor
        .into_iter()
        .chain(RUNNER)
        .filter(|(version, ..)| !applied.contains(version))
    {
        plan.steps.push(format!("{version}: {name}"));
        plan.versions.push(*version);
    }
    Ok(plan)
}

fn migrator(plan: &Plan, applied: &BTreeSet<i64>) -> Migrator {
    let wanted = |version: &i64| plan.versions.contains(version) || applied.contains(version);
    let migrations = std::iter::once(&JANITOR)
        .chain(RUNNER)
        .filter(|(version, ..)| wanted(version));
    let migrations = migrations.map(|(version, name, sql)| {
        Migration::new(
            *version,
            (*name).into(),
            MigrationType::Simple,
            AssertSqlSafe((*sql).to_owned()).into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(APPLIED);
    migrator
}

/// Brings a database up to date, each migration all or nothing. A database with problems is left
/// alone.
///
/// # Errors
///
/// [`Fault`] when the database cannot be reached, or a migration fails.
pub async fn migrate(url: &str) -> Result<Plan, Fault> {
    let action = "migrate the database";
    let mut connection = PgConnection::connect(url)
        .await
        .map_err(|e| super::error::fault(action, e))?;
    let plan = inspect(&mut connection)
        .await
        .map_err(|e| super::error::fault(action, e))?;
    if plan.problems.is_empty() && !plan.steps.is_empty() {
        let applied = applied(&mut connection)
            .await
            .map_err(|e| super::error::fault(action, e))?;
        migrator(&plan, &applied)
            .run(&mut connection)
            .await
            .map_err(|e| Fault::backend(action, e))?;
    }
    Ok(plan)
}

/// Returns what [`migrate`] would do.
///
/// # Errors
///
/// [`Fault`] when the database cannot be reached.
pub async fn plan(url: &str) -> Result<Plan, Fault> {
    let action = "look at the database";
    let mut connection = PgConnection::connect(url)
        .await
        .map_err(|e| super::error::fault(action, e))?;
    inspect(&mut connection)
        .await
        .map_err(|e| super::error::fault(action, e))
}
