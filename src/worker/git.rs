//! The git commands of a worker.

use super::{
    codemod::{ProgramEnd, Supervision},
    environment::Environment,
    remote::Remote,
};
use crate::domain::{
    branch_url::{is_git_branch, split_branch_url},
    run::ResultBranch,
};
use std::{fs::File, path::Path};
use tokio::process::Command;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct GitError(String);

impl From<std::io::Error> for GitError {
    fn from(error: std::io::Error) -> Self {
        Self(format!("git cannot be run: {error}"))
    }
}

/// What became of an earlier result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resumed {
    /// The checkout continues from it. Carries its revision, which another took the place of if it
    /// was rebased.
    From(String),
    /// It does not fit the branch any more.
    Misfit,
}

/// A checkout of a codebase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checkout<'a> {
    /// The folder of the checkout.
    pub(super) path: &'a Path,
    /// The environment of git commands.
    pub(super) environment: Environment<'a>,
    /// How git commands are run.
    pub(super) supervision: Supervision<'a>,
}

impl Checkout<'_> {
    /// Makes a command that uses no repository, or makes one.
    fn plain_git(&self, arguments: &[&str]) -> Command {
        let mut git = self.environment.git();
        git.args(arguments).current_dir(self.path);
        git
    }

    /// Makes a command in the repository of the checkout and in no other, wherever its own
    /// configuration says that the files are.
    fn git(&self, arguments: &[&str]) -> Command {
        self.in_repository(self.environment.git_of_scripts(), arguments)
    }

    /// Makes a command in the repository that may use what is only the worker's: keys and folders.
    fn workers_git(&self, arguments: &[&str]) -> Command {
        self.in_repository(self.environment.git(), arguments)
    }

    fn in_repository(&self, mut git: Command, arguments: &[&str]) -> Command {
        git.arg("--git-dir")
            .arg(self.path.join(".git"))
            .arg("--work-tree")
            .arg(self.path)
            .args(arguments)
            .current_dir(self.path);
        git
    }

    /// Runs a command whose output goes to the log.
    async fn run(&self, git: Command, arguments: &[&str]) -> Result<(), GitError> {
        let log = self.supervision.log;
        log.line(&format!("+ git {}", arguments.join(" ")));
        let ended = self.supervision.run(git).await?;
        check(&ended, arguments.first().unwrap_or(&""))
    }

    /// Runs a command and returns its output; none when it fails.
    async fn query(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let git = self.git(arguments);
        match self.supervision.output(git).await? {
            (ProgramEnd::Exited(status), output) => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                Ok(status.success().then_some(text))
            }
            (ended, _) => {
                check(&ended, arguments.first().unwrap_or(&""))?;
                Ok(None)
            }
        }
    }

    /// Runs a command with a repository elsewhere, whose password is not among the arguments.
    async fn run_remote(
        &self,
        mut git: Command,
        remote: &Remote,
        arguments: &[&str],
    ) -> Result<(), GitError> {
        git.envs(remote.environment());
        self.run(git, arguments).await
    }

    /// Makes the checkout: a clone of the branch, or an empty repository.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn start(&self, branch_url: Option<&str>) -> Result<(), GitError> {
        // Templates of the machine may have hooks and settings.
        let Some(branch_url) = branch_url else {
            let arguments = ["init", "--quiet", "--template="];
            return self.run(self.plain_git(&arguments), &arguments).await;
        };
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        let remote = Remote::new(&url);
        let branch = branch.map(|branch| format!("--branch={branch}"));
        // Links to the files of a repository on this machine would let a codemod change it.
        let mut arguments = vec!["clone", "--quiet", "--template=", "--no-hardlinks"];
        arguments.extend(branch.as_deref());
        arguments.extend(["--", &remote.url, "."]);
        self.run_remote(self.plain_git(&arguments), &remote, &arguments)
            .await
    }

    /// Continues from the earlier result `made`: resets to it where the branch has not moved since,
    /// and rebases it where the branch has moved on from the revision on which the result was made. No
    /// script has run yet, and the checkout is still the worker's own.
    ///
    /// What somebody else has put on the branch since the run was assigned is not continued from.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails. A result that does not fit any more is no error.
    pub(super) async fn resume(
        &self,
        branch_url: &str,
        made: Option<&ResultBranch>,
    ) -> Result<Resumed, GitError> {
        let (url, branch) = split_branch_url(branch_url).map_err(|e| GitError(e.to_string()))?;
        let remote = Remote::new(&url);
        // In full: a tag may have the same name.
        let branch = branch.map_or("HEAD".to_owned(), |branch| format!("refs/heads/{branch}"));
        let Some(revision) = made.and_then(|made| made.revision.as_deref()) else {
            return Ok(Resumed::Misfit);
        };
        let arguments = ["fetch", "--quiet", "--", &remote.url, &branch];
        let git = self.workers_git(&arguments);
        let fetched = self.run_remote(git, &remote, &arguments).await;
        // It may be gone by now. A run that is stopped fails with the next command.
        if fetched.is_err() {
            return Ok(Resumed::Misfit);
        }
        let Some(earlier) = self.query(&["rev-parse", "FETCH_HEAD"]).await? else {
            return Ok(Resumed::Misfit);
        };
        if revision != earlier {
            let log = self.supervision.log;
            log.line(&format!("the branch to resume is at {earlier} now"));
            return Ok(Resumed::Misfit);
        }
        if self.is_ancestor("HEAD", &earlier).await? {
            return self.reset_to(earlier).await;
        }
        match made.and_then(|made| made.base.as_deref()) {
            Some(base) if self.is_ancestor(base, "HEAD").await? => {
                self.rebase(&earlier, base).await
            }
            _ => Ok(Resumed::Misfit),
        }
    }

    /// Continues from a descendant of the branch. One that cannot be checked out here, by a name of a
    /// file perhaps, does not fit.
    async fn reset_to(&self, earlier: String) -> Result<Resumed, GitError> {
        let Some(tip) = self.query(&["rev-parse", "HEAD"]).await? else {
            return Ok(Resumed::Misfit);
        };
        let arguments = ["reset", "--quiet", "--hard", &earlier];
        let reset = self.run(self.workers_git(&arguments), &arguments).await;
        if reset.is_ok() {
            return Ok(Resumed::From(earlier));
        }
        let arguments = ["reset", "--quiet", "--hard", &tip];
        self.run(self.workers_git(&arguments), &arguments).await?;
        Ok(Resumed::Misfit)
    }

    /// Puts the commits from `base` to `earlier` on top of the branch.
    async fn rebase(&self, earlier: &str, base: &str) -> Result<Resumed, GitError> {
        let Some(tip) = self.query(&["rev-parse", "HEAD"]).await? else {
            return Ok(Resumed::Misfit);
        };
        let branch = self.query(&["symbolic-ref", "--quiet", "HEAD"]).await?;
        // `base` may be no commit that this repository has; then there is nothing to rebase.
        let arguments = ["rebase", "--quiet", "--onto", &tip, base, earlier];
        let rebased = self
            .run(self.workers_git(&arguments), &arguments)
            .await
            .is_ok();
        if !rebased {
            let arguments = ["rebase", "--quit"];
            // Fails when the rebase had not begun.
            let _ = self.run(self.workers_git(&arguments), &arguments).await;
        }
        let revision = match rebased {
            true => self.query(&["rev-parse", "HEAD"]).await?.unwrap_or(tip),
            false => tip,
        };
        // A rebase leaves no branch checked out.
        if let Some(branch) = branch {
            let arguments = ["symbolic-ref", "HEAD", &branch];
            self.run(self.workers_git(&arguments), &arguments).await?;
        }
        let arguments = ["reset", "--quiet", "--hard", &revision];
        self.run(self.workers_git(&arguments), &arguments).await?;
        Ok(match rebased {
            true => Resumed::From(earlier.to_owned()),
            false => Resumed::Misfit,
        })
    }

    /// Fetches another branch of the repository that was cloned; returns whether it exists.
    ///
    /// # Errors
    ///
    /// Returns an error when git cannot be run.
    pub(super) async fn fetch_branch(&self, url: &str, name: &str) -> Result<bool, GitError> {
        if !is_git_branch(name) {
            return Ok(false);
        }
        let (url, _) = split_branch_url(url).map_err(|e| GitError(e.to_string()))?;
        let remote = Remote::new(&url);
        let refspec = format!("refs/heads/{name}:refs/heads/{name}");
        let arguments = ["fetch", "--quiet", "--", &remote.url, &refspec];
        let fetched = self
            .run_remote(self.workers_git(&arguments), &remote, &arguments)
            .await;
        Ok(fetched.is_ok())
    }

    /// Returns whether a revision is another one or in its history.
    ///
    /// # Errors
    ///
    /// Returns an error when git cannot be run.
    pub(super) async fn is_ancestor(&self, older: &str, newer: &str) -> Result<bool, GitError> {
        let arguments = ["merge-base", "--is-ancestor", older, newer];
        Ok(self.query(&arguments).await?.is_some())
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

    /// Commits what the script left uncommitted, if anything, with the message in a file.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn commit(&self, message: &Path) -> Result<(), GitError> {
        let status = self
            .query(&["status", "--porcelain", "--untracked-files=normal"])
            .await?
            .ok_or_else(|| GitError("git status failed".into()))?;
        if status.is_empty() {
            return Ok(());
        }
        let arguments = ["add", "--all"];
        self.run(self.git(&arguments), &arguments).await?;
        // Verbatim, because a line that begins with `#` would be removed as a comment otherwise.
        let arguments = ["commit", "--quiet", "--no-verify", "--cleanup=verbatim"];
        let mut git = self.git(&arguments);
        git.arg("--file").arg(message);
        self.run(git, &arguments).await
    }

    /// Writes the commits from `base` to `revision`, or all up to it, as a mailbox for `git am`.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn write_patch(
        &self,
        base: Option<&str>,
        revision: &str,
        to: &Path,
    ) -> Result<(), GitError> {
        let range = base.map(|base| format!("{base}..{revision}"));
        let mut git = self.git(&[
            "format-patch",
            "--stdout",
            "--no-ext-diff",
            "--no-attach",
            "--no-cover-letter",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        ]);
        git.arg(range.as_deref().unwrap_or("--root"));
        // Without a range, all commits up to the tip are meant.
        git.args(range.is_none().then_some(revision));
        git.stdout(File::create_new(to)?);
        check(&self.supervision.run_into(git).await?, "format-patch")
    }

    /// Pushes a revision as `branch` of a repository, which is created if it is on this machine and
    /// does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when git fails.
    pub(super) async fn push(
        &self,
        repository: &str,
        revision: &str,
        branch: &str,
    ) -> Result<(), GitError> {
        let local = repository
            .strip_prefix("file://")
            .or_else(|| Some(repository).filter(|path| path.starts_with('/')));
        if let Some(path) = local.filter(|path| !Path::new(path).exists()) {
            let arguments = ["init", "--quiet", "--bare", "--template=", path];
            self.run(self.plain_git(&arguments), &arguments).await?;
        }
        let remote = Remote::new(repository);
        let refspec = format!("{revision}:refs/heads/{branch}");
        let arguments = [
            "push",
            "--quiet",
            "--no-verify",
            "--force",
            "--",
            &remote.url,
            &refspec,
        ];
        self.run_remote(self.workers_git(&arguments), &remote, &arguments)
            .await
    }
}

/// Makes an error of the end of a command, unless it succeeded.
fn check(ended: &ProgramEnd, subcommand: &str) -> Result<(), GitError> {
    match ended {
        ProgramEnd::Exited(status) if status.success() => Ok(()),
        ProgramEnd::Exited(status) => Err(GitError(format!("git {subcommand} failed ({status})"))),
        ProgramEnd::Stopped => Err(GitError("stopped by the runner".into())),
        ProgramEnd::TimedOut => Err(GitError(format!("git {subcommand} took too long"))),
    }
}
