//! The one HTTP client for URLs that come from outside, and that no operator has checked.
//!
//! Such a URL may point anywhere, also at services that only this machine can reach (server-side
//! request forgery). Requests therefore go only to allowed networks, whatever name leads there; they
//! follow no redirects, use no proxy, and end in time however slowly the other side sends.

use super::networks::Networks;
use crate::{
    adapters::off_thread,
    ports::{Fault, artifact_store::FileReader},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use reqwest::{
    Client, Method, RequestBuilder, StatusCode,
    header::{ACCEPT, HeaderMap, HeaderValue, RANGE},
    redirect::Policy,
};
use serde::de::DeserializeOwned;
use std::{io, net::IpAddr, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::{Host, Url};

/// How many bytes the body of a response may have, unless it is streamed.
const MAX_BODY_SIZE: usize = 64 << 10;

/// The limits of a [`GuardedClient`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedHttpSettings {
    /// How long a request may take: with its body, or up to the headers when the body is streamed.
    pub timeout: Duration,
    /// How long a streamed body may make no progress.
    pub stall_timeout: Duration,
    /// How long a streamed body may take in total.
    pub transfer_timeout: Duration,
    /// The networks that requests may go to.
    pub allowed_networks: Vec<IpNet>,
    /// The value of the header `User-Agent`.
    pub user_agent: String,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardedHttpError {
    /// Nothing listens at that host and port.
    #[error("nobody listens at {0}")]
    Refused(String),
    /// The address is not in the allowed networks.
    #[error("{0} is not in the allowed networks")]
    Forbidden(String),
    /// The response was not complete in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The request failed for another reason.
    #[error("{0}")]
    Failed(String),
}

/// A complete response.
pub(crate) struct Response {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The body, of a bounded size.
    pub(crate) body: Vec<u8>,
}

/// A response whose body is streamed.
pub(crate) struct Download {
    response: reqwest::Response,
    stall_timeout: Duration,
    end: Instant,
}

/// An HTTP client for URLs from outside; clones share connections.
#[derive(Debug, Clone)]
pub struct GuardedClient {
    client: Client,
    networks: Networks,
    settings: GuardedHttpSettings,
}

fn has_cause(error: &reqwest::Error, kind: io::ErrorKind) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == kind)
}

impl GuardedClient {
    /// Creates a client with these limits.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when the client cannot be set up.
    pub fn new(settings: GuardedHttpSettings) -> Result<Self, Fault> {
        let networks = Networks::new(&settings.allowed_networks);
        let client = Client::builder()
            .user_agent(&settings.user_agent)
            // A redirect, or a proxy, could lead past the check of the address.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(settings.timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .dns_resolver(networks.clone())
            .build();
        let client = client.map_err(|e| Fault::backend("set up the HTTP client", e))?;
        Ok(Self {
            client,
            networks,
            settings,
        })
    }

    /// Returns the URL of a path below a base URL; each segment is escaped.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError::Failed`] when the base is not a URL that has paths.
    pub(crate) fn url(base: &str, path: &[&str]) -> Result<Url, GuardedHttpError> {
        let failed =
            |why: String| GuardedHttpError::Failed(format!("its address cannot be used: {why}"));
        let mut url: Url = base
            .parse()
            .map_err(|e: url::ParseError| failed(e.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| failed("it has no path".to_owned()))?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    /// Checks an address that is part of the URL, which is never resolved.
    fn check_address(&self, url: &Url) -> Result<(), GuardedHttpError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            // Names are checked when they are resolved, by [`Networks`].
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.networks.allow(address) {
            Ok(())
        } else {
            Err(GuardedHttpError::Forbidden(address.to_string()))
        }
    }

    fn explain(&self, url: &Url, error: &reqwest::Error) -> GuardedHttpError {
        // Also connecting and the handshake of TLS, which end by a deadline of the client's own.
        if error.is_timeout() || has_cause(error, io::ErrorKind::TimedOut) {
            return GuardedHttpError::Timeout(self.settings.timeout);
        }
        if has_cause(error, io::ErrorKind::ConnectionRefused) {
            return GuardedHttpError::Refused(format!(
                "{}:{}",
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or_default()
            ));
        }
        let causes =
            std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        // The first message has the URL, which may contain a password; the last one is the cause.
        GuardedHttpError::Failed(
            causes
                .last()
                .map_or_else(|| "the request failed".to_owned(), ToString::to_string),
        )
    }

    /// Sends a request; returns once the headers of the response are there.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        end: Instant,
    ) -> Result<reqwest::Response, GuardedHttpError> {
        let request = self.client.request(method, url.clone()).headers(headers);
        self.send_request(request, url, end).await
    }

