//! Codebases, candidates and publish policies: a fixed number of statements stores a list.

use super::{
    Postgres,
    error::{Abort, database_error},
    queue,
    records::{KeyColumns, read, read_all, row_limit},
};
use crate::{
    domain::{
        candidate::{Candidate, CandidateId},
        codebase::Codebase,
        name::{CodebaseName, RunId},
        publish::PublishPolicy,
        queue::{EnqueueRequest, QueueKey},
        time::Time,
    },
    ports::{
        Catalog, CatalogError, Fault, QueueStoreError,
        catalog::{KnownNames, ScheduledCandidate},
        queue_store::Enqueued,
    },
};
use async_trait::async_trait;
use sqlx::{PgConnection, error::DatabaseError};
use std::collections::{BTreeMap, HashMap};

/// A branch URL and a subpath.
type Location = (Option<String>, Option<String>);

/// Keeps the last codebase of each name, or location, in the order of the list; returns those with
/// a name and those without.
fn distinct(codebases: Vec<Codebase>) -> (Vec<Codebase>, Vec<Codebase>) {
    let mut last = HashMap::new();
    for (index, codebase) in codebases.iter().enumerate() {
        let key = match &codebase.name {
            Some(name) => (Some(name.clone()), None, None),
            None => (None, codebase.branch_url.clone(), codebase.subpath.clone()),
        };
        last.insert(key, index);
    }
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    let mut codebases: Vec<Option<Codebase>> = codebases.into_iter().map(Some).collect();
    kept.into_iter()
        .filter_map(|index| codebases.get_mut(index)?.take())
        .partition(|codebase| codebase.name.is_some())
}

/// Locks the codebases of these names, and returns where they are now.
async fn lock_locations(
    connection: &mut PgConnection,
    names: &[&str],
) -> sqlx::Result<HashMap<String, Location>> {
    let rows: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT name::text, branch_url, subpath FROM codebase
         WHERE name = ANY ($1::text[]) ORDER BY name FOR UPDATE",
    )
    .bind(names)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(name, url, subpath)| (name, (url, subpath)))
        .collect())
}

/// Stores codebases; returns the names of those whose location changed.
async fn store_codebases(
    connection: &mut PgConnection,
    codebases: Vec<Codebase>,
) -> sqlx::Result<Vec<CodebaseName>> {
    let (named, nameless) = distinct(codebases);
    let names: Vec<&str> = named
        .iter()
        .filter_map(|codebase| codebase.name.as_ref())
        .map(CodebaseName::as_str)
        .collect();
    let earlier = lock_locations(&mut *connection, &names).await?;
    sqlx::query(include_str!("sql/record_codebase_order.sql"))
        .bind(names)
        .execute(&mut *connection)
        .await?;
    for (sql, codebases) in [
        (include_str!("sql/store_named_codebases.sql"), &named),
        (include_str!("sql/store_nameless_codebases.sql"), &nameless),
    ] {
        if !codebases.is_empty() {
            let rows =
                serde_json::to_string(codebases).map_err(|e| sqlx::Error::Encode(e.into()))?;
            sqlx::query(sql)
                .bind(rows)
                .execute(&mut *connection)
                .await?;
        }
    }
    let has_moved = |codebase: &Codebase| {
        let name = codebase.name.as_ref();
        let before = name.and_then(|name| earlier.get(name.as_str()));
        before.is_some_and(|(url, subpath)| {
            (url, subpath) != (&codebase.branch_url, &codebase.subpath)
        })
    };
    Ok(named
        .into_iter()
        .filter(has_moved)
        .filter_map(|codebase| codebase.name)
        .collect())
}

/// Whether two rows were to have the same unique value.
fn is_duplicate(fault: &Fault) -> bool {
    database_error(fault).is_some_and(DatabaseError::is_unique_violation)
}

/// The columns of candidates, for `unnest`.
#[derive(Default)]
struct CandidateColumns {
    keys: Vec<QueueKey>,
    commands: Vec<String>,
    contexts: Vec<Option<String>>,
    values: Vec<Option<i32>>,
    chances: Vec<Option<f64>>,
    policies: Vec<Option<String>>,
}

impl FromIterator<Candidate> for CandidateColumns {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Self {
        let mut columns = Self::default();
        for candidate in candidates {
            columns.keys.push(candidate.key);
            columns.commands.push(candidate.command);
            columns.contexts.push(candidate.context);
            columns.values.push(candidate.value);
            columns.chances.push(candidate.success_chance);
            columns.policies.push(candidate.publish_policy);
        }
        columns
    }
}

