//! Holds the files of an upload until all of it has arrived: on disk, except for the first small
//! files of each upload, for which the disk would cost more than all else.

use crate::{
    adapters::off_thread,
    ports::{SpooledFile, artifact_store::Content},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{fs::File, io::AsyncWriteExt};

/// The prefix of the folders of processes and of uploads.
const FOLDER_PREFIX: &str = "upload-";
/// The file that a process locks in its folder as long as it lives.
const LOCK_FILE: &str = "lock";
/// How old a folder without a lock file must be to count as abandoned.
const GRACE_PERIOD: Duration = Duration::from_secs(60);
/// How many bytes are buffered before they are written to disk.
const BUFFER_SIZE: usize = 256 << 10;

/// The directory of uploads in progress. Each process has a folder of its own there.
#[derive(Debug, Clone)]
pub struct Spool {
    base: PathBuf,
    /// Locked as long as this process lives, so that others do not remove its folder.
    _lock: Arc<fs::File>,
    /// How many bytes of each upload may stay in memory.
    max_in_memory: usize,
}

/// The files of one upload; removed when this is dropped.
#[derive(Debug)]
pub struct SpoolFolder {
    spool: Spool,
    folder: Option<TempDir>,
    files: Vec<SpooledFile>,
    /// How many files were begun on disk.
    on_disk: usize,
    /// How many more bytes may stay in memory.
    memory_left: usize,
}

/// A file that is being received.
#[derive(Debug)]
pub struct SpoolWriter {
    name: String,
    size: u64,
    /// Bytes that are not written to disk yet.
    buffer: Vec<u8>,
    /// The file on disk, once the bytes are too many for memory.
    disk: Option<(PathBuf, File)>,
}

/// Returns whether the process of this folder has ended.
fn is_abandoned(folder: &Path) -> bool {
    match fs::File::open(folder.join(LOCK_FILE)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // A folder that was created just now gets its lock file in a moment.
        Err(_) => fs::metadata(folder)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|created| created.elapsed().is_ok_and(|age| age > GRACE_PERIOD)),
    }
}

impl Spool {
    /// Opens the spool, and removes what ended processes left there. Each upload may keep
    /// `max_in_memory` bytes in memory.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    pub fn open(base: &Path, max_in_memory: usize) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        for entry in fs::read_dir(base)? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(FOLDER_PREFIX)
                && is_abandoned(&entry.path())
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let own = tempfile::Builder::new()
            .prefix(FOLDER_PREFIX)
            .tempdir_in(base)?
            .keep();
        let lock = fs::File::create(own.join(LOCK_FILE))?;
        lock.try_lock()
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self {
            base: own,
            _lock: Arc::new(lock),
            max_in_memory,
        })
    }

    /// Returns a folder for the files of one upload. It is created on disk only when it is needed.
    pub fn folder(&self) -> SpoolFolder {
        SpoolFolder {
            spool: self.clone(),
            folder: None,
            files: vec![],
            on_disk: 0,
            memory_left: self.max_in_memory,
        }
    }
}

impl SpoolFolder {
    /// Starts to receive a file.
    pub fn create(&self, name: &str) -> SpoolWriter {
        SpoolWriter {
            name: name.to_owned(),
            size: 0,
            buffer: vec![],
            disk: None,
        }
    }

    /// Returns the path of the next file on disk, and creates the folder when there is none. The
    /// names are numbers: those of the upload could lead out of the folder.
    async fn path(&mut self) -> io::Result<PathBuf> {
        let number = self.on_disk.to_string();
        self.on_disk += 1;
        if let Some(folder) = &self.folder {
            return Ok(folder.path().join(number));
        }
        let base = self.spool.base.clone();
        let created = off_thread("make a folder", move || {
            tempfile::Builder::new()
                .prefix(FOLDER_PREFIX)
                .tempdir_in(base)
        });
        let folder = created.await.map_err(io::Error::other)??;
        let path = folder.path().join(number);
        self.folder = Some(folder);
        Ok(path)
    }

