//! A key-value store on redb: one file, which one process has open at a time.

use super::embedded::{Batch, Entry, Kv, KvError};
use crate::ports::Fault;
use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition, TableError};
use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::Path,
};

/// The name of the file in the folder of the store.
const FILE: &str = "store.redb";
/// How many bytes of pages are cached in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Up to which size a file is searched for damage when it is opened, which takes about a second.
/// Damage to a larger one is found when it is read, unless it leads to other valid contents.
const MAX_CHECKED: u64 = 256 << 20;
/// The only table: a batch is applied atomically to all tables, and one is enough.
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// A redb database.
#[derive(Debug)]
pub struct RedbKv {
    database: Database,
}

/// Makes the entries of a folder durable, such as a file that was just created.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn open(folder: &Path) -> Result<Database, KvError> {
    fs::create_dir_all(folder)?;
    let file = folder.join(FILE);
    let size = fs::metadata(&file).map_or(0, |found| found.len());
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(size <= MAX_CHECKED)
        .create(file)?;
    // Readers would find no table otherwise.
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    txn.open_table(TABLE)?;
    txn.commit()?;
    sync_folder(folder)?;
    if let Some(parent) = folder.canonicalize()?.parent() {
        sync_folder(parent)?;
    }
    Ok(database)
}

impl RedbKv {
    /// Opens the database in a folder, which is created if needed. What a kill or a power cut has
    /// left of the last batches, whose callers had no answer, is undone.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Unavailable`] when another process has it open or it cannot be read;
    /// nothing is deleted.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let database = open(folder).map_err(|e| {
            let hint = format!(
                "{}: {e} (is another process using it? A store that was damaged is left as it is: \
                 restore it from a backup, or move it away)",
                folder.display()
            );
            Fault::unavailable("open the redb database", hint)
        })?;
        Ok(Self { database })
    }
}

impl Kv for RedbKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let entries = table.range::<&[u8]>((from, to))?.take(limit);
        Ok(entries
            .map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
            .collect::<Result<_, _>>()?)
    }

    fn last(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Entry>, KvError> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let last = table.range::<&[u8]>((from, to))?.next_back().transpose()?;
        Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
    }

    fn apply(&self, batch: Batch) -> Result<(), KvError> {
        let mut txn = self.database.begin_write()?;
        // The next flush makes it durable; reads go on meanwhile.
        txn.set_durability(Durability::None)?;
        let apply = || -> Result<(), TableError> {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in batch {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
            Ok(())
        };
        apply()?;
        Ok(txn.commit()?)
    }

    fn flush(&self) -> Result<(), KvError> {
        // A durable commit makes those before it durable, too.
        let mut txn = self.database.begin_write()?;
        // Otherwise the next start after a kill reads the whole file.
        txn.set_quick_repair(true);
        Ok(txn.commit()?)
    }
}
