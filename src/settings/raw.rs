//! Settings as they are written.

use super::size::Size;
use crate::domain::{publish::BranchPolicy, retry::Afterwards};
use serde::Deserialize;
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) store: String,
    pub(super) coordination: Option<String>,
    pub(super) events: Option<String>,
    pub(super) artifacts: String,
    pub(super) logs: String,
    pub(super) spool: PathBuf,
    pub(super) backup_directory: Option<PathBuf>,
    pub(super) listen_address: IpAddr,
    pub(super) port: u16,
    pub(super) public_port: u16,
    pub(super) run_timeout_minutes: u32,
    pub(super) keepalive_interval_seconds: u32,
    pub(super) shutdown_seconds: u32,
    pub(super) avoid_hosts: Vec<String>,
    pub(super) use_cached_only: bool,
    pub(super) public_vcs_location: Option<String>,
    pub(super) dep_server_url: Option<String>,
    pub(super) apt_archive_location: Option<String>,
    pub(super) apt_archive_key: Option<String>,
    pub(super) committer: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) publish_policies: BTreeMap<String, Vec<BranchPolicy>>,
    #[serde(default)]
    pub(super) campaign: Vec<RawCampaign>,
    #[serde(default)]
    pub(super) distribution: Vec<RawDistribution>,
    pub(super) watch: RawWatch,
    pub(super) backchannel: RawBackchannel,
    pub(super) workers: RawWorkers,
    pub(super) retry: Vec<RawRetry>,
    pub(super) postgres: RawPostgres,
    pub(super) gcs: RawGcs,
    pub(super) s3: RawS3,
    pub(super) limits: RawLimits,
    pub(super) telemetry: RawTelemetry,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatch {
    pub(super) lease_seconds: u32,
    pub(super) ping_after_seconds: u32,
    pub(super) suspect_after_seconds: u32,
    pub(super) max_concurrent_pings: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackchannel {
    pub(super) timeout_seconds: u32,
    pub(super) log_stall_seconds: u32,
    pub(super) log_total_seconds: u32,
    pub(super) allowed_networks: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorkers {
    pub(super) quarantine_after: u32,
    pub(super) quarantine_codes: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pub(super) name: String,
    #[serde(default)]
    pub(super) codes: Vec<String>,
    pub(super) stage: Option<String>,
    pub(super) transient: Option<bool>,
    pub(super) attempts: u32,
    #[serde(default)]
    pub(super) delay_seconds: u32,
    pub(super) factor: Option<f64>,
    pub(super) max_delay_seconds: Option<u32>,
    pub(super) jitter: Option<f64>,
    pub(super) then: Afterwards,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPostgres {
    pub(super) max_connections: u32,
    pub(super) statement_timeout_seconds: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGcs {
    pub(super) endpoint: Option<String>,
    pub(super) credentials: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawS3 {
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    pub(super) log_bucket: String,
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) json_body: Size,
    pub(super) upload_file: Size,
    pub(super) upload: Size,
    pub(super) upload_memory: Size,
    pub(super) upload_files: u64,
    pub(super) upload_idle_seconds: u64,
    pub(super) live_logs: Size,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    pub(super) log: String,
    pub(super) format: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCampaign {
    pub(super) name: String,
    pub(super) command: Option<String>,
    pub(super) branch_name: Option<String>,
    #[serde(default)]
    pub(super) force_build: bool,
    #[serde(default)]
    pub(super) skip_setup_validation: bool,
    #[serde(default)]
    pub(super) default_empty: bool,
    pub(super) generic_build: Option<RawGenericBuild>,
    pub(super) debian_build: Option<RawDebianBuild>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGenericBuild {
    pub(super) chroot: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDebianBuild {
    pub(super) base_distribution: String,
    #[serde(default)]
    pub(super) extra_build_distribution: Vec<String>,
    pub(super) chroot: Option<String>,
    pub(super) build_distribution: Option<String>,
    pub(super) build_suffix: Option<String>,
    pub(super) build_command: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDistribution {
    pub(super) name: String,
    pub(super) archive_mirror_uri: Option<String>,
    pub(super) signed_by: Option<String>,
    pub(super) chroot: Option<String>,
    #[serde(default)]
    pub(super) component: Vec<String>,
    pub(super) lintian_profile: Option<String>,
    #[serde(default)]
    pub(super) lintian_suppress_tag: Vec<String>,
    pub(super) build_command: Option<String>,
    pub(super) vendor: Option<String>,
}
