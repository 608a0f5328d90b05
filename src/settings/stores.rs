//! Which store is behind each port, read from a URL.

use super::{
    raw::{RawGcs, RawPostgres, RawS3},
    secrets::with_secrets,
    validate::{at_least_one, filled},
    values::{
        FileStore, GcsCredentials, GcsSettings, PostgresSettings, S3Credentials, S3Settings,
        StoreChoice,
    },
};
use crate::domain::Invalid;
use std::time::Duration;
use url::Url;

/// What helps with most URLs that are none.
const ESCAPE: &str =
    " (a password in it must be percent-escaped, which {file:PATH} does by itself)";
/// The schemes of locations; `SCHEME:` without slashes after it is no path but a mistake.
const SCHEMES: [&str; 10] = [
    "gs",
    "s3",
    "http",
    "https",
    "file",
    "postgresql",
    "postgres",
    "redis",
    "rediss",
    "ftp",
];

/// Reads the key `store`.
pub(super) fn store(text: &str, postgres: &RawPostgres) -> Result<StoreChoice, Invalid> {
    let text = with_secrets("store", text)?;
    let settings = PostgresSettings {
        // With a single connection, one transaction would block every other request.
        max_connections: at_least_one("postgres.max_connections", postgres.max_connections)?.max(2),
        statement_timeout: Duration::from_secs(
            at_least_one(
                "postgres.statement_timeout_seconds",
                postgres.statement_timeout_seconds,
            )?
            .into(),
        ),
        read_connections: at_least_one("postgres.read_connections", postgres.read_connections)?,
        read_timeout: Duration::from_secs(
            at_least_one(
                "postgres.read_timeout_seconds",
                postgres.read_timeout_seconds,
            )?
            .into(),
        ),
        url: text.clone(),
    };
    match text.split_once(':') {
        Some(("memory", "")) => Ok(StoreChoice::Memory),
        Some(("sled", path)) if !path.is_empty() => Ok(StoreChoice::Sled(path.into())),
        Some(("redb", path)) if !path.is_empty() => Ok(StoreChoice::Redb(path.into())),
        Some(("postgresql" | "postgres", rest)) if rest.starts_with("//") => {
            server_url("store", &text).map(|_| StoreChoice::Postgres(settings))
        }
        _ => Err(Invalid::new(
            "store",
            "is none of sled:PATH, redb:PATH, memory: and postgresql://…",
        )),
    }
}

/// Parses the URL of a server. A password with a slash or a question mark in it ends the host's part
/// early: half of the password would be looked up as the name of a host.
fn server_url(field: &str, text: &str) -> Result<Url, Invalid> {
    let url =
        Url::parse(text).map_err(|e| Invalid::new(field, format!("is not a URL: {e}{ESCAPE}")))?;
    if url.username().is_empty() && (url.path().contains('@') || text.contains("?@")) {
        let reason = format!("has a login after its host{ESCAPE}");
        return Err(Invalid::new(field, reason));
    }
    Ok(url)
}

/// Reads the URL of a Redis server; an empty one is none.
pub(super) fn redis(field: &str, text: Option<&str>) -> Result<Option<String>, Invalid> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = with_secrets(field, text)?;
    let url = server_url(field, &text)?;
    match url.scheme() {
        "redis" | "rediss" if url.has_host() => Ok(Some(text)),
        "unix" | "redis+unix" => redis_socket(field, url).map(Some),
        _ => Err(Invalid::new(
            field,
            "is none of redis://…, rediss://… and unix:/PATH",
        )),
    }
}

/// Reads the URL of a Redis server's socket. Python's client has the user before the path and calls
/// the password `password`; ours has both in the query.
fn redis_socket(field: &str, mut url: Url) -> Result<String, Invalid> {
    let invalid = |reason: &str| Invalid::new(field, reason);
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
        return Err(invalid("names no socket, as unix:/run/redis.sock does"));
    }
    let names = |name: &str| match name {
        "password" => "pass".to_owned(),
        "username" => "user".to_owned(),
        _ => name.to_owned(),
    };
    let query: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| (names(&name), value.into_owned()))
        .collect();
    if query.is_empty() {
        url.set_query(None);
    } else {
        url.query_pairs_mut().clear().extend_pairs(query);
    }
    Ok(url.into())
}

