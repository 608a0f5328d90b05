//! Where uploads wait, file by file, until all of one is there: on the disk, except for the first small files of each
//! upload, for which the disk would cost more than all else.

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

const FOLDER: &str = "upload-";
const LOCK: &str = "lock";
const BEING_MADE: Duration = Duration::from_secs(60);
/// How much is collected before it is written.
const BUFFER: usize = 256 << 10;

/// The directory for uploads under way: each process has a folder of its own there.
#[derive(Debug, Clone)]
pub struct Spool {
    base: PathBuf,
    /// Locked as long as this process lives.
    _lock: Arc<fs::File>,
    /// Bytes of each upload that may stay in memory.
    memory: usize,
}

/// The files of one upload; gone when this is dropped.
#[derive(Debug)]
pub struct SpoolFolder {
    spool: Spool,
    folder: Option<TempDir>,
    files: Vec<SpooledFile>,
    /// Bytes that may still stay in memory.
    memory: usize,
}

/// A file that is being received.
#[derive(Debug)]
pub struct SpoolWriter {
    name: String,
    size: u64,
    waiting: Vec<u8>,
    disk: Option<(PathBuf, File)>,
}

/// Whether no living process has this folder.
fn is_left(folder: &Path) -> bool {
    match fs::File::open(folder.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // One that was made just now gets its lock in a moment.
        Err(_) => fs::metadata(folder)
            .and_then(|about| about.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > BEING_MADE)),
    }
}

impl Spool {
    /// Opens the spool; what processes that are gone left half received is removed.
    pub fn open(base: &Path, memory: usize) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        for entry in fs::read_dir(base)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FOLDER) && is_left(&entry.path()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let own = tempfile::Builder::new()
            .prefix(FOLDER)
            .tempdir_in(base)?
            .keep();
        let lock = fs::File::create(own.join(LOCK))?;
        lock.try_lock()
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self {
            base: own,
            _lock: Arc::new(lock),
            memory,
        })
    }

    /// A place for the files of an upload.
    pub fn folder(&self) -> SpoolFolder {
        SpoolFolder {
            spool: self.clone(),
            folder: None,
            files: vec![],
            memory: self.memory,
        }
    }
}

impl SpoolFolder {
    /// Starts a file.
    pub fn create(&self, name: &str) -> SpoolWriter {
        SpoolWriter {
            name: name.to_owned(),
            size: 0,
            waiting: vec![],
            disk: None,
        }
    }

    /// The folder on the disk, made when it is first needed. Names in it are ours, not the upload's.
    async fn path(&mut self) -> io::Result<PathBuf> {
        let number = self.files.len().to_string();
        if let Some(folder) = &self.folder {
            return Ok(folder.path().join(number));
        }
        let base = self.spool.base.clone();
        let made = off_thread("make a folder", move || {
            tempfile::Builder::new().prefix(FOLDER).tempdir_in(base)
        });
        let folder = made.await.map_err(io::Error::other)??;
        let path = folder.path().join(number);
        self.folder = Some(folder);
        Ok(path)
    }

    /// Appends to a file that is being received.
    pub async fn write(&mut self, writer: &mut SpoolWriter, chunk: &[u8]) -> io::Result<()> {
        writer.size += chunk.len() as u64;
        writer.waiting.extend_from_slice(chunk);
        if writer.disk.is_none() && writer.waiting.len() > self.memory {
            let path = self.path().await?;
            writer.disk = Some((path.clone(), File::create_new(&path).await?));
        }
        if writer.waiting.len() >= BUFFER {
            writer.write_out().await
        } else {
            Ok(())
        }
    }

    /// Takes in a file that was received whole.
    pub async fn keep(&mut self, mut writer: SpoolWriter) -> io::Result<()> {
        let content = if writer.disk.is_some() {
            writer.write_out().await?;
            let (path, mut file) = writer
                .disk
                .take()
                .ok_or_else(|| io::Error::other("the file was never opened"))?;
            file.flush().await?;
            Content::File(path)
        } else {
            self.memory = self.memory.saturating_sub(writer.waiting.len());
            Content::Memory(writer.waiting.into())
        };
        self.files.push(SpooledFile {
            name: writer.name,
            content,
            size: writer.size,
        });
        Ok(())
    }

    /// The files, in order of arrival.
    pub fn files(&self) -> &[SpooledFile] {
        &self.files
    }
}

impl Drop for SpoolFolder {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        // Removing takes a while: not on an async thread, if there is another.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(folder));
        }
    }
}

impl SpoolWriter {
    async fn write_out(&mut self) -> io::Result<()> {
        if let Some((_, file)) = &mut self.disk {
            file.write_all(&self.waiting).await?;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Bytes received so far.
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
    async fn only_the_first_small_files_stay_in_memory() {
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
    async fn nothing_is_left_of_an_upload() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path(), 0).unwrap();
        let mut folder = spool.folder();
        spooled(&mut folder, 3).await;
        let unfinished = folder.create("y");
        assert_eq!(fs::read_dir(&spool.base).unwrap().count(), 2);
        drop((unfinished, folder));
        let gone = async {
            while fs::read_dir(&spool.base).unwrap().count() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), gone)
            .await
            .unwrap();
    }

    #[test]
    fn what_an_earlier_process_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("upload-old")).unwrap();
        fs::write(base.path().join("upload-old").join(LOCK), b"").unwrap();
        fs::write(base.path().join("other"), b"").unwrap();
        let living = Spool::open(base.path(), 0).unwrap();
        assert!(!base.path().join("upload-old").exists() && base.path().join("other").exists());
        Spool::open(base.path(), 0).unwrap();
        assert!(living.base.exists());
    }
}
