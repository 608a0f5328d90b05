//! The values that the program works with, checked and in its own types. `bootstrap::convert` makes
//! an adapter's configuration of each, so that neither settings nor adapters know each other.

use crate::{
    domain::{
        access::AdminToken, audit::AuditRetention, host::HostPattern, publish::PublishPolicy,
    },
    services::CoordinatorConfig,
};
use ipnet::IpNet;
use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};
use url::Url;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
    /// One JSON object a line, in the fields of Google's Cloud Logging.
    Gcp,
}

/// How the watcher polls active runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSettings {
    /// The time between two rounds over all active runs.
    pub interval: Duration,
    /// The number of workers that are pinged at the same time.
    pub max_concurrent_pings: usize,
}

/// How requests to workers are guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedHttpSettings {
    /// The timeout of a short request, its response included.
    pub timeout: Duration,
    /// How long a log that is read from a worker may send nothing.
    pub log_stall: Duration,
    /// How long reading a log from a worker may take in all.
    pub log_total: Duration,
    /// The networks in which workers may be.
    pub allowed_networks: Vec<IpNet>,
    /// The `User-Agent` of the requests.
    pub user_agent: String,
}

/// A login for the repositories of a host.
#[derive(Clone, PartialEq, Eq)]
pub struct VcsLogin {
    /// The host.
    pub host: String,
    /// The name of the user.
    pub username: String,
    /// The password, or token.
    pub password: String,
}

impl fmt::Debug for VcsLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcsLogin")
            .field("host", &self.host)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How branches are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcsSettings {
    /// Whether to probe nothing.
    pub use_cached_only: bool,
    /// The hosts that may be asked.
    pub allowed_hosts: Vec<HostPattern>,
    /// The networks in which they may be.
    pub allowed_networks: Vec<IpNet>,
    /// How long a probe may take.
    pub timeout: Duration,
    /// The logins for hosts.
    pub logins: Vec<VcsLogin>,
    /// The ssh command of git; none: nothing is asked by ssh.
    pub ssh_command: Option<String>,
    /// The `User-Agent` of the requests.
    pub user_agent: String,
}

/// What clients of the HTTP API may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The size of a JSON body in bytes.
    pub json_body: u64,
    /// The size of the report of an upload in bytes.
    pub report: u64,
    /// The size of one file of an upload in bytes.
    pub upload_file: u64,
    /// The size of a whole upload in bytes.
    pub upload: u64,
    /// The size of all uploads that are being received, in bytes.
    pub uploads: u64,
    /// The same of one worker.
    pub uploads_of_worker: u64,
    /// The number of files in an upload.
    pub upload_files: u64,
    /// How long an upload may send nothing, in seconds.
    pub upload_idle_seconds: u64,
    /// By how many milliseconds a response is delayed for a client that is refused again at once.
    pub refusal_delay_milliseconds: u64,
    /// How many responses are delayed at the same time.
    pub max_delayed_refusals: u64,
}

/// How many connections clients may have to the public API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The number of connections in all; none: as many as the process may have.
    pub total: Option<usize>,
    /// The number of connections of one address without login; none: any number.
    pub per_address: Option<usize>,
    /// The networks of proxies, whose connections are those of many clients.
    pub trusted_proxies: Vec<IpNet>,
}

/// How a Postgres server is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The URL of the database, with its secrets: `postgresql://…`.
    pub url: String,
    /// The size of the connection pool.
    pub max_connections: u32,
    /// The server cancels a statement that takes longer.
    pub statement_timeout: Duration,
    /// Maximum number of connections for lists and figures.
    pub read_connections: u32,
    /// The server cancels a statement for a list or a figure that takes longer.
    pub read_timeout: Duration,
}

/// How requests to Google Cloud Storage are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// They are not: for emulators and public buckets.
    Anonymous,
    /// With the key file of a service account.
    File(PathBuf),
    /// With what Google's own programs would find in the environment.
    Default,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcsSettings {
    /// The name of the bucket.
    pub bucket: String,
    /// The URL of the service, when it is not Google's.
    pub endpoint: Option<String>,
    /// How requests are authenticated.
    pub credentials: GcsCredentials,
}

/// How requests to S3 are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// They are not: for emulators and public buckets.
    Anonymous,
    /// With this key.
    Key {
        /// The id of the key.
        id: String,
        /// Its secret.
        secret: String,
    },
    /// With the key that the environment or the shared files have.
    Default,
    /// With the key that the metadata service of the host provides.
    Metadata,
}

