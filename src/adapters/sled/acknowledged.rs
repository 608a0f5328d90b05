//! How much was said to be stored, in a file beside the log of sled.
//!
//! sled ends its log at the first part that it cannot read, and goes on from there: after damage to a
//! disk, or with half of its files, it would open with old data, or none, without a word. This file
//! knows better. It is written after the log is durable and is not made durable itself, so that after a
//! power cut it can only be behind the log.

use crate::adapters::embedded::KvError;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The name of the file in the folder of the store.
const FILE: &str = "acknowledged";

/// The file.
#[derive(Debug)]
pub(super) struct Acknowledged {
    path: PathBuf,
    file: File,
}

impl Acknowledged {
    /// Opens the file in the folder of a store, which is created if needed.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        Ok(Self {
            file: file.open(&path)?,
            path,
        })
    }

    /// Returns how many batches were said to be stored; none by a store of an earlier version.
    fn get(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read.map(|()| u64::from_be_bytes(bytes)),
        }
    }

    /// Notes how many batches were said to be stored.
    pub(super) fn set(&self, batches: u64) -> io::Result<()> {
        self.file.write_all_at(&batches.to_be_bytes(), 0)
    }

    /// Fails when the store has fewer batches than were said to be stored.
    pub(super) fn check(&self, batches: u64) -> Result<(), KvError> {
        let acknowledged = self.get()?;
        if batches >= acknowledged {
            return Ok(());
        }
        let reason = format!(
            "it has lost the last {} of {acknowledged} changes, by damage or because files were \
             replaced; to go on without them, remove {}",
            acknowledged - batches,
            self.path.display()
        );
        Err(reason.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{
        embedded::{Batch, Kv},
        sled::SledKv,
    };

    fn batch(key: &str) -> Batch {
        Batch::from([(key.as_bytes().to_vec(), Some(vec![7; 2000]))])
    }

    #[test]
    fn store_that_has_lost_its_end_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = SledKv::open(home.path()).unwrap();
        for number in 0..50 {
            store.apply(batch(&format!("k{number}"))).unwrap();
            store.flush().unwrap();
        }
        drop(store);
        drop(SledKv::open(home.path()).unwrap());
        // The log of a store that had less.
        let other = tempfile::tempdir().unwrap();
        let store = SledKv::open(other.path()).unwrap();
        for number in 0..47 {
            store.apply(batch(&format!("k{number}"))).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        for file in fs::read_dir(home.path()).unwrap() {
            let name = file.unwrap().file_name();
            if name.to_string_lossy().starts_with("snap.") || name == "db" {
                fs::remove_file(home.path().join(name)).unwrap();
            }
        }
        fs::copy(other.path().join("db"), home.path().join("db")).unwrap();
        // Twice: nothing was changed by that.
        for _ in 0..2 {
            let refused = format!("{:?}", SledKv::open(home.path()));
            assert!(refused.contains("lost the last 3 of 50"), "{refused}");
        }
        fs::remove_file(home.path().join(FILE)).unwrap();
        SledKv::open(home.path()).unwrap();
    }

    #[test]
    fn log_that_is_cut_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = SledKv::open(home.path()).unwrap();
        for number in 0..3000 {
            store.apply(batch(&format!("k{number}"))).unwrap();
            store.flush().unwrap();
        }
        drop(store);
        let log = OpenOptions::new().write(true).open(home.path().join("db"));
        let log = log.unwrap();
        let length = log.metadata().unwrap().len();
        for part in [9, 7, 3] {
            log.set_len(length / 10 * part).unwrap();
            assert!(SledKv::open(home.path()).is_err(), "{part} of 10");
        }
    }

    #[test]
    fn store_of_an_earlier_version_opens() {
        let home = tempfile::tempdir().unwrap();
        let store = sled::open(home.path()).unwrap();
        store.insert("key", "value").unwrap();
        drop(store);
        let store = SledKv::open(home.path()).unwrap();
        assert_eq!(store.get(b"key").unwrap().unwrap(), b"value");
    }
}
