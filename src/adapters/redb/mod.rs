//! A key-value store on redb: one file, which one process has open at a time.

use super::embedded::{Batch, Entry, Kv, KvError, collect_range, open_engine, sync_folders};
use crate::ports::Fault;
use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition, TableError};
use std::{
    fs, io,
    ops::Bound,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
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
    file: PathBuf,
    /// The number of the file in its file system.
    inode: u64,
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Creates the file. Until it is whole it has another name: a kill in between would leave one that is
/// refused for ever.
fn create(file: &Path) -> Result<(), KvError> {
    let begun = file.with_extension("new");
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = builder().create(&begun)?;
    // Readers would find no table otherwise.
    let txn = database.begin_write()?;
    txn.open_table(TABLE)?;
    txn.commit()?;
    drop(database);
    Ok(fs::rename(begun, file)?)
}

fn open(folder: &Path) -> Result<RedbKv, KvError> {
    fs::create_dir_all(folder)?;
    let file = folder.join(FILE);
    if !file.try_exists()? {
        create(&file)?;
    }
    let found = fs::metadata(&file)?;
    let database = builder()
        .set_check_integrity_on_open(found.len() <= MAX_CHECKED)
        .open(&file)?;
    sync_folders(folder)?;
    Ok(RedbKv {
        database,
        file,
        inode: found.ino(),
    })
}

/// Reads. The engine panics about some kinds of damage.
fn read<T>(read: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
    let panicked = |_| Err("the file of the store is damaged: restore it from a backup".into());
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked)
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
        open_engine("open the redb database", folder, || open(folder))
    }
}

impl Kv for RedbKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        read(|| {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        read(|| {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            let entries = table.range::<&[u8]>((from, to))?.map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            });
            collect_range(entries, limit)
        })
    }

    fn last(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Entry>, KvError> {
        read(|| {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            let last = table.range::<&[u8]>((from, to))?.next_back().transpose()?;
            Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
        })
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
        txn.commit()?;
        // What is written to a file without a name is gone with the process.
        match fs::metadata(&self.file)?.ino() == self.inode {
            true => Ok(()),
            false => Err("the file of the store was replaced".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &str) -> Batch {
        Batch::from([(key.as_bytes().to_vec(), Some(vec![7; 2000]))])
    }

    #[test]
    fn file_that_was_begun_is_begun_again() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("store.new"), "half").unwrap();
        let store = RedbKv::open(home.path()).unwrap();
        store.apply(batch("key")).unwrap();
        store.flush().unwrap();
        drop(store);
        let store = RedbKv::open(home.path()).unwrap();
        assert!(store.get(b"key").unwrap().is_some());
    }

    #[test]
    fn file_that_was_replaced_takes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = RedbKv::open(home.path()).unwrap();
        fs::rename(home.path().join(FILE), home.path().join("elsewhere")).unwrap();
        fs::write(home.path().join(FILE), "other").unwrap();
        store.apply(batch("key")).unwrap();
        assert!(store.flush().is_err());
    }

    #[test]
    fn damage_is_found_when_the_store_is_opened() {
        let home = tempfile::tempdir().unwrap();
        let store = RedbKv::open(home.path()).unwrap();
        for number in 0..300 {
            store.apply(batch(&format!("k{number}"))).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        let file = home.path().join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        let value = bytes.windows(2000).position(|part| part == [7; 2000]);
        bytes[value.unwrap() + 1000] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(RedbKv::open(home.path()).is_err());
    }
}
