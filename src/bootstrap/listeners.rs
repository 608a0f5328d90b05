//! The sockets that the service listens on: those that systemd has opened already, or its own.
//!
//! Sockets of systemd outlive the process: connections that arrive while it restarts wait in them,
//! and no worker sees one refused.

use crate::settings::Settings;
use anyhow::{Context, ensure};
use listenfd::ListenFd;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, lookup_host};

/// The names of the sockets (`FileDescriptorName=`), and their order when they have other names.
const NAMES: [&str; 2] = ["admin", "public"];

/// The sockets of the admin and the public API.
pub(super) struct Listeners {
    /// The socket of the admin API.
    pub(super) admin: TcpListener,
    /// The socket of the public API; none when there is no public API.
    pub(super) public: Option<TcpListener>,
}

/// Returns which API each inherited socket is for, by name, or by order when none has a name of
/// ours.
fn places(names: &str, count: usize) -> anyhow::Result<Vec<usize>> {
    let named: Vec<Option<usize>> = names
        .split(':')
        .map(|name| NAMES.iter().position(|known| *known == name))
        .collect();
    if named.iter().all(Option::is_none) {
        ensure!(
            count <= NAMES.len(),
            "LISTEN_FDS: {count} sockets were passed, and only the first two have a use: admin, \
             public"
        );
        return Ok((0..count).collect());
    }
    let places: Option<Vec<usize>> = named.into_iter().collect();
    let places = places.filter(|places| {
        let mut once = places.clone();
        once.sort_unstable();
        once.dedup();
        places.len() == count && once.len() == count
    });
    places.with_context(|| {
        format!("LISTEN_FDNAMES: {names:?} does not name each socket once, admin or public")
    })
}

/// Takes the sockets that systemd has passed on, if any.
fn inherited() -> anyhow::Result<[Option<std::net::TcpListener>; 2]> {
    let mut passed = ListenFd::from_env();
    let mut sockets = [None, None];
    if passed.len() == 0 {
        return Ok(sockets);
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    for (index, place) in places(&names, passed.len())?.into_iter().enumerate() {
        let socket = passed
            .take_tcp_listener(index)
            .with_context(|| format!("LISTEN_FDS: socket {index}"))?;
        if let Some(slot) = sockets.get_mut(place) {
            *slot = socket;
        }
    }
    Ok(sockets)
}

/// Looks up the address to listen on, of which a name may have several: the first of IPv4, else the
/// first.
async fn resolve(address: &str) -> anyhow::Result<IpAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found: Vec<SocketAddr> = lookup_host((address, 0))
        .await
        .with_context(|| format!("listen_address: look up the host {address:?}"))?
        .collect();
    let chosen = found.iter().find(|found| found.is_ipv4());
    chosen
        .or(found.first())
        .map(SocketAddr::ip)
        .with_context(|| format!("listen_address: the host {address:?} has no address"))
}

impl Listeners {
    /// Opens the sockets that systemd has not.
    ///
    /// # Errors
    ///
    /// Returns an error when an address cannot be listened on, or a passed socket not be used.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let [admin, public] = inherited()?;
        let public_port = settings.public_port;
        let public = if public.is_none() && public_port.is_none() {
            None
        } else {
            Some(listen(public, settings, public_port.unwrap_or_default()).await?)
        };
        Ok(Self {
            admin: listen(admin, settings, settings.port).await?,
            public,
        })
    }
}

async fn listen(
    passed: Option<std::net::TcpListener>,
    settings: &Settings,
    port: u16,
) -> anyhow::Result<TcpListener> {
    if let Some(socket) = passed {
        socket.set_nonblocking(true)?;
        return TcpListener::from_std(socket).context("listen on a socket of systemd");
    }
    let address = SocketAddr::new(resolve(&settings.listen_address).await?, port);
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_assigned_by_name_or_by_order() {
        for (names, count, assigned) in [
            ("admin:public", 2, vec![0, 1]),
            ("public:admin", 2, vec![1, 0]),
            ("public", 1, vec![1]),
            ("", 1, vec![0]),
            ("janitor-runner.socket:janitor-runner.socket", 2, vec![0, 1]),
            ("unknown:unknown", 2, vec![0, 1]),
        ] {
            assert_eq!(places(names, count).unwrap(), assigned, "{names}");
        }
    }

    #[test]
    fn sockets_without_a_use_are_an_error() {
        for (names, count) in [
            ("", 3),
            ("admin:admin", 2),
            ("admin:other", 2),
            ("admin:public:x", 3),
            ("admin", 2),
        ] {
            assert!(places(names, count).is_err(), "{names}");
        }
    }

    #[tokio::test]
    async fn host_name_is_looked_up() {
        assert_eq!(
            resolve("localhost").await.unwrap(),
            IpAddr::from([127, 0, 0, 1])
        );
        assert_eq!(resolve("::1").await.unwrap().to_string(), "::1");
        let error = format!("{:#}", resolve("no such host").await.unwrap_err());
        assert!(error.contains("listen_address"), "{error}");
        assert!(error.contains("no such host"), "{error}");
    }
}
