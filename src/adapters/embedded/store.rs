//! The embedded stores as one value: how a port's method reads, and how it has something written.

use super::{
    host_names,
    keys::{self, Key},
    kv::{Kv, KvError},
    memory_index::MemoryIndex,
    txn::Txn,
    writer::{Command, Writer},
};
use crate::{
    adapters::{off_thread, support::availability::Availability},
    metrics::Metrics,
    ports::Fault,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock, mpsc},
    thread,
    time::Instant,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The layout of the keys and records. A program that knows another one refuses the store.
const FORMAT: u64 = 1;

/// The embedded stores; clones share the data.
#[derive(Clone)]
pub struct Embedded {
    kv: Arc<dyn Kv>,
    /// Changed by the writer only.
    index: Arc<RwLock<MemoryIndex>>,
    /// Held for writing while a batch is applied, and for reading during a read, so that reads
    /// never see half of a batch. Always taken after `index`, never before.
    snapshot_lock: Arc<RwLock<()>>,
    commands: mpsc::Sender<Command>,
    /// Cancelled when the store fails.
    failed: CancellationToken,
    /// Counts items that may be claimed now, for the queue notifier.
    pub(super) availability: Arc<Availability>,
    /// The label of the store in metrics.
    name: &'static str,
    metrics: Arc<Metrics>,
}

impl Embedded {
    /// Opens the stores on `kv`, and starts their writer, which ends with the last clone.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when the store has another format or a record cannot be read, and
    /// [`Fault::Unavailable`] when the writer's thread cannot be started.
    pub fn open(kv: Arc<dyn Kv>, name: &'static str, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        verify_format(kv.as_ref()).map_err(|e| Fault::backend("open the store", e))?;
        host_names::normalize(kv.as_ref())?;
        let index = Arc::new(RwLock::new(MemoryIndex::load(&Txn::new(kv.as_ref()))?));
        let snapshot_lock = Arc::new(RwLock::new(()));
        let (sender, commands) = mpsc::channel();
        let failed = CancellationToken::new();
        let writer = Writer {
            kv: kv.clone(),
            index: index.clone(),
            snapshot_lock: snapshot_lock.clone(),
            commands,
            failed: failed.clone(),
        };
        let spawned = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run());
        spawned.map_err(|e| Fault::unavailable("start the store's writer", e))?;
        Ok(Self {
            kv,
            index,
            snapshot_lock,
            commands: sender,
            failed,
            availability: Arc::default(),
            name,
            metrics,
        })
    }

    /// Returns what is cancelled when the store fails. It must be opened again then, by another
    /// process.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Fails once the store has failed: what it shows may be gone after the next start.
    fn check(&self, action: &'static str) -> Result<(), Fault> {
        match self.failed.is_cancelled() {
            true => Err(Fault::unavailable(action, "the store has failed")),
            false => Ok(()),
        }
    }

    /// Visits the records under a prefix, read page by page, until `visit` returns false.
    ///
    /// The writer may run between two pages, so each record is whole, but they are not all of one
    /// moment. One read of everything would hold the snapshot lock for as long as the list is.
    pub(super) async fn visit_all<T>(
        &self,
        action: &'static str,
        prefix: Key,
        mut visit: impl FnMut(T) -> bool + Send,
    ) -> Result<(), Fault>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let mut after = None;
        loop {
            let (prefix, from) = (prefix.clone(), after);
            let (page, next) = self
                .read(action, move |txn, _| txn.page(&prefix, from))
                .await?;
            after = next;
            let wants_more = page.into_iter().all(&mut visit);
            if !wants_more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Has the writer run a change: all of it, and durable when this returns, or nothing of it.
    pub(super) async fn write<T, E>(
        &self,
        action: &'static str,
        change: impl FnOnce(&mut Txn<'_>, &mut MemoryIndex) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let started = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let defect = |action| E::from(Fault::backend(action, "the change panicked"));
        let command: Command = Box::new(move |txn, index| {
            let savepoint = index.savepoint();
            let changed = catch_unwind(AssertUnwindSafe(|| change(txn, index)));
            let result = changed.unwrap_or_else(|_| Err(defect(action)));
            if result.is_ok() {
                txn.accept();
            } else {
                // Only this change is undone: the batch holds those of other callers too.
                txn.roll_back();
                index.roll_back_to(savepoint);
            }
            Box::new(move |stored| {
                let result = match stored {
                    Ok(()) => result,
                    Err(why) => Err(Fault::unavailable(action, why).into()),
                };
                // A caller that went away needs no reply; its change is made all the same.
                drop(sender.send(result));
            })
        });
        let stopped = || E::from(Fault::unavailable(action, "the store's writer has stopped"));
        self.commands.send(command).map_err(|_| stopped())?;
        let result = receiver.await.map_err(|_| stopped())?;
        self.metrics
            .operated(self.name, action, result.is_ok(), started.elapsed());
        result
    }

    /// Reads records as [`Embedded::read`] does, and returns once all that was read is durable: for what
    /// is said to others as a fact.
    ///
    /// A batch can be read from when it is applied, which is before it is durable.
    pub(super) async fn read_durable<T, E>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Txn<'_>, &MemoryIndex) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let found = self.read(action, read).await?;
        // The writer comes to this once it has stored the batches before it.
        self.write(action, |_, _| Ok::<_, E>(())).await?;
        Ok(found)
    }

    /// Reads the index in memory.
    ///
    /// That takes microseconds, so it runs here when the index is free. While the writer has it,
    /// the wait would block an async thread, so it moves to another one.
    pub(super) async fn read_index<T: Send + 'static, E: From<Fault>>(
        &self,
        read: impl FnOnce(&MemoryIndex) -> T + Send + 'static,
    ) -> Result<T, E> {
        self.check("look at the queue")?;
        if let Ok(index) = self.index.try_read() {
            return Ok(read(&index));
        }
        let index = self.index.clone();
        Ok(off_thread("look at the queue", move || {
            read(&index.read().unwrap_or_else(PoisonError::into_inner))
        })
        .await?)
    }

    /// Reads records off the async threads; they do not change as long as `read` runs.
    pub(super) async fn read<T, E>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Txn<'_>, &MemoryIndex) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let started = Instant::now();
        self.check(action)?;
        let this = self.clone();
        let reading = off_thread(action, move || {
            // The index first, then the snapshot lock: see the writer for the order.
            let index = this.index.read().unwrap_or_else(PoisonError::into_inner);
            let _shared = this
                .snapshot_lock
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            read(&Txn::new(this.kv.as_ref()), &index)
        });
        let result = reading.await?;
        // It may have failed meanwhile.
        self.check(action)?;
        self.metrics
            .operated(self.name, action, result.is_ok(), started.elapsed());
        result
    }
}

