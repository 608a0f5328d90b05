//! Probing branches without cloning them: what a repository answers about its refs.
//!
//! Everything asked here may be anybody's: a probe sends requests only to allowed hosts in allowed
//! networks, reads a bounded part of each response, keeps only what was asked for, and ends in time.

mod bzr;
mod failure;
mod git_command;
mod git_daemon;
mod git_http;
pub mod none;
mod packets;
mod refs;
mod site;

pub use site::HostLogin;

use crate::{
    adapters::support::guarded_http::GuardedClient,
    domain::{
        branch_query::{BranchQuery, FoundBranches},
        host::{HostPattern, host_of},
        vcs::VcsType,
    },
    ports::{Clock, Vcs, vcs::Probe},
};
use async_trait::async_trait;
use failure::Failure;
use git_command::Transport;
use site::Site;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// How long a probe may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest name of a branch that is asked for, in bytes.
const MAX_BRANCH: usize = 250;

/// What may be probed.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// The hosts that may be asked.
    pub allowed_hosts: Vec<HostPattern>,
    /// The logins for hosts.
    pub logins: Vec<HostLogin>,
    /// The ssh command that git uses, which must ask for nothing; `None`: nothing is asked by ssh.
    pub ssh_command: Option<String>,
}

/// Probes repositories of git and bzr.
#[derive(Clone)]
pub struct BranchProber {
    site: Site,
    ssh_command: Option<String>,
}

/// Returns whether there is a folder; a file system that hangs blocks no thread of others.
async fn is_folder(path: &Path) -> bool {
    tokio::fs::metadata(path)
        .await
        .is_ok_and(|found| found.is_dir())
}

/// Where a repository is.
enum Location {
    Http,
    Daemon,
    Ssh,
    Folder(PathBuf),
    /// Carries the scheme of the URL.
    Unsupported(String),
}

impl Location {
    fn of(repository: &str) -> Self {
        if repository.starts_with('/') {
            return Self::Folder(repository.into());
        }
        match Url::parse(repository) {
            // `git@host:path` and the like.
            Err(_) if host_of(repository).is_some() => Self::Ssh,
            Err(_) => Self::Unsupported("none".to_owned()),
            Ok(url) => match url.scheme() {
                // The parser mends `http:host/x`, which has no host for anybody else.
                "http" | "https" if repository.contains("://") => Self::Http,
                "git" => Self::Daemon,
                "ssh" | "git+ssh" => Self::Ssh,
                "file" => match url.to_file_path() {
                    Ok(path) => Self::Folder(path),
                    Err(()) => Self::Unsupported("file".to_owned()),
                },
                _ if !repository.contains("://") && host_of(repository).is_some() => Self::Ssh,
                scheme => Self::Unsupported(scheme.to_owned()),
            },
        }
    }
}

/// Returns the host of an address of ssh, if git and ssh read it in no other way: both decode and
/// split what is unusual otherwise, and would ask another host than the one that was checked.
fn ssh_host(repository: &str) -> Option<&str> {
    let authority = match repository.split_once("://") {
        Some((_, rest)) => rest.split('/').next()?,
        None => repository.split(':').next()?,
    };
    let (user, host) = match authority.split_once('@') {
        Some((user, host)) => (user.split(':').next()?, host),
        None => ("", authority),
    };
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let is_name = |text: &str| {
        !text.starts_with('-')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let is_plain = is_name(user)
        && is_name(host)
        && !host.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then_some(host)
}

/// Returns whether a text can be the name of a branch, so that it can be written into a request.
fn is_branch_name(name: &str) -> bool {
    name.len() <= MAX_BRANCH && !name.contains(|c: char| c.is_control() || c == ' ')
}

impl BranchProber {
    /// Creates a prober that sends its requests with this client.
    pub fn new(http: GuardedClient, clock: Arc<dyn Clock>, settings: ProbeSettings) -> Self {
        Self {
            site: Site {
                clock,
                http,
                allowed_hosts: settings.allowed_hosts,
                logins: settings.logins,
            },
            ssh_command: settings.ssh_command,
        }
    }

    async fn over_http(&self, query: &BranchQuery, end: Instant) -> Result<FoundBranches, Failure> {
        if query.vcs_type == Some(VcsType::Bzr) {
            return bzr::probe(&self.site, query, end).await;
        }
        match git_http::probe(&self.site, query, end).await {
            Err(Failure::NotThere(why)) if query.vcs_type.is_none() => {
                match bzr::probe(&self.site, query, end).await {
                    Err(Failure::NotThere(_)) => Err(Failure::NotThere(why)),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    async fn in_folder(
        query: &BranchQuery,
        folder: &Path,
        end: Instant,
    ) -> Result<FoundBranches, Failure> {
        let is_bzr = query.vcs_type == Some(VcsType::Bzr);
        if is_bzr || (query.vcs_type.is_none() && is_folder(&folder.join(".bzr")).await) {
            return bzr::probe_folder(folder, &query.repository).await;
        }
        git_command::probe(query, Transport::File, end).await
    }

    async fn find(&self, query: &BranchQuery, end: Instant) -> Result<FoundBranches, Failure> {
        if let Some(vcs_type) = query.vcs_type
            && !matches!(vcs_type, VcsType::Git | VcsType::Bzr)
        {
            return Err(Failure::Other(format!("{vcs_type} is not probed")));
        }
        let mut names = query.branch.iter().chain(&query.others);
        if !names.all(|name| is_branch_name(name)) {
            return Err(Failure::other("no branch can have this name"));
        }
        match Location::of(&query.repository) {
            Location::Http => self.over_http(query, end).await,
            Location::Daemon => git_daemon::probe(&self.site, query, end).await,
            Location::Folder(folder) => Self::in_folder(query, &folder, end).await,
            Location::Ssh => {
                let host = ssh_host(&query.repository)
                    .ok_or_else(|| Failure::other("not an address of ssh"))?;
                self.site.check_host(host)?;
                self.site.http.check_networks_of(host, end).await?;
                let Some(ssh) = &self.ssh_command else {
                    return Err(Failure::other("vcs.ssh_command is not set"));
                };
                git_command::probe(query, Transport::Ssh(ssh), end).await
            }
            Location::Unsupported(scheme) => Err(Failure::Other(format!(
                "URLs of the scheme {scheme} are not probed"
            ))),
        }
    }
}

#[async_trait]
impl Vcs for BranchProber {
    #[tracing::instrument(
        name = "vcs.prober.probe", level = "debug", skip_all,
        fields(host = host_of(&query.repository))
    )]
    async fn probe(&self, query: &BranchQuery) -> Probe {
        let end = Instant::now() + PROBE_TIMEOUT;
        let found = timeout_at(end, self.find(query, end)).await;
        match found.unwrap_or(Err(Failure::TimedOut)) {
            Ok(found) => Probe::Found(found),
            Err(Failure::NotThere(why) | Failure::Other(why)) => {
                Probe::Unknown(self.site.hide_secrets(&why, &query.repository))
            }
            Err(Failure::TimedOut) => Probe::TimedOut,
            Err(Failure::RateLimited(retry_after)) => Probe::RateLimited { retry_after },
        }
    }
}
