//! From settings as they are written to what the program works with.

use super::{
    raw::{Raw, RawBackchannel, RawCampaign, RawDebianBuild, RawDistribution, RawRetry, RawWatch},
    stores::{self, FileStore, StoreChoice},
};
use crate::{
    adapters::{http::RequestLimits, support::guarded_http::GuardedHttpSettings},
    domain::{
        Invalid,
        build::BuildSettings,
        campaign::{BuildTarget, Campaign, Campaigns, DebianBuild, Distribution},
        host,
        name::CampaignName,
        publish::PublishPolicy,
        quarantine::QuarantinePolicy,
        retry::{RetryRule, RetryRules},
        vcs::VcsStore,
        watch::WatchRules,
    },
    services::{CoordinatorConfig, watch::PollConfig},
};
use chrono::TimeDelta;
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

/// What the pauses between attempts do not grow beyond, when no rule says otherwise.
const LONGEST_DELAY: TimeDelta = TimeDelta::hours(6);

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// JSON lines.
    Json,
    /// JSON lines in Cloud Logging's fields.
    Gcp,
}

/// What the program works with.
#[derive(Debug, Clone)]
#[expect(missing_docs)]
pub struct Settings {
    pub store: StoreChoice,
    /// Redis, for the Janitor's hashes.
    pub coordination: Option<String>,
    /// Redis, for its channels; none means this process.
    pub events: Option<String>,
    pub artifacts: FileStore,
    pub logs: FileStore,
    pub backup_directory: Option<PathBuf>,
    pub spool: PathBuf,
    /// Bytes of each upload that may wait in memory.
    pub upload_memory: usize,
    pub listen_address: IpAddr,
    pub port: u16,
    pub public_port: u16,
    pub pace: PollConfig,
    pub calls: GuardedHttpSettings,
    /// How long requests under way may take once the end has come.
    pub shutdown: Duration,
    pub publish_policies: Vec<PublishPolicy>,
    pub limits: RequestLimits,
    pub log: String,
    pub log_format: LogFormat,
    pub config: CoordinatorConfig,
}

pub(super) fn at_least_one(field: &str, number: u32) -> Result<u32, Invalid> {
    if number == 0 {
        Err(Invalid::new(field, "must not be zero"))
    } else {
        Ok(number)
    }
}

pub(super) fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn debian(raw: RawDebianBuild) -> BuildTarget {
    BuildTarget::Debian(DebianBuild {
        base_distribution: raw.base_distribution,
        extra_build_distribution: raw.extra_build_distribution,
        chroot: filled(raw.chroot),
        build_distribution: filled(raw.build_distribution),
        build_suffix: filled(raw.build_suffix),
        build_command: filled(raw.build_command),
    })
}

fn campaign(place: usize, raw: RawCampaign) -> Result<Campaign, Invalid> {
    let field = |key: &str| format!("campaign[{place}].{key}");
    let build = match (raw.debian_build, raw.generic_build) {
        (Some(_), Some(_)) => {
            return Err(Invalid::new(
                field("generic_build"),
                "a campaign has debian_build or generic_build, not both",
            ));
        }
        (Some(raw), None) => Some(debian(raw)),
        (None, generic) => generic.map(|raw| BuildTarget::Generic {
            chroot: filled(raw.chroot),
        }),
    };
    Ok(Campaign {
        name: CampaignName::new(raw.name).map_err(|e| Invalid::new(field("name"), e.reason))?,
        command: filled(raw.command),
        branch_name: filled(raw.branch_name),
        force_build: raw.force_build,
        skip_setup_validation: raw.skip_setup_validation,
        default_empty: raw.default_empty,
        build,
    })
}

