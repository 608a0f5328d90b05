//! Settings as they are written. The docs of the fields are the descriptions in
//! `config/settings.schema.json`.
//!
//! Every table that `config/default.toml` has is `layered`: a file needs to name only the keys that
//! it changes.

use super::{
    layered::layered,
    raw_admin::{RawAdmin, RawTls},
    raw_vcs::{RawForge, RawVcs},
    size::Size,
};
use crate::domain::{publish::PublishMode, retry::Afterwards};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// The schema of [`PublishMode`], which as a domain type does not know schemas.
fn publish_mode(_: &mut SchemaGenerator) -> Schema {
    let modes: Vec<_> = PublishMode::ALL.iter().map(|(name, _)| *name).collect();
    json_schema!({ "type": "string", "enum": modes })
}

/// The schema of [`Afterwards`], which as a domain type does not know schemas.
fn afterwards(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["park", "reschedule"] })
}

/// The settings of janitor-runner.
///
/// In URLs, `{file:PATH}` and `{env:NAME}` are replaced by the secret that is kept there, escaped
/// for its place in the URL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "Settings of janitor-runner", transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Chooses the store of queue, runs, candidates, codebases and workers: `sled:PATH` or
    /// `redb:PATH` (a folder, for one process), `memory:` (lost with the process) or `postgresql://…`
    /// (any number of processes).
    /// Default: `"sled:./data/db"`. Example:
    /// `"postgresql://janitor:{file:/run/secrets/db}@db/janitor"`.
    pub(super) store: String,
    /// Names the Redis server where active runs are mirrored in the Janitor's hashes, so that its
    /// Python runner can take turns with this one. Default: none, no mirror. Example:
    /// `"redis://localhost/"`.
    pub(super) coordination: Option<String>,
    /// Names the Redis server where the Janitor's other services subscribe to events. Default:
    /// none, no events leave the process. Example: `"redis://localhost/"` or
    /// `"unix:/run/redis/redis.sock"`.
    pub(super) events: Option<String>,
    /// Chooses the store of artifacts: a directory (files are `RUN_ID/NAME`), `gs://BUCKET/` or
    /// `s3://BUCKET/`. Default: `"./data/artifacts"`. Example: `"gs://example-artifacts/"`.
    pub(super) artifacts: String,
    /// Chooses the store of logs: a directory (files are `CODEBASE/RUN_ID/NAME.gz`),
    /// `gs://BUCKET/`, `s3://BUCKET/` or `https://ENDPOINT`, a service that speaks S3's protocol.
    /// Default: `"./data/logs"`. Example: `"s3://example-logs/"`.
    pub(super) logs: String,
    /// Names the directory that receives uploads until they are complete; best on the file system
    /// of the artifacts. Default: `"./data/spool"`. Example: `"/var/lib/janitor-runner/spool"`.
    pub(super) spool: PathBuf,
    /// Names the directory that keeps artifacts and logs while their store is unavailable; each
    /// process needs its own. Default: none, no fallback. Example:
    /// `"/var/lib/janitor-runner/backup"`.
    pub(super) backup_directory: Option<PathBuf>,
    /// Sets the address that the public API for workers listens on: an IP address, the name of a
    /// host, which is looked up once at the start, or `unix:PATH`, a socket with the mode 660.
    /// Default: `"127.0.0.1"`. Example: `"0.0.0.0"`.
    pub(super) listen_address: String,
    /// Sets the port of the admin API; 0 chooses a free one. Default: `9911`.
    pub(super) port: u16,
    /// Sets the port of the public API for workers; 0 means no public API. Default: `9919`.
    pub(super) public_port: u16,
    /// Lists the networks of proxies before the public API, whose connections are those of many
    /// clients. Default: `[]`. Example: `["10.0.0.7/32"]`.
    pub(super) trusted_proxies: Vec<String>,
    /// Sets how many minutes a worker may send no heartbeat and respond to no ping before its run
    /// is ended. Default: `60`.
    pub(super) run_timeout_minutes: u32,
    /// Sets the seconds between two checks of all active runs. Default: `10`.
    pub(super) keepalive_interval_seconds: u32,
    /// Sets how many seconds requests in progress may take after SIGTERM. Default: `30`.
    pub(super) shutdown_seconds: u32,
    /// Lists hosts whose codebases are not assigned. Default: `[]`. Example:
    /// `["salsa.debian.org"]`.
    pub(super) avoid_hosts: Vec<String>,
    /// Assigns items by what is known already, without probing their branches. Default: `false`.
    pub(super) use_cached_only: bool,
    /// Locates the branch store: a base URL (`BASE/git`, `BASE/bzr`), or one URL for each kind.
    /// Default: none. Example: `"git=https://git.example.com/,bzr=https://bzr.example.com/"`.
    pub(super) public_vcs_location: Option<String>,
    /// Sets the URL where workers ask which package provides a missing dependency. Default: none.
    /// Example: `"https://deps.example.com/"`.
    pub(super) dep_server_url: Option<String>,
    /// Sets the URL of the archive of built packages. Default: none. Example:
    /// `"https://apt.example.com/"`.
    pub(super) apt_archive_location: Option<String>,
    /// Sets the path, on the workers, of the key that signs the archive. Default: none.
    /// Example: `"/usr/share/keyrings/janitor.gpg"`.
    pub(super) apt_archive_key: Option<String>,
    /// Sets the author of commits. Default: none, workers decide. Example:
    /// `"Janitor Bot <janitor@example.com>"`.
    pub(super) committer: Option<String>,
    /// Sets the `User-Agent` of requests to workers. Default: none, `janitor-runner/VERSION`.
    /// Example: `"janitor-runner"`.
    pub(super) user_agent: Option<String>,
    /// Maps the name of each publish policy that candidates may name to its rules, one for each
    /// role of a branch. Default: `{}`. Example:
    /// `{ default-policy = [{ role = "main", mode = "propose" }] }`.
    pub(super) publish_policies: BTreeMap<String, Vec<RawBranchPolicy>>,
    /// Lists the campaigns. Default: `[]`.
    #[serde(default)]
    pub(super) campaign: Vec<RawCampaign>,
    /// Lists the distributions that campaigns with a Debian build refer to. Default: `[]`.
    #[serde(default)]
    pub(super) distribution: Vec<RawDistribution>,
    /// Sets how active runs are watched.
    pub(super) watch: RawWatch,
    /// Sets how often a codebase is run in a campaign without being asked for.
    pub(super) intervals: RawIntervals,
    /// Sets how requests to workers are made.
    pub(super) backchannel: RawBackchannel,
    /// Sets how branches are probed.
    pub(super) vcs: RawVcs,
    /// Lists the accounts on forges that own the branches of proposals, which runs resume from.
    /// Default: `[]`.
    #[serde(default)]
    pub(super) forge: Vec<RawForge>,
    /// Sets when workers are quarantined.
    pub(super) workers: RawWorkers,
    /// Lists the failures after which an item is requeued in its own position, rather than being
    /// scheduled anew. The first rule that matches decides; a rule without `codes`, `stage` and
    /// `transient` matches every failure. `[]` means no rules.
    pub(super) retry: Vec<RawRetry>,
    /// Sets how a Postgres server is used, for `store = "postgresql://…"`.
    pub(super) postgres: RawPostgres,
    /// Sets how Google Cloud Storage is used, for `gs://…`.
    pub(super) gcs: RawGcs,
    /// Sets how S3 is used, for `s3://…` and for logs at `https://ENDPOINT`.
    pub(super) s3: RawS3,
    /// Limits what clients may send. Sizes are a number of bytes, or text such as `"64 MiB"`.
    pub(super) limits: RawLimits,
    /// Sets what is logged.
    pub(super) telemetry: RawTelemetry,
    /// Sets the address that the admin API listens on, in the notation of `listen_address`. Beyond
    /// this machine it needs an `[[admin.token]]`, or `admin.open`. Default: `"127.0.0.1"`. Example:
    /// `"unix:/run/janitor-runner/admin.sock"`.
    pub(super) admin_listen_address: String,
    /// Sets who may use the admin API.
    pub(super) admin: RawAdmin,
    /// Sets the certificate of the public API. Default: none, it has no TLS. Example:
    /// `{ certificate = "/etc/janitor-runner/public.pem", key = "/etc/janitor-runner/public.key" }`.
    pub(super) tls: Option<RawTls>,
    /// Sets how much is kept of who changed what.
    pub(super) audit: RawAudit,
}