    async fn send_request(
        &self,
        request: RequestBuilder,
        url: &Url,
        end: Instant,
    ) -> Result<reqwest::Response, GuardedHttpError> {
        self.check_address(url)?;
        let sent = timeout_at(end, request.send()).await;
        sent.map_err(|_| GuardedHttpError::Timeout(self.settings.timeout))?
            .map_err(|error| self.explain(url, &error))
    }

    /// Sends a request and reads the whole response, which should be JSON or plain text.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when no complete response arrives in time, or the body is too
    /// large. A status that says failure is no error.
    #[tracing::instrument(
        name = "http.client.request", level = "debug", skip_all,
        fields(method = %method, host = url.host_str())
    )]
    pub(crate) async fn request(
        &self,
        method: Method,
        url: &Url,
    ) -> Result<Response, GuardedHttpError> {
        // One deadline for all of it: a timeout for each read would let a slow peer go on for ever.
        let end = Instant::now() + self.settings.timeout;
        let json_or_text = HeaderMap::from_iter([(
            ACCEPT,
            HeaderValue::from_static("application/json, text/plain;q=0.9"),
        )]);
        let mut response = self.send(method, url, json_or_text, end).await?;
        let (status, mut body) = (response.status(), vec![]);
        loop {
            let chunk = timeout_at(end, response.chunk())
                .await
                .map_err(|_| GuardedHttpError::Timeout(self.settings.timeout))?;
            let Some(chunk) = chunk.map_err(|error| self.explain(url, &error))? else {
                return Ok(Response { status, body });
            };
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY_SIZE {
                return Err(GuardedHttpError::Failed(format!(
                    "it answers with more than {MAX_BODY_SIZE} bytes"
                )));
            }
        }
    }

    /// Sends a `GET` request and parses the response, of at most `limit` bytes, while it arrives.
    /// Fields that `T` does not have need no memory.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when no response arrives in time. A status that says failure is
    /// no error; its body is not read.
    #[tracing::instrument(
        name = "http.client.read_json", level = "debug", skip_all, fields(host = url.host_str())
    )]
    pub(crate) async fn read_json<T: DeserializeOwned + Send + 'static>(
        &self,
        url: &Url,
        limit: u64,
    ) -> Result<(StatusCode, serde_json::Result<T>), GuardedHttpError> {
        let end = Instant::now() + self.settings.timeout;
        let json = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let response = self.send(Method::GET, url, json, end).await?;
        let status = response.status();
        if !status.is_success() {
            let unread = serde_json::from_str("");
            return Ok((status, unread));
        }
        let download = Download {
            response,
            stall_timeout: self.settings.timeout,
            end,
        };
        let body = SyncIoBridge::new(download.into_reader().take(limit));
        // The reader fails at `end`, so that the thread is not kept for longer.
        let parsed = off_thread("read a response", move || {
            serde_json::from_reader(io::BufReader::new(body))
        });
        let parsed = parsed
            .await
            .map_err(|error| GuardedHttpError::Failed(error.to_string()))?;
        match parsed {
            Err(_) if Instant::now() >= end => {
                Err(GuardedHttpError::Timeout(self.settings.timeout))
            }
            parsed => Ok((status, parsed)),
        }
    }

    /// Sends a request whose response is streamed, and complete by `end`.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when no response arrives in time. A status that says failure is
    /// no error.
    #[tracing::instrument(
        name = "http.client.exchange", level = "debug", skip_all,
        fields(method = %method, host = url.host_str())
    )]
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        end: Instant,
    ) -> Result<Download, GuardedHttpError> {
        let request = self.client.request(method, url.clone()).headers(headers);
        Ok(Download {
            response: self.send_request(request.body(body), url, end).await?,
            stall_timeout: self.settings.stall_timeout,
            end,
        })
    }

    /// Checks that a host has addresses in the allowed networks, for a program that looks it up once
    /// more itself.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when it has others too, or none that are known by `end`.
    pub(crate) async fn check_networks_of(
        &self,
        host: &str,
        end: Instant,
    ) -> Result<(), GuardedHttpError> {
        let found = timeout_at(end, tokio::net::lookup_host((host, 0))).await;
        let found = found.map_err(|_| GuardedHttpError::Timeout(self.settings.timeout))?;
        let mut found = found.map_err(|e| GuardedHttpError::Failed(e.to_string()))?;
        match found.all(|address| self.networks.allow(address.ip())) {
            true => Ok(()),
            false => Err(GuardedHttpError::Forbidden(host.to_owned())),
        }
    }

    /// Connects to a host by TCP, under the same rules as those for requests.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when there is no connection by `end`.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        end: Instant,
    ) -> Result<TcpStream, GuardedHttpError> {
        let failed = |error: io::Error| GuardedHttpError::Failed(error.to_string());
        let connecting = async {
            let allowed = self.networks.look_up(host, port).await.map_err(failed)?;
            if allowed.is_empty() {
                return Err(GuardedHttpError::Forbidden(host.to_owned()));
            }
            TcpStream::connect(&*allowed).await.map_err(failed)
        };
        let connected = timeout_at(end, connecting).await;
        connected.map_err(|_| GuardedHttpError::Timeout(self.settings.timeout))?
    }

    /// Sends a `GET` request whose response is streamed, from that byte on where the server
    /// supports ranges.
    ///
    /// # Errors
    ///
    /// Returns [`GuardedHttpError`] when no response arrives in time. A status that says failure is
    /// no error.
    #[tracing::instrument(
        name = "http.client.open", level = "debug", skip_all, fields(host = url.host_str(), offset)
    )]
    pub(crate) async fn open(&self, url: &Url, offset: u64) -> Result<Download, GuardedHttpError> {
        let mut headers = HeaderMap::new();
        if let Ok(range) = format!("bytes={offset}-").parse()
            && offset > 0
        {
            headers.insert(RANGE, range);
        }
        let started = Instant::now();
        let headers_end = started + self.settings.timeout;
        Ok(Download {
            response: self.send(Method::GET, url, headers, headers_end).await?,
            stall_timeout: self.settings.stall_timeout,
            end: started + self.settings.transfer_timeout,
        })
    }
}

