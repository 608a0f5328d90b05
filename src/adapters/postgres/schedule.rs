//! Facts for schedules: a fixed number of statements, however many keys there are.

use super::{
    Postgres,
    records::{KeyColumns, queue_key, read_all, row_limit},
    runs::rows,
};
use crate::{
    domain::{
        candidate::Candidate,
        name::{CampaignName, RunId},
        queue::QueueKey,
        relations::{KnownVersions, Relations},
        run::{ResultCode, Run},
        schedule::{CodebaseValue, MeanDurations, Pair, PastRun, ScheduleFacts},
    },
    ports::{Fault, ScheduleStore, queue_store::FollowUpId, schedule_store::FollowUp},
};
use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The names of a codebase and a campaign.
type PairKey = (String, String);
/// Id, run, codebase, campaign, change set and context of a follow-up.
type FollowUpRow = (i64, String, String, String, Option<String>, Option<String>);
/// Codebase, campaign, result code, start, seconds, instigated context, context and relations of a
/// run.
type PastRow = (
    String,
    String,
    String,
    NaiveDateTime,
    f64,
    Option<String>,
    Option<String>,
    Option<String>,
);

fn pair_key(pair: &Pair) -> PairKey {
    (pair.codebase.to_string(), pair.campaign.to_string())
}

/// Splits pairs into two arrays.
fn pair_columns(pairs: &HashSet<PairKey>) -> (Vec<&str>, Vec<&str>) {
    pairs
        .iter()
        .map(|(codebase, campaign)| (codebase.as_str(), campaign.as_str()))
        .unzip()
}

/// What the statements found for all keys together.
#[derive(Default)]
struct Found {
    candidates: HashMap<QueueKey, Candidate>,
    values: HashMap<String, Option<i32>>,
    highest_value: Option<i32>,
    history: HashMap<PairKey, Vec<PastRun>>,
    codebase_means: HashMap<String, f64>,
    campaign_means: HashMap<String, f64>,
    proposals: HashMap<PairKey, String>,
}

impl Found {
    /// Returns the facts of one key.
    fn facts(&self, key: &QueueKey) -> ScheduleFacts {
        let pair = pair_key(&key.pair());
        let history = self.history.get(&pair).cloned().unwrap_or_default();
        // Counts of runs are far below 2^53.
        #[expect(clippy::cast_precision_loss)]
        let mean = (!history.is_empty())
            .then(|| history.iter().map(|run| run.duration).sum::<f64>() / history.len() as f64);
        ScheduleFacts {
            candidate: self.candidates.get(key).cloned(),
            codebase_value: match self.values.get(&pair.0) {
                None => CodebaseValue::Unknown,
                Some(value) => value.map_or(CodebaseValue::Unset, CodebaseValue::Of),
            },
            highest_value: self.highest_value,
            history,
            means: MeanDurations {
                pair: mean,
                codebase: self.codebase_means.get(&pair.0).copied(),
                campaign: self.campaign_means.get(&pair.1).copied(),
            },
            open_proposal_command: self.proposals.get(&pair).cloned(),
        }
    }
}

async fn candidates(
    connection: &mut PgConnection,
    keys: &[QueueKey],
) -> sqlx::Result<HashMap<QueueKey, Candidate>> {
    let columns = KeyColumns::from_iter(keys);
    let rows = sqlx::query_scalar(include_str!("sql/find_candidates_of_keys.sql"))
        .bind(columns.codebases)
        .bind(columns.campaigns)
        .bind(columns.change_sets)
        .fetch_all(connection)
        .await?;
    Ok(read_all::<Candidate>(rows)?
        .into_iter()
        .map(|candidate| (candidate.key.clone(), candidate))
        .collect())
}

/// Returns the values of codebases, and the highest value of all codebases.
async fn values(
    connection: &mut PgConnection,
    codebases: &[&str],
) -> sqlx::Result<(HashMap<String, Option<i32>>, Option<i32>)> {
    let rows: Vec<(String, Option<i32>)> =
        sqlx::query_as("SELECT name::text, value FROM codebase WHERE name = ANY ($1::text[])")
            .bind(codebases)
            .fetch_all(&mut *connection)
            .await?;
    let highest = sqlx::query_scalar("SELECT max(value) FROM codebase")
        .fetch_one(connection)
        .await?;
    Ok((rows.into_iter().collect(), highest))
}

async fn history(
    connection: &mut PgConnection,
    pairs: &HashSet<PairKey>,
) -> sqlx::Result<HashMap<PairKey, Vec<PastRun>>> {
    let (codebases, campaigns) = pair_columns(pairs);
    let rows: Vec<PastRow> = sqlx::query_as(include_str!("sql/list_past_runs.sql"))
        .bind(codebases)
        .bind(campaigns)
        .fetch_all(&mut *connection)
        .await?;
    let relations: Vec<Option<Relations>> = rows
        .iter()
        .map(|row| relations_of(row.7.as_deref()))
        .collect();
    let known = known_versions(connection, &relations).await?;
    let mut found: HashMap<PairKey, Vec<PastRun>> = HashMap::new();
    for (row, relations) in rows.into_iter().zip(relations) {
        let (codebase, campaign, code, start_time, duration, instigated_context, context, _) = row;
        let run = PastRun {
            code: ResultCode::new(code),
            start_time: start_time.and_utc(),
            duration,
            instigated_context,
            context,
            dependencies_satisfied_now: relations.is_some_and(|relations| relations.hold(&known)),
        };
        found.entry((codebase, campaign)).or_default().push(run);
    }
    Ok(found)
}

/// Returns the relations that a run lacked.
fn relations_of(text: Option<&str>) -> Option<Relations> {
    let relations = serde_json::from_str(text?).ok()?;
    Relations::read(&relations)
}