/// How much is kept of who changed what.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    /// Sets how many days entries of the audit log are kept. Default: `365`.
    pub(super) days: u32,
    /// Sets how many entries are kept; beyond, the oldest are removed. Default: `100000`.
    pub(super) entries: u64,
}

/// A rule for publishing the branches of one role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBranchPolicy {
    /// Names the role of the branch. Example: `"main"`.
    pub(super) role: String,
    /// Sets how the branch is published. Default: `"build-only"`. Example: `"propose"`.
    #[serde(default)]
    #[schemars(schema_with = "publish_mode")]
    pub(super) mode: PublishMode,
    /// Sets the minimum number of days between two publications. Default: none, no minimum.
    /// Example: `7`.
    pub(super) frequency_days: Option<i32>,
}

/// How active runs are watched.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatch {
    /// Sets how many seconds a lease lasts, for workers that ask for one; each heartbeat extends
    /// it. Default: `120`.
    pub(super) lease_seconds: u32,
    /// Sets the seconds without a heartbeat after which a worker without a lease is pinged, and
    /// between two pings. Default: `60`.
    pub(super) ping_after_seconds: u32,
    /// Sets the seconds between a response that says the run is lost and the next ping; the third
    /// such response in a row ends the run. Default: `30`.
    pub(super) suspect_after_seconds: u32,
    /// Sets how many workers are pinged at the same time. Default: `256`.
    pub(super) max_concurrent_pings: u32,
    /// Sets how many minutes a run may take, however alive its worker is, before it is ended; 0
    /// means for ever. A campaign may have a limit of its own. Default: `2880`, two days.
    pub(super) max_run_duration_minutes: u32,
    /// Sets the same for campaigns by their names, those of a `janitor.conf` too. Default: none.
    /// Example: `{ lintian-fixes = 240 }`.
    #[serde(default)]
    pub(super) max_run_duration_minutes_by_campaign: BTreeMap<String, u32>,
}

