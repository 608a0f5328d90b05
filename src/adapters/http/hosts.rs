//! The names by which the admin API is reached, and the web pages that may write to it.
//!
//! A page of somebody else's in an operator's browser can send requests to every address that the
//! browser reaches. It cannot change what the browser says about it: `Host` is the name in the
//! address, also when a page has had its own name lead to this machine (DNS rebinding), and
//! `Origin` and `Sec-Fetch-Site` say which page sends. Tools send none of the last two.

use super::error::ApiError;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Authority,
};
use std::net::IpAddr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How much of a name that is refused is returned.
const MAX_SHOWN_LENGTH: usize = 100;

/// The names by which the admin API is reached.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    names: Vec<String>,
    /// The parts from the dot on of names that begin with `*`.
    suffixes: Vec<String>,
}

/// A host and a port, as a `Host` header or a URL has them.
#[derive(Debug, PartialEq, Eq)]
struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    fn parse(text: &[u8]) -> Option<Self> {
        // A user has no place here, and would hide which part is the host.
        let authority = Authority::try_from(text)
            .ok()
            .filter(|authority| !authority.as_str().contains('@'))?;
        let port = authority.port().map(|port| port.as_str().parse());
        let host = authority.host();
        Some(Self {
            host: host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
            port: port.transpose().ok()?,
        })
    }

    /// Returns this without the port that the scheme implies.
    fn for_scheme(self, scheme: &str) -> Self {
        let implied = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Self {
            port: self.port.filter(|port| Some(*port) != implied),
            ..self
        }
    }
}

