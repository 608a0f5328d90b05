//! Positions in the queue, and figures about it.

use crate::{
    domain::{queue::QueueId, schedule::Pair},
    ports::queue_store::{Position, QueueStats},
};
use chrono::NaiveDateTime;
use sqlx::PgConnection;

/// The bucket, priority and id of an item.
type PositionRow = (String, i64, i64);

/// Returns where the first item of a pair is.
pub(super) async fn of_pair(
    connection: &mut PgConnection,
    pair: &Pair,
) -> sqlx::Result<Option<PositionRow>> {
    sqlx::query_as(include_str!("../sql/find_position_of_pair.sql"))
        .bind(pair.codebase.as_str())
        .bind(pair.campaign.as_str())
        .fetch_optional(connection)
        .await
}

/// Returns where an item is.
pub(super) async fn of_item(
    connection: &mut PgConnection,
    id: QueueId,
) -> sqlx::Result<Option<PositionRow>> {
    sqlx::query_as("SELECT bucket::text, priority, id::bigint FROM queue WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Counts what is before an item.
pub(super) async fn position(
    connection: &mut PgConnection,
    row: Option<PositionRow>,
) -> sqlx::Result<Option<Position>> {
    let Some((bucket, priority, id)) = row else {
        return Ok(None);
    };
    let (before, wait_time): (i64, f64) =
        sqlx::query_as(include_str!("../sql/count_items_before.sql"))
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

/// Counts the items of the queue, by bucket and by campaign.
pub(super) async fn stats(connection: &mut PgConnection) -> sqlx::Result<QueueStats> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT bucket::text, suite::text, count(*) FROM queue GROUP BY bucket, suite",
    )
    .fetch_all(&mut *connection)
    .await?;
    let oldest: Option<NaiveDateTime> =
        sqlx::query_scalar(include_str!("../sql/find_oldest_minute.sql"))
            .fetch_optional(connection)
            .await?;
    let mut stats = QueueStats {
        oldest: oldest.map(|minute| minute.and_utc()),
        ..QueueStats::default()
    };
    for (bucket, campaign, count) in rows {
        let count = u64::try_from(count).unwrap_or_default();
        let bucket = bucket.parse().unwrap_or_default();
        stats.length += count;
        *stats.by_bucket.entry(bucket).or_default() += count;
        *stats.by_campaign.entry(campaign).or_default() += count;
    }
    Ok(stats)
}