/// How requests to workers are made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackchannel {
    /// Sets the timeout of a short request in seconds, its response included. Default: `5`.
    pub(super) timeout_seconds: u32,
    /// Sets how many seconds a log that is read from a worker may send nothing. Default: `30`.
    pub(super) log_stall_seconds: u32,
    /// Sets how many seconds reading a log from a worker may take in all. Default: `600`.
    pub(super) log_total_seconds: u32,
    /// Lists the networks in which workers may be. Link-local addresses (`169.254.0.0/16`,
    /// `fe80::/10`) are allowed only if such a network is named. Default: `["0.0.0.0/0", "::/0"]`.
    /// Example: `["10.0.0.0/8"]`.
    pub(super) allowed_networks: Vec<String>,
}

/// How often a codebase is run in a campaign without being asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIntervals {
    /// Sets the minutes after the second run in a row of a pair that ended alike, before which the
    /// next one that nobody asked for is not assigned; they double with each such run. 0: none.
    /// Default: `10`.
    pub(super) first_minutes: u32,
    /// Sets the maximum of these minutes. Default: `1440`.
    pub(super) max_minutes: u32,
}

/// When workers are quarantined.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorkers {
    /// Sets the number of consecutive runs that failed with one of `quarantine_codes` after which a
    /// worker is paused, until somebody ends the pause; 0: never. Default: `5`.
    pub(super) quarantine_after: u32,
    /// Lists the result codes that are held against the worker.
    /// Default: `["worker-failure", "worker-timeout", "run-disappeared"]`.
    pub(super) quarantine_codes: Vec<String>,
    /// Sets the milliseconds by which a response of 401 or 429 is delayed for a client that got one
    /// a moment ago, and asks again at once; 0: not at all. Default: `1000`.
    pub(super) refusal_delay_milliseconds: u32,
    /// Sets how many such responses are delayed at the same time; those beyond are sent at once.
    /// Default: `256`.
    pub(super) max_delayed_refusals: u32,
    /// Sets how many wrong logins of one address are checked in a minute, at least 1; more are
    /// refused with 429. Default: `30`.
    pub(super) wrong_logins_of_address: u32,
    /// Sets the same of one name, from all addresses. Default: `100`.
    pub(super) wrong_logins_of_name: u32,
    /// Limits the active runs of one account on the public API, by runner; 0: no limit. Default:
    /// `100`.
    pub(super) max_runs: u32,
    /// Limits the requests in a second of one account on the public API, by runner; 0: no limit.
    /// Default: `500`.
    pub(super) max_requests_per_second: u32,
}