fn distribution(raw: RawDistribution) -> Distribution {
    Distribution {
        name: raw.name,
        archive_mirror_uri: filled(raw.archive_mirror_uri),
        signed_by: filled(raw.signed_by),
        chroot: filled(raw.chroot),
        component: raw.component,
        lintian_profile: filled(raw.lintian_profile),
        lintian_suppress_tag: raw.lintian_suppress_tag,
        build_command: filled(raw.build_command),
        vendor: filled(raw.vendor),
    }
}

fn campaigns(
    raw: Vec<RawCampaign>,
    distributions: Vec<RawDistribution>,
) -> Result<Campaigns, Invalid> {
    let campaigns = raw
        .into_iter()
        .enumerate()
        .map(|(place, raw)| campaign(place, raw))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = campaigns
        .iter()
        .find(|campaign| !seen.insert(campaign.name.clone()))
    {
        return Err(Invalid::new(
            "campaign",
            format!("{} is there twice", twice.name),
        ));
    }
    Ok(Campaigns {
        campaigns,
        distributions: distributions.into_iter().map(distribution).collect(),
    })
}

/// The vendor of this machine, as `dpkg-vendor` would name it.
fn host_vendor() -> Option<String> {
    let origin = std::fs::read_to_string("/etc/dpkg/origins/default").ok()?;
    let vendor = origin
        .lines()
        .find_map(|line| line.strip_prefix("Vendor:"))?;
    Some(vendor.trim().to_lowercase())
}

fn watch_rules(raw: &RawWatch, run_timeout_minutes: u32) -> Result<WatchRules, Invalid> {
    let seconds = |field: &str, number| {
        at_least_one(field, number).map(|seconds| TimeDelta::seconds(seconds.into()))
    };
    let run_timeout =
        TimeDelta::minutes(at_least_one("run_timeout_minutes", run_timeout_minutes)?.into());
    Ok(WatchRules {
        // A short timeout must leave time to ask.
        ping_after: seconds("watch.ping_after_seconds", raw.ping_after_seconds)?
            .min(run_timeout / 3),
        suspect_after: seconds("watch.suspect_after_seconds", raw.suspect_after_seconds)?,
        run_timeout,
        lease: seconds("watch.lease_seconds", raw.lease_seconds)?,
    })
}

fn retry(place: usize, raw: RawRetry) -> Result<RetryRule, Invalid> {
    let invalid =
        |field: &str, reason: &str| Invalid::new(format!("retry[{place}].{field}"), reason);
    if raw.name.is_empty() {
        return Err(invalid("name", "must not be empty"));
    }
    let (factor, jitter) = (raw.factor.unwrap_or(2.0), raw.jitter.unwrap_or(0.2));
    if !(1.0..=100.0).contains(&factor) {
        return Err(invalid("factor", "must be from 1 to 100"));
    }
    if !(0.0..=1.0).contains(&jitter) {
        return Err(invalid("jitter", "must be from 0 to 1"));
    }
    at_least_one(&format!("retry[{place}].attempts"), raw.attempts)?;
    let delay = TimeDelta::seconds(raw.delay_seconds.into());
    Ok(RetryRule {
        name: raw.name,
        codes: raw.codes,
        stage: raw.stage,
        transient: raw.transient,
        attempts: raw.attempts,
        delay,
        factor,
        max_delay: raw
            .max_delay_seconds
            .map_or(delay.max(LONGEST_DELAY), |seconds| {
                TimeDelta::seconds(seconds.into())
            }),
        jitter,
        afterwards: raw.then,
    })
}

fn calls(raw: &RawBackchannel, user_agent: Option<String>) -> Result<GuardedHttpSettings, Invalid> {
    let seconds = |field: &str, number| {
        at_least_one(field, number).map(|seconds| Duration::from_secs(seconds.into()))
    };
    let network = |text: &String| {
        text.parse().map_err(|_| {
            Invalid::new(
                "backchannel.allowed_networks",
                format!("{text:?} is not a network such as 10.0.0.0/8"),
            )
        })
    };
    Ok(GuardedHttpSettings {
        patience: seconds("backchannel.timeout_seconds", raw.timeout_seconds)?,
        log_stall: seconds("backchannel.log_stall_seconds", raw.log_stall_seconds)?,
        log_total: seconds("backchannel.log_total_seconds", raw.log_total_seconds)?,
        allowed_networks: raw
            .allowed_networks
            .iter()
            .map(network)
            .collect::<Result<_, _>>()?,
        user_agent: user_agent
            .unwrap_or_else(|| concat!("janitor-runner/", env!("CARGO_PKG_VERSION")).to_owned()),
    })
}

