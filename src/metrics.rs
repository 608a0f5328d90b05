//! Figures for Prometheus. The names of the first block are those of the Python runner, which dashboards and alerts of
//! existing deployments use; new ones begin with `janitor_runner_`.

use crate::domain::{queue::Bucket, run::Run};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64, time::Duration};

macro_rules! labels {
    ($name:ident { $($field:ident),+ }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: String),+ }
    };
}

labels!(OfCampaign { campaign });
labels!(OfResult {
    campaign,
    result_code
});
labels!(OfWorker { worker });
labels!(OfHost { host });
labels!(OfRequest {
    method,
    route,
    status
});
labels!(OfOperation {
    store,
    operation,
    status
});
labels!(OfBucket { bucket });
labels!(OfReason { reason });
labels!(OfStore { store });
labels!(OfPing { kind, outcome });
labels!(OfError {
    category,
    component,
    severity
});

type Counts<L> = Family<L, Counter>;
type Times<L> = Family<L, Histogram>;

/// All figures of this process.
pub struct Metrics {
    registry: Registry,
    run_count: Counter,
    job_last_success: Gauge,
    build_duration: Times<OfCampaign>,
    result: Counts<OfResult>,
    active_runs: Family<OfWorker, Gauge>,
    assignments: Counts<OfWorker>,
    rate_limited_host: Counts<OfHost>,
    artifact_upload_failed: Counter,
    queue_empty: Counter,
    primary_logfile_upload_failed: Counter,
    logfile_uploads: Counter,
    requests: Counts<OfRequest>,
    request_seconds: Times<OfRequest>,
    operations: Counts<OfOperation>,
    operation_seconds: Times<OfOperation>,
    queue_size: Family<OfBucket, Gauge>,
    watchdog_endings: Counts<OfReason>,
    backchannel_pings: Counts<OfPing>,
    upload_bytes: Counts<OfStore>,
    backup_runs: Family<OfStore, Gauge>,
    backup_oldest: Family<OfStore, Gauge<f64, AtomicU64>>,
    errors: Counts<OfError>,
    resident_memory: Gauge,
    open_files: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            run_count: Counter::default(),
            job_last_success: Gauge::default(),
            build_duration: Family::new_with_constructor(durations),
            result: Family::default(),
            active_runs: Family::default(),
            assignments: Family::default(),
            rate_limited_host: Family::default(),
            artifact_upload_failed: Counter::default(),
            queue_empty: Counter::default(),
            primary_logfile_upload_failed: Counter::default(),
            logfile_uploads: Counter::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(seconds),
            queue_size: Family::default(),
            watchdog_endings: Family::default(),
            backchannel_pings: Family::default(),
            upload_bytes: Family::default(),
            backup_runs: Family::default(),
            backup_oldest: Family::default(),
            errors: Family::default(),
            resident_memory: Gauge::default(),
            open_files: Gauge::default(),
            cpu_seconds: Gauge::default(),
        };
        metrics.register_kept_names();
        metrics.register_own_names();
        metrics
    }

    fn register_kept_names(&mut self) {
        let r = &mut self.registry;
        r.register(
            "run_count",
            "Number of runs executed",
            self.run_count.clone(),
        );
        r.register(
            "job_last_success_unixtime",
            "When a run last ended well",
            self.job_last_success.clone(),
        );
        r.register(
            "build_duration",
            "Seconds that runs took",
            self.build_duration.clone(),
        );
        r.register("result", "Runs by result", self.result.clone());
        r.register(
            "active_runs",
            "Runs that workers hold now",
            self.active_runs.clone(),
        );
        r.register(
            "assignments",
            "Assignments handed out",
            self.assignments.clone(),
        );
        r.register(
            "rate_limited_host",
            "Times a host asked to be left alone",
            self.rate_limited_host.clone(),
        );
        r.register(
            "artifact_upload_failed",
            "Runs whose artifacts could not be stored",
            self.artifact_upload_failed.clone(),
        );
        r.register(
            "queue_empty",
            "Times that nothing could be handed out",
            self.queue_empty.clone(),
        );
        r.register(
            "primary_logfile_upload_failed",
            "Runs whose logs could not be stored",
            self.primary_logfile_upload_failed.clone(),
        );
        r.register(
            "logfile_uploads",
            "Logs stored",
            self.logfile_uploads.clone(),
        );
    }

    fn register_own_names(&mut self) {
        let r = self.registry.sub_registry_with_prefix("janitor_runner");
        r.register("http_requests", "Requests answered", self.requests.clone());
        r.register(
            "http_request_seconds",
            "Time to the head of the answer",
            self.request_seconds.clone(),
        );
        r.register(
            "store_operations",
            "Operations of the stores",
            self.operations.clone(),
        );
        r.register(
            "store_operation_seconds",
            "Time of the stores' operations",
            self.operation_seconds.clone(),
        );
        r.register(
            "queue_size",
            "Queued items, held ones included",
            self.queue_size.clone(),
        );
        r.register(
            "watchdog_endings",
            "Runs ended because their worker was gone",
            self.watchdog_endings.clone(),
        );
        r.register(
            "backchannel_pings",
            "Workers asked for a sign of life",
            self.backchannel_pings.clone(),
        );
        r.register(
            "upload_bytes",
            "Bytes received for a store",
            self.upload_bytes.clone(),
        );
        r.register(
            "backup_runs",
            "Runs whose files wait in the backup directory",
            self.backup_runs.clone(),
        );
        r.register(
            "backup_oldest_seconds",
            "How long the oldest of them wait",
            self.backup_oldest.clone(),
        );
        r.register(
            "errors",
            "Failures that somebody should look at",
            self.errors.clone(),
        );
        r.register(
            "process_resident_memory_bytes",
            "Resident memory",
            self.resident_memory.clone(),
        );
        r.register(
            "process_open_files",
            "Open file descriptors",
            self.open_files.clone(),
        );
        r.register(
            "process_cpu_seconds",
            "Processor time used",
            self.cpu_seconds.clone(),
        );
        r.register(
            "build",
            "This program",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
    }

    /// A run was stored.
    pub fn run_stored(&self, run: &Run) {
        self.run_count.inc();
        let campaign = run.campaign.to_string();
        self.build_duration
            .get_or_create(&OfCampaign {
                campaign: campaign.clone(),
            })
            .observe(run.duration());
        self.result
            .get_or_create(&OfResult {
                campaign,
                result_code: known_code(run),
            })
            .inc();
        if run.code.is_success() {
            self.job_last_success.set(run.finish_time.timestamp());
        }
    }

    /// An assignment was handed out.
    pub fn assigned(&self, worker: Option<&str>) {
        self.assignments
            .get_or_create(&OfWorker {
                worker: worker.unwrap_or_default().to_owned(),
            })
            .inc();
    }

    /// A host asked to be left alone.
    pub fn host_rate_limited(&self, host: &str) {
        self.rate_limited_host
            .get_or_create(&OfHost {
                host: host.to_owned(),
            })
            .inc();
    }

    /// Nothing could be handed out.
    pub fn queue_empty(&self) {
        self.queue_empty.inc();
    }

    /// Logs of a run were stored.
    pub fn logs_stored(&self, logs: usize) {
        self.logfile_uploads.inc_by(logs as u64);
    }

    /// The logs of a run were not stored.
    pub fn logs_not_stored(&self) {
        self.primary_logfile_upload_failed.inc();
        self.failed("store", "logs");
    }

    /// The artifacts of a run were not stored.
    pub fn artifacts_not_stored(&self) {
        self.artifact_upload_failed.inc();
        self.failed("store", "artifacts");
    }

    /// So many runs' files wait in the backup directory for their store, the oldest for so many seconds.
    pub fn waits_in_backup(&self, store: &str, runs: usize, oldest: f64) {
        let label = OfStore {
            store: store.to_owned(),
        };
        self.backup_runs
            .get_or_create(&label)
            .set(runs.try_into().unwrap_or(i64::MAX));
        self.backup_oldest.get_or_create(&label).set(oldest);
    }

    /// The watcher ended a run.
    pub fn watchdog_ended(&self, reason: &str) {
        self.watchdog_endings
            .get_or_create(&OfReason {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// A worker was asked for a sign of life.
    pub fn pinged(&self, kind: &str, outcome: &str) {
        self.backchannel_pings
            .get_or_create(&OfPing {
                kind: kind.to_owned(),
                outcome: outcome.to_owned(),
            })
            .inc();
    }

    /// Something failed that somebody should look at.
    pub fn failed(&self, category: &str, component: &str) {
        let label = OfError {
            category: category.to_owned(),
            component: component.to_owned(),
            severity: "error".to_owned(),
        };
        self.errors.get_or_create(&label).inc();
    }

    /// Bytes arrived for a store.
    pub fn uploaded(&self, store: &str, bytes: u64) {
        self.upload_bytes
            .get_or_create(&OfStore {
                store: store.to_owned(),
            })
            .inc_by(bytes);
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, time: Duration) {
        let label = OfRequest {
            method: method.to_owned(),
            route: route.to_owned(),
            status: status.to_string(),
        };
        self.requests.get_or_create(&label).inc();
        self.request_seconds
            .get_or_create(&label)
            .observe(time.as_secs_f64());
    }

    /// A store carried out an operation.
    pub fn operated(&self, store: &str, operation: &str, well: bool, time: Duration) {
        let status = if well { "ok" } else { "error" }.to_owned();
        let label = OfOperation {
            store: store.to_owned(),
            operation: operation.to_owned(),
            status,
        };
        self.operations.get_or_create(&label).inc();
        self.operation_seconds
            .get_or_create(&label)
            .observe(time.as_secs_f64());
    }

    /// All figures as text, with those that are only known now.
    pub fn text(
        &self,
        queued: &BTreeMap<Bucket, u64>,
        active: &BTreeMap<String, u64>,
    ) -> Result<String, fmt::Error> {
        for bucket in Bucket::ALL {
            let size = queued.get(&bucket).copied().unwrap_or_default();
            self.queue_size
                .get_or_create(&OfBucket {
                    bucket: bucket.to_string(),
                })
                .set(size.cast_signed());
        }
        self.active_runs.clear();
        for (worker, runs) in active {
            self.active_runs
                .get_or_create(&OfWorker {
                    worker: worker.clone(),
                })
                .set(runs.cast_signed());
        }
        self.look_at_process();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn look_at_process(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
        if let Some(kibibytes) = resident {
            self.resident_memory.set(kibibytes * 1024);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files
                .set(files.count().try_into().unwrap_or(i64::MAX));
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u32 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u32>().ok())
            .sum();
        self.cpu_seconds.set(
            f64::from(ticks)
                / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)),
        );
    }
}

/// Codes come from workers: one with odd characters or length is not worth a series of its own.
fn known_code(run: &Run) -> String {
    let code = run.code.as_str();
    let ordinary = code.len() <= 64
        && code
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+".contains(&b));
    if ordinary { code } else { "other" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_names_are_there() {
        let metrics = Metrics::new();
        metrics.assigned(Some("w1"));
        metrics.queue_empty();
        metrics.host_rate_limited("example.com");
        let text = metrics
            .text(
                &BTreeMap::from([(Bucket::Manual, 3)]),
                &BTreeMap::from([("w1".into(), 2)]),
            )
            .unwrap();
        for line in [
            "run_count_total 0",
            "queue_empty_total 1",
            "assignments_total{worker=\"w1\"} 1",
            "active_runs{worker=\"w1\"} 2",
            "rate_limited_host_total{host=\"example.com\"} 1",
            "artifact_upload_failed_total 0",
            "primary_logfile_upload_failed_total 0",
            "logfile_uploads_total 0",
            "job_last_success_unixtime 0",
            "janitor_runner_queue_size{bucket=\"manual\"} 3",
            "janitor_runner_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
