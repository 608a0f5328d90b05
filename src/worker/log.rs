//! The log of a run: what the worker does, and what its tools print.

use crate::domain::redact::redact;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

/// The name of the log in the upload.
pub(super) const NAME: &str = "worker.log";
/// The bytes that are kept of the start and of the end of a log that is cut.
const CUT_SIZE: u64 = 512 << 10;

/// A log that is being written.
#[derive(Debug)]
pub(super) struct RunLog {
    path: PathBuf,
    /// Kept open, because a codemod may put something else at the path.
    file: Arc<File>,
}

/// Lists the files in a folder.
///
/// # Errors
///
/// Returns an error when the folder cannot be read.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

impl RunLog {
    /// Creates an empty log.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be written.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            path,
            file: Arc::new(file),
        })
    }

    /// Returns the open file.
    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Appends a line, without passwords. A log that cannot be written does not stop the run.
    pub(super) fn line(&self, text: &str) {
        if let Err(error) = (&*self.file).write_all(format!("{}\n", redact(text)).as_bytes()) {
            tracing::warn!(%error, "the log of a run cannot be written");
        }
    }

    /// Opens the log for the output of a tool.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened.
    pub(super) fn output(&self) -> io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    fn is_at_its_path(&self) -> io::Result<bool> {
        let (own, found) = (self.file.metadata()?, fs::symlink_metadata(&self.path)?);
        Ok((own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    /// Puts the log back to its path, if a codemod has removed or replaced it.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be written.
    pub(super) fn restore(&self) -> io::Result<()> {
        if self.is_at_its_path().unwrap_or(false) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        if !fs::symlink_metadata(folder).is_ok_and(|folder| folder.is_dir()) {
            // What is left there is no folder, or nothing; neither is needed.
            let _ = fs::remove_file(folder);
            fs::create_dir_all(folder)?;
        }
        if fs::remove_file(&self.path).is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
        let mut copy = File::create_new(&self.path)?;
        self.copy_range(0, u64::MAX, &mut copy)
    }

    fn copy_range(&self, from: u64, size: u64, to: &mut impl Write) -> io::Result<()> {
        let reader = RangeReader {
            file: &self.file,
            offset: from,
        };
        io::copy(&mut reader.take(size), to).map(drop)
    }

    /// Writes the start and end of the log to another file, with a mark between them. A log that
    /// is short enough is written completely.
    ///
    /// # Errors
    ///
    /// Returns an error when a file cannot be read or written.
    pub(super) fn write_cut(&self, to: &Path) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let mut file = File::create_new(to)?;
        if size <= 2 * CUT_SIZE {
            return self.copy_range(0, size, &mut file);
        }
        self.copy_range(0, CUT_SIZE, &mut file)?;
        let left_out = size - 2 * CUT_SIZE;
        writeln!(file, "\n[{left_out} bytes of the log are left out here]")?;
        self.copy_range(size - CUT_SIZE, CUT_SIZE, &mut file)
    }
}

/// Reads a file without moving the offset that is shared with the programs that write it.
struct RangeReader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.file.read_at(buffer, self.offset)?;
        self.offset += size as u64;
        Ok(size)
    }
}
