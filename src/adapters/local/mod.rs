//! Files in local directories: artifacts, logs, and the spool that uploads wait in.
//!
//! A file is written in a folder of its own (`.part` below the base), synced, and renamed to where it belongs, so that a
//! name always stands for a whole file.

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
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

/// Where files are while they are being written, below the base.
const UNFINISHED: &str = ".part";

/// Runs blocking file work off the async threads.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    off_thread(action, work)
        .await?
        .map_err(|e| Fault::unavailable(action, e))
}

/// A file that has no name yet; readable by the other services of a deployment.
fn unnamed(base: &Path) -> io::Result<NamedTempFile> {
    let readable = fs::Permissions::from_mode(0o644);
    let make = || {
        tempfile::Builder::new()
            .permissions(readable.clone())
            .tempfile_in(base.join(UNFINISHED))
    };
    match make() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(base.join(UNFINISHED))?;
            make()
        }
        made => made,
    }
}

/// Writes `target`, a path below `base`, whole: `fill` writes the content, which is synced before the file gets its name.
fn write_whole(
    base: &Path,
    target: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = unnamed(base)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_data()?;
    file.persist(target)?;
    Ok(())
}

/// Makes the entries of a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether a folder can be written to.
fn check_writable(base: &Path) -> io::Result<()> {
    unnamed(base).map(drop)
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
