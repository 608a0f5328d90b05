//! The directory in which the folders of runs are: of this user alone, and cleared of what killed
//! workers have left.

use super::{WorkerError, folders, processes::Family, run};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The start of the names of the folders of runs.
const RUN_PREFIX: &str = "run-";
/// The file that the worker of a run locks, in its folder; and in the work directory, whoever makes
/// or removes such a folder.
const LOCK_FILE: &str = "worker.lock";
/// The bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

fn open_lock(folder: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(folder.join(LOCK_FILE))
}

/// Returns why others may put something of theirs into a directory; none when they cannot.
fn reason_against(path: &Path) -> io::Result<Option<String>> {
    let this_user = rustix::process::geteuid().as_raw();
    // A link of somebody else could lead elsewhere the next time.
    for metadata in [fs::symlink_metadata(path)?, fs::metadata(path)?] {
        if metadata.uid() != this_user {
            let owner = metadata.uid();
            return Ok(Some(format!(
                "it belongs to user {owner}, not to this one ({this_user}); name another one"
            )));
        }
    }
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(Some("it is not a directory".into()));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Ok(Some(
            "other users can write to it; make it writable by its owner only (chmod go-w)".into(),
        ));
    }
    Ok(None)
}

/// Makes the work directory, or checks that it is this user's alone, and removes what is left in it
/// of workers that were killed: folders, and processes of their codemods.
///
/// # Errors
///
/// Returns an error when the directory cannot be made or used, or others can write to it.
pub(super) async fn prepare(path: &Path) -> Result<(), WorkerError> {
    let failed = WorkerError::io("make the work directory");
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            if let Err(error) = builder.create(path) {
                return Err(failed(error));
            }
        }
        Err(error) => return Err(failed(error)),
    }
    match reason_against(path) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            let path = path.to_owned();
            return Err(WorkerError::WorkDir { path, reason });
        }
        Err(error) => return Err(failed(error)),
    }
    remove_leftovers(path)
        .await
        .map_err(WorkerError::io("clear the work directory"))
}

/// Locks the folder of a run if no live worker has locked it.
fn lock_abandoned(folder: &Path) -> Option<File> {
    let lock = open_lock(folder).ok()?;
    lock.try_lock().ok().map(|()| lock)
}

async fn remove_leftovers(work_dir: &Path) -> io::Result<()> {
    // Without links, as in the environment of the codemods.
    let work_dir = work_dir.canonicalize()?;
    let everything = open_lock(&work_dir)?;
    everything.lock()?;
    for entry in fs::read_dir(&work_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_run = name.as_encoded_bytes().starts_with(RUN_PREFIX.as_bytes());
        if !is_run || !entry.file_type()?.is_dir() {
            continue;
        }
        let folder = entry.path();
        if let Some(_lock) = lock_abandoned(&folder) {
            tracing::info!(folder = %folder.display(), "removing what a killed worker left");
            Family::default().end(&run::mark_of(&folder)).await;
            folders::remove(&folder);
        }
    }
    Ok(())
}

/// Makes a folder for a run; returns it with its lock, which is held as long as the file is open.
///
/// # Errors
///
/// Returns an error when it cannot be made.
pub(super) fn make_run_folder(work_dir: &Path) -> io::Result<(PathBuf, File)> {
    let everything = open_lock(work_dir)?;
    everything.lock()?;
    let folder = tempfile::Builder::new()
        .prefix(RUN_PREFIX)
        .tempdir_in(work_dir)?;
    let lock = open_lock(folder.path())?;
    lock.try_lock()?;
    Ok((folder.keep(), lock))
}
