//! Workers that die, hang, lose their network, or come back; servers that die at every step of a run; Jenkins in every state.
//!
//! Real processes, on sled and on Postgres. Each test records what became of the run: `make faults` makes the table of it.

mod leases;
mod network;
mod pings;
mod server_kills;

use crate::support::worker_harness::WorkerHarness;
use std::time::Instant;

/// Leases of four seconds, and a check every second.
const SHORT_TIMEOUTS: &str = "keepalive_interval_seconds = 1\nrun_timeout_minutes = 1\n[watch]\nlease_seconds = 4\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\ntimeout_seconds = 1\n";

/// A codemod that logs that it has begun and continues once a file exists; it ends after a minute at the latest.
fn codemod_until(harness: &WorkerHarness, flag: &str) -> String {
    let flag = harness.path(flag);
    let flag = flag.display();
    // The log shows the command itself too. The quotes keep a search for its output from matching that.
    format!(
        "echo be''gun; n=0; while [ ! -e {flag} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; echo two >> file.txt; echo en''ded"
    )
}

fn set_flag(harness: &WorkerHarness, flag: &str) {
    std::fs::write(harness.path(flag), "").unwrap();
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
