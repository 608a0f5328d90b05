//! What a repository is before a script runs, which it must be after it too: git would follow its
//! files into other repositories, and run programs that its configuration names.

use super::regular_file;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The folders that must stay the same ones.
const FOLDERS: [&str; 3] = ["", "objects", "refs"];
/// The files that lead to objects elsewhere, or cut the history.
const UNCHANGED: [&str; 6] = [
    "objects/info/alternates",
    "objects/info/http-alternates",
    "commondir",
    "gitdir",
    "shallow",
    "info/grafts",
];
/// The files that are put back. Scripts may change them for their own git commands.
const RESTORED: [&str; 2] = ["config", "config.worktree"];
/// The largest of these files that is read.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// Why the repository of a checkout cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RepositoryError {
    /// It is not there, or cannot be read.
    #[error("the repository of the checkout cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Something is not what it was.
    #[error("the repository of the checkout was replaced: .git/{0}")]
    Replaced(String),
}

/// The content of a file; none when there is no such file.
type Content = Option<Vec<u8>>;

/// The repository of a checkout, as it was when this was made.
#[derive(Debug)]
pub(super) struct Repository {
    path: PathBuf,
    /// Open, since the number of a folder that is gone is given to another one.
    folders: Vec<File>,
    unchanged: Vec<Content>,
    restored: Vec<Content>,
}

/// Opens a folder; links are not followed.
fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Returns whether an open folder is the one at a path.
fn is_at(folder: &File, path: &Path) -> io::Result<bool> {
    let (own, found) = (folder.metadata()?, fs::symlink_metadata(path)?);
    Ok((own.dev(), own.ino()) == (found.dev(), found.ino()))
}

fn content(path: &Path) -> io::Result<Content> {
    let file = match regular_file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![];
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(Some(bytes))
}

/// Puts a file back, whatever has taken its place.
fn put_back(path: &Path, content: &Content) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match content {
        Some(bytes) => File::create_new(path)?.write_all(bytes),
        None => Ok(()),
    }
}

/// Returns something in a folder that is neither a folder nor a regular file: git would follow a
/// link, and wait for a pipe.
fn odd_entry(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if !kind.is_file() {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

impl Repository {
    /// Returns the repository of a checkout as it is now.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be read.
    pub(super) fn of_checkout(checkout: &Path) -> Result<Self, RepositoryError> {
        let path = checkout.join(".git");
        let contents = |names: &[&str]| -> io::Result<Vec<Content>> {
            names.iter().map(|name| content(&path.join(name))).collect()
        };
        let folders = FOLDERS.iter().map(|name| open_folder(&path.join(name)));
        Ok(Self {
            folders: folders.collect::<io::Result<_>>()?,
            unchanged: contents(&UNCHANGED)?,
            restored: contents(&RESTORED)?,
            path,
        })
    }

    /// Checks that it is still the same repository, and puts its configuration back.
    ///
    /// # Errors
    ///
    /// Returns an error when it is another one, or leads to another one.
    pub(super) fn restore(&self) -> Result<(), RepositoryError> {
        let replaced = |name: &str| RepositoryError::Replaced(name.to_owned());
        for (name, folder) in FOLDERS.iter().zip(&self.folders) {
            if !is_at(folder, &self.path.join(name)).unwrap_or(false) {
                return Err(replaced(name));
            }
        }
        for (name, before) in RESTORED.iter().zip(&self.restored) {
            put_back(&self.path.join(name), before)?;
        }
        for (name, before) in UNCHANGED.iter().zip(&self.unchanged) {
            if content(&self.path.join(name)).ok().as_ref() != Some(before) {
                return Err(replaced(name));
            }
        }
        match odd_entry(&self.path)? {
            Some(path) => {
                let name = path.strip_prefix(&self.path).unwrap_or(&path);
                Err(replaced(&name.display().to_string()))
            }
            None => Ok(()),
        }
    }
}
