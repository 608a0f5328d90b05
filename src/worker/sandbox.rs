//! The sandbox of codemods and builds, which bubblewrap makes: a read-only system, a `/tmp` of their
//! own, no other processes, and no network unless it is allowed.

use super::{WorkerError, script_user::ScriptUser};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The program that makes sandboxes.
const BWRAP: &str = "bwrap";
/// Folders of which a codemod gets empty ones: others' files, and the sockets of the machine's
/// services.
const EMPTY: [&str; 3] = ["/tmp", "/var/tmp", "/run"];
/// Where the addresses of name servers are, on machines that keep them below `/run`.
const RESOLVER: &str = "/run/systemd/resolve";

/// A sandbox for codemods and builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    has_network: bool,
    /// Folders of which a codemod gets empty ones.
    empty: Vec<PathBuf>,
    /// Folders below those that it can read all the same.
    readable: Vec<PathBuf>,
}

impl Sandbox {
    /// Returns the sandbox, once bubblewrap has made one on this machine for that user.
    ///
    /// # Errors
    ///
    /// Returns an error when bubblewrap is not installed, or may not make sandboxes.
    pub fn new(has_network: bool, user: Option<ScriptUser>) -> Result<Self, WorkerError> {
        // The home of the worker has its keys and credentials.
        let home = env::var_os("HOME").map(PathBuf::from);
        let home = home.filter(|home| home.is_absolute() && home.parent().is_some());
        let empty: Vec<PathBuf> = EMPTY.iter().map(PathBuf::from).chain(home).collect();
        let is_in_empty = |path: &PathBuf| empty.iter().any(|empty| path.starts_with(empty));
        // Codemods may be installed there.
        let path = env::var_os("PATH").unwrap_or_default();
        let mut readable: Vec<PathBuf> = env::split_paths(&path).filter(is_in_empty).collect();
        if has_network {
            readable.push(RESOLVER.into());
        }
        let sandbox = Self {
            has_network,
            empty,
            readable,
        };
        sandbox.try_out(user)?;
        Ok(sandbox)
    }

    fn try_out(&self, user: Option<ScriptUser>) -> Result<(), WorkerError> {
        let failed = |reason| WorkerError::Sandbox { reason };
        let mut command = Command::new(BWRAP);
        let arguments = self.arguments(None);
        if let Some(user) = user {
            user.apply_to(&mut command);
        }
        let output = command
            .args(arguments)
            .arg("true")
            .current_dir("/")
            .output();
        let output = output.map_err(|error| {
            failed(format!(
                "{BWRAP} (Debian's package bubblewrap) cannot be run: {error}"
            ))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{BWRAP} fails: {}", reason.trim())))
    }

    /// Returns what the program gets before a command that may write to `writable` only.
    fn arguments(&self, writable: Option<&Path>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "--die-with-parent",
            "--new-session",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            // Those of root, which could undo all of this.
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
        ]
        .map(OsString::from)
        .to_vec();
        if !self.has_network {
            arguments.push("--unshare-net".into());
        }
        for folder in self.empty.iter().filter(|folder| folder.is_dir()) {
            arguments.extend(["--tmpfs".into(), folder.into()]);
        }
        for folder in &self.readable {
            arguments.extend(["--ro-bind-try".into(), folder.into(), folder.into()]);
        }
        if let Some(folder) = writable {
            arguments.extend(["--bind".into(), folder.into(), folder.into()]);
        }
        arguments.push("--".into());
        arguments
    }

    /// Makes a command that runs another in the sandbox; of the disk, it can change only the folder
    /// of its run.
    pub(super) fn command(&self, program: &str, run_folder: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(BWRAP);
        command.args(self.arguments(Some(run_folder))).arg(program);
        command
    }
}
