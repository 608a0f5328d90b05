//! Metrics for Prometheus. The names in `register_python_names` are those of the Python runner,
//! which the dashboards and alerts of existing deployments use; all others begin with
//! `janitor_runner_`.

mod http;
mod labels;
mod logins;
mod probes;
mod process;

use crate::domain::{queue::Bucket, run::Run};
use http::HttpMetrics;
use labels::{
    OfBucket, OfCampaign, OfError, OfHost, OfOperation, OfPing, OfReason, OfResult, OfStore,
    OfWorker, Values,
};
use logins::LoginMetrics;
pub use logins::LoginOutcome;
use probes::ProbeMetrics;
use process::ProcessMetrics;
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{LazyLock, atomic::AtomicU64},
    time::Duration,
};

/// Counts the lines of the log that were dropped. It belongs to the process, as logging does, which
/// starts before there are any other metrics.
static LOG_LINES_DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Counts lines of the log that were dropped, because nobody reads standard error.
pub fn log_lines_dropped(lines: u64) {
    LOG_LINES_DROPPED.inc_by(lines);
}

type Counts<L> = Family<L, Counter>;
type Times<L> = Family<L, Histogram>;

/// All metrics of this process.
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
    http: HttpMetrics,
    logins: LoginMetrics,
    probes: ProbeMetrics,
    operations: Counts<OfOperation>,
    operation_seconds: Times<OfOperation>,
    queue_size: Family<OfBucket, Gauge>,
    watchdog_endings: Counts<OfReason>,
    backchannel_pings: Counts<OfPing>,
    upload_bytes: Counts<OfStore>,
    backup_runs: Family<OfStore, Gauge>,
    backup_oldest: Family<OfStore, Gauge<f64, AtomicU64>>,
    backup_set_aside: Family<OfStore, Gauge>,
    errors: Counts<OfError>,
    process: ProcessMetrics,
    /// The result codes, workers and hosts that have series of their own.
    codes: Values,
    workers: Values,
    hosts: Values,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Buckets from 1 ms to 33 s, for store operations.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// Buckets from 1 s to 36 h, for runs.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics, with the value zero.
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
            http: HttpMetrics::default(),
            logins: LoginMetrics::default(),
            probes: ProbeMetrics::default(),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(seconds),
            queue_size: Family::default(),
            watchdog_endings: Family::default(),
            backchannel_pings: Family::default(),
            upload_bytes: Family::default(),
            backup_runs: Family::default(),
            backup_oldest: Family::default(),
            backup_set_aside: Family::default(),
            errors: Family::default(),
            process: ProcessMetrics::default(),
            codes: Values::default(),
            workers: Values::default(),
            hosts: Values::default(),
        };
        metrics.register_python_names();
        metrics.register_operations();
        metrics.register_state();
        metrics
    }

    fn register_python_names(&mut self) {
        let r = &mut self.registry;
        r.register(
            "run_count",
            "Number of runs executed",
            self.run_count.clone(),
        );
        r.register(
            "job_last_success_unixtime",
            "Unix time at which a run last succeeded",
            self.job_last_success.clone(),
        );
        r.register(
            "build_duration",
            "Duration of runs, in seconds",
            self.build_duration.clone(),
        );
        r.register(
            "result",
            "Number of runs by result code",
            self.result.clone(),
        );
        r.register(
            "active_runs",
            "Number of active runs by worker",
            self.active_runs.clone(),
        );
        r.register(
            "assignments",
            "Number of assignments by worker",
            self.assignments.clone(),
        );
        r.register(
            "rate_limited_host",
            "Number of times that a host limited the rate of requests",
            self.rate_limited_host.clone(),
        );
        r.register(
            "artifact_upload_failed",
            "Number of runs whose artifacts could not be stored",
            self.artifact_upload_failed.clone(),
        );
        r.register(
            "queue_empty",
            "Number of claims for which the queue had no item",
            self.queue_empty.clone(),
        );
        r.register(
            "primary_logfile_upload_failed",
            "Number of runs whose logs could not be stored",
            self.primary_logfile_upload_failed.clone(),
        );
        r.register(
            "logfile_uploads",
            "Number of logs stored",
            self.logfile_uploads.clone(),
        );
        self.http.register_python_names(r);
        self.process.register_python_names(r);
    }

    /// Registers the metrics of requests and store operations.
    fn register_operations(&mut self) {
        let r = self.registry.sub_registry_with_prefix("janitor_runner");
        self.http.register(r);
        self.logins.register(r);
        self.probes.register(r);
        r.register(
            "store_operations",
            "Number of store operations by outcome",
            self.operations.clone(),
        );
        r.register(
            "store_operation_seconds",
            "Duration of store operations, in seconds",
            self.operation_seconds.clone(),
        );
    }

    /// Registers the metrics of the queue, the workers, the files and the process.
    fn register_state(&mut self) {
        let r = self.registry.sub_registry_with_prefix("janitor_runner");
        r.register(
            "queue_size",
            "Number of items in the queue, including claimed ones",
            self.queue_size.clone(),
        );
        r.register(
            "watchdog_endings",
            "Number of runs that were ended because their worker was gone",
            self.watchdog_endings.clone(),
        );
        r.register(
            "backchannel_pings",
            "Number of pings of workers by outcome",
            self.backchannel_pings.clone(),
        );
        r.register(
            "upload_bytes",
            "Number of bytes received for a store",
            self.upload_bytes.clone(),
        );
        r.register(
            "backup_runs",
            "Number of runs whose files wait in the fallback directory",
            self.backup_runs.clone(),
        );
        r.register(
            "backup_oldest_seconds",
            "Age of the oldest files in the fallback directory, in seconds",
            self.backup_oldest.clone(),
        );
        r.register(
            "backup_set_aside",
            "Number of files and folders in the fallback directory that cannot be moved",
            self.backup_set_aside.clone(),
        );
        r.register(
            "errors",
            "Number of failures that an operator should look into",
            self.errors.clone(),
        );
        r.register(
            "log_lines_dropped",
            "Number of lines of the log that were dropped, because nobody reads them",
            LOG_LINES_DROPPED.clone(),
        );
        self.process.register(r);
        r.register(
            "build",
            "Version of the program",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
    }

    /// Counts a run that was stored.
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
                result_code: self.codes.label(ordinary_code(run)),
            })
            .inc();
        if run.code.is_success() {
            self.job_last_success.set(run.finish_time.timestamp());
        }
    }

    /// Counts an assignment.
    pub fn assigned(&self, worker: Option<&str>) {
        self.assignments
            .get_or_create(&OfWorker {
                worker: self.workers.label(worker.unwrap_or_default()),
            })
            .inc();
    }

    /// Counts a probe of a branch, with the time that it took unless it was answered from memory.
    pub fn probed(&self, outcome: &'static str, time: Option<Duration>) {
        self.probes.count(outcome, time);
    }

    /// Counts a host that limited the rate of requests.
    pub fn host_rate_limited(&self, host: &str) {
        self.rate_limited_host
            .get_or_create(&OfHost {
                host: self.hosts.label(host),
            })
            .inc();
    }

    /// Counts a claim for which the queue had no item.
    pub fn queue_empty(&self) {
        self.queue_empty.inc();
    }

    /// Counts the logs of a run that were stored.
    pub fn logs_stored(&self, logs: usize) {
        self.logfile_uploads.inc_by(logs as u64);
    }

    /// Counts a run whose logs were not stored.
    pub fn logs_not_stored(&self) {
        self.primary_logfile_upload_failed.inc();
        self.failed("store", "logs");
    }

    /// Counts a run whose artifacts were not stored.
    pub fn artifacts_not_stored(&self) {
        self.artifact_upload_failed.inc();
        self.failed("store", "artifacts");
    }

    /// Sets the number of runs whose files wait in the fallback directory for their store, and the
    /// age of the oldest, in seconds; and the number of entries there that cannot be moved.
    pub fn waits_in_backup(&self, store: &str, runs: usize, oldest: f64, set_aside: usize) {
        let label = OfStore {
            store: store.to_owned(),
        };
        self.backup_runs
            .get_or_create(&label)
            .set(runs.try_into().unwrap_or(i64::MAX));
        self.backup_oldest.get_or_create(&label).set(oldest);
        self.backup_set_aside
            .get_or_create(&label)
            .set(set_aside.try_into().unwrap_or(i64::MAX));
    }

    /// Counts a run that the watcher ended.
    pub fn watchdog_ended(&self, reason: &str) {
        self.watchdog_endings
            .get_or_create(&OfReason {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Counts a ping of a worker.
    pub fn pinged(&self, kind: &str, outcome: &str) {
        self.backchannel_pings
            .get_or_create(&OfPing {
                kind: kind.to_owned(),
                outcome: outcome.to_owned(),
            })
            .inc();
    }

    /// Counts a failure that an operator should look into.
    pub fn failed(&self, category: &str, component: &str) {
        let label = OfError {
            category: category.to_owned(),
            component: component.to_owned(),
            severity: "error".to_owned(),
        };
        self.errors.get_or_create(&label).inc();
    }

    /// Counts bytes received for a store.
    pub fn uploaded(&self, store: &str, bytes: u64) {
        self.upload_bytes
            .get_or_create(&OfStore {
                store: store.to_owned(),
            })
            .inc_by(bytes);
    }

    /// Counts a request, with the time to the head of its response. `route` is the path with names
    /// for its parameters, if one matches; an exception is what would be one in the Python runner.
    pub fn answered(
        &self,
        method: &str,
        route: Option<&str>,
        status: u16,
        is_exception: bool,
        time: Duration,
    ) {
        self.http
            .answered(method, route, status, is_exception, time);
    }

    /// Counts a login of a worker.
    pub fn login(&self, outcome: LoginOutcome) {
        self.logins.count(outcome);
    }

    /// Returns the number of logins of workers.
    pub fn logins(&self, outcome: LoginOutcome) -> u64 {
        self.logins.get(outcome)
    }

    /// Counts an operation of a store.
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

    /// Returns all metrics in the text format of Prometheus, with the current state of the queue
    /// and the numbers of active runs by worker.
    ///
    /// # Errors
    ///
    /// [`fmt::Error`] when the metrics cannot be encoded.
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
        // A worker without active runs must not keep its last number.
        self.active_runs.clear();
        for (worker, runs) in active {
            self.active_runs
                .get_or_create(&OfWorker {
                    worker: worker.clone(),
                })
                .set(runs.cast_signed());
        }
        self.process.update();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Returns the result code of a run. Those with unusual characters or length are `other`.
fn ordinary_code(run: &Run) -> &str {
    let code = run.code.as_str();
    let ordinary = code.len() <= 64
        && code
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+".contains(&b));
    if ordinary { code } else { labels::OTHER }
}

#[cfg(test)]
mod tests;
