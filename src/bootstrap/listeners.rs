//! The sockets that the service listens on: those that systemd has opened already, or its own.
//!
//! Sockets of systemd outlive the process: connections that arrive while it restarts wait in them,
//! and no worker sees one refused.

use super::unix_socket;
use crate::{
    adapters::http::{Address, Listener, Socket, TlsFiles},
    settings::{ListenAddress, Settings, TlsSettings},
};
use anyhow::{Context, ensure};
use listenfd::ListenFd;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, UnixListener, lookup_host};

/// The names of the sockets (`FileDescriptorName=`), and their order when they have other names.
const NAMES: [&str; 2] = ["admin", "public"];

/// The sockets of the admin and the public API.
pub(super) struct Listeners {
    /// The socket of the admin API.
    pub(super) admin: Listener,
    /// The socket of the public API; none when there is no public API.
    pub(super) public: Option<Listener>,
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
fn inherited() -> anyhow::Result<[Option<Socket>; 2]> {
    let mut passed = ListenFd::from_env();
    let mut sockets = [None, None];
    if passed.len() == 0 {
        return Ok(sockets);
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    for (index, place) in places(&names, passed.len())?.into_iter().enumerate() {
        let socket =
            take(&mut passed, index).with_context(|| format!("LISTEN_FDS: socket {index}"))?;
        if let Some(slot) = sockets.get_mut(place) {
            *slot = socket;
        }
    }
    Ok(sockets)
}

/// Takes a passed socket; a Unix socket is left where it is when a TCP socket is asked for.
fn take(passed: &mut ListenFd, index: usize) -> anyhow::Result<Option<Socket>> {
    if let Ok(socket) = passed.take_unix_listener(index) {
        return socket
            .map(|socket| {
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(UnixListener::from_std(socket)?))
            })
            .transpose();
    }
    passed
        .take_tcp_listener(index)?
        .map(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Socket::Tcp(TcpListener::from_std(socket)?))
        })
        .transpose()
}

/// Looks up the address to listen on, of which a name may have several: the first of IPv4, else the
/// first.
async fn resolve(setting: &str, address: &str) -> anyhow::Result<IpAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found: Vec<SocketAddr> = lookup_host((address, 0))
        .await
        .with_context(|| format!("{setting}: look up the host {address:?}"))?
        .collect();
    let chosen = found.iter().find(|found| found.is_ipv4());
    chosen
        .or(found.first())
        .map(SocketAddr::ip)
        .with_context(|| format!("{setting}: the host {address:?} has no address"))
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
            let port = public_port.unwrap_or_default();
            let socket = listen(public, ("listen_address", &settings.listen_address), port).await?;
            Some(with_tls(socket, ("tls", settings.tls.as_ref()))?)
        };
        let address = ("admin_listen_address", &settings.admin.listen_address);
        let admin = listen(admin, address, settings.port).await?;
        let admin = with_tls(admin, ("admin.tls", settings.admin.tls.as_ref()))?;
        ensure_login(settings, &admin.address()?)?;
        Ok(Self { admin, public })
    }
}

fn with_tls(
    socket: Socket,
    (setting, files): (&str, Option<&TlsSettings>),
) -> anyhow::Result<Listener> {
    let files = files.map(TlsFiles::from);
    Listener::new(socket, files.as_ref()).with_context(|| format!("{setting}: read the files"))
}

/// Refuses an admin API that others can reach without a login, unless the settings want that.
fn ensure_login(settings: &Settings, address: &Address) -> anyhow::Result<()> {
    let is_beyond_this_machine = match address {
        Address::Tcp { address, .. } => !address.ip().to_canonical().is_loopback(),
        Address::Unix(_) => false,
    };
    let admin = &settings.admin;
    ensure!(
        !is_beyond_this_machine || admin.open || !admin.tokens.is_empty(),
        "the admin API has no login, and others can reach it at {address}, who could run commands \
         on workers: add an [[admin.token]] (janitor-runner token add makes one), set \
         admin_listen_address to 127.0.0.1 or unix:PATH, or set admin.open = true"
    );
    Ok(())
}

async fn listen(
    passed: Option<Socket>,
    (setting, address): (&str, &ListenAddress),
    port: u16,
) -> anyhow::Result<Socket> {
    if let Some(socket) = passed {
        return Ok(socket);
    }
    let host = match address {
        ListenAddress::Host(host) => host,
        ListenAddress::Unix(path) => {
            let listener = unix_socket::listen(path)
                .await
                .with_context(|| format!("{setting}: listen on unix:{}", path.display()))?;
            return Ok(Socket::Unix(listener));
        }
    };
    let address = SocketAddr::new(resolve(setting, host).await?, port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    Ok(Socket::Tcp(listener))
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
            resolve("listen_address", "localhost").await.unwrap(),
            IpAddr::from([127, 0, 0, 1])
        );
        assert_eq!(
            resolve("listen_address", "::1").await.unwrap().to_string(),
            "::1"
        );
        let error = format!(
            "{:#}",
            resolve("listen_address", "no such host").await.unwrap_err()
        );
        assert!(error.contains("listen_address"), "{error}");
        assert!(error.contains("no such host"), "{error}");
    }
}
