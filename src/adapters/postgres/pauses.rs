//! Pauses, limits and parked items; and the news, by the database's own notifications, that items were opened.

use super::{Postgres, Tables, claims_sql::item_json, read};
use crate::{
    domain::{
        Invalid,
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::{QueueId, QueueItem},
        retry::ItemState,
        time::Time,
    },
    ports::{Fault, Parking, PauseStore, QueueNotifier, parking::QueueEntry},
};
use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Where it is told that items were opened: the number of the process, and how many.
const CHANNEL: &str = "runner_queue";
/// What is opened within this time is told together.
const TOGETHER: Duration = Duration::from_millis(5);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What opens when a pause or a limit ends is not counted; so many waiting workers look at once, and each that finds
/// something has the next one look.
const SOME: usize = 16;

/// Tells other processes of opened items, and listens to them.
pub(super) struct Telling {
    _telling: AbortOnDropHandle<()>,
    _listening: AbortOnDropHandle<()>,
}

async fn tell(tables: Tables, me: i32) {
    loop {
        let items = tables.to_tell.take().await;
        let notify = sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(format!("{me} {items}"));
        // Whoever is not told looks a moment later by itself.
        drop(
            tables
                .ask("tell of open items", notify.execute(tables.link.pool()))
                .await,
        );
        tokio::time::sleep(TOGETHER).await;
    }
}

async fn listen(tables: Tables, options: PgConnectOptions, me: i32) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options);
    let heard = async || -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            let told = listener.recv().await?;
            let Some((from, items)) = told.payload().split_once(' ') else {
                continue;
            };
            if from != me.to_string() {
                tables.frontier.opened(None);
                tables.availability.add(items.parse().unwrap_or(SOME));
            }
        }
    };
    loop {
        if let Err(error) = heard().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "what other runners open is heard later"
            );
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

impl Telling {
    pub(super) fn start(tables: &Tables, options: PgConnectOptions) -> Self {
        // Good enough to know one's own voice: whoever hears it all the same only looks once more.
        let me = i32::from_ne_bytes(std::process::id().to_ne_bytes());
        let telling = tokio::spawn(tell(tables.clone(), me));
        let listening = tokio::spawn(listen(tables.clone(), options, me));
        Self {
            _telling: AbortOnDropHandle::new(telling),
            _listening: AbortOnDropHandle::new(listening),
        }
    }
}

impl Tables {
    /// Items may be handed out now that could not before.
    pub(super) fn notify_available(&self, items: usize) {
        self.availability.add(items);
        self.to_tell.add(items);
    }
}

fn scope(kind: &str, name: &str) -> Result<Scope, Fault> {
    Scope::parse(kind, Some(name)).map_err(|e: Invalid| Fault::backend("read a pause or limit", e))
}

impl Postgres {
    /// Deletes the one row of a scope.
    async fn lift(
        &self,
        action: &'static str,
        delete: &'static str,
        scope: &Scope,
    ) -> Result<bool, Fault> {
        let delete = sqlx::query(delete).bind(scope.kind()).bind(scope.name());
        let deleted = self
            .tables
            .ask(action, delete.execute(self.tables.link.pool()))
            .await?;
        self.tables.frontier.opened(None);
        self.tables.notify_available(SOME);
        Ok(deleted.rows_affected() > 0)
    }
}

