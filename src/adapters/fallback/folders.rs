//! The folders of spooled files, one for each run, and what is odd in them.

use crate::ports::Fault;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// The folder beside those of the stores that holds what was set aside.
const SET_ASIDE_FOLDER: &str = "set-aside";
/// How many entries of one name can be set aside.
const MAX_OF_ONE_NAME: usize = 1000;

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

/// An entry of the backup directory that cannot be moved to its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) path: PathBuf,
    /// What is wrong with it.
    pub(super) why: String,
}

impl Odd {
    pub(super) fn new(path: &Path, why: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

/// What was found: what can be moved, and what cannot.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) good: Vec<T>,
    pub(super) odd: Vec<Odd>,
    /// Folders of runs' folders with nothing in them: a process that was killed left them.
    pub(super) empty: Vec<PathBuf>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self {
            good: vec![],
            odd: vec![],
            empty: vec![],
        }
    }
}

/// Returns whether an error is about one entry, rather than about the disk or this process.
pub(super) fn is_odd(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    /// The disk cannot read this part of itself.
    const EIO: i32 = 5;
    /// A symbolic link that leads to itself.
    const ELOOP: i32 = 40;
    matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::InvalidData
            | Kind::InvalidInput
            | Kind::UnexpectedEof
    ) || matches!(error.raw_os_error(), Some(EIO | ELOOP))
}

/// Lists a folder: absent ones are empty, and one that cannot be read is odd.
fn list(folder: &Path) -> io::Result<Result<Vec<fs::DirEntry>, Odd>> {
    match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => Ok(Ok(entries)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Ok(vec![])),
        Err(e) if is_odd(&e) => Ok(Err(Odd::new(folder, e))),
        Err(e) => Err(e),
    }
}

/// Returns the folders `levels` deep below `base`. Those whose names begin with a dot are no runs'
/// folders.
pub(super) fn below(base: &Path, levels: u32) -> io::Result<Found<PathBuf>> {
    let mut found = Found::default();
    let entries = match list(base)? {
        Ok(entries) => entries,
        Err(odd) => {
            found.odd.push(odd);
            return Ok(found);
        }
    };
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if !entry.file_type()?.is_dir() {
            found.odd.push(Odd::new(&entry.path(), "not a folder"));
        } else if levels > 1 {
            let inner = below(&entry.path(), levels - 1)?;
            if inner.good.is_empty() && inner.odd.is_empty() {
                found.empty.push(entry.path());
            }
            found.good.extend(inner.good);
            found.odd.extend(inner.odd);
        } else {
            found.good.push(entry.path());
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
pub(super) fn oldest_first(folders: &mut [PathBuf]) {
    folders.sort_by_cached_key(|folder| modified(folder));
}

/// A spooled file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Distinguishes this file from one that has taken its name since.
    identity: (u64, u64, i64, i64),
}

impl Spooled {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // A link could lead to any file of this machine, and would make it public.
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file"));
        }
        Ok(Self {
            path: path.to_owned(),
            size: metadata.len(),
            identity: (
                metadata.dev(),
                metadata.ino(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ),
        })
    }
}

/// Returns the files in a folder that can be read.
pub(super) fn files_in(folder: &Path) -> io::Result<Found<Spooled>> {
    let mut found = Found::default();
    let entries = match list(folder)? {
        Ok(entries) => entries,
        Err(odd) => {
            found.odd.push(odd);
            return Ok(found);
        }
    };
    for entry in entries {
        let path = entry.path();
        let file = Spooled::of(&path).and_then(|file| {
            // To open it does not show whether the disk can read it.
            File::open(&path)?.take(1).read_to_end(&mut vec![])?;
            Ok(file)
        });
        match file {
            Ok(file) => found.good.push(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if is_odd(&e) => found.odd.push(Odd::new(&path, e)),
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Removes the files of a run that were moved to their store. Others that were spooled meanwhile
/// stay, also those with the name of one that was moved.
pub(super) fn remove(folder: &Path, files: &[Spooled]) -> io::Result<()> {
    for file in files {
        match Spooled::of(&file.path) {
            Ok(now) if now == *file => fs::remove_file(&file.path)?,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound || is_odd(&e) => {}
            Err(e) => return Err(e),
        }
    }
    // This fails while there are files in it, which is what we want.
    drop(fs::remove_dir(folder));
    Ok(())
}

/// The place of entries that cannot be moved to their store, so that each stops only itself.
#[derive(Debug)]
pub(super) struct SetAside {
    /// The folder of the spooled files.
    base: PathBuf,
    /// The folder for those that are set aside.
    folder: PathBuf,
    /// What could not be set aside; it was logged and is skipped.
    stuck: Mutex<BTreeSet<PathBuf>>,
}

impl SetAside {
    /// Sets aside entries of the folder `base`, in a folder beside it.
    pub(super) fn of(base: &Path) -> Self {
        let beside = base.parent().unwrap_or(base).join(SET_ASIDE_FOLDER);
        Self {
            base: base.to_owned(),
            folder: beside.join(base.file_name().unwrap_or_default()),
            stuck: Mutex::default(),
        }
    }

    fn rename(&self, path: &Path) -> io::Result<PathBuf> {
        let below = path.strip_prefix(&self.base).map_err(io::Error::other)?;
        let wanted = self.folder.join(below);
        if let Some(parent) = wanted.parent() {
            fs::create_dir_all(parent)?;
        }
        for number in 0..MAX_OF_ONE_NAME {
            let mut to = wanted.clone().into_os_string();
            if number > 0 {
                to.push(format!(".{number}"));
            }
            let to = PathBuf::from(to);
            if fs::symlink_metadata(&to).is_err() {
                fs::rename(path, &to)?;
                return Ok(to);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Sets an entry aside, and logs it once.
    pub(super) fn put(&self, odd: &Odd) {
        let Odd { path, why } = odd;
        match self.rename(path) {
            Ok(to) => {
                tracing::error!(
                    path = %path.display(),
                    set_aside = %to.display(),
                    why,
                    "a file in the backup directory cannot be moved to its store and is set aside"
                );
            }
            Err(error) => {
                let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
                if stuck.insert(path.clone()) {
                    tracing::error!(
                        path = %path.display(),
                        why,
                        %error,
                        "a file in the backup directory can neither be moved nor set aside"
                    );
                }
            }
        }
    }

    /// Returns how many entries are set aside or stuck.
    pub(super) fn count(&self) -> usize {
        fn entries(folder: &Path) -> usize {
            let Ok(found) = fs::read_dir(folder) else {
                return 0;
            };
            let of = |entry: fs::DirEntry| match entry.file_type() {
                Ok(kind) if kind.is_dir() => entries(&entry.path()).max(1),
                _ => 1,
            };
            found.flatten().map(of).sum()
        }
        let stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        entries(&self.folder) + stuck.iter().filter(|path| path.exists()).count()
    }
}
