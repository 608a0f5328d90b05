//! The settings of version control.

use super::{
    raw_vcs::{RawForge, RawVcs, RawVcsLogin},
    validate::{at_least_one, filled, networks},
    values::{VcsLogin, VcsSettings},
};
use crate::domain::{
    Invalid,
    forge::Forge,
    host::{HostPattern, normalize},
    probe_limits::ProbeLimits,
};
use std::time::Duration;

/// How long a probe may take, with waiting for its turn.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks and converts what the adapter needs.
///
/// # Errors
///
/// Returns an [`Invalid`] for the first value that cannot be used; its field is the key.
pub(super) fn settings(
    raw: RawVcs,
    use_cached_only: bool,
    user_agent: String,
) -> Result<VcsSettings, Invalid> {
    let login = |login: RawVcsLogin| VcsLogin {
        // With its port, which belongs to it.
        host: login.host.to_ascii_lowercase(),
        username: login.username,
        password: login.password,
    };
    Ok(VcsSettings {
        use_cached_only,
        allowed_hosts: raw
            .allowed_hosts
            .iter()
            .map(|host| HostPattern::new(host))
            .collect(),
        allowed_networks: networks("vcs.allowed_networks", &raw.allowed_networks)?,
        timeout: PROBE_TIMEOUT,
        logins: raw.credentials.into_iter().map(login).collect(),
        ssh_command: filled(raw.ssh_command),
        user_agent,
    })
}

/// Checks and converts how much is probed at a time.
///
/// # Errors
///
/// Returns an [`Invalid`] for a number that must not be zero.
pub(super) fn limits(raw: &RawVcs) -> Result<ProbeLimits, Invalid> {
    let number = |field, number| at_least_one(field, number).map(|number| number as usize);
    Ok(ProbeLimits {
        of_host: number(
            "vcs.concurrent_probes_of_host",
            raw.concurrent_probes_of_host,
        )?,
        in_all: number("vcs.concurrent_probes", raw.concurrent_probes)?,
        memory: Duration::from_secs(raw.memory_seconds.into()),
        timeout: PROBE_TIMEOUT,
    })
}

/// Converts the accounts on forges.
pub(super) fn forges(raw: Vec<RawForge>) -> Vec<Forge> {
    let forge = |raw: RawForge| Forge {
        host: normalize(&raw.host),
        user: raw.user,
    };
    raw.into_iter().map(forge).collect()
}
