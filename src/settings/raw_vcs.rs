//! The settings of version control as they are written.

use super::layered::layered;
use schemars::JsonSchema;
use serde::Deserialize;

/// How branches are probed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVcs {
    /// Lists the hosts whose branches are probed; `*.` at the start stands for any names below, and
    /// `*` for all hosts. No other host is contacted, nor its name looked up. Default: `["*"]`.
    /// Example: `["salsa.debian.org", "*.example.com"]`.
    pub(super) allowed_hosts: Vec<String>,
    /// Lists the networks in which these hosts may be. Link-local addresses need a network of their
    /// own. Default: `["0.0.0.0/0", "::/0"]`.
    pub(super) allowed_networks: Vec<String>,
    /// Sets how many branches are probed at the same time. Default: `64`.
    pub(super) concurrent_probes: u32,
    /// Sets the same for the branches of one host. Default: `8`.
    pub(super) concurrent_probes_of_host: u32,
    /// Sets how many seconds an answer is used again. Default: `30`.
    pub(super) memory_seconds: u32,
    /// Sets the ssh command that git uses to probe branches behind ssh; it must ask for nothing.
    /// Default: none, they are not probed. Example: `"ssh -i /etc/janitor/key -o BatchMode=yes"`.
    pub(super) ssh_command: Option<String>,
    /// Lists logins for hosts. Default: `[]`.
    #[serde(default)]
    pub(super) credentials: Vec<RawVcsLogin>,
}

/// A login for the repositories of a host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVcsLogin {
    /// Names the host, with its port unless that is the usual one. It gets the login by HTTPS only.
    /// Example: `"salsa.debian.org"`.
    pub(super) host: String,
    /// Sets the name of the user. Example: `"janitor"`.
    pub(super) username: String,
    /// Sets the password, or token. Example: `"{file:/etc/janitor-runner/salsa.token}"`.
    pub(super) password: String,
}

/// An account on a forge that owns the branches of proposals.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawForge {
    /// Names the host. Example: `"salsa.debian.org"`.
    pub(super) host: String,
    /// Names the user or group that has the derived repositories. Example: `"janitor-team"`.
    pub(super) user: String,
}
