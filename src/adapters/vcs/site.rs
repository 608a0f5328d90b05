//! Requests to forges: redirects are followed by hand, so that each place is checked before it is
//! asked.

use super::failure::{self, Failure};
use crate::{
    adapters::support::guarded_http::GuardedClient,
    domain::{
        host::{HostPattern, host_of, normalize},
        percent, redact,
    },
    ports::{Clock, artifact_store::FileReader},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
};
use std::{cmp::Reverse, fmt, sync::Arc};
use tokio::time::Instant;
use url::{Host, Origin, Url};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// The length from which on secrets are hidden, in bytes: shorter ones are found in any text.
const MIN_SECRET: usize = 4;

/// A login for the repositories of a host.
#[derive(Clone, PartialEq, Eq)]
pub struct HostLogin {
    /// The host.
    pub host: String,
    /// The name of the user.
    pub username: String,
    /// The password, or token.
    pub password: String,
}

impl fmt::Debug for HostLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostLogin")
            .field("host", &self.host)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What may be asked, and how.
#[derive(Clone)]
pub(super) struct Site {
    /// For times until which a host wants to be left alone.
    pub(super) clock: Arc<dyn Clock>,
    pub(super) http: GuardedClient,
    pub(super) allowed_hosts: Vec<HostPattern>,
    pub(super) logins: Vec<HostLogin>,
}

/// The requests of one probe.
pub(super) struct Session<'a> {
    site: &'a Site,
    /// The login in the URL that was given, for the place that it was given for.
    login: Option<(Origin, HeaderValue)>,
    end: Instant,
}

/// A response that says success.
pub(super) struct Answer {
    /// The URL that it came from, after redirects.
    pub(super) url: Url,
    /// The content type, in lower case and without parameters.
    pub(super) content_type: String,
    pub(super) body: FileReader,
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns a part of a URL without percent-encoding.
pub(super) fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent::unescape(text)).into_owned()
}

/// Returns the login that a URL has in it, as the value of a header. A token may stand there alone.
fn login_in(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    basic(
        &decoded(url.username()),
        &decoded(url.password().unwrap_or_default()),
    )
}

/// Returns the secrets of a login, as a server sees them.
fn secrets(username: &str, password: &str) -> [String; 2] {
    // A token may stand alone, as the user.
    let secret = match password {
        "" => username,
        password => password,
    };
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    [secret.to_owned(), encoded]
}

/// Hides secrets in what the server of a repository said, which may repeat what it was sent.
fn hide_secrets(said: &str, logins: &[HostLogin], repository: &str) -> String {
    let url = Url::parse(repository).ok();
    let in_url = url.filter(|url| login_in(url).is_some()).map(|url| {
        let [username, password] = [url.username(), url.password().unwrap_or_default()];
        let raw = secrets(username, password);
        let sent = secrets(&decoded(username), &decoded(password));
        raw.into_iter().chain(sent)
    });
    let all = logins
        .iter()
        .flat_map(|login| secrets(&login.username, &login.password))
        .chain(in_url.into_iter().flatten());
    let mut long: Vec<String> = all.filter(|secret| secret.len() >= MIN_SECRET).collect();
    // One may begin like another.
    long.sort_by_key(|secret| Reverse(secret.len()));
    let shown = long.into_iter().fold(said.to_owned(), |text, secret| {
        replace_in_any_case(&text, &secret)
    });
    Failure::shown(&redact::redact(&shown))
}

/// Hides a secret in a text, in whatever case a server repeats it.
fn replace_in_any_case(text: &str, secret: &str) -> String {
    let (folded, wanted) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (mut shown, mut end) = (String::new(), 0);
    for (start, _) in folded.match_indices(&wanted) {
        // Lower case of ASCII has the same length.
        shown.push_str(text.get(end..start).unwrap_or_default());
        shown.push_str(redact::HIDDEN);
        end = start + secret.len();
    }
    shown.push_str(text.get(end..).unwrap_or_default());
    shown
}

/// Returns whether a request to a URL can be read by nobody on the way.
fn is_private(url: &Url) -> bool {
    let is_this_machine = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || is_this_machine
}

/// Returns the host and the port of the setting of a login; without a port, that of the scheme.
fn host_and_port(setting: &str) -> (&str, Option<u16>) {
    let parts = setting.rsplit_once(':');
    match parts.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host, Some(port)),
        None => (setting, None),
    }
}

/// Returns a URL without a user and a password.
pub(super) fn without_login(mut url: Url) -> Url {
    // These fail only for URLs that cannot have either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

impl Site {
    /// Checks that a host may be asked, before its name is looked up.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Other`] when it may not.
    pub(super) fn check_host(&self, host: &str) -> Result<(), Failure> {
        let host = normalize(host);
        if self
            .allowed_hosts
            .iter()
            .any(|allowed| allowed.matches(&host))
        {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "{host} is not one of vcs.allowed_hosts"
        )))
    }

    fn login_of(&self, url: &Url) -> Option<HeaderValue> {
        let host = host_of(url.as_str())?;
        let is_for = |login: &&HostLogin| {
            let (of_login, port) = host_and_port(&login.host);
            // `Url` leaves out the port of the scheme.
            let has_port = port == url.port() || port == url.port_or_known_default();
            normalize(of_login) == host && has_port
        };
        let mut logins = self.logins.iter();
        let login = logins.find(is_for).filter(|_| is_private(url))?;
        basic(&login.username, &login.password)
    }

    /// Hides secrets in what the server of a repository said, which may repeat what it was sent.
    pub(super) fn hide_secrets(&self, said: &str, repository: &str) -> String {
        hide_secrets(said, &self.logins, repository)
    }

    /// Begins the requests of a probe of a URL, which must be done by `end`.
    pub(super) fn session(&self, url: &Url, end: Instant) -> Session<'_> {
        Session {
            site: self,
            login: login_in(url).map(|login| (url.origin(), login)),
            end,
        }
    }
}

