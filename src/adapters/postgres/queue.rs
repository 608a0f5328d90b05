//! The queue. Wishes are merged by the domain's rule, in memory, on rows that are locked; then all new items are inserted
//! by one statement and all changed ones updated by another.

use super::{
    Abort, Postgres, Tables, active_runs::json, claims_sql::item_json, read, read_all,
    scan_cursor::Place,
};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        queue::{Bucket, EnqueueRequest, Merge, QueueId, QueueItem, QueueKey},
        schedule::Pair,
        time::Time,
    },
    ports::{
        QueueStore, QueueStoreError,
        queue_store::{ClaimFilter, EnqueueBatch, Enqueued, NextItem, Position, QueueStats},
    },
};
use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};

type Columns = (Vec<String>, Vec<String>, Vec<String>);

/// Keys as three arrays; no change set is empty text, as in the tables' unique indexes.
pub(super) fn columns_of<'a>(keys: impl Iterator<Item = &'a QueueKey>) -> Columns {
    let mut columns: Columns = Default::default();
    for key in keys {
        columns.0.push(key.codebase.to_string());
        columns.1.push(key.campaign.to_string());
        columns.2.push(key.change_set.clone().unwrap_or_default());
    }
    columns
}

/// An item while a batch is worked out.
struct Slot {
    item: QueueItem,
    state: State,
    /// It is neither parked nor snoozed any more.
    renewed: bool,
}

#[derive(PartialEq)]
enum State {
    /// To be inserted; its id is not known yet.
    New,
    Unchanged,
    Changed,
    /// Somebody holds it: the wish waits with the claim.
    Held {
        wish: Option<Box<EnqueueRequest>>,
        changed: bool,
    },
}

/// The items of these keys, locked, with the wishes that wait for those that are held.
async fn locked(
    connection: &mut PgConnection,
    wishes: &[EnqueueRequest],
) -> sqlx::Result<HashMap<QueueKey, Slot>> {
    let keys: HashSet<&QueueKey> = wishes.iter().map(|wish| &wish.key).collect();
    let (codebases, campaigns, sets) = columns_of(keys.into_iter());
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT item.id::bigint FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (codebase, campaign, change_set)
         CROSS JOIN LATERAL (SELECT id FROM queue WHERE codebase = wanted.codebase AND suite || '' = wanted.campaign
             AND coalesce(change_set, '') = wanted.change_set OFFSET 0) AS item",
    )
    .bind(codebases)
    .bind(campaigns)
    .bind(sets)
    .fetch_all(&mut *connection)
    .await?;
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    // By id, as everywhere; one that went meanwhile is new again.
    let items: Vec<String> = sqlx::query_scalar(concat!(
        "SELECT ",
        item_json!("item"),
        "::text FROM queue AS item WHERE id = ANY ($1) ORDER BY id FOR UPDATE"
    ))
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let items: Vec<QueueItem> = read_all(items)?;
    // A statement of its own, that sees the claims made while we waited for the locks.
    let ids: Vec<QueueId> = items.iter().map(|item| item.id).collect();
    let held: Vec<(i64, Option<String>)> =
        sqlx::query_as("SELECT queue_id, wish::text FROM runner_claim WHERE queue_id = ANY ($1) ORDER BY queue_id FOR UPDATE")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let mut held: HashMap<QueueId, Option<String>> = held.into_iter().collect();
    let slot = |item: QueueItem| {
        let state = match held.remove(&item.id) {
            Some(wish) => State::Held {
                wish: wish.map(|wish| read(&wish)).transpose()?,
                changed: false,
            },
            None => State::Unchanged,
        };
        Ok((
            item.key.clone(),
            Slot {
                item,
                state,
                renewed: false,
            },
        ))
    };
    items.into_iter().map(slot).collect()
}

