//! Repositories that git itself must ask: those on this machine, and those behind ssh.

use super::{failure::Failure, refs::Refs};
use crate::domain::{
    branch_query::{BranchQuery, FoundBranches},
    redact::without_login,
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{ffi::OsStr, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
    time::{Instant, timeout_at},
};

/// How many bytes of refs are read.
const MAX_SIZE: u64 = 64 << 20;
/// How much of what git says of a failure is read.
const MAX_ERROR: u64 = 4 << 10;
/// How long a line may be.
const MAX_LINE: u64 = 4 << 10;
/// The variables of the runner that git and ssh get.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "SSH_AUTH_SOCK"];

/// How git reaches a repository.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transport<'a> {
    /// By its path.
    File,
    /// By this ssh command.
    Ssh(&'a str),
}

/// The process group of git, with the ssh command; it is ended when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that no process is left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn is_passed(name: &OsStr) -> bool {
    PASSED.iter().any(|passed| *passed == name)
}

fn command(query: &BranchQuery, repository: &str, transport: Transport<'_>) -> Command {
    let mut git = Command::new("git");
    git.args(["ls-remote", "--symref", "--", repository, "HEAD"])
        // Not the repository that the runner was started in, nor its secrets.
        .current_dir("/")
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_passed(name)))
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    match transport {
        Transport::File => git.env("GIT_ALLOW_PROTOCOL", "file"),
        Transport::Ssh(ssh) => git
            .env("GIT_ALLOW_PROTOCOL", "ssh")
            .env("GIT_SSH_COMMAND", ssh),
    };
    for prefix in query.prefixes() {
        git.arg(format!("refs/heads/{prefix}"));
        if prefix.ends_with('/') {
            git.arg(format!("refs/heads/{prefix}*"));
        }
    }
    if query.colocated {
        git.arg("refs/heads/upstream/*");
    }
    if let Some(branch) = &query.branch {
        // The second is the commit of an annotated tag.
        git.args([
            format!("refs/tags/{branch}"),
            format!("refs/tags/{branch}^{{}}"),
        ]);
    }
    git
}

/// Probes a repository.
///
/// # Errors
///
/// Returns [`Failure`] when git fails, or is not done by `end`.
pub(super) async fn probe(
    query: &BranchQuery,
    transport: Transport<'_>,
    end: Instant,
) -> Result<FoundBranches, Failure> {
    let probed = timeout_at(end, run(query, transport)).await;
    probed.unwrap_or(Err(Failure::TimedOut))
}

async fn run(query: &BranchQuery, transport: Transport<'_>) -> Result<FoundBranches, Failure> {
    let repository = without_login(&query.repository);
    let spawned = command(query, &repository, transport).spawn();
    let mut git = spawned.map_err(|e| Failure::Other(format!("git cannot be run: {e}")))?;
    let id = git.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let _group = Group(id);
    let (Some(output), Some(errors)) = (git.stdout.take(), git.stderr.take()) else {
        return Err(Failure::other("git has no output"));
    };
    let mut refs = Refs::new(query);
    let mut lines = BufReader::new(output.take(MAX_SIZE));
    let mut said = vec![];
    let mut errors = errors.take(MAX_ERROR);
    let read_errors = async {
        errors.read_to_end(&mut said).await?;
        // Otherwise git would wait for somebody to read the rest.
        tokio::io::copy(errors.get_mut(), &mut tokio::io::sink()).await
    };
    let read_refs = async {
        loop {
            let mut line = vec![];
            let read = (&mut lines)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .await?;
            if read == 0 {
                return match lines.get_ref().limit() {
                    0 => Err(Failure::other("it has too many refs")),
                    _ => Ok(()),
                };
            }
            let mut parts = line.trim_ascii_end().splitn(2, |byte| *byte == b'\t');
            let (Some(first), Some(name)) = (parts.next(), parts.next()) else {
                continue;
            };
            match first.strip_prefix(b"ref: ") {
                Some(target) if name == b"HEAD" => {
                    refs.set_head(&String::from_utf8_lossy(target));
                }
                Some(_) => {}
                None => refs.add(name, first),
            }
        }
    };
    let (read, _) = tokio::join!(read_refs, read_errors);
    read?;
    let status = git.wait().await?;
    if !status.success() {
        return Err(Failure::said("git says", &said));
    }
    Ok(refs.found(repository.trim_end_matches('/').to_owned()))
}
