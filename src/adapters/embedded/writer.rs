//! The thread that applies all changes of the embedded stores, with group commit.

use super::{
    kv::{Batch, Kv},
    memory_index::MemoryIndex,
    txn::Txn,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock, mpsc},
};
use tokio_util::sync::CancellationToken;

/// How many commands share one batch at most.
const MAX_GROUP_SIZE: usize = 256;

/// Sends a caller the result of its command, once it is known whether the whole batch was stored.
pub(super) type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;

/// One change, all or nothing: stages its writes, and returns how to reply to its caller.
pub(super) type Command = Box<dyn FnOnce(&mut Txn<'_>, &mut MemoryIndex) -> Reply + Send>;

/// The only one that changes the key-value store and the index in memory.
///
/// Being the only one, it needs no locks between commands, and each command sees the effects of all
/// earlier ones, stored or not.
pub(super) struct Writer {
    pub(super) kv: Arc<dyn Kv>,
    pub(super) index: Arc<RwLock<MemoryIndex>>,
    /// Held for writing while a batch is applied, and for reading during a read, so that reads
    /// never see half of a batch.
    pub(super) snapshot_lock: Arc<RwLock<()>>,
    /// The commands that wait.
    pub(super) commands: mpsc::Receiver<Command>,
    /// Cancelled when a batch could not be stored, or the writer panicked.
    pub(super) failed: CancellationToken,
}

impl Writer {
    /// Runs commands until every sender is dropped, or the store fails.
    ///
    /// After a failure it is unknown what the store has of the last batch, and engines refuse
    /// everything until they are opened again: the process must end, and start again.
    pub(super) fn run(self) {
        let failed = self.failed.clone();
        if catch_unwind(AssertUnwindSafe(|| self.run_all())).is_err() {
            failed.cancel();
            tracing::error!("the writer of the store has panicked");
        }
    }

    fn run_all(self) {
        while let Ok(first) = self.commands.recv() {
            let (replies, batch) = self.run_group(first);
            let stored = self.store(batch);
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(why) = &stored {
                let changes = replies.len();
                tracing::error!(error = %why, changes, "a batch could not be stored");
                // The index would otherwise show changes that a restart forgets.
                index.roll_back_to(0);
                self.failed.cancel();
            }
            index.discard_undo_log();
            // Released before the replies, since a caller may read the index at once.
            drop(index);
            for reply in replies {
                reply(stored.clone());
            }
            if stored.is_err() {
                return;
            }
        }
    }

    /// Runs all commands that wait as one batch.
    ///
    /// This is group commit: making a batch durable costs a sync of the disk however many changes
    /// it has, so commands that arrive during one sync share the next. No caller gets its reply
    /// before the batch of its command is durable.
    fn run_group(&self, first: Command) -> (Vec<Reply>, Batch) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let mut txn = Txn::new(self.kv.as_ref());
        let mut replies = vec![first(&mut txn, &mut index)];
        while replies.len() < MAX_GROUP_SIZE {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            replies.push(command(&mut txn, &mut index));
        }
        (replies, txn.into_batch())
    }

    /// Applies a batch and makes it durable.
    fn store(&self, batch: Batch) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let applied = {
            // Readers take the index first and this lock second. The writer never holds both, so
            // that the two orders cannot deadlock.
            let _exclusive = self
                .snapshot_lock
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            self.kv.apply(batch)
        };
        // The flush waits for the disk; reads go on meanwhile.
        applied
            .and_then(|()| self.kv.flush())
            .map_err(|e| e.to_string())
    }
}
