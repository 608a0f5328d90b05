//! The user whose processes the codemods are, when that is not the worker's own.

use super::WorkerError;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use std::{fs, io, os::unix::process::CommandExt, path::Path, process::Command};

/// The user of codemods, builds, and of the git commands in their checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptUser {
    user: u32,
    group: u32,
}

/// Asks the system for a number of a user; it knows more users than `/etc/passwd` has.
fn number(option: &str, name: &str) -> Result<u32, String> {
    let output = Command::new("id")
        .args([option, "--", name])
        .output()
        .map_err(|error| format!("id cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("there is no user {name:?}"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| format!("id prints no number for {name:?}"))
}

impl ScriptUser {
    /// Returns the user with that name or number.
    ///
    /// # Errors
    ///
    /// Returns an error when there is none, or this process may not start programs as another user.
    pub fn named(name: &str) -> Result<Self, WorkerError> {
        let invalid = |reason| WorkerError::ScriptUser {
            name: name.to_owned(),
            reason,
        };
        if !rustix::process::geteuid().is_root() {
            let reason = "only a worker of root can run codemods as another user".into();
            return Err(invalid(reason));
        }
        let user = number("-u", name).map_err(invalid)?;
        let group = number("-g", name).map_err(invalid)?;
        if user == 0 {
            return Err(invalid("codemods would be processes of root".into()));
        }
        Ok(Self { user, group })
    }

    /// Makes a program one of this user, in no group but the user's own.
    pub(super) fn apply(self, command: &mut tokio::process::Command) {
        self.apply_to(command.as_std_mut());
    }

    /// Does the same for a command of the standard library.
    pub(super) fn apply_to(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }

    /// Returns whether programs of this user can use what is in a directory.
    pub(super) fn can_enter(self, directory: &Path) -> bool {
        let mut test = Command::new("test");
        test.arg("-x").arg(directory);
        self.apply_to(&mut test);
        let status = test.current_dir("/").status();
        status.is_ok_and(|status| status.success())
    }

    fn own_one(self, path: &Path) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(chownat(CWD, path, Some(user), Some(group), flags)?)
    }

    /// Makes this user the owner of a path and of all below it. No program of the run may be
    /// running, since it could put links in place of folders meanwhile.
    ///
    /// # Errors
    ///
    /// Returns an error when an owner cannot be changed.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        let mut paths = vec![path.to_owned()];
        while let Some(path) = paths.pop() {
            self.own_one(&path)?;
            if fs::symlink_metadata(&path)?.is_dir() {
                for entry in fs::read_dir(&path)? {
                    paths.push(entry?.path());
                }
            }
        }
        Ok(())
    }
}