/// What is done about failures of one kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    /// Names the rule; attempts are counted under this name. Example: `"transient"`.
    pub(super) name: String,
    /// Lists the result codes that match; `*` at the end matches anything. Default: `[]`, every
    /// code. Example: `["worker-timeout", "install-deps-*"]`.
    #[serde(default)]
    pub(super) codes: Vec<String>,
    /// Sets the start of the failure stages that match. Default: none, every stage. Example:
    /// `"deliver/"`.
    pub(super) stage: Option<String>,
    /// Matches only failures that are transient, or that are not. Default: none, both. Example:
    /// `true`.
    pub(super) transient: Option<bool>,
    /// Sets the number of consecutive runs, the first included. Example: `6`.
    pub(super) attempts: u32,
    /// Sets the seconds before the second attempt. Default: `0`. Example: `60`.
    #[serde(default)]
    pub(super) delay_seconds: u32,
    /// Sets the factor by which the delay grows after each attempt, from 1 to 100. Default: `2.0`.
    pub(super) factor: Option<f64>,
    /// Sets the maximum of the delay in seconds. Default: `21600`, or `delay_seconds` when that is
    /// more.
    pub(super) max_delay_seconds: Option<u32>,
    /// Sets the part of the delay, from 0 to 1, that is varied at random. Default: `0.2`.
    pub(super) jitter: Option<f64>,
    /// Sets what follows the last attempt: `"park"` (somebody must unpark the item) or
    /// `"reschedule"` (by the usual arithmetic).
    #[schemars(schema_with = "afterwards")]
    pub(super) then: Afterwards,
}

/// How a Postgres server is used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPostgres {
    /// Sets the size of the connection pool of each process, at least 2. Default: `10`.
    pub(super) max_connections: u32,
    /// Sets the seconds after which the database cancels a statement. Default: `60`.
    pub(super) statement_timeout_seconds: u32,
    /// Sets how many more connections each process has for lists and figures, which people and
    /// monitors ask for. Default: `4`.
    pub(super) read_connections: u32,
    /// Sets the seconds after which the database cancels a statement for these. Default: `15`.
    pub(super) read_timeout_seconds: u32,
}

/// How Google Cloud Storage is used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGcs {
    /// Sets the URL of the service. Default: none, Google's. Example: `"http://localhost:4443"`.
    pub(super) endpoint: Option<String>,
    /// Sets how requests are authenticated: `"anonymous"`, `"default"` (found as Google's own
    /// programs do, which may ask the machine's metadata address) or the path of a key file.
    /// Default: `"default"`. Example: `"/etc/janitor-runner/gcs-key.json"`.
    pub(super) credentials: String,
}