    /// Appends a chunk to a file that is being received.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    pub async fn write(&mut self, writer: &mut SpoolWriter, chunk: &[u8]) -> io::Result<()> {
        writer.size += chunk.len() as u64;
        writer.buffer.extend_from_slice(chunk);
        if writer.disk.is_none() && writer.buffer.len() > self.memory_left {
            let path = self.path().await?;
            // A file of a directory's artifacts is a link to this one, and has its mode.
            let mut options = File::options();
            let file = options.write(true).create_new(true).mode(0o600);
            writer.disk = Some((path.clone(), file.open(&path).await?));
        }
        if writer.buffer.len() >= BUFFER_SIZE {
            writer.write_out().await
        } else {
            Ok(())
        }
    }

    /// Accepts a file that was received completely.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    pub async fn keep(&mut self, writer: SpoolWriter) -> io::Result<()> {
        let file = self.received(writer).await?;
        self.files.push(file);
        Ok(())
    }

    /// Returns a file that was received completely, which is none of [`files`](Self::files).
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    pub async fn received(&mut self, mut writer: SpoolWriter) -> io::Result<SpooledFile> {
        let content = if writer.disk.is_some() {
            writer.write_out().await?;
            let (path, mut file) = writer
                .disk
                .take()
                .ok_or_else(|| io::Error::other("the file was never opened"))?;
            // A tokio file reports the error of a write only at the next operation.
            file.flush().await?;
            Content::File(path)
        } else {
            self.memory_left = self.memory_left.saturating_sub(writer.buffer.len());
            Content::Memory(writer.buffer.into())
        };
        Ok(SpooledFile {
            name: writer.name,
            content,
            size: writer.size,
        })
    }

    /// Drops a file that is not wanted after all.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    pub async fn discard(&mut self, writer: SpoolWriter) -> io::Result<()> {
        match writer.disk {
            Some((path, _)) => tokio::fs::remove_file(path).await,
            None => Ok(()),
        }
    }

    /// Returns the accepted files, in order of arrival.
    pub fn files(&self) -> &[SpooledFile] {
        &self.files
    }
}

impl Drop for SpoolFolder {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        // Removing files blocks, so it is moved off the async threads. Outside of a runtime it
        // happens right here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(folder));
        }
    }
}

impl SpoolWriter {
    /// Writes the buffer to disk, if the file is there.
    async fn write_out(&mut self) -> io::Result<()> {
        if let Some((_, file)) = &mut self.disk {
            file.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Returns the number of bytes received so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn spooled(folder: &mut SpoolFolder, size: usize) -> SpooledFile {
        let mut writer = folder.create("x");
        for _ in 0..size {
            folder.write(&mut writer, b"a").await.unwrap();
        }
        folder.keep(writer).await.unwrap();
        folder.files().last().unwrap().clone()
    }

    #[tokio::test]
    async fn first_small_files_stay_in_memory() {
        let base = tempfile::tempdir().unwrap();
        let mut folder = Spool::open(base.path(), 10).unwrap().folder();
        assert_eq!(
            spooled(&mut folder, 6).await.content,
            Content::Memory(vec![b'a'; 6].into())
        );
        let Content::File(path) = spooled(&mut folder, 6).await.content else {
            panic!("kept in memory")
        };
        assert_eq!(fs::read(&path).unwrap(), b"aaaaaa");
        assert!(matches!(
            spooled(&mut folder, 4).await.content,
            Content::Memory(_)
        ));
    }

    #[tokio::test]
    async fn dropped_upload_leaves_no_files() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path(), 0).unwrap();
        let mut folder = spool.folder();
        spooled(&mut folder, 3).await;
        let unfinished = folder.create("y");
        let entries = || fs::read_dir(&spool.base).unwrap().count();
        assert_eq!(entries(), 2, "the lock file and the folder of the upload");
        drop((unfinished, folder));
        let gone = async {
            while entries() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone)
            .await
            .unwrap();
    }

    #[test]
    fn folder_of_an_ended_process_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let abandoned = base.path().join("upload-old");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(LOCK_FILE), b"").unwrap();
        let foreign = base.path().join("other");
        fs::write(&foreign, b"").unwrap();
        let living = Spool::open(base.path(), 0).unwrap();
        assert!(!abandoned.exists(), "the abandoned folder is still there");
        assert!(foreign.exists(), "a file of somebody else was removed");
        Spool::open(base.path(), 0).unwrap();
        assert!(
            living.base.exists(),
            "the folder of a living process was removed"
        );
    }
}