/// Returns the versions of packages that the Janitor knows, if it has a table of them.
async fn known_versions(
    connection: &mut PgConnection,
    relations: &[Option<Relations>],
) -> sqlx::Result<KnownVersions> {
    let names: BTreeSet<&str> = relations
        .iter()
        .flatten()
        .flat_map(Relations::names)
        .collect();
    if names.is_empty() {
        return Ok(KnownVersions::new());
    }
    let has_table = "SELECT to_regclass('all_debian_versions') IS NOT NULL";
    if !sqlx::query_scalar(has_table)
        .fetch_one(&mut *connection)
        .await?
    {
        return Ok(KnownVersions::new());
    }
    let names: Vec<&str> = names.into_iter().collect();
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT source::text, version::text FROM all_debian_versions
         WHERE source = ANY ($1::text[])",
    )
    .bind(names)
    .fetch_all(connection)
    .await?;
    let mut known = KnownVersions::new();
    for (source, version) in rows {
        known.entry(source).or_default().push(version);
    }
    Ok(known)
}

/// Returns the mean durations in seconds of the runs of codebases, or of campaigns.
async fn mean_durations(
    connection: &mut PgConnection,
    sql: &'static str,
    names: &BTreeSet<&str>,
) -> sqlx::Result<HashMap<String, f64>> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<&str> = names.iter().copied().collect();
    let rows: Vec<(String, f64)> = sqlx::query_as(sql)
        .bind(names)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Returns the commands of last effective runs that have an open merge proposal.
async fn proposals(
    connection: &mut PgConnection,
    pairs: &HashSet<PairKey>,
) -> sqlx::Result<HashMap<PairKey, String>> {
    let (codebases, campaigns) = pair_columns(pairs);
    let rows: Vec<(String, String, String)> =
        sqlx::query_as(include_str!("sql/list_open_proposals.sql"))
            .bind(codebases)
            .bind(campaigns)
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(codebase, campaign, command)| ((codebase, campaign), command))
        .collect())
}

async fn facts(
    connection: &mut PgConnection,
    keys: &[QueueKey],
) -> sqlx::Result<Vec<ScheduleFacts>> {
    let pairs: HashSet<PairKey> = keys.iter().map(|key| pair_key(&key.pair())).collect();
    let codebases: HashSet<&str> = pairs
        .iter()
        .map(|(codebase, _)| codebase.as_str())
        .collect();
    let codebases: Vec<&str> = codebases.into_iter().collect();
    let mut found = Found {
        candidates: candidates(connection, keys).await?,
        ..Found::default()
    };
    (found.values, found.highest_value) = values(connection, &codebases).await?;
    found.history = history(connection, &pairs).await?;
    found.proposals = proposals(connection, &pairs).await?;
    // The mean of all runs of a codebase, or of a campaign, reads many rows; it is needed only for
    // pairs without a run of their own.
    let without_history: Vec<&PairKey> = pairs
        .iter()
        .filter(|pair| !found.history.contains_key(*pair))
        .collect();
    let codebases = without_history
        .iter()
        .map(|(codebase, _)| codebase.as_str());
    let of_codebases = include_str!("sql/mean_durations_of_codebases.sql");
    found.codebase_means = mean_durations(connection, of_codebases, &codebases.collect()).await?;
    let campaigns = without_history
        .iter()
        .filter(|(codebase, _)| !found.codebase_means.contains_key(codebase))
        .map(|(_, campaign)| campaign.as_str());
    let of_campaigns = include_str!("sql/mean_durations_of_campaigns.sql");
    found.campaign_means = mean_durations(connection, of_campaigns, &campaigns.collect()).await?;
    Ok(keys.iter().map(|key| found.facts(key)).collect())
}

fn follow_up(row: FollowUpRow) -> Result<FollowUp, Fault> {
    let (id, run_id, codebase, campaign, change_set, context) = row;
    let key = queue_key(codebase, campaign, change_set);
    Ok(FollowUp {
        id: id.cast_unsigned(),
        run_id: RunId::new(run_id),
        key: key.map_err(|e| Fault::backend("list follow-ups", e))?,
        context,
    })
}

#[async_trait]
impl ScheduleStore for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.schedule_store.facts", skip_all, fields(keys = keys.len())
    )]
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let gather = async { facts(&mut *self.tables.connections().acquire().await?, keys).await };
        self.tables
            .run("gather the facts for schedules", gather)
            .await
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.schedule_store.last_effective_runs", skip_all,
        fields(%campaign)
    )]
    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault> {
        let query = sqlx::query_scalar(include_str!("sql/list_last_effective_runs.sql"));
        let query = query.bind(campaign.as_str());
        let list = async { rows::runs(query.fetch_all(self.tables.connections()).await?) };
        self.tables.run("list last effective runs", list).await
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.schedule_store.follow_ups",
        skip_all,
        fields(limit)
    )]
    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_follow_ups.sql"));
        let query = query.bind(row_limit(limit));
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<FollowUpRow> = self.tables.run("list follow-ups", rows).await?;
        rows.into_iter().map(follow_up).collect()
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.schedule_store.drop_follow_ups", skip_all,
        fields(follow_ups = ids.len())
    )]
    async fn drop_follow_ups(&self, ids: &[FollowUpId]) -> Result<(), Fault> {
        let ids: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
        let delete = sqlx::query("DELETE FROM runner_follow_up WHERE id = ANY ($1)").bind(ids);
        let deleted = delete.execute(self.tables.connections());
        self.tables
            .run("settle follow-ups", deleted)
            .await
            .map(drop)
    }
}
