//! Notifications between runner processes, by the database's own LISTEN and NOTIFY, that items
//! became available.

use super::Tables;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The channel of the notifications. A payload is the number of the process and that of the items.
const CHANNEL: &str = "runner_queue";
/// Items that become available within this time share a notification.
const COALESCE_WINDOW: Duration = Duration::from_millis(5);
/// How long to wait before listening again after the connection failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How many waiting workers look for an item when it is not known how many became available, as
/// when a pause or a limit ends. Each that finds something has the next one look.
pub(super) const UNKNOWN_COUNT: usize = 16;

/// Notifies other processes of available items, and listens to their notifications.
pub(super) struct NotifyBridge {
    _sender: AbortOnDropHandle<()>,
    _listener: AbortOnDropHandle<()>,
}

async fn send(tables: Tables, process: i32) {
    loop {
        let items = tables.to_notify.take().await;
        let notify = sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(format!("{process} {items}"));
        // A process that misses the notification finds the items at its next look, a moment later.
        drop(
            tables
                .run(
                    "notify of available items",
                    notify.execute(tables.connections()),
                )
                .await,
        );
        tokio::time::sleep(COALESCE_WINDOW).await;
    }
}

async fn listen(tables: Tables, options: PgConnectOptions, process: i32) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options);
    let receive = async || -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            let notification = listener.recv().await?;
            let Some((from, items)) = notification.payload().split_once(' ') else {
                continue;
            };
            if from != process.to_string() {
                tables.cursor.item_available(None);
                tables
                    .availability
                    .add(items.parse().unwrap_or(UNKNOWN_COUNT));
            }
        }
    };
    loop {
        if let Err(error) = receive().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "not listening to other runners for a moment"
            );
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

impl NotifyBridge {
    /// Starts to send and to listen, until it is dropped.
    pub(super) fn start(tables: &Tables, options: PgConnectOptions) -> Self {
        // Two processes on different machines may have the same number. They miss each other's
        // notifications then, and find the items at their next look.
        let process = i32::from_ne_bytes(std::process::id().to_ne_bytes());
        let sender = tokio::spawn(send(tables.clone(), process));
        let listener = tokio::spawn(listen(tables.clone(), options, process));
        Self {
            _sender: AbortOnDropHandle::new(sender),
            _listener: AbortOnDropHandle::new(listener),
        }
    }
}

impl Tables {
    /// Notifies those who wait, here and in other processes, that items can be claimed now that
    /// could not before.
    pub(super) fn notify_available(&self, items: usize) {
        self.availability.add(items);
        self.to_notify.add(items);
    }
}
