//! The folders of one run.

use super::log;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folders of one run; they are deleted when this is dropped.
pub(super) struct Folders {
    _all: TempDir,
    /// The checkout of the codebase.
    pub(super) checkout: PathBuf,
    /// The logs, which are uploaded.
    pub(super) logs: PathBuf,
    /// The artifacts, which are uploaded.
    pub(super) output: PathBuf,
    /// The file that the script may write its result to.
    pub(super) result: PathBuf,
    /// The file with the result of the run that is resumed; it exists only then.
    pub(super) resume: PathBuf,
}

impl Folders {
    /// Makes the folders below the work directory.
    pub(super) fn make(work_dir: &Path) -> std::io::Result<Self> {
        let all = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(work_dir)?;
        let [checkout, logs, output] =
            ["checkout", "logs", "output"].map(|name| all.path().join(name));
        for folder in [&checkout, &logs, &output] {
            std::fs::create_dir(folder)?;
        }
        let (result, resume) = (
            all.path().join("svp-result.json"),
            all.path().join("svp-resume.json"),
        );
        Ok(Self {
            _all: all,
            checkout,
            logs,
            output,
            result,
            resume,
        })
    }

    /// Lists the files to upload, with the name of each.
    pub(super) fn files(&self) -> std::io::Result<Vec<(String, PathBuf)>> {
        let mut files = vec![];
        for folder in [&self.logs, &self.output] {
            for name in log::names(folder)? {
                let path = folder.join(&name);
                if path.is_file() {
                    files.push((name, path));
                }
            }
        }
        Ok(files)
    }
}
