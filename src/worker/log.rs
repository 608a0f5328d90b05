//! The worker's log of a run: what it does, and all that its tools print.

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

/// The logs in a folder.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

impl RunLog {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        File::create(&path)?;
        Ok(Self { path })
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.path)
    }

    /// Notes a line. A log that cannot be written must not stop the run.
    pub(super) fn line(&self, text: &str) {
        if let Err(error) = self.append().and_then(|mut file| writeln!(file, "{text}")) {
            tracing::warn!(%error, "the log of a run cannot be written");
        }
    }

    /// Where a tool's output goes.
    pub(super) fn output(&self) -> io::Result<Stdio> {
        Ok(self.append()?.into())
    }
}
