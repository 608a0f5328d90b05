//! What the engines of the embedded stores share: how they are opened, and how they read ranges.

use super::kv::{Entry, KvError, MAX_RANGE_SIZE};
use crate::ports::Fault;
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Opens an engine in a folder. Engines return errors about some kinds of damage and panic about
/// others.
///
/// # Errors
///
/// Returns [`Fault::Unavailable`], with the folder and what to do.
pub fn open_engine<T>(
    action: &'static str,
    folder: &Path,
    open: impl FnOnce() -> Result<T, KvError>,
) -> Result<T, Fault> {
    let panicked = |_| Err(KvError::from("its files cannot be read"));
    let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(panicked);
    opened.map_err(|error| {
        let hint = format!(
            "{}: {error} (is another process using it? A store that was damaged is left as it is: \
             restore it from a backup, or move it away)",
            folder.display()
        );
        Fault::unavailable(action, hint)
    })
}

/// Makes the entries of a folder durable, and those of the folders above it, which may be new too.
///
/// # Errors
///
/// Returns an error when the folder cannot be synced. Folders above it may be closed to this user.
pub fn sync_folders(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    File::open(&folder)?.sync_all()?;
    for above in folder.ancestors().skip(1) {
        let synced = File::open(above).and_then(|above| above.sync_all());
        if synced.is_err() {
            break;
        }
    }
    Ok(())
}

/// Collects the entries of a range.
///
/// # Errors
///
/// Returns the first error of the entries.
pub fn collect_range(
    entries: impl Iterator<Item = Result<Entry, KvError>>,
    limit: usize,
) -> Result<Vec<Entry>, KvError> {
    let (mut collected, mut size) = (vec![], 0);
    for entry in entries.take(limit) {
        let (key, value) = entry?;
        size += key.len() + value.len();
        collected.push((key, value));
        if size >= MAX_RANGE_SIZE {
            break;
        }
    }
    Ok(collected)
}
