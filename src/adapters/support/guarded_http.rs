//! Requests to addresses that workers named: guarded, since nobody knows what is there. They go only to allowed networks,
//! follow no redirects, and end in time however slowly the other side drips.

use crate::ports::{Fault, artifact_store::FileReader, fault::causes};
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use reqwest::{
    Client, Method, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, HeaderMap, RANGE},
    redirect::Policy,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::StreamReader;
use url::{Host, Url};

/// What is read of an answer that should be small.
const SMALL: usize = 64 << 10;

/// How workers are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedHttpSettings {
    /// How long a small question may take, answer included.
    pub patience: Duration,
    /// How long a log may stand still, and how long reading it may take.
    pub log_stall: Duration,
    #[expect(missing_docs)]
    pub log_total: Duration,
    /// Where workers may be.
    pub allowed_networks: Vec<IpNet>,
    /// What the runner calls itself.
    pub user_agent: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::adapters) enum GuardedHttpError {
    /// Nobody listens there.
    #[error("nobody listens at {0}")]
    Refused(String),
    /// It is not allowed to call there.
    #[error("{0} is not in the allowed networks")]
    Forbidden(String),
    /// There was no whole answer in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    /// It failed otherwise.
    #[error("{0}")]
    Failed(String),
}

/// A small answer.
pub(in crate::adapters) struct Answer {
    pub(in crate::adapters) status: StatusCode,
    pub(in crate::adapters) body: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Link-local addresses, where clouds keep their secrets, only when one of the networks is of that kind.
    fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let local: u8 = match address {
            IpAddr::V4(v4) if v4.is_link_local() => 16,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => 10,
            _ => 0,
        };
        self.0
            .iter()
            .any(|network| network.contains(&address) && network.prefix_len() >= local)
    }
}

impl Resolve for Networks {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| networks.allow(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(format!("{} is not in the allowed networks", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Calls workers; clones share connections.
#[derive(Debug, Clone)]
pub struct GuardedClient {
    client: Client,
    networks: Networks,
    settings: GuardedHttpSettings,
}

fn is_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

impl GuardedClient {
    /// With these settings.
    pub fn new(settings: GuardedHttpSettings) -> Result<Self, Fault> {
        let networks = Networks(settings.allowed_networks.clone().into());
        let client = Client::builder()
            .user_agent(&settings.user_agent)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(settings.patience)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .dns_resolver(networks.clone())
            .build();
        let client = client.map_err(|e| Fault::backend("set up calls to workers", e))?;
        Ok(Self {
            client,
            networks,
            settings,
        })
    }

    /// The URL of a path below a worker's own.
    pub(in crate::adapters) fn url(base: &str, path: &[&str]) -> Result<Url, GuardedHttpError> {
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

    fn check(&self, url: &Url) -> Result<(), GuardedHttpError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            // Names are checked when they are resolved.
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.networks.allow(address) {
            Ok(())
        } else {
            Err(GuardedHttpError::Forbidden(address.to_string()))
        }
    }

    fn explained(url: &Url, error: &reqwest::Error) -> GuardedHttpError {
        if is_refused(error) {
            return GuardedHttpError::Refused(format!(
                "{}:{}",
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or_default()
            ));
        }
        // The first says the URL, which may hold a password.
        GuardedHttpError::Failed(
            causes(error)
                .last()
                .map_or_else(|| "the request failed".to_owned(), ToString::to_string),
        )
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        end: Instant,
    ) -> Result<Response, GuardedHttpError> {
        self.check(url)?;
        let sent = timeout_at(
            end,
            self.client
                .request(method, url.clone())
                .headers(headers)
                .send(),
        )
        .await;
        sent.map_err(|_| GuardedHttpError::TooSlow(self.settings.patience))?
            .map_err(|error| Self::explained(url, &error))
    }

    /// Asks something small.
    pub(in crate::adapters) async fn ask(
        &self,
        method: Method,
        url: &Url,
    ) -> Result<Answer, GuardedHttpError> {
        let end = Instant::now() + self.settings.patience;
        let json_or_text = HeaderMap::from_iter([(
            ACCEPT,
            reqwest::header::HeaderValue::from_static("application/json, text/plain;q=0.9"),
        )]);
        let mut response = self.send(method, url, json_or_text, end).await?;
        let (status, mut body) = (response.status(), vec![]);
        loop {
            let chunk = timeout_at(end, response.chunk())
                .await
                .map_err(|_| GuardedHttpError::TooSlow(self.settings.patience))?;
            let Some(chunk) = chunk.map_err(|error| Self::explained(url, &error))? else {
                return Ok(Answer { status, body });
            };
            body.extend_from_slice(&chunk);
            if body.len() > SMALL {
                return Err(GuardedHttpError::Failed(format!(
                    "it answers with more than {SMALL} bytes"
                )));
            }
        }
    }

    /// Opens something large, from that byte on where the other side can do that.
    pub(in crate::adapters) async fn open(
        &self,
        url: &Url,
        offset: u64,
    ) -> Result<(Response, Instant), GuardedHttpError> {
        let mut headers = HeaderMap::new();
        if let Ok(range) = format!("bytes={offset}-").parse()
            && offset > 0
        {
            headers.insert(RANGE, range);
        }
        let end = Instant::now() + self.settings.log_total;
        Ok((
            self.send(
                Method::GET,
                url,
                headers,
                Instant::now() + self.settings.patience,
            )
            .await?,
            end,
        ))
    }

    /// The body of what was opened; an error once it stands still, or goes on for too long.
    pub(in crate::adapters) fn body(&self, (response, end): (Response, Instant)) -> FileReader {
        let stall = self.settings.log_stall;
        let slow = |_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the worker sends nothing any more, or for too long",
            )
        };
        let chunks = response.bytes_stream().map_err(io::Error::other);
        let guarded = futures::stream::unfold(Some(chunks.boxed()), move |chunks| async move {
            let mut chunks = chunks?;
            let next = async { timeout(stall, chunks.next()).await };
            match timeout_at(end, next).await.and_then(|next| next) {
                Ok(None) => None,
                Ok(Some(chunk)) => Some((chunk, Some(chunks))),
                Err(elapsed) => Some((Err(slow(elapsed)), None)),
            }
        });
        Box::new(StreamReader::new(guarded.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks(
            list.iter()
                .map(|network| network.parse().unwrap())
                .collect(),
        )
    }

    #[test]
    fn link_local_addresses_must_be_named() {
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
        assert!(networks(&["169.254.0.0/16"]).allow("169.254.1.1".parse().unwrap()));
        assert!(!networks(&["10.0.0.0/8"]).allow("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn paths_are_added_to_what_a_worker_named() {
        for base in ["http://w:1/x", "http://w:1/x/"] {
            assert_eq!(
                GuardedClient::url(base, &["logs", "a/b?"])
                    .unwrap()
                    .as_str(),
                "http://w:1/x/logs/a%2Fb%3F"
            );
        }
        assert!(
            GuardedClient::url("mailto:x", &["a"]).is_err()
                && GuardedClient::url("nonsense", &["a"]).is_err()
        );
    }
}
