//! Metrics of the logins of workers.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use std::fmt::{self, Write};

/// What became of a login whose password was not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginOutcome {
    /// Name and password were right.
    Right,
    /// They were not.
    Wrong,
    /// There were too many wrong ones before.
    Refused,
}

impl LoginOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Right, Self::Wrong, Self::Refused];
}

impl EncodeLabelValue for LoginOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: LoginOutcome,
}

/// The number of logins by outcome.
#[derive(Default)]
pub(super) struct LoginMetrics {
    logins: Family<OfOutcome, Counter>,
}

impl LoginMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "logins",
            "Number of logins of workers whose passwords were not remembered, by outcome",
            self.logins.clone(),
        );
    }

    pub(super) fn count(&self, outcome: LoginOutcome) {
        self.logins.get_or_create(&OfOutcome { outcome }).inc();
    }

    pub(super) fn get(&self, outcome: LoginOutcome) -> u64 {
        self.logins.get_or_create(&OfOutcome { outcome }).get()
    }
}
