//! The conversion from settings as they are written ([`Raw`]) to the values that the program works
//! with ([`Settings`]).

use super::{
    admin,
    raw::{
        Raw, RawBackchannel, RawBranchPolicy, RawCampaign, RawDebianBuild, RawDistribution,
        RawLimits, RawRetry, RawWatch, RawWorkers,
    },
    stores,
    validate::{at_least_one, filled, networks},
    values::{
        ConnectionSettings, GuardedHttpSettings, LogFormat, PollSettings, RequestLimits, Settings,
    },
    vcs,
};
use crate::{
    domain::{
        Invalid,
        audit::AuditRetention,
        build::BuildSettings,
        campaign::{BuildTarget, Campaign, Campaigns, DebianBuild, Distribution},
        host,
        interval::IntervalRules,
        name::CampaignName,
        publish::{BranchPolicy, PublishPolicy},
        quarantine::QuarantinePolicy,
        retry::{RetryRule, RetryRules},
        vcs::VcsStore,
        watch::WatchRules,
        worker_limits::{LoginLimits, MaxOfWorker},
    },
    services::CoordinatorConfig,
};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The default limit of the delay between two attempts, which grows exponentially.
const MAX_RETRY_DELAY: TimeDelta = TimeDelta::hours(6);

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

fn campaign(index: usize, raw: RawCampaign) -> Result<Campaign, Invalid> {
    let field = |key: &str| format!("campaign[{index}].{key}");
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
        max_run_duration_minutes: raw.max_run_duration_minutes,
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
    max_durations: &BTreeMap<String, u32>,
) -> Result<Campaigns, Invalid> {
    let mut campaigns = raw
        .into_iter()
        .enumerate()
        .map(|(index, raw)| campaign(index, raw))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    if let Some(duplicate) = campaigns
        .iter()
        .find(|campaign| !seen.insert(campaign.name.clone()))
    {
        return Err(Invalid::new(
            "campaign",
            format!("{} is there twice", duplicate.name),
        ));
    }
    for (name, minutes) in max_durations {
        let campaign = campaigns
            .iter_mut()
            .find(|campaign| campaign.name.as_str() == name);
        let campaign = campaign.ok_or_else(|| {
            let field = format!("watch.max_run_duration_minutes_by_campaign.{name}");
            Invalid::new(field, "there is no such campaign")
        })?;
        campaign.max_run_duration_minutes = Some(*minutes);
    }
    Ok(Campaigns {
        campaigns,
        distributions: distributions.into_iter().map(distribution).collect(),
    })
}

/// Returns the vendor of this machine, as `dpkg-vendor --query vendor` spells it.
fn host_vendor() -> Option<String> {
    let origin = std::fs::read_to_string("/etc/dpkg/origins/default").ok()?;
    let vendor = origin
        .lines()
        .find_map(|line| line.strip_prefix("Vendor:"))?;
    Some(vendor.trim().to_owned())
}

fn watch_rules(raw: &RawWatch, run_timeout_minutes: u32) -> Result<WatchRules, Invalid> {
    let seconds = |field: &str, number| {
        at_least_one(field, number).map(|seconds| TimeDelta::seconds(seconds.into()))
    };
    let run_timeout =
        TimeDelta::minutes(at_least_one("run_timeout_minutes", run_timeout_minutes)?.into());
    Ok(WatchRules {
        // A worker must be pinged some times before its run times out, however short the timeout
        // is.
        ping_after: seconds("watch.ping_after_seconds", raw.ping_after_seconds)?
            .min(run_timeout / 3),
        suspect_after: seconds("watch.suspect_after_seconds", raw.suspect_after_seconds)?,
        run_timeout,
        lease: seconds("watch.lease_seconds", raw.lease_seconds)?,
        max_duration: (raw.max_run_duration_minutes > 0)
            .then(|| TimeDelta::minutes(raw.max_run_duration_minutes.into())),
    })
}

fn retry(index: usize, raw: RawRetry) -> Result<RetryRule, Invalid> {
    let invalid =
        |field: &str, reason: &str| Invalid::new(format!("retry[{index}].{field}"), reason);
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
    at_least_one(&format!("retry[{index}].attempts"), raw.attempts)?;
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
            .map_or(delay.max(MAX_RETRY_DELAY), |seconds| {
                TimeDelta::seconds(seconds.into())
            }),
        jitter,
        afterwards: raw.then,
    })
}

fn connections(
    limits: &RawLimits,
    trusted_proxies: &[String],
) -> Result<ConnectionSettings, Invalid> {
    let limit = |number: u32| Some(number as usize).filter(|limit| *limit > 0);
    Ok(ConnectionSettings {
        total: limit(limits.connections),
        per_address: limit(limits.connections_per_address),
        trusted_proxies: networks("trusted_proxies", trusted_proxies)?,
    })
}

fn guarded_http(raw: &RawBackchannel, user_agent: String) -> Result<GuardedHttpSettings, Invalid> {
    let seconds = |field: &str, number| {
        at_least_one(field, number).map(|seconds| Duration::from_secs(seconds.into()))
    };
    Ok(GuardedHttpSettings {
        timeout: seconds("backchannel.timeout_seconds", raw.timeout_seconds)?,
        log_stall: seconds("backchannel.log_stall_seconds", raw.log_stall_seconds)?,
        log_total: seconds("backchannel.log_total_seconds", raw.log_total_seconds)?,
        allowed_networks: networks("backchannel.allowed_networks", &raw.allowed_networks)?,
        user_agent,
    })
}

fn log_format(text: &str) -> Result<LogFormat, Invalid> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "gcp" => Ok(LogFormat::Gcp),
        _ => Err(Invalid::new(
            "telemetry.format",
            "is none of text, json, gcp",
        )),
    }
}