impl Download {
    /// Returns the HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the body. Reading fails once it stalls, or takes too long in total.
    pub(crate) fn into_reader(self) -> FileReader {
        let Self {
            response,
            stall_timeout,
            end,
        } = self;
        let timed_out = |_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the other side sends nothing any more, or for too long",
            )
        };
        let chunks = response.bytes_stream().map_err(io::Error::other);
        let guarded = futures::stream::unfold(Some(chunks.boxed()), move |chunks| async move {
            let mut chunks = chunks?;
            let next = async { timeout(stall_timeout, chunks.next()).await };
            match timeout_at(end, next).await.and_then(|next| next) {
                Ok(None) => None,
                Ok(Some(chunk)) => Some((chunk, Some(chunks))),
                Err(elapsed) => Some((Err(timed_out(elapsed)), None)),
            }
        });
        Box::new(StreamReader::new(guarded.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        let parsed: Vec<IpNet> = list
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        Networks::new(&parsed)
    }

    #[test]
    fn link_local_addresses_need_a_link_local_network() {
        let (all, none) = (networks(&["0.0.0.0/0", "::/0"]), networks(&[]));
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
        ] {
            assert_eq!(all.allow(address.parse().unwrap()), allowed, "{address}");
            assert!(!none.allow(address.parse().unwrap()), "{address}");
        }
        let link_local = networks(&["169.254.0.0/16"]);
        assert!(link_local.allow("169.254.1.1".parse().unwrap()));
    }

    #[test]
    fn addresses_outside_of_the_networks_are_refused() {
        assert!(!networks(&["10.0.0.0/8"]).allow("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn path_segments_are_escaped_and_appended() {
        for base in ["http://w:1/x", "http://w:1/x/"] {
            let url = GuardedClient::url(base, &["logs", "a/b?"]).unwrap();
            assert_eq!(url.as_str(), "http://w:1/x/logs/a%2Fb%3F");
        }
    }

    #[test]
    fn base_without_paths_is_refused() {
        for base in ["mailto:x", "nonsense"] {
            assert!(GuardedClient::url(base, &["a"]).is_err(), "{base}");
        }
    }
}
