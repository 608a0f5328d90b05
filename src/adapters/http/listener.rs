//! What an API listens on: TCP, or a Unix socket, with TLS or without.

use super::tls::{self, TlsFiles};
use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

/// A connection.
pub type Stream = Either<TcpStream, UnixStream>;

/// A connection, with TLS if its listener has it.
pub type MaybeEncrypted = Either<Stream, Box<TlsStream<Stream>>>;

/// How long the start of a TLS connection may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket to listen on.
#[derive(Debug)]
pub enum Socket {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// What an API listens on.
pub struct Listener {
    socket: Socket,
    tls: Option<TlsAcceptor>,
}

/// Where an API can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Tcp {
        /// The address and the port.
        address: SocketAddr,
        /// Whether connections have TLS.
        has_tls: bool,
    },
    /// The path of a Unix socket; empty when it has none.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Returns the URL for the command line's `--server`.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp {
                address,
                has_tls: true,
            } => format!("https://{address}"),
            Self::Tcp { address, .. } => format!("http://{address}"),
            Self::Unix(_) => self.to_string(),
        }
    }
}

/// Begins TLS on a connection, if its listener has it.
///
/// # Errors
///
/// Returns an error when the client does not speak TLS, or takes too long.
pub(super) async fn encrypt(
    stream: Stream,
    tls: Option<TlsAcceptor>,
) -> io::Result<MaybeEncrypted> {
    let Some(tls) = tls else {
        return Ok(Either::Left(stream));
    };
    let encrypted = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    Ok(Either::Right(Box::new(encrypted)))
}

impl Listener {
    /// Listens on a socket, with TLS if there are files of a certificate.
    ///
    /// # Errors
    ///
    /// Returns an error when the files cannot be used.
    pub fn new(socket: Socket, tls: Option<&TlsFiles>) -> io::Result<Self> {
        let tls = tls.map(tls::acceptor).transpose()?;
        Ok(Self { socket, tls })
    }

    /// Returns where the API can be reached.
    ///
    /// # Errors
    ///
    /// Returns an error when the system does not say.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Address::Tcp {
                address: listener.local_addr()?,
                has_tls: self.tls.is_some(),
            },
            Socket::Unix(listener) => {
                let address = listener.local_addr()?;
                Address::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default())
            }
        })
    }

    /// Returns what TLS begins with, if there is any.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    /// Accepts a connection; returns it with the address that it comes from, if it has one.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot disable the delay of a connection");
                }
                Ok((Either::Left(stream), Some(peer)))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), None))
            }
        }
    }
}