/// How S3 is used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawS3 {
    /// Sets the URL of the service. Default: none, Amazon's. Example: `"https://s3.example.com"`.
    pub(super) endpoint: Option<String>,
    /// Sets the region of the bucket. Default: `"us-east-1"`. Example: `"eu-central-1"`.
    pub(super) region: String,
    /// Names the bucket of logs at `https://ENDPOINT`. Default: `"debian-janitor"`.
    pub(super) log_bucket: String,
    /// Sets the canned ACL of logs at `https://ENDPOINT`, which the Janitor's site reads without a
    /// key. Default: `"public-read"`; `""` leaves it to the bucket.
    pub(super) log_acl: String,
    /// Sets how requests are signed without an access key here: `"default"` (with the key in
    /// `AWS_ACCESS_KEY_ID` and its like, else with that of `AWS_PROFILE` in the shared files below
    /// `~/.aws`), `"metadata"` (with the key that the machine's metadata address provides) or
    /// `"anonymous"` (not at all). Default: `"default"`.
    pub(super) credentials: String,
    /// Sets the id of the access key. Default: none, see `credentials`. Example:
    /// `"{file:/etc/janitor-runner/s3-key-id}"`.
    pub(super) access_key_id: Option<String>,
    /// Sets the secret of the access key. Default: none. Example:
    /// `"{file:/etc/janitor-runner/s3-secret}"`.
    pub(super) secret_access_key: Option<String>,
}

/// What clients may send.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Limits the size of a JSON body of the admin API. A worker's may have 64 KiB. Default:
    /// `"64 MiB"`.
    pub(super) json_body: Size,
    /// Limits the size of the report of an upload, `result.json`. Default: `"8 MiB"`.
    pub(super) report: Size,
    /// Limits the size of one file of an upload. Default: `"8 GiB"`.
    pub(super) upload_file: Size,
    /// Limits the size of a whole upload. Default: `"16 GiB"`.
    pub(super) upload: Size,
    /// Sets how much of each upload is buffered in memory rather than in the spool. Default:
    /// `"64 KiB"`.
    pub(super) upload_memory: Size,
    /// Limits the size of all uploads that are being received at the same time. Default:
    /// `"128 GiB"`.
    pub(super) uploads: Size,
    /// Limits the same of one worker. Default: `"64 GiB"`.
    pub(super) uploads_of_worker: Size,
    /// Limits the number of files in an upload. Default: `10000`.
    pub(super) upload_files: u64,
    /// Sets the seconds without a byte after which an upload, or another body, is aborted, at least
    /// 1. Default: `60`.
    pub(super) upload_idle_seconds: u64,
    /// Limits how much is kept of the logs of a run while it is active. Default: `"16 MiB"`.
    pub(super) live_logs: Size,
    /// Limits the connections to the public API; 0 means as many as the process may have files
    /// open, less those kept back, and at most 16384. Connections without a request are closed for
    /// others. Default: `0`.
    pub(super) connections: u32,
    /// Limits the connections of one address that have not logged in, at most to a quarter of all;
    /// 0 means no limit. Default: `256`.
    pub(super) connections_per_address: u32,
}

/// What is logged.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    /// Sets the level (`error`, `warn`, `info`, `debug` or `trace`), or a filter. Default:
    /// `"info"`. Example: `"janitor_runner=debug,warn"`.
    pub(super) log: String,
    /// Sets the format: `text`, `json`, or `gcp` (JSON in the fields of Google's Cloud Logging).
    /// Default: `"text"`.
    pub(super) format: String,
}

