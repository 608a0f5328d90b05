//! Facts for schedules: a fixed number of statements, however many keys there are.

use super::{
    Postgres,
    queue::columns_of,
    read_all,
    runs::{self, own, run_json},
};
use crate::{
    domain::{
        candidate::Candidate,
        name::{CampaignName, CodebaseName, RunId},
        queue::QueueKey,
        run::{ResultCode, Run},
        schedule::{CodebaseValue, MeanDurations, Pair, PastRun, ScheduleFacts},
    },
    ports::{Fault, ScheduleStore, queue_store::FollowUpId, schedule_store::FollowUp},
};
use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A candidate as the domain's own JSON.
macro_rules! candidate_json {
    () => {
        "json_build_object('id', candidate.id, 'codebase', candidate.codebase, 'campaign', candidate.suite, 'change_set', candidate.change_set,
            'command', candidate.command, 'context', candidate.context, 'value', candidate.value, 'success_chance', candidate.success_chance,
            'publish_policy', candidate.publish_policy)::text"
    };
}
pub(super) use candidate_json;

type PairKey = (String, String);

fn key_of(pair: &Pair) -> PairKey {
    (pair.codebase.to_string(), pair.campaign.to_string())
}

#[derive(Default)]
struct Found {
    candidates: HashMap<QueueKey, Candidate>,
    values: HashMap<String, Option<i32>>,
    highest_value: Option<i32>,
    history: HashMap<PairKey, Vec<PastRun>>,
    of_codebase: HashMap<String, f64>,
    of_campaign: HashMap<String, f64>,
    proposals: HashMap<PairKey, String>,
}

impl Found {
    fn facts(&self, key: &QueueKey) -> ScheduleFacts {
        let pair = key_of(&key.pair());
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
                codebase: self.of_codebase.get(&pair.0).copied(),
                campaign: self.of_campaign.get(&pair.1).copied(),
            },
            open_proposal_command: self.proposals.get(&pair).cloned(),
        }
    }
}

async fn candidates(
    connection: &mut PgConnection,
    keys: &[QueueKey],
) -> sqlx::Result<HashMap<QueueKey, Candidate>> {
    let (codebases, campaigns, sets) = columns_of(keys.iter());
    let rows = sqlx::query_scalar(concat!(
        "SELECT DISTINCT ON (candidate.id) ",
        candidate_json!(),
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (codebase, campaign, change_set)
         CROSS JOIN LATERAL (SELECT * FROM candidate WHERE codebase = wanted.codebase AND suite || '' = wanted.campaign
             AND coalesce(change_set, '') = wanted.change_set OFFSET 0) AS candidate"
    ))
    .bind(codebases)
    .bind(campaigns)
    .bind(sets)
    .fetch_all(connection)
    .await?;
    Ok(read_all::<Candidate>(rows)?
        .into_iter()
        .map(|candidate| (candidate.key.clone(), candidate))
        .collect())
}

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

type FollowUpRow = (i64, String, String, String, Option<String>, Option<String>);
type PastRow = (
    String,
    String,
    String,
    NaiveDateTime,
    f64,
    Option<String>,
    Option<String>,
);

async fn history(
    connection: &mut PgConnection,
    pairs: &HashSet<PairKey>,
) -> sqlx::Result<HashMap<PairKey, Vec<PastRun>>> {
    let (codebases, campaigns): (Vec<&str>, Vec<&str>) = pairs
        .iter()
        .map(|(codebase, campaign)| (codebase.as_str(), campaign.as_str()))
        .unzip();
    let rows: Vec<PastRow> = sqlx::query_as(
        "SELECT wanted.codebase, wanted.campaign, run.result_code, run.start_time, extract(epoch from run.finish_time - run.start_time)::float8,
             run.instigated_context, run.context
         FROM unnest($1::text[], $2::text[]) AS wanted (codebase, campaign)
         CROSS JOIN LATERAL (SELECT * FROM run WHERE codebase = wanted.codebase AND suite || '' = wanted.campaign OFFSET 0) AS run
         WHERE run.failure_transient IS NOT TRUE AND run.start_time IS NOT NULL AND run.finish_time IS NOT NULL",
    )
    .bind(codebases)
    .bind(campaigns)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<PairKey, Vec<PastRun>> = HashMap::new();
    for (codebase, campaign, code, start_time, duration, instigated_context, context) in rows {
        found
            .entry((codebase, campaign))
            .or_default()
            .push(PastRun {
                code: ResultCode::new(code),
                start_time: start_time.and_utc(),
                duration,
                instigated_context,
                context,
                dependencies_satisfied_now: false,
            });
    }
    Ok(found)
}

const OF_CODEBASES: &str = "SELECT codebase::text, extract(epoch from avg(finish_time - start_time))::float8 FROM run
    WHERE codebase = ANY ($1::text[]) AND failure_transient IS NOT TRUE GROUP BY codebase HAVING avg(finish_time - start_time) IS NOT NULL";