/// A bucket of S3, or of a service that speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The name of the bucket.
    pub bucket: String,
    /// The URL of the service, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// How requests are signed.
    pub credentials: S3Credentials,
    /// The canned ACL of objects; none: the bucket's own rules.
    pub acl: Option<String>,
}

/// The store of queue, runs, candidates, codebases and workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// sled, in this directory.
    Sled(PathBuf),
    /// redb, in this directory.
    Redb(PathBuf),
    /// The memory of the process.
    Memory,
    /// A Postgres database.
    Postgres(PostgresSettings),
}

/// The store of artifacts or logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileStore {
    /// This directory.
    Directory(PathBuf),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsSettings),
    /// A bucket of S3.
    S3(S3Settings),
}

/// Describes the store for people, without secrets.
impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sled(path) => write!(f, "sled in {}", path.display()),
            Self::Redb(path) => write!(f, "redb in {}", path.display()),
            Self::Memory => f.write_str("memory"),
            Self::Postgres(settings) => {
                let url = Url::parse(&settings.url).ok();
                let host = url
                    .as_ref()
                    .and_then(Url::host_str)
                    .unwrap_or("the usual socket");
                write!(
                    f,
                    "Postgres, database {} at {host}",
                    url.as_ref()
                        .map_or("", |url| url.path().trim_start_matches('/'))
                )
            }
        }
    }
}

/// Describes the store for people, without secrets.
impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Gcs(settings) => write!(f, "gs://{}", settings.bucket),
            Self::S3(settings) => write!(f, "s3://{}", settings.bucket),
        }
    }
}

/// What an API listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address, or the name of a host.
    Host(String),
    /// The Unix socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Returns whether other machines may reach the address, as far as can be said without looking
    /// a name up.
    pub(super) fn is_beyond_this_machine(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Host(host) => match host.parse::<IpAddr>() {
                Ok(address) => !address.is_loopback(),
                Err(_) => host != "localhost",
            },
        }
    }
}

/// The files of a certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate, and those that lead from it to the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where the admin API listens, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen_address: ListenAddress,
    /// The names by which it is reached, besides those that are allowed anyway.
    pub hosts: Vec<String>,
    /// Whether it may be open to other machines without tokens.
    pub open: bool,
    /// The tokens.
    pub tokens: Vec<AdminToken>,
    /// The certificate; none: the API has no TLS.
    pub tls: Option<TlsSettings>,
}

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store of queue, runs, candidates, codebases and workers.
    pub store: StoreChoice,
    /// The URL of the Redis server that mirrors active runs; none: they are not mirrored.
    pub coordination: Option<String>,
    /// The URL of the Redis server that gets events; none: they stay in this process.
    pub events: Option<String>,
    /// The store of artifacts.
    pub artifacts: FileStore,
    /// The store of logs.
    pub logs: FileStore,
    /// The directory that keeps files while their store is unavailable; none: there is no fallback.
    pub backup_directory: Option<PathBuf>,
    /// The directory that receives uploads until they are complete.
    pub spool: PathBuf,
    /// The bytes of each upload that may be buffered in memory.
    pub upload_memory: usize,
    /// Where the public API listens.
    pub listen_address: ListenAddress,
    /// The port of the admin API.
    pub port: u16,
    /// The port of the public API for workers; none: there is no such API.
    pub public_port: Option<u16>,
    /// How the watcher polls active runs.
    pub poll: PollSettings,
    /// How requests to workers are guarded.
    pub guarded_http: GuardedHttpSettings,
    /// How branches are probed.
    pub vcs: VcsSettings,
    /// How long requests in progress may take once the process is shutting down.
    pub shutdown: Duration,
    /// The publish policies to store at the start.
    pub publish_policies: Vec<PublishPolicy>,
    /// What clients of the HTTP API may send.
    pub limits: RequestLimits,
    /// How many connections there may be.
    pub connections: ConnectionSettings,
    /// The filter of log lines, such as `info` or `janitor_runner=debug,warn`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// How much of the audit log is kept.
    pub audit: AuditRetention,
    /// What the use cases depend on. It consists of domain values only; a copy of it in this module
    /// would have the same 10 fields and no other meaning, so the services' own type is used.
    pub coordinator: CoordinatorConfig,
    /// Where the admin API listens, and who may use it.
    pub admin: AdminSettings,
    /// The certificate of the public API; none: it has no TLS.
    pub tls: Option<TlsSettings>,
}
