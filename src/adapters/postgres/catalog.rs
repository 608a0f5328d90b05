//! Codebases, candidates and publish policies: a list is stored by a fixed number of statements.

use super::{
    Abort, Postgres, claims_sql::codebase_json, queue, read, read_all, schedule::candidate_json,
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
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};

const RECORD: &str = "row (name text, branch_url text, url text, branch text, subpath text, vcs_type vcs_type, vcs_last_revision text,
    value int, web_url text)";

/// Named codebases, in their order: one that moves away makes place for a later one.
fn store_named() -> String {
    format!(
        "INSERT INTO codebase (name, branch_url, url, branch, subpath, vcs_type, vcs_last_revision, value, web_url)
         SELECT * FROM json_to_recordset($1::json) AS {RECORD}
         ON CONFLICT (name) DO UPDATE SET branch_url = excluded.branch_url, url = excluded.url, branch = excluded.branch,
             subpath = excluded.subpath, vcs_type = excluded.vcs_type, vcs_last_revision = excluded.vcs_last_revision,
             value = excluded.value, web_url = excluded.web_url"
    )
}

/// Codebases without a name, by their place.
fn store_nameless() -> String {
    format!(
        "WITH new AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS {RECORD}),
         changed AS (UPDATE codebase AS known SET url = new.url, branch = new.branch, vcs_type = new.vcs_type,
                 vcs_last_revision = new.vcs_last_revision, value = new.value, web_url = new.web_url
             FROM new WHERE known.name IS NULL AND known.branch_url = new.branch_url AND known.subpath IS NOT DISTINCT FROM new.subpath
             RETURNING known.branch_url, known.subpath)
         INSERT INTO codebase (name, branch_url, url, branch, subpath, vcs_type, vcs_last_revision, value, web_url)
         SELECT new.* FROM new WHERE NOT EXISTS
             (SELECT FROM changed WHERE changed.branch_url = new.branch_url AND changed.subpath IS NOT DISTINCT FROM new.subpath)"
    )
}

/// The last of each name, or place, in the order of the list.
fn distinct(codebases: Vec<Codebase>) -> (Vec<Codebase>, Vec<Codebase>) {
    let mut last = HashMap::new();
    for (place, codebase) in codebases.iter().enumerate() {
        let key = match &codebase.name {
            Some(name) => (Some(name.clone()), None, None),
            None => (None, codebase.branch_url.clone(), codebase.subpath.clone()),
        };
        last.insert(key, place);
    }
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    let mut codebases: Vec<Option<Codebase>> = codebases.into_iter().map(Some).collect();
    kept.into_iter()
        .filter_map(|place| codebases.get_mut(place)?.take())
        .partition(|codebase| codebase.name.is_some())
}

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
    let earlier: Vec<(String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT name::text, branch_url, subpath FROM codebase WHERE name = ANY ($1::text[]) ORDER BY name FOR UPDATE")
            .bind(&names)
            .fetch_all(&mut *connection)
            .await?;
    sqlx::query("INSERT INTO runner_codebase (name) SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS t (name, place) ORDER BY place ON CONFLICT DO NOTHING")
        .bind(names)
        .execute(&mut *connection)
        .await?;
    let earlier: HashMap<String, (Option<String>, Option<String>)> = earlier
        .into_iter()
        .map(|(name, url, subpath)| (name, (url, subpath)))
        .collect();
    for (sql, codebases) in [(store_named(), &named), (store_nameless(), &nameless)] {
        if !codebases.is_empty() {
            let rows =
                serde_json::to_string(codebases).map_err(|e| sqlx::Error::Encode(e.into()))?;
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(rows)
                .execute(&mut *connection)
                .await?;
        }
    }
    let moved = |codebase: &Codebase| {
        let before = codebase
            .name
            .as_ref()
            .and_then(|name| earlier.get(name.as_str()));
        before.is_some_and(|(url, subpath)| {
            (url, subpath) != (&codebase.branch_url, &codebase.subpath)
        })
    };
    Ok(named
        .into_iter()
        .filter(moved)
        .filter_map(|codebase| codebase.name)
        .collect())
}

