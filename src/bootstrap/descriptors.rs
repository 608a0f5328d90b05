//! How many connections each listener may have, so that stores and files can always be opened.

use crate::{adapters::http::ConnectionLimits, settings::ConnectionSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The largest default for the connections of a listener: each costs some KiB of memory.
const MAX_CONNECTIONS: usize = 16_384;
/// The number of descriptors that is assumed where there is no limit.
const UNLIMITED: u64 = 1 << 20;

/// Raises the number of files that this process may have open as far as it is allowed to, and
/// returns that number.
pub(super) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(UNLIMITED);
    let raised = Rlimit {
        current: Some(maximum),
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the number of open files cannot be raised");
            limit.current.unwrap_or(UNLIMITED)
        }
    };
    usize::try_from(current).unwrap_or(usize::MAX)
}

/// Divides the descriptors: a quarter is kept back for stores, logs and programs, a quarter is for
/// the admin listener, and the rest for the public one, whose uploads need one for a file besides
/// the connection.
///
/// Returns the limits of the admin and of the public listener.
pub(super) fn limits(
    descriptors: usize,
    settings: &ConnectionSettings,
) -> (ConnectionLimits, ConnectionLimits) {
    let quarter = (descriptors / 4).max(1);
    let admin = ConnectionLimits {
        total: quarter.min(MAX_CONNECTIONS),
        per_address: None,
        per_worker: None,
        trusted_proxies: vec![],
    };
    let total = settings.total.unwrap_or(MAX_CONNECTIONS).min(quarter);
    let part = (total / 4).max(1);
    let public = ConnectionLimits {
        total,
        // Of a small number, too, no address and no account may have all.
        per_address: settings.per_address.map(|limit| limit.min(part)),
        per_worker: Some((total - part).max(1)),
        trusted_proxies: settings.trusted_proxies.clone(),
    };
    (admin, public)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(total: Option<usize>) -> ConnectionSettings {
        ConnectionSettings {
            total,
            per_address: Some(7),
            trusted_proxies: vec![],
        }
    }

    #[test]
    fn half_of_the_descriptors_are_kept_for_files_and_stores() {
        for (descriptors, total, admin, public) in [
            (1024, None, 256, 256),
            (500, None, 125, 125),
            (500, Some(20), 125, 20),
            (500, Some(1000), 125, 125),
            (1 << 20, None, MAX_CONNECTIONS, MAX_CONNECTIONS),
            (1 << 20, Some(100_000), MAX_CONNECTIONS, 100_000),
            (1, None, 1, 1),
        ] {
            let (of_admin, of_public) = limits(descriptors, &settings(total));
            assert_eq!(
                (of_admin.total, of_public.total),
                (admin, public),
                "{descriptors}"
            );
            assert_eq!(
                (of_admin.per_address, of_public.per_address),
                (None, Some(7.min((public / 4).max(1))))
            );
            assert!(of_public.per_worker.unwrap() < of_public.total.max(2));
        }
    }
}
