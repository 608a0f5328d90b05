//! Metrics of this process, read from `/proc` when the metrics are collected: under names of our
//! own, and under those of Python's client.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel's default of clock ticks per second, for a system that reports no sensible number.
const DEFAULT_CLOCK_TICKS: u32 = 100;

/// Memory, open files and processor time of this process.
#[derive(Default)]
pub(super) struct ProcessMetrics {
    resident_memory: Gauge,
    open_files: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
    cpu_seconds_total: Counter<f64, AtomicU64>,
    start_time: Gauge<f64, AtomicU64>,
}

impl ProcessMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory of the process, in bytes",
            self.resident_memory.clone(),
        );
        registry.register(
            "process_open_files",
            "Number of open file descriptors",
            self.open_files.clone(),
        );
        registry.register(
            "process_cpu_seconds",
            "Processor time used by the process, in seconds",
            self.cpu_seconds.clone(),
        );
    }

    /// Registers the metrics that Python's client has of each process.
    pub(super) fn register_python_names(&self, registry: &mut Registry) {
        registry.register(
            "process_start_time_seconds",
            "Unix time at which the process started, in seconds",
            self.start_time.clone(),
        );
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory of the process, in bytes",
            self.resident_memory.clone(),
        );
        registry.register(
            "process_open_fds",
            "Number of open file descriptors",
            self.open_files.clone(),
        );
        registry.register(
            "process_cpu_seconds",
            "Processor time used by the process, in seconds",
            self.cpu_seconds_total.clone(),
        );
    }

    /// Reads the current values. A value that cannot be read stays as it is.
    pub(super) fn update(&self) {
        if let Some(bytes) = resident_memory() {
            self.resident_memory.set(bytes);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files
                .set(files.count().try_into().unwrap_or(i64::MAX));
        }
        let cpu_seconds = cpu_seconds();
        self.cpu_seconds.set(cpu_seconds);
        self.cpu_seconds_total
            .inner()
            .store(cpu_seconds.to_bits(), Ordering::Relaxed);
        if let Some(seconds) = start_time() {
            self.start_time.set(seconds);
        }
    }
}

fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the fields of the process after the name of its program, the first being its state.
fn stat_fields() -> Vec<String> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name of the program in parentheses, which may contain spaces and
    // parentheses itself.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().map(str::to_owned).collect()
}

fn seconds_of_ticks(ticks: u32) -> f64 {
    let ticks_per_second =
        u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(DEFAULT_CLOCK_TICKS);
    f64::from(ticks) / f64::from(ticks_per_second)
}

fn cpu_seconds() -> f64 {
    // User and system time are fields 14 and 15 of all.
    let fields = stat_fields();
    let times = fields.iter().skip(11).take(2);
    seconds_of_ticks(times.filter_map(|ticks| ticks.parse::<u32>().ok()).sum())
}

/// Returns the Unix time at which the process started: that of the machine, and the ticks from then
/// on, field 22 of all.
fn start_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    let ticks: u32 = stat_fields().get(19)?.parse().ok()?;
    Some(boot + seconds_of_ticks(ticks))
}
