//! The client of a running service's admin API. It speaks the types of [`crate::adapters::wire`].

use crate::http_client::http_client_builder;
use anyhow::{Context, Result, ensure};
use clap::Args;
use reqwest::{Client, Method, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{convert::Infallible, fmt, marker::PhantomData, path::PathBuf, str::FromStr};

/// Which service to talk to, and how to print what it returns.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// URL of the service's admin API, or unix:PATH
    #[arg(
        long,
        env = "JANITOR_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9911"
    )]
    pub(super) server: String,
    /// Token for the admin API; other users of the machine see it, unlike that of a file
    #[arg(
        long,
        env = "JANITOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<Token>,
    /// File with the token for the admin API
    #[arg(
        long,
        env = "JANITOR_TOKEN_FILE",
        hide_env_values = true,
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

impl ServerArgs {
    pub(super) fn client(&self) -> Result<Server> {
        let mut server = Server::new(&self.server)?;
        server.token = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("--token-file {}", path.display()))?;
                let token = text.trim();
                let is_token =
                    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
                ensure!(
                    is_token && !token.starts_with('{'),
                    "--token-file {}: it is not a token alone",
                    path.display()
                );
                Some(Token(token.to_owned()))
            }
            None => self.token.clone(),
        };
        Ok(server)
    }
}

/// A token for the admin API, which is never shown.
#[derive(Clone)]
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Token {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// The service has refused a request.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    detail: String,
}

impl Refused {
    /// Returns whether the arguments of the command are the reason.
    pub(super) fn is_usage(&self) -> bool {
        matches!(
            self.status,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
        )
    }

    /// Returns whether there is nothing of the name that was asked for.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == StatusCode::UNAUTHORIZED {
            return write!(
                f,
                "{}: the service needs a token: --token-file, or JANITOR_TOKEN_FILE or \
                 JANITOR_TOKEN in the environment",
                self.status
            );
        }
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Refused {}

/// The parameters of a query.
pub(super) type Query<'a> = &'a [(&'static str, String)];

/// A JSON response whose type is known. The JSON is kept as it came, because `--json` prints also
/// the fields that this version does not know.
pub(super) struct Reply<T> {
    pub(super) json: Value,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Reply<T> {
    async fn read(response: Response) -> Result<Self> {
        Ok(Self {
            json: response.json().await?,
            of: PhantomData,
        })
    }

    pub(super) fn parse(self) -> Result<T> {
        serde_json::from_value(self.json)
            .context("the service is of another version: its response cannot be read")
    }
}

/// A running service.
pub(super) struct Server {
    http: Client,
    base: String,
    token: Option<Token>,
    /// What the user knows the service by.
    name: String,
}

impl Server {
    pub(super) fn new(base: &str) -> Result<Self> {
        let (builder, url) = match base.strip_prefix("unix:") {
            // The name in the URL is not looked up.
            Some(path) => (http_client_builder().unix_socket(path), "http://localhost"),
            None => (http_client_builder(), base),
        };
        Ok(Self {
            http: builder.build()?,
            base: url.trim_end_matches('/').to_owned(),
            token: None,
            name: base.to_owned(),
        })
    }

    /// Returns the URL of a path. Its segments are names, which are escaped, since they may have
    /// any characters.
    fn url(&self, path: &[&str], query: Query<'_>) -> Result<url::Url> {
        let mut url: url::Url = self
            .base
            .parse()
            .with_context(|| format!("--server {}", self.base))?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--server {} is not an http URL", self.base))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn send<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &[&str],
        query: Query<'_>,
        body: Option<&B>,
    ) -> Result<Response> {
        let mut request = self.http.request(method, self.url(path, query)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(&token.0);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("no service answers at {}", self.name))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = (response.status(), response.text().await.unwrap_or_default());
        // Most errors are problem details in JSON, those of the Python runner's endpoints have a
        // reason or are text.
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = ["detail", "reason"]
            .iter()
            .find_map(|key| problem.get(key)?.as_str())
            .unwrap_or(&text)
            .to_owned();
        Err(Refused { status, detail }.into())
    }

    /// Sends a GET request whose response is not JSON.
    pub(super) async fn get_raw(&self, path: &[&str], query: Query<'_>) -> Result<Response> {
        self.send::<()>(Method::GET, path, query, None).await
    }

    pub(super) async fn get<T>(&self, path: &[&str], query: Query<'_>) -> Result<Reply<T>>
    where
        T: DeserializeOwned,
    {
        Reply::read(self.get_raw(path, query).await?).await
    }

    /// Fetches every page of a list; returns all entries of `field`.
    pub(super) async fn get_pages<T>(&self, path: &[&str], field: &str) -> Result<Reply<Vec<T>>>
    where
        T: DeserializeOwned,
    {
        let (mut entries, mut query) = (vec![], vec![]);
        loop {
            let mut page = self.get::<Value>(path, &query).await?.json;
            if let Some(Value::Array(more)) = page.get_mut(field).map(Value::take) {
                entries.extend(more);
            }
            query = match page.get("next") {
                None | Some(Value::Null) => break,
                Some(Value::String(cursor)) => vec![("cursor", cursor.clone())],
                Some(cursor) => vec![("cursor", cursor.to_string())],
            };
        }
        Ok(Reply {
            json: Value::Array(entries),
            of: PhantomData,
        })
    }

    pub(super) async fn post<T, B>(&self, path: &[&str], body: &B) -> Result<Reply<T>>
    where
        T: DeserializeOwned,
        B: Serialize + ?Sized,
    {
        Reply::read(self.send(Method::POST, path, &[], Some(body)).await?).await
    }

    /// Sends a POST request without a body.
    pub(super) async fn post_empty<T>(&self, path: &[&str]) -> Result<Reply<T>>
    where
        T: DeserializeOwned,
    {
        Reply::read(self.send::<()>(Method::POST, path, &[], None).await?).await
    }

    pub(super) async fn put<T, B>(&self, path: &[&str], body: &B) -> Result<Reply<T>>
    where
        T: DeserializeOwned,
        B: Serialize + ?Sized,
    {
        Reply::read(self.send(Method::PUT, path, &[], Some(body)).await?).await
    }

    pub(super) async fn delete(&self, path: &[&str], query: Query<'_>) -> Result<()> {
        self.send::<()>(Method::DELETE, path, query, None)
            .await
            .map(drop)
    }
}
