//! Metrics of probes of branches.

use super::seconds;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// The number of probes by outcome, and how long they take.
pub(super) struct ProbeMetrics {
    probes: Family<OfOutcome, Counter>,
    seconds: Histogram,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        Self {
            probes: Family::default(),
            seconds: seconds(),
        }
    }
}

impl ProbeMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "probes",
            "Number of probes of branches by outcome",
            self.probes.clone(),
        );
        registry.register(
            "probe_seconds",
            "Duration of probes that were not answered from memory, in seconds",
            self.seconds.clone(),
        );
    }

    pub(super) fn count(&self, outcome: &'static str, time: Option<Duration>) {
        self.probes.get_or_create(&OfOutcome { outcome }).inc();
        if let Some(time) = time {
            self.seconds.observe(time.as_secs_f64());
        }
    }
}
