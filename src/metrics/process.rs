//! Metrics of this process, read from `/proc` when the metrics are collected.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use std::sync::atomic::AtomicU64;

/// The kernel's default of clock ticks per second, for a system that reports no sensible number.
const DEFAULT_CLOCK_TICKS: u32 = 100;

/// Memory, open files and processor time of this process.
#[derive(Default)]
pub(super) struct ProcessMetrics {
    resident_memory: Gauge,
    open_files: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
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

    /// Reads the current values. A value that cannot be read stays as it is.
    pub(super) fn update(&self) {
        if let Some(bytes) = resident_memory() {
            self.resident_memory.set(bytes);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files
                .set(files.count().try_into().unwrap_or(i64::MAX));
        }
        self.cpu_seconds.set(cpu_seconds());
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

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name of the program in parentheses, which may contain spaces and
    // parentheses itself. User and system time are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u32>().ok())
        .sum();
    let ticks_per_second =
        u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(DEFAULT_CLOCK_TICKS);
    f64::from(ticks) / f64::from(ticks_per_second)
}