/// Works one wish into the slots; answers the bucket that its item is in then.
fn work_in(
    slots: &mut HashMap<QueueKey, Slot>,
    order: &mut Vec<QueueKey>,
    smallest: &mut Option<i64>,
    wish: EnqueueRequest,
) -> Bucket {
    let Some(slot) = slots.get_mut(&wish.key) else {
        let item = wish.into_item(0, *smallest);
        let (key, bucket, priority) = (item.key.clone(), item.bucket, item.priority);
        *smallest = Some(smallest.map_or(priority, |smallest| smallest.min(priority)));
        order.push(key.clone());
        slots.insert(
            key,
            Slot {
                item,
                state: State::New,
                renewed: false,
            },
        );
        return bucket;
    };
    if let State::Held {
        wish: waiting,
        changed,
    } = &mut slot.state
    {
        *changed = true;
        match waiting {
            Some(waiting) => waiting.coalesce(wish),
            none => *none = Some(Box::new(wish)),
        }
    } else {
        let merge = slot.item.merge(wish, *smallest);
        if merge != Merge::Unchanged {
            *smallest = smallest.map(|smallest| smallest.min(slot.item.priority));
            if slot.state == State::Unchanged {
                slot.state = State::Changed;
            }
        }
        slot.renewed |= merge == Merge::Renewed;
    }
    slot.item.bucket
}

/// The columns of items, for `unnest`.
#[derive(Default)]
struct Items {
    ids: Vec<i64>,
    buckets: Vec<&'static str>,
    codebases: Vec<String>,
    campaigns: Vec<String>,
    sets: Vec<Option<String>>,
    commands: Vec<String>,
    priorities: Vec<i64>,
    contexts: Vec<Option<String>>,
    durations: Vec<Option<f64>>,
    refresh: Vec<bool>,
    requesters: Vec<Option<String>>,
}

impl Items {
    fn push(&mut self, item: &QueueItem) {
        self.ids.push(item.id);
        self.buckets.push(item.bucket.as_str());
        self.codebases.push(item.key.codebase.to_string());
        self.campaigns.push(item.key.campaign.to_string());
        self.sets.push(item.key.change_set.clone());
        self.commands.push(item.command.clone());
        self.priorities.push(item.priority);
        self.contexts.push(item.context.clone());
        self.durations.push(item.estimated_duration);
        self.refresh.push(item.refresh);
        self.requesters.push(item.requester.clone());
    }

    /// Answers the ids that they got, by key; fewer than items when others inserted the same keys meanwhile.
    async fn insert(
        self,
        connection: &mut PgConnection,
    ) -> sqlx::Result<HashMap<QueueKey, QueueId>> {
        if self.sets.iter().any(Option::is_some) {
            let make = sqlx::query(
                "INSERT INTO change_set (id, campaign) SELECT DISTINCT ON (id) id, campaign FROM unnest($1::text[], $2::text[]) AS t (id, campaign)
                 WHERE id IS NOT NULL ORDER BY id ON CONFLICT DO NOTHING",
            );
            make.bind(&self.sets)
                .bind(&self.campaigns)
                .execute(&mut *connection)
                .await?;
        }
        let rows: Vec<(i64, String, String, Option<String>)> = sqlx::query_as(
            "INSERT INTO queue (bucket, codebase, suite, change_set, command, priority, context, estimated_duration, refresh, requester)
             SELECT bucket::queue_bucket, codebase, campaign, change_set, command, priority, context, make_interval(secs => duration), refresh, requester
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::float8[], $9::bool[], $10::text[])
                 WITH ORDINALITY AS t (bucket, codebase, campaign, change_set, command, priority, context, duration, refresh, requester, place)
             ORDER BY place
             ON CONFLICT DO NOTHING
             RETURNING id::bigint, codebase::text, suite::text, change_set",
        )
        .bind(self.buckets)
        .bind(self.codebases)
        .bind(self.campaigns)
        .bind(self.sets)
        .bind(self.commands)
        .bind(self.priorities)
        .bind(self.contexts)
        .bind(self.durations)
        .bind(self.refresh)
        .bind(self.requesters)
        .fetch_all(connection)
        .await?;
        let key = |codebase, campaign, change_set| -> sqlx::Result<QueueKey> {
            let bad = |e: crate::domain::Invalid| sqlx::Error::Decode(e.into());
            Ok(QueueKey {
                codebase: CodebaseName::new(codebase).map_err(bad)?,
                campaign: CampaignName::new(campaign).map_err(bad)?,
                change_set,
            })
        };
        rows.into_iter()
            .map(|(id, codebase, campaign, set)| Ok((key(codebase, campaign, set)?, id)))
            .collect()
    }

    async fn update(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE queue SET bucket = t.bucket::queue_bucket, command = t.command, priority = t.priority, context = t.context,
                 estimated_duration = make_interval(secs => t.duration), refresh = t.refresh, requester = t.requester
             FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::float8[], $7::bool[], $8::text[])
                 AS t (id, bucket, command, priority, context, duration, refresh, requester)
             WHERE queue.id = t.id AND queue.id = ANY ($1)",
        )
        .bind(self.ids)
        .bind(self.buckets)
        .bind(self.commands)
        .bind(self.priorities)
        .bind(self.contexts)
        .bind(self.durations)
        .bind(self.refresh)
        .bind(self.requesters)
        .execute(connection)
        .await
        .map(drop)
    }
}