/// A campaign.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCampaign {
    /// Names the campaign: lower-case letters, digits, `+`, `-` and `.`. Example:
    /// `"tidy-whitespace"`.
    pub(super) name: String,
    /// Sets the command that changes a codebase. Default: none, candidates have their own.
    /// Example: `"tidy-up --all"`.
    pub(super) command: Option<String>,
    /// Sets the name of the branch with the changes. Default: none, the campaign's name. Example:
    /// `"tidy"`.
    pub(super) branch_name: Option<String>,
    /// Builds codebases even if nothing was changed. Default: `false`.
    #[serde(default)]
    pub(super) force_build: bool,
    /// Skips the worker's check that the codebase can be built before the change. Default: `false`.
    #[serde(default)]
    pub(super) skip_setup_validation: bool,
    /// Starts codebases without a branch from an empty one. Default: `false`.
    #[serde(default)]
    pub(super) default_empty: bool,
    /// Sets how many minutes a run may take; 0 means for ever. Default: none, that of
    /// `watch.max_run_duration_minutes`. Example: `4320`.
    pub(super) max_run_duration_minutes: Option<u32>,
    /// Builds with a command of the worker's; excludes `debian_build`. Default: none.
    /// Example: `{ chroot = "stable" }`.
    pub(super) generic_build: Option<RawGenericBuild>,
    /// Builds Debian packages; excludes `generic_build`. Default: none.
    /// Example: `{ base_distribution = "unstable" }`.
    pub(super) debian_build: Option<RawDebianBuild>,
}

/// A build with a command of the worker's.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGenericBuild {
    /// Names the chroot to build in. Default: none. Example: `"stable"`.
    pub(super) chroot: Option<String>,
}

/// A build of Debian packages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDebianBuild {
    /// Names the distribution to build against. Example: `"unstable"`.
    pub(super) base_distribution: String,
    /// Lists more distributions whose packages the build may use. Default: `[]`. Example:
    /// `["experimental"]`.
    #[serde(default)]
    pub(super) extra_build_distribution: Vec<String>,
    /// Names the chroot to build in. Default: none, the distribution's. Example:
    /// `"unstable-amd64-sbuild"`.
    pub(super) chroot: Option<String>,
    /// Names the distribution of the built packages. Default: none, the campaign's name. Example:
    /// `"tidy"`.
    pub(super) build_distribution: Option<String>,
    /// Sets what is appended to the version of built packages. Default: none. Example: `"jan"`.
    pub(super) build_suffix: Option<String>,
    /// Sets the command that builds. Default: none, the distribution's. Example: `"sbuild -A -v"`.
    pub(super) build_command: Option<String>,
}

/// A distribution that packages are built for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDistribution {
    /// Names the distribution. Example: `"unstable"`.
    pub(super) name: String,
    /// Sets the URL of its mirror. Default: none. Example: `"https://deb.debian.org/debian"`.
    pub(super) archive_mirror_uri: Option<String>,
    /// Sets the key that signs it: a path on the workers, or the PGP public key itself. Default:
    /// none. Example: `"/usr/share/keyrings/debian-archive-keyring.gpg"`.
    pub(super) signed_by: Option<String>,
    /// Names the chroot to build in. Default: none. Example: `"unstable-amd64-sbuild"`.
    pub(super) chroot: Option<String>,
    /// Lists its components. Default: `[]`. Example: `["main", "contrib"]`.
    #[serde(default)]
    pub(super) component: Vec<String>,
    /// Names the profile for lintian. Default: none. Example: `"debian"`.
    pub(super) lintian_profile: Option<String>,
    /// Lists the tags of lintian that are suppressed. Default: `[]`.
    /// Example: `["bad-distribution-in-changes-file"]`.
    #[serde(default)]
    pub(super) lintian_suppress_tag: Vec<String>,
    /// Sets the command that builds. Default: none. Example: `"sbuild -A -v"`.
    pub(super) build_command: Option<String>,
    /// Names the vendor. Default: none, this machine's. Example: `"debian"`.
    pub(super) vendor: Option<String>,
}
