//! Files in local directories: artifacts, logs, and the spool that uploads wait in.
//!
//! A file is written to the folder `.part` below the base, synced, and then renamed to its final
//! name. A rename within a file system is atomic, so that neither a reader nor a crash ever sees
//! part of a file under that name.

mod artifacts;
mod logs;
mod spool;

pub use artifacts::LocalArtifacts;
pub use logs::LocalLogs;
pub use spool::{Spool, SpoolFolder, SpoolWriter};

use crate::{adapters::off_thread, ports::Fault};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// The folder below the base that holds files while they are being written.
const PARTIAL_FOLDER: &str = ".part";

/// Runs blocking work on files off the async threads. Its errors are a [`Fault::Unavailable`],
/// since disks fill up and mounts fail.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    off_thread(action, work)
        .await?
        .map_err(|e| Fault::unavailable(action, e))
}

/// Returns the folder below the base that holds files while they are being written.
fn partial_folder(base: &Path) -> io::Result<PathBuf> {
    let folder = base.join(PARTIAL_FOLDER);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Creates a temporary file, which only the runner's user may read.
fn partial_file(base: &Path) -> io::Result<NamedTempFile> {
    let create = || NamedTempFile::new_in(base.join(PARTIAL_FOLDER));
    match create() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            partial_folder(base)?;
            create()
        }
        created => created,
    }
}

/// Writes the file `target`, a path below `base`, atomically; `fill` writes the content.
fn write_atomically(
    base: &Path,
    target: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = partial_file(base)?;
    fill(file.as_file_mut())?;
    // Before the rename: a crash could otherwise leave the name with an empty file.
    file.as_file().sync_data()?;
    file.persist(target)?;
    Ok(())
}

/// Makes the names in a folder durable; syncing a file does not sync its name.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Checks that a folder can be written to.
fn check_writable(base: &Path) -> io::Result<()> {
    partial_file(base).map(drop)
}

/// Returns `None` for an error that says that a file does not exist.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