/// Checks that the store has the format that this program knows; gives a new store that format.
fn verify_format(kv: &dyn Kv) -> Result<(), KvError> {
    let stored = kv
        .get(keys::FORMAT_KEY)?
        .map(|bytes| String::from_utf8_lossy(&bytes).parse::<u64>());
    match stored {
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
            Err(format!(
                "its format is {found}, this program knows format {FORMAT}; \
                 use the version that wrote it, nothing was changed"
            )
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::{
            embedded::{kv::Batch, records},
            memory::MemoryKv,
        },
        domain::{active_run::Claimant, name::RunId, time},
        ports::{ActiveRunStore, ActiveRunStoreError, QueueStore, active_runs::ClaimRequest},
    };
    use std::ops::Bound;

    fn open(kv: &Arc<MemoryKv>) -> Result<Embedded, Fault> {
        Embedded::open(kv.clone(), "memory", Arc::new(Metrics::new()))
    }

    #[test]
    fn store_of_another_format_is_refused_and_unchanged() {
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

    /// A key-value store that can be read, but fails every batch.
    struct FullDisk(MemoryKv);

    impl Kv for FullDisk {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.0.get(key)
        }
        fn range(
            &self,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KvError> {
            self.0.range(from, to, limit)
        }
        fn last(
            &self,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
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

    /// A store with one queue item, written before.
    fn with_one_item(item: &crate::domain::queue::QueueItem, now: time::Time) -> MemoryKv {
        let upload = crate::domain::codebase::CodebaseUpload {
            name: Some(item.key.codebase.to_string()),
            ..Default::default()
        };
        let stored = records::StoredItem {
            item: item.clone(),
            pending_enqueue: None,
            state: crate::domain::retry::ItemState::default(),
            added: now,
        };
        let codebase = records::StoredCodebase {
            sequence: 1,
            codebase: upload.validate().unwrap(),
        };
        let kv = MemoryKv::default();
        let mut txn = Txn::new(&kv);
        txn.put(keys::codebase_named(&item.key.codebase), &1_u64)
            .unwrap();
        txn.put(keys::codebase(1), &codebase).unwrap();
        txn.put(keys::item(item.id), &stored).unwrap();
        txn.put(keys::meta("format"), &FORMAT).unwrap();
        let batch = txn.into_batch();
        kv.apply(batch).unwrap();
        kv
    }

    #[tokio::test]
    async fn claim_that_cannot_be_stored_fails_the_store() {
        let now = time::parse("now", "2026-11-23T10:00:00").unwrap();
        let item = crate::domain::finish::tests::item();
        let kv = Arc::new(FullDisk(with_one_item(&item, now)));
        let store = Embedded::open(kv, "full", Arc::new(Metrics::new())).unwrap();
        let request = || ClaimRequest {
            filter: crate::ports::queue_store::ClaimFilter::default(),
            claimant: Claimant::default(),
            run_id: RunId::new("r1"),
            token: "t".into(),
            now,
            lease: None,
        };
        let failed = store.failed();
        assert!(!failed.is_cancelled());
        for _ in 0..2 {
            let failure = store.claim(request()).await;
            let Err(ActiveRunStoreError::Fault(fault)) = failure else {
                panic!("the claim did not fail as it should: {failure:?}")
            };
            assert!(fault.is_unavailable(), "{fault}");
            // Nothing is shown that may be gone after the next start.
            assert!(ActiveRunStore::list(&store).await.is_err());
            assert!(QueueStore::list(&store, 9).await.is_err());
            assert!(failed.is_cancelled());
        }
    }

    /// A key-value store whose flushes take until somebody lets them end.
    struct SlowDisk {
        entries: MemoryKv,
        ends: std::sync::Mutex<std::sync::mpsc::Receiver<bool>>,
    }

    impl Kv for SlowDisk {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.entries.get(key)
        }
        fn range(
            &self,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KvError> {
            self.entries.range(from, to, limit)
        }
        fn last(
            &self,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
        ) -> Result<Option<(Vec<u8>, Vec<u8>)>, KvError> {
            self.entries.last(from, to)
        }
        fn apply(&self, batch: Batch) -> Result<(), KvError> {
            self.entries.apply(batch)
        }
        fn flush(&self) -> Result<(), KvError> {
            match self.ends.lock().unwrap().recv() {
                Ok(true) => Ok(()),
                _ => Err("the disk is broken".into()),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn facts_are_read_once_they_are_durable() {
        let (end, ends) = std::sync::mpsc::channel();
        let ends = std::sync::Mutex::new(ends);
        let entries = MemoryKv::default();
        let kv = Arc::new(SlowDisk { entries, ends });
        // That of the format of a new store.
        end.send(true).unwrap();
        let store = Embedded::open(kv, "slow", Arc::new(Metrics::new())).unwrap();
        for is_stored in [true, false] {
            let key = || keys::meta("fact");
            let writing = store.clone();
            let written = tokio::spawn(async move {
                let put = move |txn: &mut Txn<'_>, _: &mut MemoryIndex| txn.put(key(), &1_u64);
                writing.write::<(), Fault>("write", put).await
            });
            let shown = |txn: &Txn<'_>, _: &MemoryIndex| txn.get::<u64>(&keys::meta("fact"));
            while store.read("read", shown).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            let reading = store.clone();
            let read = tokio::spawn(async move { reading.read_durable("read", shown).await });
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert!(!read.is_finished(), "it is not durable yet");
            end.send(is_stored).unwrap();
            assert_eq!(written.await.unwrap().is_ok(), is_stored);
            assert_eq!(read.await.unwrap().is_ok(), is_stored);
        }
    }

    #[tokio::test]
    async fn change_that_panics_is_undone_alone() {
        let kv = Arc::new(MemoryKv::default());
        let store = Embedded::open(kv, "memory", Arc::new(Metrics::new())).unwrap();
        let panics = |txn: &mut Txn<'_>, _: &mut MemoryIndex| -> Result<(), Fault> {
            txn.put(keys::meta("odd"), &1_u64)?;
            panic!("odd")
        };
        let failure = store.write("panic", panics).await;
        assert!(matches!(failure, Err(Fault::Backend { .. })), "{failure:?}");
        let put = |txn: &mut Txn<'_>, _: &mut MemoryIndex| txn.put(keys::meta("even"), &1_u64);
        store.write::<(), Fault>("write", put).await.unwrap();
        let read = |txn: &Txn<'_>, _: &MemoryIndex| {
            let number = |name| txn.get::<u64>(&keys::meta(name));
            Ok::<_, Fault>((number("odd")?, number("even")?))
        };
        assert_eq!(store.read("read", read).await.unwrap(), (None, Some(1)));
        assert!(!store.failed().is_cancelled());
    }
}
