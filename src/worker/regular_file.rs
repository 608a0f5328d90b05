//! Opens files that a codemod may have made, so that no link is followed and no pipe waited for.

use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

/// Opens a regular file to read it.
///
/// # Errors
///
/// Returns an error when it cannot be opened, or is a link, folder, pipe, socket or device.
pub(super) fn open(path: &Path) -> io::Result<File> {
    // To open a device may have effects, so its kind is looked at first; the flags are for what
    // takes its place meanwhile.
    let kind = fs::symlink_metadata(path)?.file_type();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if kind.is_file() {
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
    }
    let shown = if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else {
        "not a regular file"
    };
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {shown}"),
    ))
}
