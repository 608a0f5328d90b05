//! Label values that come from outside: only so many of them become series of their own.

use prometheus_client::encoding::EncodeLabelSet;
use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

/// The maximum number of values of one label.
const MAX_VALUES: usize = 1000;
/// The maximum length of a value, in bytes.
const MAX_LENGTH: usize = 200;
/// The label of all other values.
pub(super) const OTHER: &str = "other";

macro_rules! labels {
    ($name:ident { $($field:ident),+ }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: String),+ }
    };
}

labels!(OfCampaign { campaign });
labels!(OfResult {
    campaign,
    result_code
});
labels!(OfWorker { worker });
labels!(OfHost { host });
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

/// The values of a label.
#[derive(Debug, Default)]
pub(super) struct Values(RwLock<HashSet<String>>);

impl Values {
    /// Returns a value as a label: `other`, if it is too long or there are too many already.
    pub(super) fn label(&self, value: &str) -> String {
        if value.len() > MAX_LENGTH {
            return OTHER.to_owned();
        }
        let is_known = |known: &HashSet<String>| known.contains(value);
        if is_known(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return value.to_owned();
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_VALUES && !is_known(&known) {
            return OTHER.to_owned();
        }
        known.insert(value.to_owned());
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_labels_until_there_are_too_many() {
        let values = Values::default();
        for number in 0..MAX_VALUES {
            assert_eq!(values.label(&number.to_string()), number.to_string());
        }
        assert_eq!(values.label("new"), OTHER);
        assert_eq!(values.label("7"), "7");
        assert_eq!(Values::default().label(&"x".repeat(MAX_LENGTH + 1)), OTHER);
    }
}