/// Whether two rows were to have the same unique value.
fn is_taken(fault: &Fault) -> bool {
    super::answer_of(fault).is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// The columns of candidates, for `unnest`.
#[derive(Default)]
struct Candidates {
    keys: Vec<QueueKey>,
    commands: Vec<String>,
    contexts: Vec<Option<String>>,
    values: Vec<Option<i32>>,
    chances: Vec<Option<f64>>,
    policies: Vec<Option<String>>,
}

async fn store_candidates(
    connection: &mut PgConnection,
    new: Vec<ScheduledCandidate>,
) -> sqlx::Result<()> {
    // The last of each key wins; what any of them follows up on is kept.
    let (mut of_key, mut origins): (BTreeMap<QueueKey, Candidate>, Vec<(QueueKey, RunId)>) =
        Default::default();
    for ScheduledCandidate { new, .. } in new {
        let key = new.candidate.key.clone();
        origins.extend(new.followup_for.into_iter().map(|run| (key.clone(), run)));
        of_key.insert(key, new.candidate);
    }
    let mut columns = Candidates::default();
    for (key, candidate) in of_key {
        columns.keys.push(key);
        columns.commands.push(candidate.command);
        columns.contexts.push(candidate.context);
        columns.values.push(candidate.value);
        columns.chances.push(candidate.success_chance);
        columns.policies.push(candidate.publish_policy);
    }
    let (codebases, campaigns, sets) = queue::columns_of(columns.keys.iter());
    sqlx::query(
        "INSERT INTO candidate (codebase, suite, change_set, command, context, value, success_chance, publish_policy)
         SELECT codebase, campaign, nullif(change_set, ''), command, context, value, chance, policy
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::float8[], $8::text[])
             AS t (codebase, campaign, change_set, command, context, value, chance, policy)
         ON CONFLICT (codebase, suite, coalesce(change_set, '')) DO UPDATE SET command = excluded.command, context = excluded.context,
             value = excluded.value, success_chance = excluded.success_chance, publish_policy = excluded.publish_policy",
    )
    .bind(codebases)
    .bind(campaigns)
    .bind(sets)
    .bind(columns.commands)
    .bind(columns.contexts)
    .bind(columns.values)
    .bind(columns.chances)
    .bind(columns.policies)
    .execute(&mut *connection)
    .await?;
    if origins.is_empty() {
        return Ok(());
    }
    let (codebases, campaigns, sets) = queue::columns_of(origins.iter().map(|(key, _)| key));
    sqlx::query(
        "INSERT INTO followup (origin, candidate)
         SELECT t.origin, candidate.id FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS t (codebase, campaign, change_set, origin)
         CROSS JOIN LATERAL (SELECT id FROM candidate WHERE candidate.codebase = t.codebase AND candidate.suite || '' = t.campaign
             AND coalesce(candidate.change_set, '') = t.change_set OFFSET 0) AS candidate
         ON CONFLICT DO NOTHING",
    )
    .bind(codebases)
    .bind(campaigns)
    .bind(sets)
    .bind(origins.iter().map(|(_, run)| run.to_string()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

async fn upload(
    connection: &mut PgConnection,
    new: Vec<ScheduledCandidate>,
    now: Time,
) -> Result<queue::Queued, Abort<CatalogError>> {
    let origins: Vec<&str> = new
        .iter()
        .flat_map(|scheduled| &scheduled.new.followup_for)
        .map(RunId::as_str)
        .collect();
    if !origins.is_empty() {
        let unknown: Option<String> =
            sqlx::query_scalar("SELECT wanted FROM unnest($1::text[]) AS wanted WHERE (SELECT true FROM run WHERE id = wanted) IS NULL LIMIT 1")
                .bind(origins)
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(run) = unknown {
            return Err(Abort::Refused(CatalogError::UnknownRun(RunId::new(run))));
        }
    }
    let wishes: Vec<EnqueueRequest> = new
        .iter()
        .map(|scheduled| scheduled.enqueue.clone())
        .collect();
    let queued = queue::enqueue(&mut *connection, wishes, now)
        .await
        .map_err(|abort| {
            abort.into_other(|error| match error {
                QueueStoreError::UnknownCodebase(name) => CatalogError::UnknownCodebase(name),
                other => Fault::backend("queue candidates", other).into(),
            })
        })?;
    store_candidates(connection, new).await?;
    Ok(queued)
}

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
    let Some((codebase, campaign, set)) = key else {
        return Ok(false);
    };
    let queued: Vec<i64> =
        sqlx::query_scalar("SELECT id::bigint FROM queue WHERE codebase = $1 AND suite || '' = $2 AND coalesce(change_set, '') = coalesce($3, '')")
            .bind(codebase)
            .bind(campaign)
            .bind(set)
            .fetch_all(&mut *connection)
            .await?;
    queue::remove(connection, queued).await?;
    Ok(true)
}

const PUT_POLICIES: &str = "INSERT INTO named_publish_policy (name, per_branch_policy, rate_limit_bucket)
    SELECT policy.name, (SELECT array_agg(ROW(rule.role, rule.mode, rule.frequency_days)::branch_publish_policy)
            FROM json_to_recordset(policy.per_branch) AS rule (role text, mode publish_mode, frequency_days int)), policy.rate_limit_bucket
    FROM json_to_recordset($1::json) AS policy (name text, per_branch json, rate_limit_bucket text)
    ON CONFLICT (name) DO UPDATE SET per_branch_policy = excluded.per_branch_policy, rate_limit_bucket = excluded.rate_limit_bucket";

impl Postgres {
    /// Who is where one of these codebases is to be.
    async fn same_place(&self, codebases: &[Codebase]) -> CatalogError {
        let (urls, subpaths): (Vec<_>, Vec<_>) = codebases
            .iter()
            .map(|codebase| (codebase.branch_url.clone(), codebase.subpath.clone()))
            .unzip();
        let names: Vec<Option<String>> = codebases
            .iter()
            .map(|codebase| codebase.name.clone().map(String::from))
            .collect();
        let query = sqlx::query_as(
            "SELECT t.url, t.subpath, coalesce(known.name::text, 'without a name')
             FROM unnest($1::text[], $2::text[], $3::text[]) AS t (url, subpath, name)
             JOIN codebase AS known ON known.branch_url = t.url AND known.subpath = t.subpath AND known.name::text IS DISTINCT FROM t.name LIMIT 1",
        );
        let query = query.bind(urls).bind(subpaths).bind(names);
        match self
            .tables
            .ask(
                "look for a codebase",
                query.fetch_optional(self.tables.link.pool()),
            )
            .await
        {
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
}

#[async_trait]
impl Catalog for Postgres {
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError> {
        if codebases.is_empty() {
            return Ok(vec![]);
        }
        match self
            .tables
            .transaction("store codebases", |connection| {
                let codebases = codebases.clone();
                Box::pin(async move { Ok(store_codebases(connection, codebases).await?) })
            })
            .await
        {
            Err(fault) if is_taken(&fault) => Err(self.same_place(&codebases).await),
            stored => Ok(stored?),
        }
    }

    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            codebase_json!("codebase"),
            "::text FROM codebase WHERE name = $1"
        ))
        .bind(name.as_str());
        let look = async {
            let row: Option<String> = query.fetch_optional(self.tables.link.pool()).await?;
            row.as_deref().map(read).transpose()
        };
        Ok(self.tables.ask("look up a codebase", look).await?)
    }

    async fn codebases(&self) -> Result<Vec<Codebase>, CatalogError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            codebase_json!("codebase"),
            "::text FROM codebase LEFT JOIN LATERAL (SELECT sequence FROM runner_codebase WHERE name = codebase.name OFFSET 0) AS known ON true
             ORDER BY codebase.name IS NULL, known.sequence NULLS FIRST, codebase.name::text COLLATE \"C\", codebase.branch_url, codebase.subpath"
        ));
        let look = async { read_all(query.fetch_all(self.tables.link.pool()).await?) };
        Ok(self.tables.ask("list the codebases", look).await?)
    }

    async fn known(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[RunId],
    ) -> Result<KnownNames, CatalogError> {
        let ids: Vec<&str> = runs.iter().map(RunId::as_str).collect();
        let pool = self.tables.link.pool();
        let look = async {
            let codebases: Vec<String> =
                sqlx::query_scalar("SELECT name::text FROM codebase WHERE name = ANY ($1::text[])")
                    .bind(codebases)
                    .fetch_all(pool)
                    .await?;
            let policies: Vec<String> =
                sqlx::query_scalar("SELECT name FROM named_publish_policy WHERE name = ANY ($1)")
                    .bind(publish_policies)
                    .fetch_all(pool)
                    .await?;
            let runs: Vec<String> = match ids.as_slice() {
                [] => vec![],
                ids => {
                    sqlx::query_scalar("SELECT id FROM run WHERE id = ANY ($1::text[])")
                        .bind(ids)
                        .fetch_all(pool)
                        .await?
                }
            };
            Ok(KnownNames {
                codebases: codebases.into_iter().collect(),
                publish_policies: policies.into_iter().collect(),
                runs: runs.into_iter().map(RunId::new).collect(),
            })
        };
        Ok(self.tables.ask("look up names", look).await?)
    }

    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError> {
        let queued = self.tables.transaction("store candidates", |connection| {
            let candidates = candidates.clone();
            Box::pin(upload(connection, candidates, now))
        });
        Ok(self.tables.tell_frontier(queued.await?))
    }

    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<Candidate>, CatalogError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            candidate_json!(),
            " FROM candidate WHERE $1::text IS NULL OR candidate.codebase::text = $1 ORDER BY candidate.id"
        ));
        let look = async {
            read_all(
                query
                    .bind(codebase.map(String::from))
                    .fetch_all(self.tables.link.pool())
                    .await?,
            )
        };
        Ok(self.tables.ask("list the candidates", look).await?)
    }

    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError> {
        self.tables
            .transaction("delete a candidate", |connection| {
                Box::pin(async move { Ok(delete(connection, id).await?) })
            })
            .await
    }

    async fn put_publish_policies(&self, policies: Vec<PublishPolicy>) -> Result<(), CatalogError> {
        let rows = serde_json::to_string(&policies)
            .map_err(|e| Fault::backend("store publish policies", e))?;
        let write = sqlx::query(PUT_POLICIES).bind(rows);
        self.tables
            .ask(
                "store publish policies",
                write.execute(self.tables.link.pool()),
            )
            .await?;
        Ok(())
    }
}
