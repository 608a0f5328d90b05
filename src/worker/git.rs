//! The few things a worker asks of git.

use super::{
    codemod::{self, Ended},
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

/// git did not do what it was told; why, in its own words where possible.
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
    pub(super) path: PathBuf,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) log: &'a RunLog,
    pub(super) stop: &'a CancellationToken,
    pub(super) longest: Duration,
}

/// Who commits when nobody is named.
const NOBODY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "janitor-runner"),
    ("GIT_AUTHOR_EMAIL", "janitor-runner@localhost"),
    ("GIT_COMMITTER_NAME", "janitor-runner"),
    ("GIT_COMMITTER_EMAIL", "janitor-runner@localhost"),
];

impl Checkout<'_> {
    fn git(&self, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        // Never asks, never runs what the machine's own configuration or the repository's hooks say.
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
            .envs(NOBODY)
            .envs(self.env);
        git
    }

    async fn tell(&self, arguments: &[&str]) -> Result<(), GitError> {
        self.log.line(&format!("+ git {}", arguments.join(" ")));
        match codemod::run(self.git(arguments), self.log, self.stop, self.longest).await? {
            Ended::By(status) if status.success() => Ok(()),
            Ended::By(status) => Err(GitError(format!(
                "git {} failed ({status})",
                arguments.first().unwrap_or(&"")
            ))),
            Ended::Killed => Err(GitError("stopped by the runner".into())),
            Ended::TimedOut => Err(GitError(format!(
                "git {} took too long",
                arguments.first().unwrap_or(&"")
            ))),
        }
    }

    async fn ask(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let output = self.git(arguments).stdin(Stdio::null()).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    }

    /// Makes the checkout: a clone of the branch, or an empty repository.
    pub(super) async fn start(&self, branch_url: Option<&str>) -> Result<(), GitError> {
        let Some(branch_url) = branch_url else {
            return self.tell(&["init", "--quiet"]).await;
        };
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        match &branch {
            Some(branch) => {
                self.tell(&["clone", "--quiet", "--branch", branch, "--", &url, "."])
                    .await
            }
            None => self.tell(&["clone", "--quiet", "--", &url, "."]).await,
        }
    }

    /// Continues from an earlier result, if that builds on the branch as it is now. Answers whether it does.
    pub(super) async fn resume(&self, branch_url: &str) -> Result<bool, GitError> {
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        self.tell(&[
            "fetch",
            "--quiet",
            "--",
            &url,
            branch.as_deref().unwrap_or("HEAD"),
        ])
        .await?;
        let current = self
            .ask(&["merge-base", "--is-ancestor", "HEAD", "FETCH_HEAD"])
            .await?
            .is_some();
        if current {
            self.tell(&["reset", "--quiet", "--hard", "FETCH_HEAD"])
                .await?;
        }
        Ok(current)
    }

    /// The revision at the tip; none in an empty repository.
    pub(super) async fn revision(&self) -> Result<Option<String>, GitError> {
        self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"])
            .await
    }

    /// Commits what the script left; nothing happens when it left nothing.
    pub(super) async fn commit(&self, message: &str) -> Result<(), GitError> {
        let status = self.ask(&["status", "--porcelain"]).await?;
        if status.is_none_or(|status| status.is_empty()) {
            return Ok(());
        }
        self.tell(&["add", "--all"]).await?;
        self.tell(&["commit", "--quiet", "--message", message])
            .await
    }

    /// The commits since `base`, as a mailbox that `git am` takes.
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

    /// Pushes the tip as `branch` of a repository. One on this machine that is not there yet is made.
    pub(super) async fn push(&self, repository: &str, branch: &str) -> Result<(), GitError> {
        let local = repository
            .strip_prefix("file://")
            .or_else(|| Some(repository).filter(|path| path.starts_with('/')));
        if let Some(path) = local.filter(|path| !Path::new(path).exists()) {
            self.tell(&["init", "--quiet", "--bare", path]).await?;
        }
        self.tell(&[
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