const OF_CAMPAIGNS: &str = "SELECT suite::text, extract(epoch from avg(finish_time - start_time))::float8 FROM run
    WHERE suite = ANY ($1::text[]) AND failure_transient IS NOT TRUE GROUP BY suite HAVING avg(finish_time - start_time) IS NOT NULL";

async fn means(
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

/// The commands of last effective runs that have an open merge proposal: one whose revision the run made.
async fn proposals(
    connection: &mut PgConnection,
    pairs: &HashSet<PairKey>,
) -> sqlx::Result<HashMap<PairKey, String>> {
    let (codebases, campaigns): (Vec<&str>, Vec<&str>) = pairs
        .iter()
        .map(|(codebase, campaign)| (codebase.as_str(), campaign.as_str()))
        .unzip();
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT wanted.codebase, wanted.campaign, coalesce(run.command, '')
         FROM unnest($1::text[], $2::text[]) AS wanted (codebase, campaign)
         CROSS JOIN LATERAL (SELECT * FROM last_run WHERE codebase = wanted.codebase AND campaign = wanted.campaign OFFSET 0) AS last
         CROSS JOIN LATERAL (SELECT * FROM run WHERE id = last.last_effective_run_id OFFSET 0) AS run
         WHERE (SELECT count(*) FROM merge_proposal AS proposal WHERE proposal.status = 'open' AND proposal.revision = ANY (
             ARRAY(SELECT branch.revision FROM new_result_branch AS branch WHERE branch.run_id = run.id) || run.revision)) > 0",
    )
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
    let pairs: HashSet<PairKey> = keys.iter().map(|key| key_of(&key.pair())).collect();
    let codebases: Vec<&str> = pairs
        .iter()
        .map(|(codebase, _)| codebase.as_str())
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let mut found = Found {
        candidates: candidates(connection, keys).await?,
        ..Found::default()
    };
    (found.values, found.highest_value) = values(connection, &codebases).await?;
    found.history = history(connection, &pairs).await?;
    found.proposals = proposals(connection, &pairs).await?;
    let without: Vec<&PairKey> = pairs
        .iter()
        .filter(|pair| !found.history.contains_key(*pair))
        .collect();
    found.of_codebase = means(
        connection,
        OF_CODEBASES,
        &without
            .iter()
            .map(|(codebase, _)| codebase.as_str())
            .collect(),
    )
    .await?;
    let campaigns = without
        .iter()
        .filter(|(codebase, _)| !found.of_codebase.contains_key(codebase))
        .map(|(_, campaign)| campaign.as_str());
    found.of_campaign = means(connection, OF_CAMPAIGNS, &campaigns.collect()).await?;
    Ok(keys.iter().map(|key| found.facts(key)).collect())
}

#[async_trait]
impl ScheduleStore for Postgres {
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let look = async { facts(&mut *self.tables.link.pool().acquire().await?, keys).await };
        self.tables
            .ask("gather the facts for schedules", look)
            .await
    }

    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            run_json!(),
            " FROM last_run CROSS JOIN LATERAL (SELECT * FROM run WHERE run.id = last_run.last_effective_run_id OFFSET 0) AS run ",
            own!(),
            " WHERE last_run.campaign = $1 ORDER BY last_run.codebase"
        ));
        let look = async {
            runs::runs(
                query
                    .bind(campaign.as_str())
                    .fetch_all(self.tables.link.pool())
                    .await?,
            )
        };
        self.tables.ask("list last effective runs", look).await
    }

    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault> {
        let query = sqlx::query_as(
            "SELECT id, run_id, codebase, campaign, change_set, context FROM runner_follow_up ORDER BY id LIMIT $1",
        );
        let query = query.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<FollowUpRow> = self
            .tables
            .ask("list follow-ups", query.fetch_all(self.tables.link.pool()))
            .await?;
        let bad = |e: crate::domain::Invalid| Fault::backend("list follow-ups", e);
        let follow_up = |(id, run_id, codebase, campaign, change_set, context): FollowUpRow| {
            let key = QueueKey {
                codebase: CodebaseName::new(codebase).map_err(bad)?,
                campaign: CampaignName::new(campaign).map_err(bad)?,
                change_set,
            };
            Ok(FollowUp {
                id: id.cast_unsigned(),
                run_id: RunId::new(run_id),
                key,
                context,
            })
        };
        rows.into_iter().map(follow_up).collect()
    }

    async fn drop_follow_ups(&self, ids: &[FollowUpId]) -> Result<(), Fault> {
        let ids: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
        let delete = sqlx::query("DELETE FROM runner_follow_up WHERE id = ANY ($1)").bind(ids);
        self.tables
            .ask("settle follow-ups", delete.execute(self.tables.link.pool()))
            .await
            .map(drop)
    }
}
