//! Unix sockets to listen on.

use anyhow::{Context, bail};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::{UnixListener, UnixStream};

/// The user and the group of the process may connect.
const MODE: u32 = 0o660;

/// Fails when something is at the path that must not be replaced: another kind of file, or the
/// socket of a process that still listens.
async fn ensure_replaceable(path: &Path) -> anyhow::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !metadata.file_type().is_socket() {
        bail!("there is a file, and it is no socket");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error).context("try whether the socket that is there is in use"),
        Ok(_) => bail!("another process listens there"),
    }
}

/// Returns a name beside the path that no other process uses.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

/// Listens on a Unix socket, in place of one that a process has left behind.
///
/// The socket is made under another name and gets its own only with its mode, so that nobody can
/// connect before, and there is no moment without a socket.
///
/// # Errors
///
/// Returns an error when something else is there, or the folder cannot be written.
pub(super) async fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    ensure_replaceable(path).await?;
    let temporary = temporary(path);
    // Left behind by a process of the same id, if at all.
    drop(fs::remove_file(&temporary));
    let listener = UnixListener::bind(&temporary)?;
    let placed = fs::set_permissions(&temporary, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        drop(fs::remove_file(&temporary));
    }
    placed?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = listen(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(listen(&path).await.is_err());
        drop(first);
        listen(&path).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "text").unwrap();
        assert!(listen(&path).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