async fn keep_wishes(
    connection: &mut PgConnection,
    waiting: Vec<(QueueId, String)>,
) -> sqlx::Result<()> {
    let (ids, wishes): (Vec<i64>, Vec<String>) = waiting.into_iter().unzip();
    sqlx::query("UPDATE runner_claim SET wish = t.wish::jsonb FROM unnest($1::bigint[], $2::text[]) AS t (id, wish) WHERE queue_id = t.id")
        .bind(ids)
        .bind(wishes)
        .execute(connection)
        .await
        .map(drop)
}

/// Notes which id was given out first in this minute.
async fn tick(connection: &mut PgConnection, now: Time, first_id: QueueId) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO runner_queue_clock (minute, first_id) VALUES (date_trunc('minute', $1::timestamp), $2) ON CONFLICT DO NOTHING")
        .bind(now.naive_utc())
        .bind(first_id)
        .execute(connection)
        .await
        .map(drop)
}

/// Where wishes ended up.
#[derive(Default)]
pub(super) struct Queued {
    pub(super) answers: Vec<Enqueued>,
    /// The first place that was taken, or changed.
    pub(super) first: Option<Place>,
}

/// Queues wishes by the update rule, in order; part of a transaction.
pub(super) async fn enqueue(
    connection: &mut PgConnection,
    wishes: Vec<EnqueueRequest>,
    now: Time,
) -> Result<Queued, Abort<QueueStoreError>> {
    if wishes.is_empty() {
        return Ok(Queued::default());
    }
    let codebases: Vec<&str> = wishes
        .iter()
        .map(|wish| wish.key.codebase.as_str())
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let (unknown, mut smallest): (Option<String>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT wanted FROM unnest($1::text[]) AS wanted WHERE (SELECT true FROM codebase WHERE name = wanted) IS NULL LIMIT 1),
             (SELECT min(priority) FROM queue)",
    )
    .bind(codebases)
    .fetch_one(&mut *connection)
    .await?;
    if let Some(name) = unknown.and_then(|name| CodebaseName::new(name).ok()) {
        return Err(Abort::Refused(QueueStoreError::UnknownCodebase(name)));
    }
    let mut slots = locked(&mut *connection, &wishes).await?;
    let mut order = vec![];
    let answers: Vec<(QueueKey, Bucket)> = wishes
        .into_iter()
        .map(|wish| {
            (
                wish.key.clone(),
                work_in(&mut slots, &mut order, &mut smallest, wish),
            )
        })
        .collect();
    let (mut new, mut changed, mut waiting) = (Items::default(), Items::default(), vec![]);
    order
        .iter()
        .filter_map(|key| slots.get(key))
        .for_each(|slot| new.push(&slot.item));
    for slot in slots.values() {
        match &slot.state {
            State::Changed => changed.push(&slot.item),
            State::Held {
                wish: Some(wish),
                changed: true,
            } => waiting.push((slot.item.id, json(wish))),
            _ => {}
        }
    }
    if !order.is_empty() {
        let ids = new.insert(&mut *connection).await?;
        if ids.len() < order.len() {
            return Err(Abort::Again);
        }
        if let Some(first) = ids.values().min() {
            tick(&mut *connection, now, *first).await?;
        }
        for (key, id) in ids {
            if let Some(slot) = slots.get_mut(&key) {
                slot.item.id = id;
            }
        }
    }
    if !changed.ids.is_empty() {
        changed.update(&mut *connection).await?;
    }
    if !waiting.is_empty() {
        keep_wishes(&mut *connection, waiting).await?;
    }
    let renewed: Vec<QueueId> = slots
        .values()
        .filter(|slot| slot.renewed)
        .map(|slot| slot.item.id)
        .collect();
    if !renewed.is_empty() {
        sqlx::query("DELETE FROM runner_item WHERE queue_id = ANY ($1)")
            .bind(renewed)
            .execute(connection)
            .await?;
    }
    let id_of = |key: &QueueKey| slots.get(key).map_or(0, |slot| slot.item.id);
    let changed = slots
        .values()
        .filter(|slot| matches!(slot.state, State::New | State::Changed));
    Ok(Queued {
        first: changed.map(|slot| slot.item.order()).min(),
        answers: answers
            .into_iter()
            .map(|(key, bucket)| Enqueued {
                queue_id: id_of(&key),
                bucket,
            })
            .collect(),
    })
}

