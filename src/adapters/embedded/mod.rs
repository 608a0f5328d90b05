//! The stores that need no server: queue, runs, catalog and credentials on any ordered key-value store.
//!
//! One writer thread carries out all changes, one after the other, each all or nothing. It takes every change that waits
//! at that moment, applies them as one batch, makes that durable once, and only then answers each of them (group
//! commit). Queue and claims are also kept in memory (`hot.rs`), since every request asks for them.
//! The rules live here once; `adapters/sled` and `adapters/memory` only bring the key-value store.
//! A new kind of record gets a table in `keys.rs`.

mod active_runs;
mod catalog;
mod credentials;
mod keys;
mod live_logs;
mod memory_index;
mod outbox;
mod pauses;
mod queue;
mod records;
mod runs;
mod schedule;
mod txn;

pub use txn::{Batch, Kv, KvError};

use super::support::availability::Availability;
use crate::{adapters::off_thread, metrics::Metrics, ports::Fault};
use keys::Key;
use memory_index::MemoryIndex;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, mpsc},
    thread,
    time::Instant,
};
use tokio::sync::oneshot;
use txn::Txn;

/// How many changes share one batch at the most.
const GROUP: usize = 256;
/// The layout of the keys and records.
const FORMAT: u64 = 1;

/// Tells a waiting caller what became of its change, once that is known for the whole group.
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;
type Job = Box<dyn FnOnce(&mut Txn<'_>, &mut MemoryIndex) -> Answer + Send>;

/// The embedded stores; clones share the data.
#[derive(Clone)]
pub struct Embedded {
    kv: Arc<dyn Kv>,
    /// Changed by the writer alone.
    hot: Arc<RwLock<MemoryIndex>>,
    /// Held for writing while a batch is applied, and for reading while a read goes on: reads see whole changes.
    gate: Arc<RwLock<()>>,
    jobs: mpsc::Sender<Job>,
    /// What was opened.
    availability: Arc<Availability>,
    /// What the store is called in the figures.
    name: &'static str,
    metrics: Arc<Metrics>,
}

impl Embedded {
    /// Opens the stores on `kv`, and starts their writer, which ends with the last clone.
    pub fn open(kv: Arc<dyn Kv>, name: &'static str, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        check_format(kv.as_ref()).map_err(|e| Fault::backend("open the store", e))?;
        let hot = Arc::new(RwLock::new(MemoryIndex::load(&Txn::new(kv.as_ref()))?));
        let gate = Arc::new(RwLock::new(()));
        let (jobs, waiting) = mpsc::channel();
        let writer = Writer {
            kv: kv.clone(),
            hot: hot.clone(),
            gate: gate.clone(),
            waiting,
        };
        let spawned = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run());
        spawned.map_err(|e| Fault::unavailable("start the store's writer", e))?;
        Ok(Self {
            kv,
            hot,
            gate,
            jobs,
            availability: Arc::default(),
            name,
            metrics,
        })
    }

    /// All records under a prefix, page by page: whole records, but not all of one moment.
    async fn all<T, E>(&self, action: &'static str, prefix: Key) -> Result<Vec<T>, E>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let (mut all, mut after) = (vec![], None);
        loop {
            let (prefix, from) = (prefix.clone(), after);
            let (page, next) = self
                .read(action, move |txn, _| Ok::<_, E>(txn.page(&prefix, from)?))
                .await?;
            all.extend(page);
            after = next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Carries out a change: all of it, durable, or nothing.
    async fn write<T, E>(
        &self,
        action: &'static str,
        change: impl FnOnce(&mut Txn<'_>, &mut MemoryIndex) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let started = Instant::now();
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |txn, hot| {
            let mark = hot.mark();
            let result = change(txn, hot);
            if result.is_ok() {
                txn.keep();
            } else {
                txn.undo();
                hot.undo_to(mark);
            }
            Box::new(move |stored| {
                let result = match stored {
                    Ok(()) => result,
                    Err(why) => Err(Fault::unavailable(action, why).into()),
                };
                // A caller that went away does not need the answer; the change is made all the same.
                drop(answer.send(result));
            })
        });
        let gone = || E::from(Fault::unavailable(action, "the store's writer has stopped"));
        self.jobs.send(job).map_err(|_| gone())?;
        let result = answered.await.map_err(|_| gone())?;
        self.metrics
            .operated(self.name, action, result.is_ok(), started.elapsed());
        result
    }

    /// Looks at what is in memory: at once where possible, off the async threads while a change is being made.
    async fn look<T: Send + 'static, E: From<Fault>>(
        &self,
        look: impl FnOnce(&MemoryIndex) -> T + Send + 'static,
    ) -> Result<T, E> {
        if let Ok(hot) = self.hot.try_read() {
            return Ok(look(&hot));
        }
        let hot = self.hot.clone();
        Ok(off_thread("look at the queue", move || {
            look(&hot.read().unwrap_or_else(PoisonError::into_inner))
        })
        .await?)
    }

    /// Reads off the async threads; what is read is consistent as long as `read` runs.
    async fn read<T, E>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Txn<'_>, &MemoryIndex) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let started = Instant::now();
        let this = self.clone();
        let reading = off_thread(action, move || {
            let hot = this.hot.read().unwrap_or_else(PoisonError::into_inner);
            let _whole = this.gate.read().unwrap_or_else(PoisonError::into_inner);
            read(&Txn::new(this.kv.as_ref()), &hot)
        });
        let result = reading.await?;
        self.metrics
            .operated(self.name, action, result.is_ok(), started.elapsed());
        result
    }
}

