//! The folders of the stores, which only the runner's user may enter: they have password hashes,
//! results and logs in them.
//!
//! New folders and files are private by the process's umask. Those that an earlier version made,
//! or somebody by hand, are made private here.

use crate::settings::{FileStore, Settings, StoreChoice};
use rustix::process::geteuid;
use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// The permissions of the group and of others.
const FOREIGN: u32 = 0o077;
/// The bit of folders such as `/tmp`, which are everybody's.
const STICKY: u32 = 0o1000;
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How many entries of a store's own folder are looked at; sled has a handful.
const MAX_ENTRIES: usize = 10_000;

/// Returns whether a folder is meant for the runner alone. As root it would be easy to lock
/// everybody else out of `/srv`.
fn is_ours(path: &Path, metadata: &Metadata) -> bool {
    let user = geteuid();
    metadata.uid() == user.as_raw()
        && metadata.mode() & STICKY == 0
        && !(user.is_root() && path.components().count() <= 2)
}

/// Makes a folder or file private; returns whether it is.
fn tighten(path: &Path, metadata: &Metadata) -> io::Result<bool> {
    if metadata.mode() & FOREIGN == 0 {
        return Ok(true);
    }
    if !is_ours(path, metadata) {
        return Ok(false);
    }
    let mode = if metadata.is_dir() {
        FOLDER_MODE
    } else {
        FILE_MODE
    };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    tracing::info!(path = %path.display(), "others may not read this any more");
    Ok(true)
}

/// Makes a folder private; returns a warning when it stays open to others.
fn tighten_folder(what: &str, folder: &Path) -> Option<String> {
    let canonical = folder.canonicalize().ok()?;
    let metadata = fs::metadata(&canonical).ok()?;
    if !metadata.is_dir() || tighten(&canonical, &metadata).unwrap_or(false) {
        return None;
    }
    Some(format!(
        "{what}: the folder {} (mode {:o}, of the user {}) lets other users of this machine in; \
         use one that only the runner's user may enter",
        canonical.display(),
        metadata.mode() & 0o7777,
        metadata.uid()
    ))
}

/// Makes the files of an embedded store private, which earlier versions let everybody read.
fn tighten_files(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.take(MAX_ENTRIES) {
        // The metadata of an entry is that of a link itself, which has no mode to change.
        if let Ok(metadata) = entry.metadata().as_ref()
            && (metadata.is_file() || metadata.is_dir())
            && let Err(error) = tighten(&entry.path(), metadata)
        {
            tracing::warn!(path = %entry.path().display(), %error, "others may read this");
        }
    }
}

/// Makes the folders of the settings private that exist already; returns a warning for each that
/// stays open to others.
pub(super) fn tighten_all(settings: &Settings) -> Vec<String> {
    let mut folders = vec![("spool", settings.spool.as_path())];
    for (name, store) in [("artifacts", &settings.artifacts), ("logs", &settings.logs)] {
        if let FileStore::Directory(path) = store {
            folders.push((name, path));
        }
    }
    if let Some(path) = &settings.backup_directory {
        folders.push(("backup_directory", path));
    }
    if let StoreChoice::Sled(path) | StoreChoice::Redb(path) = &settings.store {
        folders.push(("store", path));
        tighten_files(path);
    }
    folders
        .into_iter()
        .filter_map(|(name, folder)| tighten_folder(name, folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn open_folder_of_ours_is_tightened() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("db");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("conf"), "x").unwrap();
        fs::set_permissions(folder.join("conf"), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(tighten_folder("store", &folder), None);
        tighten_files(&folder);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("conf")), 0o600);
    }

    #[test]
    fn folder_of_everybody_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o1777)).unwrap();
        let warning = tighten_folder("spool", home.path()).unwrap();
        assert!(warning.contains("mode 1777"), "{warning}");
        assert_eq!(mode(home.path()), 0o1777);
    }

    #[test]
    fn absent_folder_needs_no_warning() {
        assert_eq!(tighten_folder("spool", Path::new("/no/such/folder")), None);
    }
}
