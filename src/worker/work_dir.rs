//! The directory in which the folders of runs are: of this user alone, and cleared of what killed
//! workers have left.

use super::{
    WorkerError,
    folders::{self, RUN_PREFIX},
    isolation::Isolation,
    processes::Family,
    script_user::ScriptUser,
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// The bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

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
pub(super) async fn prepare(path: &Path, user: Option<ScriptUser>) -> Result<(), WorkerError> {
    let failed = WorkerError::io("make the work directory");
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            // Programs of another user must get to their checkout.
            let mode = if user.is_some() { 0o711 } else { 0o700 };
            builder.recursive(true).mode(mode);
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
    if user.is_some_and(|user| !user.can_enter(path)) {
        let reason =
            "the user of --run-as cannot enter it: that needs execute permission on it and \
                      on all directories above it"
                .into();
        let path = path.to_owned();
        return Err(WorkerError::WorkDir { path, reason });
    }
    remove_leftovers(path)
        .await
        .map_err(WorkerError::io("clear the work directory"))
}

/// Locks the folder of a run if no live worker has locked it.
fn lock_abandoned(folder: &Path) -> Option<File> {
    let lock = File::open(folder).ok()?;
    lock.try_lock().ok().map(|()| lock)
}

async fn remove_leftovers(work_dir: &Path) -> io::Result<()> {
    // Without links, as in the environment of the codemods.
    let work_dir = work_dir.canonicalize()?;
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
            let looks = Isolation::None.quiet_looks();
            Family::default().end(&folders::mark(&folder), looks).await;
            folders::remove(&folder);
        }
    }
    Ok(())
}
