//! This program: where its file is, and how it starts itself again.

use anyhow::{Context, Result};
use std::{
    env, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// After how many milliseconds the allocator gives memory back that is free; mimalloc reads this
/// when the process starts, and at no other time.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Returns the path of this program; after an update its file may be another one, or be gone.
pub(super) fn this_program() -> Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    match env::current_exe().context("find this program")? {
        found if found.exists() => Ok(found),
        _ => Ok(running.to_owned()),
    }
}

/// Lets the allocator give memory back at once: replaces this process by one with that setting,
/// unless its environment has one. Otherwise what a burst of large requests took would be kept until
/// as much is needed again, ten times what the service needs else.
///
/// # Errors
///
/// Returns an error when that fails; the process can go on.
pub(super) fn give_memory_back() -> Result<()> {
    if env::var_os(PURGE_DELAY).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut command = Command::new(this_program()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let failure: io::Error = command.args(arguments).env(PURGE_DELAY, "0").exec();
    Err(failure).context("start again with a setting of the allocator")
}
