//! The clock and the randomness of the system: the only place that reads them.

use crate::{
    domain::time::Time,
    ports::{Clock, Ids, Randomness},
};

/// The clock of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> Time {
        chrono::Utc::now()
    }
}

/// Makes random ids (UUID version 4).
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that makes ids"
    )]
    fn fresh(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }
}

/// The randomness of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    #[expect(
        clippy::disallowed_methods,
        reason = "the crate for ids reads the system's randomness already"
    )]
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float exactly")]
    fn fraction(&self) -> f64 {
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        (random & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_over_the_unit_interval() {
        let fractions: Vec<f64> = (0..1000).map(|_| SystemRandomness.fraction()).collect();
        let below_half = fractions.iter().filter(|fraction| **fraction < 0.5).count();
        for fraction in &fractions {
            assert!((0.0..1.0).contains(fraction), "{fraction}");
        }
        // Six standard deviations of a fair coin: wrong once in half a billion runs.
        assert!(
            (405..=595).contains(&below_half),
            "{below_half} of 1000 are below one half"
        );
    }
}