impl Session<'_> {
    fn login_of(&self, url: &Url) -> Option<HeaderValue> {
        // Of the host that is asked, and of no other that a redirect led from.
        let given = self
            .login
            .as_ref()
            .filter(|(origin, _)| *origin == url.origin());
        given
            .map(|(_, login)| login.clone())
            .or_else(|| self.site.login_of(url))
    }

    /// Sends a request and follows its redirects.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] when there is no response in time, or one that says failure.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut url = without_login(url);
        for _ in 0..=MAX_REDIRECTS {
            self.site.check_host(url.host_str().unwrap_or_default())?;
            let mut headers = headers.clone();
            if let Some(login) = self.login_of(&url) {
                headers.insert(AUTHORIZATION, login);
            }
            let (method, body) = (method.clone(), body.clone());
            let request = self
                .site
                .http
                .exchange(method, &url, headers, body, self.end);
            let download = request.await?;
            let status = download.status();
            if status.is_redirection() {
                url = target(&url, download.headers().get(LOCATION))?;
                continue;
            }
            if let Some(failure) =
                failure::of_response(status, download.headers(), self.site.clock.now())
            {
                return Err(failure);
            }
            return Ok(Answer {
                url,
                content_type: content_type(download.headers()),
                body: download.into_reader(),
            });
        }
        Err(Failure::Other(format!(
            "more than {MAX_REDIRECTS} redirects"
        )))
    }

    pub(super) async fn get(&self, url: Url, headers: HeaderMap) -> Result<Answer, Failure> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.unwrap_or_default().trim().to_ascii_lowercase()
}

/// Returns where a redirect leads.
fn target(from: &Url, location: Option<&HeaderValue>) -> Result<Url, Failure> {
    let location = location.and_then(|location| location.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    let Some(target) = target else {
        return Err(Failure::other("a redirect that leads nowhere"));
    };
    match (from.scheme(), target.scheme()) {
        ("http" | "https", "https") | ("http", "http") => Ok(without_login(target)),
        (_, scheme) => Err(Failure::Other(format!(
            "a redirect from {} to {scheme}",
            from.scheme()
        ))),
    }
}

/// Returns the URL of a path below another URL.
///
/// # Errors
///
/// Returns [`Failure::Other`] when the URL has no paths.
pub(super) fn below(base: &Url, path: &[&str]) -> Result<Url, Failure> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| Failure::other("the URL has no path"))?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

/// Returns the URL without the end of its path, and without a query and a final slash.
///
/// # Errors
///
/// Returns [`Failure::NotThere`] when its path does not end so: a redirect led to something else.
pub(super) fn above(url: &Url, end: &str) -> Result<Url, Failure> {
    let Some(path) = url.path().strip_suffix(end) else {
        return Err(Failure::NotThere("redirected to something else".to_owned()));
    };
    let path = path.trim_end_matches('/').to_owned();
    let mut url = without_login(url.clone());
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(&path);
    Ok(url)
}

/// Returns a URL as it is stored: one without a path has no slash either.
pub(super) fn text_of(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_in_a_url_is_taken_as_it_is_written() {
        for (url, login) in [
            ("https://u:a&b=c+d%26%3D%2B%25@h/", Some("u:a&b=c+d&=+%")),
            ("https://token@h/", Some("token:")),
            ("https://:p=@h/", Some(":p=")),
            ("https://h/", None),
        ] {
            let value = login_in(&Url::parse(url).unwrap());
            let expected = login.map(|login| format!("Basic {}", BASE64_STANDARD.encode(login)));
            let value = value.map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(value, expected, "{url}");
        }
    }

    #[test]
    fn repeated_logins_are_hidden() {
        let login = HostLogin {
            host: "h".into(),
            username: "bot".into(),
            password: "s3cret".into(),
        };
        let short = HostLogin {
            password: "s3cr".into(),
            ..login.clone()
        };
        let said = "no access for s3cret, ym90onmzy3jlda==, p%40SS or p@ss; bot";
        let logins = [short, login];
        let shown = hide_secrets(said, &logins, "https://u:p%40ss@h/x");
        assert_eq!(shown, "no access for ***, ***, *** or ***; bot");
        let long = format!("{}s3cret", "x".repeat(246));
        let shown = hide_secrets(&long, &logins, "https://h/x");
        assert!(shown.ends_with("x***"), "{shown}");
    }

    #[test]
    fn logins_are_sent_in_private_only() {
        for (url, is_it) in [
            ("https://h/x", true),
            ("http://h/x", false),
            ("http://127.0.0.1:80/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("http://localhost.example/x", false),
        ] {
            assert_eq!(is_private(&Url::parse(url).unwrap()), is_it, "{url}");
        }
    }
}