fn bucket(field: &str, url: &str) -> Result<String, Invalid> {
    let bucket = url
        .split_once("://")
        .map_or("", |(_, rest)| rest)
        .trim_end_matches('/');
    if bucket.is_empty() || bucket.contains('/') {
        Err(Invalid::new(field, "names no bucket, as gs://BUCKET/ does"))
    } else {
        Ok(bucket.to_owned())
    }
}

fn gcs(bucket: String, raw: &RawGcs) -> GcsSettings {
    let credentials = match raw.credentials.as_str() {
        "anonymous" => GcsCredentials::Anonymous,
        "default" => GcsCredentials::Default,
        file => GcsCredentials::File(file.into()),
    };
    GcsSettings {
        bucket,
        endpoint: filled(raw.endpoint.clone()),
        credentials,
    }
}

/// Reads how requests to S3 are signed.
fn s3_credentials(raw: &RawS3) -> Result<S3Credentials, Invalid> {
    let secret = |field: &str, value: &Option<String>| {
        value
            .as_deref()
            .map(|value| with_secrets(field, value))
            .transpose()
            .map(|value| value.and_then(|value| filled(Some(value))))
    };
    let key = (
        secret("s3.access_key_id", &raw.access_key_id)?,
        secret("s3.secret_access_key", &raw.secret_access_key)?,
    );
    match (raw.credentials.as_str(), key) {
        ("default", (Some(id), Some(secret))) => Ok(S3Credentials::Key { id, secret }),
        ("default", (None, None)) => Ok(S3Credentials::Default),
        ("metadata", (None, None)) => Ok(S3Credentials::Metadata),
        ("anonymous", (None, None)) => Ok(S3Credentials::Anonymous),
        ("default" | "metadata" | "anonymous", (Some(_), None) | (None, Some(_))) => {
            Err(Invalid::new(
                "s3.access_key_id",
                "needs s3.secret_access_key, and the other way round",
            ))
        }
        ("metadata" | "anonymous", (Some(_), Some(_))) => Err(Invalid::new(
            "s3.credentials",
            "must be \"default\" when s3.access_key_id is set",
        )),
        _ => Err(Invalid::new(
            "s3.credentials",
            "is none of \"default\", \"metadata\" and \"anonymous\"",
        )),
    }
}

fn s3(bucket: String, endpoint: Option<String>, raw: &RawS3) -> Result<S3Settings, Invalid> {
    Ok(S3Settings {
        bucket,
        endpoint,
        region: raw.region.clone(),
        credentials: s3_credentials(raw)?,
        acl: None,
    })
}

/// Reads the key `artifacts` or `logs`.
pub(super) fn files(
    field: &str,
    text: &str,
    raw_gcs: &RawGcs,
    raw_s3: &RawS3,
) -> Result<FileStore, Invalid> {
    let text = with_secrets(field, text)?;
    match text.split_once("://") {
        None if text.is_empty() => Err(Invalid::new(field, "must not be empty")),
        // A folder of that name would have a secret in it.
        None if text
            .split_once(':')
            .is_some_and(|(scheme, _)| SCHEMES.contains(&scheme)) =>
        {
            Err(Invalid::new(field, "has no // after its scheme"))
        }
        None => Ok(FileStore::Directory(text.into())),
        Some(("file", path)) => Ok(FileStore::Directory(path.into())),
        Some(("gs", _)) => Ok(FileStore::Gcs(gcs(bucket(field, &text)?, raw_gcs))),
        Some(("s3", _)) => Ok(FileStore::S3(s3(
            bucket(field, &text)?,
            filled(raw_s3.endpoint.clone()),
            raw_s3,
        )?)),
        // A janitor.conf names the URL of a service that speaks S3's protocol, and no bucket.
        Some(("http" | "https", _)) if field == "logs" => Ok(FileStore::S3(S3Settings {
            acl: filled(Some(raw_s3.log_acl.clone())),
            ..s3(raw_s3.log_bucket.clone(), Some(text), raw_s3)?
        })),
        Some(_) => Err(Invalid::new(
            field,
            "is none of PATH, gs://BUCKET/ and s3://BUCKET/",
        )),
    }
}