/// Checks settings; the field of a failure is the key.
pub(super) fn check(raw: Raw) -> Result<Settings, Invalid> {
    let log_format = match raw.telemetry.format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        "gcp" => LogFormat::Gcp,
        _ => {
            return Err(Invalid::new(
                "telemetry.format",
                "is none of text, json, gcp",
            ));
        }
    };
    let policies = raw
        .publish_policies
        .into_iter()
        .map(|(name, per_branch)| PublishPolicy {
            name,
            per_branch,
            rate_limit_bucket: None,
        });
    let config = CoordinatorConfig {
        campaigns: campaigns(raw.campaign, raw.distribution)?,
        build: BuildSettings {
            dep_server_url: filled(raw.dep_server_url),
            apt_archive_location: filled(raw.apt_archive_location),
            apt_archive_key: filled(raw.apt_archive_key),
            host_vendor: host_vendor(),
        },
        vcs_store: filled(raw.public_vcs_location)
            .map_or_else(|| Ok(VcsStore::default()), |text| VcsStore::parse(&text))?,
        committer: filled(raw.committer),
        avoid_hosts: raw
            .avoid_hosts
            .iter()
            .map(|name| host::normalize(name))
            .collect(),
        watch: watch_rules(&raw.watch, raw.run_timeout_minutes)?,
        retries: RetryRules(
            raw.retry
                .into_iter()
                .enumerate()
                .map(|(place, rule)| retry(place, rule))
                .collect::<Result<_, _>>()?,
        ),
        quarantine: QuarantinePolicy {
            codes: raw.workers.quarantine_codes,
            quarantine_after: raw.workers.quarantine_after,
        },
        live_logs: raw.limits.live_logs.0,
        use_cached_only: raw.use_cached_only,
    };
    Ok(Settings {
        store: stores::store(&raw.store, &raw.postgres)?,
        coordination: stores::redis("coordination", raw.coordination.as_deref())?,
        events: stores::redis("events", raw.events.as_deref())?,
        artifacts: stores::files("artifacts", &raw.artifacts, &raw.gcs, &raw.s3)?,
        logs: stores::files("logs", &raw.logs, &raw.gcs, &raw.s3)?,
        backup_directory: raw.backup_directory,
        spool: raw.spool,
        upload_memory: usize::try_from(raw.limits.upload_memory.0)
            .map_err(|e| Invalid::new("limits.upload_memory", e.to_string()))?,
        listen_address: raw.listen_address,
        port: raw.port,
        public_port: raw.public_port,
        pace: PollConfig {
            interval: Duration::from_secs(
                at_least_one("keepalive_interval_seconds", raw.keepalive_interval_seconds)?.into(),
            ),
            at_once: at_least_one("watch.max_concurrent_pings", raw.watch.max_concurrent_pings)?
                as usize,
        },
        calls: calls(&raw.backchannel, filled(raw.user_agent))?,
        shutdown: Duration::from_secs(raw.shutdown_seconds.into()),
        publish_policies: policies.collect(),
        limits: RequestLimits {
            json_body: raw.limits.json_body.0,
            upload_file: raw.limits.upload_file.0,
            upload: raw.limits.upload.0,
            upload_files: raw.limits.upload_files,
            upload_idle_seconds: raw.limits.upload_idle_seconds.max(1),
        },
        log: raw.telemetry.log,
        log_format,
        config,
    })
}
