//! Where uploads wait, file by file, until all of one is there.

use crate::ports::SpooledFile;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};

const FOLDER: &str = "upload-";

/// The directory for uploads under way.
#[derive(Debug, Clone)]
pub struct Spool {
    base: PathBuf,
}

/// The files of one upload; gone when this is dropped.
#[derive(Debug)]
pub struct SpoolFolder {
    folder: TempDir,
    files: Vec<SpooledFile>,
}

/// A file that is being received.
#[derive(Debug)]
pub struct SpoolWriter {
    name: String,
    path: PathBuf,
    size: u64,
    file: BufWriter<File>,
}

impl Spool {
    /// Opens the spool; what an earlier process left half received is removed.
    pub fn open(base: &Path) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        for entry in fs::read_dir(base)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FOLDER) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { base: base.to_owned() })
    }

    /// A place for the files of an upload.
    pub fn folder(&self) -> io::Result<SpoolFolder> {
        let folder = tempfile::Builder::new().prefix(FOLDER).tempdir_in(&self.base)?;
        Ok(SpoolFolder { folder, files: vec![] })
    }
}

impl SpoolFolder {
    /// Starts a file. Its name on disk is ours, not the upload's.
    pub async fn create(&self, name: &str) -> io::Result<SpoolWriter> {
        let path = self.folder.path().join(self.files.len().to_string());
        let file = BufWriter::new(File::create_new(&path).await?);
        Ok(SpoolWriter { name: name.to_owned(), path, size: 0, file })
    }

    /// Takes in a file that was received whole.
    pub async fn keep(&mut self, mut writer: SpoolWriter) -> io::Result<()> {
        writer.file.flush().await?;
        self.files.push(SpooledFile { name: writer.name, path: writer.path, size: writer.size });
        Ok(())
    }

    /// The files, in order of arrival.
    pub fn files(&self) -> &[SpooledFile] {
        &self.files
    }
}

impl SpoolWriter {
    /// Appends to the file.
    pub async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.size += chunk.len() as u64;
        self.file.write_all(chunk).await
    }

    /// Bytes received so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}
