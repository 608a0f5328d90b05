//! The git commands of a worker.

use super::{
    codemod::{self, ProgramEnd},
    log::RunLog,
};
use crate::domain::branch_url::split_branch_url;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct GitError(String);

impl From<std::io::Error> for GitError {
    fn from(error: std::io::Error) -> Self {
        Self(format!("git cannot be run: {error}"))
    }
}

/// A checkout of a codebase.
#[derive(Debug)]
pub(super) struct Checkout<'a> {
    /// The folder of the checkout.
    pub(super) path: PathBuf,
    /// The environment of git commands.
    pub(super) env: &'a BTreeMap<String, String>,
    /// The log that commands and their output are appended to.
    pub(super) log: &'a RunLog,
    /// Cancelled when the run is to stop.
    pub(super) stop: &'a CancellationToken,
    /// How long one command may take.
    pub(super) timeout: Duration,
}

/// The author of commits when the assignment names none.
const DEFAULT_IDENTITY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "janitor-runner"),
    ("GIT_AUTHOR_EMAIL", "janitor-runner@localhost"),
    ("GIT_COMMITTER_NAME", "janitor-runner"),
    ("GIT_COMMITTER_EMAIL", "janitor-runner@localhost"),
];

impl Checkout<'_> {
    fn git(&self, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        // Hooks are code that nobody has reviewed, and a prompt for a password would block the run
        // until its timeout.
        git.args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "advice.detachedHead=false",
        ])
        .args(arguments);
        git.current_dir(&self.path)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .envs(DEFAULT_IDENTITY)
            .envs(self.env);
        git
    }

    /// Runs a command whose output goes to the log.
    async fn run(&self, arguments: &[&str]) -> Result<(), GitError> {
        self.log.line(&format!("+ git {}", arguments.join(" ")));
        match codemod::run(self.git(arguments), self.log, self.stop, self.timeout).await? {
            ProgramEnd::Exited(status) if status.success() => Ok(()),
            ProgramEnd::Exited(status) => Err(GitError(format!(
                "git {} failed ({status})",
                arguments.first().unwrap_or(&"")
            ))),
            ProgramEnd::Stopped => Err(GitError("stopped by the runner".into())),
            ProgramEnd::TimedOut => Err(GitError(format!(
                "git {} took too long",
                arguments.first().unwrap_or(&"")
            ))),
        }
    }

    /// Runs a command and returns its output; none when it fails.
    async fn query(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let output = self.git(arguments).stdin(Stdio::null()).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    }

    /// Makes the checkout: a clone of the branch, or an empty repository.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn start(&self, branch_url: Option<&str>) -> Result<(), GitError> {
        let Some(branch_url) = branch_url else {
            return self.run(&["init", "--quiet"]).await;
        };
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        match &branch {
            Some(branch) => {
                self.run(&["clone", "--quiet", "--branch", branch, "--", &url, "."])
                    .await
            }
            None => self.run(&["clone", "--quiet", "--", &url, "."]).await,
        }
    }

    /// Resets to an earlier result, if that is based on the branch as it is now; returns whether it
    /// is.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn resume(&self, branch_url: &str) -> Result<bool, GitError> {
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        self.run(&[
            "fetch",
            "--quiet",
            "--",
            &url,
            branch.as_deref().unwrap_or("HEAD"),
        ])
        .await?;
        let current = self
            .query(&["merge-base", "--is-ancestor", "HEAD", "FETCH_HEAD"])
            .await?
            .is_some();
        if current {
            self.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"])
                .await?;
        }
        Ok(current)
    }

    /// Returns the revision at the tip; none in an empty repository.
    ///
    /// # Errors
    ///
    /// Returns an error when git cannot be run.
    pub(super) async fn revision(&self) -> Result<Option<String>, GitError> {
        self.query(&["rev-parse", "--verify", "--quiet", "HEAD"])
            .await
    }

    /// Commits what the script left uncommitted, if anything.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn commit(&self, message: &str) -> Result<(), GitError> {
        let status = self.query(&["status", "--porcelain"]).await?;
        if status.is_none_or(|status| status.is_empty()) {
            return Ok(());
        }
        self.run(&["add", "--all"]).await?;
        self.run(&["commit", "--quiet", "--message", message]).await
    }

    /// Writes the commits since `base`, or all of them, as a mailbox for `git am`.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn write_patch(&self, base: Option<&str>, to: &Path) -> Result<(), GitError> {
        let range = base.map_or_else(|| "HEAD".to_owned(), |base| format!("{base}..HEAD"));
        let mut git = self.git(&[
            "format-patch",
            "--stdout",
            if base.is_some() { "--" } else { "--root" },
        ]);
        if base.is_some() {
            git = self.git(&["format-patch", "--stdout", &range]);
        }
        git.stdin(Stdio::null())
            .stdout(std::fs::File::create(to)?)
            .stderr(self.log.output()?);
        if git.status().await?.success() {
            Ok(())
        } else {
            Err(GitError("git format-patch failed".into()))
        }
    }

    /// Pushes the tip as `branch` of a repository, which is created if it is on this machine and
    /// does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn push(&self, repository: &str, branch: &str) -> Result<(), GitError> {
        let local = repository
            .strip_prefix("file://")
            .or_else(|| Some(repository).filter(|path| path.starts_with('/')));
        if let Some(path) = local.filter(|path| !Path::new(path).exists()) {
            self.run(&["init", "--quiet", "--bare", path]).await?;
        }
        self.run(&[
            "push",
            "--quiet",
            "--force",
            "--",
            repository,
            &format!("HEAD:refs/heads/{branch}"),
        ])
        .await
    }
}