impl CandidateColumns {
    async fn store(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let keys = KeyColumns::from_iter(&self.keys);
        sqlx::query(include_str!("sql/store_candidates.sql"))
            .bind(keys.codebases)
            .bind(keys.campaigns)
            .bind(keys.change_sets)
            .bind(self.commands)
            .bind(self.contexts)
            .bind(self.values)
            .bind(self.chances)
            .bind(self.policies)
            .execute(connection)
            .await
            .map(drop)
    }
}

async fn store_candidates(
    connection: &mut PgConnection,
    new: Vec<ScheduledCandidate>,
) -> sqlx::Result<()> {
    // The last of each key wins; what any of them follows up on is kept.
    let mut of_key: BTreeMap<QueueKey, Candidate> = BTreeMap::new();
    let mut origins: Vec<(QueueKey, RunId)> = vec![];
    for ScheduledCandidate { new, .. } in new {
        let key = new.candidate.key.clone();
        origins.extend(new.followup_for.into_iter().map(|run| (key.clone(), run)));
        of_key.insert(key, new.candidate);
    }
    let columns: CandidateColumns = of_key.into_values().collect();
    columns.store(&mut *connection).await?;
    if origins.is_empty() {
        return Ok(());
    }
    let keys: KeyColumns = origins.iter().map(|(key, _)| key).collect();
    let runs: Vec<String> = origins.iter().map(|(_, run)| run.to_string()).collect();
    sqlx::query(include_str!("sql/store_candidate_origins.sql"))
        .bind(keys.codebases)
        .bind(keys.campaigns)
        .bind(keys.change_sets)
        .bind(runs)
        .execute(connection)
        .await
        .map(drop)
}

/// Stores candidates and enqueues their items.
async fn upload(
    connection: &mut PgConnection,
    new: Vec<ScheduledCandidate>,
    now: Time,
) -> Result<queue::EnqueueOutcome, Abort<CatalogError>> {
    let origins: Vec<&str> = new
        .iter()
        .flat_map(|scheduled| &scheduled.new.followup_for)
        .map(RunId::as_str)
        .collect();
    if !origins.is_empty() {
        let unknown: Option<String> = sqlx::query_scalar(include_str!("sql/find_unknown_run.sql"))
            .bind(origins)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(run) = unknown {
            return Err(Abort::Refused(CatalogError::UnknownRun(RunId::new(run))));
        }
    }
    let requests: Vec<EnqueueRequest> = new
        .iter()
        .map(|scheduled| scheduled.enqueue.clone())
        .collect();
    // The queue is locked before the candidates, as everywhere.
    let enqueued = queue::enqueue(&mut *connection, requests, now).await;
    let enqueued = enqueued.map_err(|abort| {
        abort.into_other(|error| match error {
            QueueStoreError::UnknownCodebase(name) => CatalogError::UnknownCodebase(name),
            other => Fault::backend("queue candidates", other).into(),
        })
    })?;
    store_candidates(connection, new).await?;
    Ok(enqueued)
}