/// Returns whether no page can have its own name be this one: an address, or a name without a dot,
/// which nobody can register.
fn is_nobodys(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl Hosts {
    /// Creates the names of a setting; `*.NAME` means every name below.
    pub fn new(names: &[String]) -> Self {
        let (suffixes, names): (Vec<_>, Vec<_>) = names
            .iter()
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
            .partition(|name| name.starts_with("*."));
        let suffixes = suffixes.iter().filter_map(|name| name.strip_prefix('*'));
        Self {
            suffixes: suffixes.map(str::to_owned).collect(),
            names,
        }
    }

    fn allows(&self, host: &str) -> bool {
        is_nobodys(host)
            || self.names.iter().any(|name| name == host)
            || self.suffixes.iter().any(|suffix| {
                host.strip_suffix(suffix.as_str())
                    .is_some_and(|below| !below.is_empty())
            })
    }

    /// Refuses requests for names that are none of this service's. A request without a name passes:
    /// browsers always send one.
    ///
    /// # Errors
    ///
    /// 403, which names the setting.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        // A request may also have the name in its first line.
        let in_line = uri
            .authority()
            .map(|authority| authority.as_str().as_bytes());
        let named = headers
            .get_all(header::HOST)
            .iter()
            .map(HeaderValue::as_bytes)
            .filter(|host| !host.is_empty());
        for name in named.chain(in_line) {
            let is_allowed = HostPort::parse(name).is_some_and(|name| self.allows(&name.host));
            if !is_allowed {
                let shown: String = String::from_utf8_lossy(name)
                    .chars()
                    .take(MAX_SHOWN_LENGTH)
                    .collect();
                return Err(ApiError::problem(
                    StatusCode::FORBIDDEN,
                    format!(
                        "{shown:?} is not a name of this service; the setting admin.hosts lists \
                         those by which it may be reached"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Returns whether a page of this origin is one of the host that the request is for.
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let own = || {
        let origin = std::str::from_utf8(origin).ok()?;
        let (scheme, authority) = origin.split_once("://")?;
        let origin = HostPort::parse(authority.as_bytes())?.for_scheme(scheme);
        let host = HostPort::parse(headers.get(header::HOST)?.as_bytes())?.for_scheme(scheme);
        Some(origin == host)
    };
    own().unwrap_or(false)
}

/// Refuses requests that change something and are sent by a web page of another host.
///
/// # Errors
///
/// 403.
pub fn check_page(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    // `none` is what the operator does by hand, not a page.
    let is_foreign = origins.any(|origin| !is_own(origin.as_bytes(), headers))
        || sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if is_foreign {
        return Err(ApiError::problem(
            StatusCode::FORBIDDEN,
            "web pages of other hosts may not change anything here (Origin, Sec-Fetch-Site)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(&["janitor.example.com".to_owned(), "*.example.org".to_owned()])
    }

    fn with(headers: &[(HeaderName, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(HeaderName, &'static str)| {
            (name.clone(), HeaderValue::from_static(value))
        };
        headers.iter().map(header).collect()
    }

    #[test]
    fn names_of_the_service_pass() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9911",
            "[::1]:9911",
            "10.0.0.1",
            "localhost:1",
            "LOCALHOST.",
            "runner:9911",
            "janitor_runner",
            "janitor.example.com",
            "Janitor.Example.Com.:443",
            "a.example.org",
            "a.b.example.org:80",
            "",
        ] {
            let headers = with(&[(header::HOST, host)]);
            assert!(
                hosts().check(&Uri::from_static("/"), &headers).is_ok(),
                "{host}"
            );
        }
        assert!(
            hosts()
                .check(&Uri::from_static("/"), &HeaderMap::new())
                .is_ok()
        );
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "example.org",
            "xexample.org",
            ".example.org",
            "localhost.evil.example:9911",
            "janitor.example.com.evil.example",
            "evil.example@127.0.0.1",
            "127.0.0.1@evil.example",
            "a b",
            "[::1",
        ] {
            let headers = with(&[(header::HOST, host)]);
            assert!(
                hosts().check(&Uri::from_static("/"), &headers).is_err(),
                "{host}"
            );
        }
        let headers = with(&[(header::HOST, "localhost")]);
        let line = Uri::from_static("http://evil.example/");
        assert!(hosts().check(&line, &headers).is_err());
        let mut twice = headers;
        twice.append(header::HOST, "evil.example".parse().unwrap());
        assert!(hosts().check(&Uri::from_static("/"), &twice).is_err());
    }

    fn is_refused(method: Method, headers: &[(HeaderName, &'static str)]) -> bool {
        check_page(&method, &with(headers)).is_err()
    }

    #[test]
    fn writes_of_other_pages_are_refused() {
        let host = (header::HOST, "127.0.0.1:9911");
        for (name, value) in [
            (header::ORIGIN, "https://evil.example"),
            (header::ORIGIN, "null"),
            (header::ORIGIN, ""),
            (header::ORIGIN, "http://127.0.0.1:9912"),
            (header::ORIGIN, "http://127.0.0.1"),
            (header::ORIGIN, "http://127.0.0.1:9911.evil.example"),
            (header::ORIGIN, "http://evil.example@127.0.0.1:9911"),
            (SEC_FETCH_SITE, "cross-site"),
            (SEC_FETCH_SITE, "same-site"),
        ] {
            let headers = [host.clone(), (name, value)];
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert!(is_refused(method, &headers), "{headers:?}");
            }
            assert!(!is_refused(Method::GET, &headers), "{headers:?}");
        }
        assert!(is_refused(Method::POST, &[(header::ORIGIN, "http://a")]));
    }

    #[test]
    fn writes_of_tools_and_own_pages_pass() {
        assert!(!is_refused(Method::POST, &[]));
        for (host, name, value) in [
            ("127.0.0.1:9911", header::ORIGIN, "http://127.0.0.1:9911"),
            ("a.example", header::ORIGIN, "https://a.example"),
            ("a.example:443", header::ORIGIN, "https://a.example"),
            ("A.example", header::ORIGIN, "http://a.example:80"),
            ("[::1]:9911", header::ORIGIN, "http://[::1]:9911"),
            ("a", SEC_FETCH_SITE, "same-origin"),
            ("a", SEC_FETCH_SITE, "none"),
        ] {
            let headers = [(header::HOST, host), (name, value)];
            assert!(!is_refused(Method::POST, &headers), "{headers:?}");
        }
    }
}