fn request_limits(raw: &RawLimits, workers: &RawWorkers) -> RequestLimits {
    RequestLimits {
        json_body: raw.json_body.0,
        report: raw.report.0,
        upload_file: raw.upload_file.0,
        upload: raw.upload.0,
        uploads: raw.uploads.0,
        uploads_of_worker: raw.uploads_of_worker.0,
        upload_files: raw.upload_files,
        upload_idle_seconds: raw.upload_idle_seconds.max(1),
        refusal_delay_milliseconds: workers.refusal_delay_milliseconds.into(),
        max_delayed_refusals: workers.max_delayed_refusals.into(),
    }
}

fn poll(raw: &RawWatch, interval_seconds: u32) -> Result<PollSettings, Invalid> {
    let interval = at_least_one("keepalive_interval_seconds", interval_seconds)?;
    let pings = at_least_one("watch.max_concurrent_pings", raw.max_concurrent_pings)?;
    Ok(PollSettings {
        interval: Duration::from_secs(interval.into()),
        max_concurrent_pings: pings as usize,
    })
}

fn publish_policy(name: String, branches: Vec<RawBranchPolicy>) -> PublishPolicy {
    let branch = |raw: RawBranchPolicy| BranchPolicy {
        role: raw.role,
        mode: raw.mode,
        frequency_days: raw.frequency_days,
    };
    PublishPolicy {
        name,
        per_branch: branches.into_iter().map(branch).collect(),
        rate_limit_bucket: None,
    }
}

fn retries(raw: Vec<RawRetry>) -> Result<RetryRules, Invalid> {
    raw.into_iter()
        .enumerate()
        .map(|(index, rule)| retry(index, rule))
        .collect::<Result<_, _>>()
        .map(RetryRules)
}

/// Takes from `raw` what the use cases depend on.
fn coordinator(raw: &mut Raw) -> Result<CoordinatorConfig, Invalid> {
    let take = std::mem::take::<Option<String>>;
    Ok(CoordinatorConfig {
        campaigns: campaigns(
            std::mem::take(&mut raw.campaign),
            std::mem::take(&mut raw.distribution),
            &raw.watch.max_run_duration_minutes_by_campaign,
        )?,
        build: BuildSettings {
            dep_server_url: filled(take(&mut raw.dep_server_url)),
            apt_archive_location: filled(take(&mut raw.apt_archive_location)),
            apt_archive_key: filled(take(&mut raw.apt_archive_key)),
            host_vendor: host_vendor(),
        },
        vcs_store: filled(take(&mut raw.public_vcs_location))
            .map_or_else(|| Ok(VcsStore::default()), |text| VcsStore::parse(&text))?,
        forges: vcs::forges(std::mem::take(&mut raw.forge)),
        probing: vcs::limits(&raw.vcs)?,
        committer: filled(take(&mut raw.committer)),
        avoid_hosts: raw
            .avoid_hosts
            .iter()
            .map(|name| host::normalize(name))
            .collect(),
        watch: watch_rules(&raw.watch, raw.run_timeout_minutes)?,
        retries: retries(std::mem::take(&mut raw.retry))?,
        intervals: IntervalRules {
            first: TimeDelta::minutes(raw.intervals.first_minutes.into()),
            longest: TimeDelta::minutes(
                raw.intervals
                    .max_minutes
                    .max(raw.intervals.first_minutes)
                    .into(),
            ),
        },
        quarantine: QuarantinePolicy {
            codes: std::mem::take(&mut raw.workers.quarantine_codes),
            quarantine_after: raw.workers.quarantine_after,
        },
        logins: LoginLimits {
            by_address: at_least_one(
                "workers.wrong_logins_of_address",
                raw.workers.wrong_logins_of_address,
            )?,
            by_name: at_least_one(
                "workers.wrong_logins_of_name",
                raw.workers.wrong_logins_of_name,
            )?,
        },
        max_of_worker: MaxOfWorker {
            runs: raw.workers.max_runs,
            requests_per_second: raw.workers.max_requests_per_second,
        },
        live_logs: raw.limits.live_logs.0,
    })
}

/// Checks and converts settings.
///
/// # Errors
///
/// Returns an [`Invalid`] for the first value that cannot be used; its field is the key.
pub(super) fn settings(mut raw: Raw) -> Result<Settings, Invalid> {
    let log_format = log_format(&raw.telemetry.format)?;
    let coordinator = coordinator(&mut raw)?;
    let user_agent = filled(raw.user_agent)
        .unwrap_or_else(|| concat!("janitor-runner/", env!("CARGO_PKG_VERSION")).to_owned());
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
        listen_address: admin::listen_address("listen_address", &raw.listen_address)?,
        port: raw.port,
        public_port: Some(raw.public_port).filter(|port| *port != 0),
        poll: poll(&raw.watch, raw.keepalive_interval_seconds)?,
        guarded_http: guarded_http(&raw.backchannel, user_agent.clone())?,
        vcs: vcs::settings(raw.vcs, raw.use_cached_only, user_agent)?,
        shutdown: Duration::from_secs(raw.shutdown_seconds.into()),
        publish_policies: raw
            .publish_policies
            .into_iter()
            .map(|(name, branches)| publish_policy(name, branches))
            .collect(),
        limits: request_limits(&raw.limits, &raw.workers),
        connections: connections(&raw.limits, &raw.trusted_proxies)?,
        log: raw.telemetry.log,
        log_format,
        audit: AuditRetention {
            days: at_least_one("audit.days", raw.audit.days)?,
            entries: raw.audit.entries,
        },
        coordinator,
        admin: admin::settings(&raw.admin_listen_address, raw.admin)?,
        tls: raw.tls.map(Into::into),
    })
}