fn check_format(kv: &dyn Kv) -> Result<(), KvError> {
    match kv
        .get(keys::FORMAT_KEY)?
        .map(|bytes| String::from_utf8_lossy(&bytes).parse::<u64>())
    {
        None => {
            kv.apply(BTreeMap::from([(
                keys::FORMAT_KEY.to_vec(),
                Some(FORMAT.to_string().into_bytes()),
            )]))?;
            kv.flush()
        }
        Some(Ok(FORMAT)) => Ok(()),
        Some(found) => {
            let found = found.map_or_else(|e| e.to_string(), |n| n.to_string());
            Err(format!("its format is {found}, this program knows format {FORMAT}; use the version that wrote it, nothing was changed").into())
        }
    }
}

struct Writer {
    kv: Arc<dyn Kv>,
    hot: Arc<RwLock<MemoryIndex>>,
    gate: Arc<RwLock<()>>,
    waiting: mpsc::Receiver<Job>,
}

impl Writer {
    fn run(self) {
        while let Ok(first) = self.waiting.recv() {
            let (answers, batch) = self.carry_out(first);
            let stored = self.store(batch);
            let mut hot = self.hot.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(why) = &stored {
                tracing::error!(error = %why, changes = answers.len(), "the store did not take a batch");
                hot.undo_to(0);
            }
            hot.settle();
            drop(hot);
            for answer in answers {
                answer(stored.clone());
            }
        }
    }

    /// Carries out what waits, as one batch; answers what to tell whom once that is durable.
    fn carry_out(&self, first: Job) -> (Vec<Answer>, Batch) {
        let mut hot = self.hot.write().unwrap_or_else(PoisonError::into_inner);
        let mut txn = Txn::new(self.kv.as_ref());
        let mut answers = vec![first(&mut txn, &mut hot)];
        while answers.len() < GROUP {
            let Ok(job) = self.waiting.try_recv() else {
                break;
            };
            answers.push(job(&mut txn, &mut hot));
        }
        (answers, txn.into_batch())
    }

    fn store(&self, batch: Batch) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let applied = {
            let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.kv.apply(batch)
        };
        applied
            .and_then(|()| self.kv.flush())
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::MemoryKv;

    fn open(kv: &Arc<MemoryKv>) -> Result<Embedded, Fault> {
        Embedded::open(kv.clone(), "memory", Arc::new(Metrics::new()))
    }

    #[test]
    fn another_format_is_refused_and_left_alone() {
        let kv = Arc::new(MemoryKv::default());
        open(&kv).unwrap();
        open(&kv).unwrap();
        for other in ["2", "x"] {
            kv.apply(BTreeMap::from([(
                keys::FORMAT_KEY.to_vec(),
                Some(other.into()),
            )]))
            .unwrap();
            assert!(matches!(open(&kv), Err(Fault::Backend { .. })), "{other}");
            assert_eq!(kv.get(keys::FORMAT_KEY).unwrap().unwrap(), other.as_bytes());
        }
    }

    /// A store that takes nothing.
    struct Full(MemoryKv);

    impl Kv for Full {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.0.get(key)
        }
        fn range(
            &self,
            from: std::ops::Bound<&[u8]>,
            to: std::ops::Bound<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KvError> {
            self.0.range(from, to, limit)
        }
        fn last(
            &self,
            from: std::ops::Bound<&[u8]>,
            to: std::ops::Bound<&[u8]>,
        ) -> Result<Option<(Vec<u8>, Vec<u8>)>, KvError> {
            self.0.last(from, to)
        }
        fn apply(&self, _: Batch) -> Result<(), KvError> {
            Err("the disk is full".into())
        }
        fn flush(&self) -> Result<(), KvError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_the_store_does_not_take_is_taken_back() {
        use crate::{
            domain::{active_run::Claimant, name::RunId, time},
            ports::{ActiveRunStore, QueueStore, active_runs::ClaimRequest},
        };
        let now = time::parse("now", "2026-11-23T10:00:00").unwrap();
        let item = crate::domain::finish::tests::item();
        let upload = crate::domain::codebase::CodebaseUpload {
            name: Some(item.key.codebase.to_string()),
            ..Default::default()
        };
        let stored = records::StoredItem {
            item: item.clone(),
            wish: None,
            state: crate::domain::retry::ItemState::default(),
            added: now,
        };
        let kv = MemoryKv::default();
        let mut txn = Txn::new(&kv);
        txn.put(keys::codebase_named(&item.key.codebase), &1_u64)
            .unwrap();
        txn.put(
            keys::codebase(1),
            &records::StoredCodebase {
                sequence: 1,
                codebase: upload.validate().unwrap(),
            },
        )
        .unwrap();
        txn.put(keys::item(item.id), &stored).unwrap();
        txn.put(keys::meta("format"), &FORMAT).unwrap();
        let batch = txn.into_batch();
        kv.apply(batch).unwrap();
        let store = Embedded::open(Arc::new(Full(kv)), "full", Arc::new(Metrics::new())).unwrap();
        let request = || ClaimRequest {
            filter: crate::ports::queue_store::ClaimFilter::default(),
            claimant: Claimant::default(),
            run_id: RunId::new("r1"),
            token: "t".into(),
            now,
            lease: None,
        };
        for _ in 0..2 {
            let refused = store.claim(request()).await;
            assert!(
                matches!(refused, Err(crate::ports::ActiveRunStoreError::Fault(fault)) if fault.is_unavailable())
            );
            assert_eq!(ActiveRunStore::list(&store).await.unwrap(), vec![]);
            assert_eq!(
                QueueStore::list(&store, 9).await.unwrap(),
                std::slice::from_ref(&item)
            );
        }
    }
}
