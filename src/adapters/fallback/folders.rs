//! The folders of spooled files, one for each run.

use crate::ports::Fault;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// Held for writing while the drainer removes files and folders, and for reading while files are
/// spooled.
///
/// Otherwise the drainer could remove a folder that a request has just made and is about to write
/// to.
pub(super) type RemoveLock = Arc<tokio::sync::RwLock<()>>;

/// Returns how to report that the file system failed.
pub(super) fn disk_failed(action: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |error| Fault::unavailable(action, error)
}

/// Returns the last part of a path as text.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Returns the folders `levels` deep below `base`. Those whose names begin with a dot are no runs'
/// folders.
pub(super) fn below(base: &Path, levels: u32) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(base) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if levels > 1 {
            found.extend(below(&entry.path(), levels - 1)?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Returns when a folder was last changed; long ago when that cannot be read.
pub(super) fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Sorts folders by the time of their last change.
pub(super) fn oldest_first(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    folders.sort_by_key(|folder| modified(folder));
    folders
}

/// Returns the files in a folder.
pub(super) fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect())
}

/// Removes the files of a run that were moved to their store. Others that were spooled meanwhile
/// stay.
pub(super) fn remove(folder: &Path, files: &[PathBuf]) -> io::Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    // This fails while there are files in it, which is what we want.
    drop(fs::remove_dir(folder));
    Ok(())
}