#[async_trait]
impl PauseStore for Postgres {
    async fn pause(&self, pause: Pause) -> Result<(), Fault> {
        let write = sqlx::query(
            "INSERT INTO runner_pause (kind, name, reason, since, until) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (kind, name) DO UPDATE SET reason = excluded.reason, since = excluded.since, until = excluded.until",
        )
        .bind(pause.scope.kind())
        .bind(pause.scope.name())
        .bind(&pause.reason)
        .bind(pause.since.naive_utc())
        .bind(pause.until.map(|until| until.naive_utc()));
        self.tables
            .ask("pause", write.execute(self.tables.link.pool()))
            .await
            .map(drop)
    }

    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault> {
        self.lift(
            "end a pause",
            "DELETE FROM runner_pause WHERE kind = $1 AND name = $2",
            scope,
        )
        .await
    }

    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault> {
        let query = sqlx::query_as(
            "SELECT kind, name, reason, since, until FROM runner_pause WHERE until IS NULL OR until > $1 ORDER BY kind COLLATE \"C\", name COLLATE \"C\"",
        )
        .bind(now.naive_utc());
        let rows: Vec<(String, String, String, NaiveDateTime, Option<NaiveDateTime>)> = self
            .tables
            .ask("list the pauses", query.fetch_all(self.tables.link.pool()))
            .await?;
        let pause = |(kind, name, reason, since, until): (
            String,
            String,
            String,
            NaiveDateTime,
            Option<NaiveDateTime>,
        )| {
            Ok(Pause {
                scope: scope(&kind, &name)?,
                reason,
                since: since.and_utc(),
                until: until.map(|until| until.and_utc()),
            })
        };
        rows.into_iter().map(pause).collect()
    }

    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault> {
        let write = sqlx::query(
            "INSERT INTO runner_limit (kind, name, most) VALUES ($1, $2, $3) ON CONFLICT (kind, name) DO UPDATE SET most = excluded.most",
        )
        .bind(limit.scope.kind())
        .bind(limit.scope.name())
        .bind(i64::from(limit.most));
        self.tables
            .ask("limit", write.execute(self.tables.link.pool()))
            .await?;
        self.tables.notify_available(SOME);
        Ok(())
    }

    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault> {
        self.lift(
            "end a limit",
            "DELETE FROM runner_limit WHERE kind = $1 AND name = $2",
            scope,
        )
        .await
    }

    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault> {
        let query = sqlx::query_as(
            "SELECT kind, name, most FROM runner_limit ORDER BY kind COLLATE \"C\", name COLLATE \"C\"",
        );
        let rows: Vec<(String, String, i64)> = self
            .tables
            .ask("list the limits", query.fetch_all(self.tables.link.pool()))
            .await?;
        let limit = |(kind, name, most): (String, String, i64)| {
            Ok(ConcurrencyLimit {
                scope: scope(&kind, &name)?,
                most: u32::try_from(most).unwrap_or(u32::MAX),
            })
        };
        rows.into_iter().map(limit).collect()
    }
}

fn entry((item, state): (String, Option<String>)) -> sqlx::Result<QueueEntry> {
    Ok(QueueEntry {
        item: read::<QueueItem>(&item)?,
        state: state
            .map(|state| read::<ItemState>(&state))
            .transpose()?
            .unwrap_or_default(),
    })
}

#[async_trait]
impl Parking for Postgres {
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault> {
        let query = sqlx::query_as(concat!(
            "SELECT ",
            item_json!("item"),
            "::text, (SELECT state::text FROM runner_item WHERE queue_id = item.id) FROM queue AS item WHERE item.id = $1"
        ));
        let look = async {
            query
                .bind(id)
                .fetch_optional(self.tables.link.pool())
                .await?
                .map(entry)
                .transpose()
        };
        self.tables.ask("look up an item", look).await
    }

    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault> {
        let query = sqlx::query_as(concat!(
            "SELECT ",
            item_json!("item"),
            "::text, parked.state::text FROM (SELECT * FROM runner_item WHERE parked AND queue_id > $1
                 AND (SELECT run_id FROM runner_claim WHERE runner_claim.queue_id = runner_item.queue_id) IS NULL) AS parked
             CROSS JOIN LATERAL (SELECT * FROM queue WHERE id = parked.queue_id OFFSET 0) AS item ORDER BY parked.queue_id LIMIT $2"
        ));
        let query = query
            .bind(after.unwrap_or(i64::MIN))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let look = async {
            query
                .fetch_all(self.tables.link.pool())
                .await?
                .into_iter()
                .map(entry)
                .collect()
        };
        self.tables.ask("list parked items", look).await
    }

    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault> {
        let query = sqlx::query_as(
            "DELETE FROM runner_item WHERE queue_id = ANY ($1) AND (SELECT true FROM queue WHERE id = queue_id) IS NOT NULL
                 AND (SELECT run_id FROM runner_claim WHERE runner_claim.queue_id = runner_item.queue_id) IS NULL
             RETURNING queue_id, parked OR not_before IS NOT NULL",
        );
        let rows: Vec<(i64, bool)> = self
            .tables
            .ask(
                "release items",
                query.bind(ids).fetch_all(self.tables.link.pool()),
            )
            .await?;
        self.tables.frontier.opened(None);
        self.tables.notify_available(rows.len());
        let mut released: Vec<QueueId> = rows
            .into_iter()
            .filter(|(_, waited)| *waited)
            .map(|(id, _)| id)
            .collect();
        released.sort_unstable_by_key(|id| ids.iter().position(|asked| asked == id));
        Ok(released)
    }
}

#[async_trait]
impl QueueNotifier for Postgres {
    async fn wait_for_items(&self) -> usize {
        self.tables.availability.take().await
    }
}
