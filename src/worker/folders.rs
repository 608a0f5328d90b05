//! The folders of one run.

use super::script_user::ScriptUser;
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The environment variable with the path of the script's result.
pub(super) const RESULT_VARIABLE: &str = "SVP_RESULT";
/// The start of the names of the folders of runs.
pub(super) const RUN_PREFIX: &str = "run-";
/// The file that a script may write its result to, in the folder of its run.
const RESULT_FILE: &str = "result/svp-result.json";

/// The folders of one run; they are deleted when this is dropped.
pub(super) struct Folders {
    /// The folder in which all others are.
    pub(super) all: PathBuf,
    /// The checkout of the codebase.
    pub(super) checkout: PathBuf,
    /// The logs, which are uploaded.
    pub(super) logs: PathBuf,
    /// The artifacts, which are uploaded.
    pub(super) output: PathBuf,
    /// The file of the patch; it exists only when there is a change.
    pub(super) patch: PathBuf,
    /// The file with the message of the commit.
    pub(super) message: PathBuf,
    /// The home directory of scripts.
    pub(super) home: PathBuf,
    /// The git configuration of scripts.
    pub(super) git_config: PathBuf,
    /// The file that the script may write its result to.
    pub(super) result: PathBuf,
    /// The file with the result of the run that is resumed; it exists only then.
    pub(super) resume: PathBuf,
    /// Locks the folder while the worker of this run lives.
    _lock: File,
}

impl Folders {
    /// Makes the folders below the work directory, for scripts of that user.
    pub(super) fn make(work_dir: &Path, user: Option<ScriptUser>) -> io::Result<Self> {
        // Without links, since git compares the paths of folders as text.
        let work_dir = work_dir.canonicalize()?;
        let (all, lock) = make_locked(&work_dir)?;
        let at = |name: &str| all.join(name);
        let folders = Self {
            checkout: at("checkout"),
            logs: at("logs"),
            output: at("output"),
            patch: at("change.patch"),
            message: at("commit-message"),
            home: at("home"),
            git_config: at("gitconfig"),
            result: at(RESULT_FILE),
            resume: at("svp-resume.json"),
            all,
            _lock: lock,
        };
        for folder in [
            &folders.checkout,
            &folders.logs,
            &folders.output,
            &folders.home,
            &folders.all.join("result"),
        ] {
            fs::create_dir(folder)?;
        }
        fs::write(&folders.git_config, "")?;
        if let Some(user) = user {
            fs::set_permissions(&folders.all, Permissions::from_mode(0o711))?;
            for name in ["output", "home", "result", "gitconfig"] {
                user.own(&folders.all.join(name))?;
            }
        }
        Ok(folders)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        remove(&self.all);
    }
}

/// Returns the entry in the environment of the scripts of a run by which they are recognised.
pub(super) fn mark(run_folder: &Path) -> String {
    let result = run_folder.join(RESULT_FILE);
    format!("{RESULT_VARIABLE}={}", result.display())
}

/// Makes a folder for a run, closed to other users; returns it with its lock, which is held as long
/// as the file is open.
fn make_locked(work_dir: &Path) -> io::Result<(PathBuf, File)> {
    let made = tempfile::Builder::new()
        .prefix("new-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(work_dir)?
        .keep();
    let lock = File::open(&made)?;
    lock.try_lock()?;
    // It gets its name only now, since other workers remove folders of runs that are not locked.
    let name = made.file_name().unwrap_or_default().to_string_lossy();
    let folder = work_dir.join(name.replacen("new-", RUN_PREFIX, 1));
    fs::rename(&made, &folder)?;
    Ok((folder, lock))
}

/// Removes the folder of a run.
pub(super) fn remove(folder: &Path) {
    if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
        return;
    }
    // Some tools make folders that cannot be written, so that nothing in them can be removed.
    make_writable(folder);
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(
            folder = %folder.display(),
            %error,
            "a folder of a run is left behind"
        );
    }
}

/// Makes a folder and those in it writable; links are not followed.
fn make_writable(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What fails here is found when the folder is removed.
        let _ = fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
}