impl Tables {
    /// Items were added or changed, for good.
    pub(super) fn tell_frontier(&self, queued: Queued) -> Vec<Enqueued> {
        if let Some(first) = queued.first {
            self.frontier.opened(Some(first));
            self.notify_available(queued.answers.len());
        }
        queued.answers
    }
}

/// The bucket, priority and id of an item.
type PlaceRow = (String, i64, i64);

async fn place_of_pair(
    connection: &mut PgConnection,
    pair: &Pair,
) -> sqlx::Result<Option<PlaceRow>> {
    sqlx::query_as(
        "SELECT bucket::text, priority, id::bigint FROM queue WHERE codebase = $1 AND suite || '' = $2 ORDER BY (bucket, priority, id) LIMIT 1",
    )
    .bind(pair.codebase.as_str())
    .bind(pair.campaign.as_str())
    .fetch_optional(connection)
    .await
}

async fn place_of_item(
    connection: &mut PgConnection,
    id: QueueId,
) -> sqlx::Result<Option<PlaceRow>> {
    sqlx::query_as("SELECT bucket::text, priority, id::bigint FROM queue WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

async fn position(
    connection: &mut PgConnection,
    place: Option<PlaceRow>,
) -> sqlx::Result<Option<Position>> {
    let Some((bucket, priority, id)) = place else {
        return Ok(None);
    };
    let (before, wait_time): (i64, f64) = sqlx::query_as(
        "SELECT count(*), coalesce(extract(epoch from sum(estimated_duration)), 0)::float8 FROM queue
         WHERE (bucket, priority, id) < ($1::queue_bucket, $2, $3)",
    )
    .bind(bucket)
    .bind(priority)
    .bind(id)
    .fetch_one(connection)
    .await?;
    Ok(Some(Position {
        position: u64::try_from(before).unwrap_or_default() + 1,
        wait_time,
    }))
}

async fn stats(connection: &mut PgConnection) -> sqlx::Result<QueueStats> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT bucket::text, suite::text, count(*) FROM queue GROUP BY bucket, suite",
    )
    .fetch_all(&mut *connection)
    .await?;
    let oldest: Option<NaiveDateTime> =
        sqlx::query_scalar("SELECT minute FROM runner_queue_clock WHERE first_id <= (SELECT min(id) FROM queue) ORDER BY first_id DESC LIMIT 1")
            .fetch_optional(connection)
            .await?;
    let mut stats = QueueStats {
        oldest: oldest.map(|minute| minute.and_utc()),
        ..QueueStats::default()
    };
    for (bucket, campaign, count) in rows {
        let count = u64::try_from(count).unwrap_or_default();
        stats.length += count;
        *stats
            .by_bucket
            .entry(bucket.parse().unwrap_or_default())
            .or_default() += count;
        *stats.by_campaign.entry(campaign).or_default() += count;
    }
    Ok(stats)
}

