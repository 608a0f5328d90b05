//! The log of a run: what the worker does, and what its tools print.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

/// The name of the log in the upload.
pub(super) const NAME: &str = "worker.log";

/// A log that is being written.
#[derive(Debug)]
pub(super) struct RunLog {
    path: PathBuf,
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
        File::create(&path)?;
        Ok(Self { path })
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.path)
    }

    /// Appends a line. A log that cannot be written does not stop the run.
    pub(super) fn line(&self, text: &str) {
        if let Err(error) = self.append().and_then(|mut file| writeln!(file, "{text}")) {
            tracing::warn!(%error, "the log of a run cannot be written");
        }
    }

    /// Opens the log for the output of a tool.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened.
    pub(super) fn output(&self) -> io::Result<Stdio> {
        Ok(self.append()?.into())
    }
}
