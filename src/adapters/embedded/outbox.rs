//! News on the embedded stores; and leases, which one process alone always has.

use super::{
    Embedded, keys,
    records::StoredNews,
    txn::{Txn, decode},
};
use crate::{
    domain::run::Run,
    ports::{
        Event, Fault, Leases, Outbox,
        outbox::{News, NewsId},
    },
};
use async_trait::async_trait;
use std::{ops::ControlFlow, time::Duration};

fn untold(txn: &Txn<'_>, limit: usize) -> Result<Vec<News>, Fault> {
    let mut found = vec![];
    txn.scan(&keys::all_news(), |key, value| -> Result<_, Fault> {
        if found.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        let id = key
            .last_chunk::<8>()
            .map_or(0, |bytes| NewsId::from_be_bytes(*bytes));
        let StoredNews {
            run_id,
            publish_status,
        } = decode(value)?;
        if let Some(run) = txn.get::<Run>(&keys::run(&run_id))? {
            found.push(News {
                id,
                event: Event::of_run(run, publish_status),
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[async_trait]
impl Outbox for Embedded {
    async fn untold(&self, limit: usize) -> Result<Vec<News>, Fault> {
        self.read("look for news", move |txn, _| untold(txn, limit))
            .await
    }

    async fn told(&self, ids: &[NewsId]) -> Result<(), Fault> {
        let ids = ids.to_vec();
        self.write("settle news", move |txn, _| {
            for id in ids {
                txn.delete(keys::news(id));
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Leases for Embedded {
    async fn hold(&self, _: &str, _: &str, _: Duration) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn let_go(&self, _: &str, _: &str) -> Result<(), Fault> {
        Ok(())
    }
}