#[async_trait]
impl QueueStore for Postgres {
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError> {
        let queued = self
            .tables
            .transaction("queue items", |connection| {
                let EnqueueBatch {
                    items,
                    settles,
                    now,
                } = batch.clone();
                Box::pin(async move {
                    if !settles.is_empty() {
                        let ids: Vec<i64> = settles.iter().map(|id| id.cast_signed()).collect();
                        let settled =
                            sqlx::query("DELETE FROM runner_follow_up WHERE id = ANY ($1)")
                                .bind(ids)
                                .execute(&mut *connection)
                                .await?;
                        if settled.rows_affected() < settles.len() as u64 {
                            return Err(Abort::Refused(QueueStoreError::AlreadySettled));
                        }
                    }
                    enqueue(connection, items, now).await
                })
            })
            .await?;
        Ok(self.tables.tell_frontier(queued))
    }

    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError> {
        Ok(self.peek_item(filter, now).await?)
    }

    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            item_json!("item"),
            "::text FROM queue AS item ORDER BY item.bucket, item.priority, item.id LIMIT $1"
        ));
        let query = query.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let look = async { read_all(query.fetch_all(self.tables.link.pool()).await?) };
        Ok(self.tables.ask("list the queue", look).await?)
    }

    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError> {
        let look = async {
            let mut connection = self.tables.link.pool().acquire().await?;
            let place = place_of_pair(&mut connection, pair).await?;
            position(&mut connection, place).await
        };
        Ok(self
            .tables
            .ask("look for a place in the queue", look)
            .await?)
    }

    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError> {
        let look = async {
            let mut connection = self.tables.link.pool().acquire().await?;
            let place = place_of_item(&mut connection, id).await?;
            position(&mut connection, place).await
        };
        Ok(self
            .tables
            .ask("look for a place in the queue", look)
            .await?)
    }

    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            item_json!("item"),
            "::text FROM queue AS item WHERE suite = $1 AND ($2::text IS NULL OR codebase::text = $2)
             AND (SELECT run_id FROM runner_claim WHERE queue_id = item.id) IS NULL ORDER BY item.bucket, item.priority, item.id"
        ));
        let query = query
            .bind(campaign.as_str())
            .bind(codebase.as_ref().map(CodebaseName::as_str));
        let look = async { read_all(query.fetch_all(self.tables.link.pool()).await?) };
        Ok(self.tables.ask("list what waits", look).await?)
    }

    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError> {
        self.tables
            .transaction("take items off the queue", |connection| {
                let ids = ids.to_vec();
                Box::pin(async move { Ok(remove(connection, ids).await?) })
            })
            .await
    }

    async fn stats(&self) -> Result<QueueStats, QueueStoreError> {
        let look = async { stats(&mut *self.tables.link.pool().acquire().await?).await };
        Ok(self.tables.ask("count the queue", look).await?)
    }
}

/// Takes items off unless they are held; part of a transaction.
pub(super) async fn remove(
    connection: &mut PgConnection,
    ids: Vec<QueueId>,
) -> sqlx::Result<Vec<QueueId>> {
    sqlx::query("SELECT FROM queue WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    let removed: Vec<i64> = sqlx::query_scalar(
        "WITH removed AS (DELETE FROM queue WHERE id = ANY ($1) AND (SELECT run_id FROM runner_claim WHERE queue_id = queue.id) IS NULL
             RETURNING id::bigint),
         forgotten AS (DELETE FROM runner_item WHERE queue_id = ANY (ARRAY(SELECT id FROM removed)))
         SELECT id FROM removed",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_change_set_have_an_empty_one() {
        let name = |text: &str| {
            (
                CodebaseName::new(text).unwrap(),
                CampaignName::new("gen").unwrap(),
            )
        };
        let (codebase, campaign) = name("aa");
        let keys = [
            QueueKey {
                codebase: codebase.clone(),
                campaign: campaign.clone(),
                change_set: None,
            },
            QueueKey {
                codebase,
                campaign,
                change_set: Some("x".into()),
            },
        ];
        assert_eq!(columns_of(keys.iter()).2, ["", "x"]);
    }
}