/// Deletes a candidate with its queue item; false when there is none.
async fn delete(connection: &mut PgConnection, id: CandidateId) -> sqlx::Result<bool> {
    sqlx::query("DELETE FROM followup WHERE candidate = $1")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    let key: Option<(String, String, Option<String>)> = sqlx::query_as(
        "DELETE FROM candidate WHERE id = $1 RETURNING codebase::text, suite::text, change_set",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((codebase, campaign, change_set)) = key else {
        return Ok(false);
    };
    let items: Vec<i64> = sqlx::query_scalar(include_str!("sql/find_items_of_candidate.sql"))
        .bind(codebase)
        .bind(campaign)
        .bind(change_set)
        .fetch_all(&mut *connection)
        .await?;
    queue::remove(connection, items).await?;
    Ok(true)
}

impl Postgres {
    /// Finds which codebase has the location of one of these already.
    async fn duplicate_location(&self, codebases: &[Codebase]) -> CatalogError {
        let (urls, subpaths): (Vec<_>, Vec<_>) = codebases
            .iter()
            .map(|codebase| (codebase.branch_url.clone(), codebase.subpath.clone()))
            .unzip();
        let names: Vec<Option<String>> = codebases
            .iter()
            .map(|codebase| codebase.name.clone().map(String::from))
            .collect();
        let query = sqlx::query_as(include_str!("sql/find_codebase_at_location.sql"))
            .bind(urls)
            .bind(subpaths)
            .bind(names);
        let found = query.fetch_optional(self.tables.connections());
        match self.tables.run("look for a codebase", found).await {
            Ok(Some((branch_url, subpath, holder))) => CatalogError::DuplicateLocation {
                branch_url,
                subpath,
                holder,
            },
            Ok(None) => CatalogError::DuplicateLocation {
                branch_url: "a branch of the list".into(),
                subpath: String::new(),
                holder: "another one of the list".into(),
            },
            Err(fault) => fault.into(),
        }
    }

    async fn known_names(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[&str],
    ) -> sqlx::Result<KnownNames> {
        let connections = self.tables.connections();
        let codebases: Vec<String> =
            sqlx::query_scalar("SELECT name::text FROM codebase WHERE name = ANY ($1::text[])")
                .bind(codebases)
                .fetch_all(connections)
                .await?;
        let policies: Vec<String> =
            sqlx::query_scalar("SELECT name FROM named_publish_policy WHERE name = ANY ($1)")
                .bind(publish_policies)
                .fetch_all(connections)
                .await?;
        let runs: Vec<String> = match runs {
            [] => vec![],
            ids => {
                sqlx::query_scalar("SELECT id FROM run WHERE id = ANY ($1::text[])")
                    .bind(ids)
                    .fetch_all(connections)
                    .await?
            }
        };
        Ok(KnownNames {
            codebases: codebases.into_iter().collect(),
            publish_policies: policies.into_iter().collect(),
            runs: runs.into_iter().map(RunId::new).collect(),
        })
    }
}

#[async_trait]
impl Catalog for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.catalog.upload_codebases", skip_all,
        fields(codebases = codebases.len())
    )]
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError> {
        if codebases.is_empty() {
            return Ok(vec![]);
        }
        let stored = self.tables.transaction("store codebases", |connection| {
            let codebases = codebases.clone();
            Box::pin(async move { Ok(store_codebases(connection, codebases).await?) })
        });
        match stored.await {
            Err(fault) if is_duplicate(&fault) => Err(self.duplicate_location(&codebases).await),
            stored => Ok(stored?),
        }
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.catalog.codebase", skip_all, fields(codebase = %name)
    )]
    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError> {
        let query = sqlx::query_scalar(include_str!("sql/find_codebase.sql")).bind(name.as_str());
        let find = async {
            let row: Option<String> = query.fetch_optional(self.tables.connections()).await?;
            row.as_deref().map(read).transpose()
        };
        Ok(self.tables.run("look up a codebase", find).await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.catalog.codebases", skip_all)]
    async fn codebases(&self, limit: usize) -> Result<Vec<Codebase>, CatalogError> {
        let query = sqlx::query_scalar(include_str!("sql/list_codebases.sql"));
        let query = query.bind(row_limit(limit));
        Ok(self
            .tables
            .read("list the codebases", |connection| {
                Box::pin(async move { read_all(query.fetch_all(connection).await?) })
            })
            .await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.catalog.known", skip_all)]
    async fn known(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[RunId],
    ) -> Result<KnownNames, CatalogError> {
        let runs: Vec<&str> = runs.iter().map(RunId::as_str).collect();
        let known = self.known_names(codebases, publish_policies, &runs);
        Ok(self.tables.run("look up names", known).await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.catalog.upload_candidates", skip_all,
        fields(candidates = candidates.len())
    )]
    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError> {
        let enqueued = self.tables.transaction("store candidates", |connection| {
            let candidates = candidates.clone();
            Box::pin(upload(connection, candidates, now))
        });
        Ok(self.tables.publish_enqueued(enqueued.await?))
    }

    #[tracing::instrument(level = "debug", name = "postgres.catalog.candidates", skip_all)]
    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
        limit: usize,
    ) -> Result<Vec<Candidate>, CatalogError> {
        let statement = match codebase {
            Some(_) => include_str!("sql/list_candidates_of_codebase.sql"),
            None => include_str!("sql/list_candidates.sql"),
        };
        let query = sqlx::query_scalar(statement)
            .bind(row_limit(limit))
            .bind(codebase.map(String::from));
        Ok(self
            .tables
            .read("list the candidates", |connection| {
                Box::pin(async move { read_all(query.fetch_all(connection).await?) })
            })
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.catalog.delete_candidate", skip_all,
        fields(candidate.id = id)
    )]
    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError> {
        self.tables
            .transaction("delete a candidate", |connection| {
                Box::pin(async move { Ok(delete(connection, id).await?) })
            })
            .await
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.catalog.put_publish_policies", skip_all,
        fields(policies = policies.len())
    )]
    async fn put_publish_policies(&self, policies: Vec<PublishPolicy>) -> Result<(), CatalogError> {
        let action = "store publish policies";
        let rows = serde_json::to_string(&policies).map_err(|e| Fault::backend(action, e))?;
        let write = sqlx::query(include_str!("sql/store_publish_policies.sql")).bind(rows);
        self.tables
            .run(action, write.execute(self.tables.connections()))
            .await?;
        Ok(())
    }
}
