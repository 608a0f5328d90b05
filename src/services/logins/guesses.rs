//! Counts wrong logins by the address that they come from and by the name that they try.

use crate::domain::worker_limits::LoginLimits;
use moka::sync::Cache;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// For how long a wrong login counts.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses, names, and pairs of both are counted at most.
const MAX_COUNTED: u64 = 10_000;
/// How many addresses are remembered for the operator.
const MAX_GUESSERS: usize = 10_000;
/// Wrong logins of an address before there is a line about it in the log: a worker with an old
/// password has some too.
const MIN_REPORTED: u64 = 10;
/// How often there may be a line about an address.
const REPORT_INTERVAL: Duration = Duration::from_secs(3600);

/// An address from which wrong logins came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guesser {
    /// The address.
    pub address: String,
    /// The number of wrong logins.
    pub wrong: u64,
    /// The number of logins that were refused without looking at the password.
    pub refused: u64,
    /// The name that was tried last.
    pub last_name: String,
}

struct Remembered {
    guesser: Guesser,
    last: Instant,
    reported: Option<(Instant, u64)>,
}

/// Counts that begin anew after [`WINDOW`].
struct Counts<K>(Cache<K, Arc<AtomicU32>>);

impl<K: std::hash::Hash + Eq + Send + Sync + 'static> Counts<K> {
    fn new() -> Self {
        let counts = Cache::builder().max_capacity(MAX_COUNTED);
        Self(counts.time_to_live(WINDOW).build())
    }

    fn add(&self, key: K) {
        let count = self.0.get_with(key, Arc::default);
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, key: &K) -> u32 {
        let count = self.0.get(key);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// The wrong logins of the last minute, and who they came from.
pub(super) struct Guesses {
    limits: LoginLimits,
    by_address: Counts<String>,
    by_name: Counts<String>,
    by_both: Counts<(String, String)>,
    guessers: Mutex<HashMap<String, Remembered>>,
}

impl Guesses {
    pub(super) fn new(limits: LoginLimits) -> Self {
        Self {
            limits,
            by_address: Counts::new(),
            by_name: Counts::new(),
            by_both: Counts::new(),
            guessers: Mutex::default(),
        }
    }

    /// Returns whether a login is one guess too many. Nobody can shut a worker out by trying its
    /// name: the guesses of others do not count where the name has logged in from lately, and the
    /// first login of an address in a minute is looked at in any case.
    pub(super) fn are_too_many(&self, name: &str, address: &str, is_known: bool) -> bool {
        if is_known {
            let both = (name.to_owned(), address.to_owned());
            return self.by_both.get(&both) >= self.limits.by_address;
        }
        let of_address = self.by_address.get(&address.to_owned());
        of_address >= self.limits.by_address
            || of_address > 0 && self.by_name.get(&name.to_owned()) >= self.limits.by_name
    }

    fn guessers(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.guessers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a wrong login.
    pub(super) fn wrong(&self, name: &str, address: &str) {
        self.by_address.add(address.to_owned());
        self.by_name.add(name.to_owned());
        self.by_both.add((name.to_owned(), address.to_owned()));
        self.remember(name, address, |guesser| guesser.wrong += 1);
    }

    /// Counts a login that is refused without looking at its password.
    pub(super) fn refused(&self, name: &str, address: &str) {
        self.remember(name, address, |guesser| guesser.refused += 1);
    }

    fn remember(&self, name: &str, address: &str, count: impl FnOnce(&mut Guesser)) {
        let now = Instant::now();
        let mut guessers = self.guessers();
        if guessers.len() >= MAX_GUESSERS && !guessers.contains_key(address) {
            guessers.retain(|_, remembered| now - remembered.last < REPORT_INTERVAL);
            if guessers.len() >= MAX_GUESSERS {
                // What is left are thousands that guess now: any of them is as good as this one.
                let first = guessers.keys().next().cloned();
                first.and_then(|first| guessers.remove(&first));
            }
        }
        let remembered = guessers
            .entry(address.to_owned())
            .or_insert_with(|| Remembered {
                guesser: Guesser {
                    address: address.to_owned(),
                    wrong: 0,
                    refused: 0,
                    last_name: String::new(),
                },
                last: now,
                reported: None,
            });
        remembered.last = now;
        name.clone_into(&mut remembered.guesser.last_name);
        count(&mut remembered.guesser);
        if let Some(number) = remembered.report_due(now) {
            drop(guessers);
            // As fail2ban reads a network.
            let prefix = if address.contains(':') { "/64" } else { "" };
            tracing::warn!("{number} wrong logins from {address}{prefix}");
        }
    }

    /// Returns the addresses with the most wrong logins.
    pub(super) fn guessers_by_number(&self, limit: usize) -> Vec<Guesser> {
        let guessers = self.guessers();
        let mut found: Vec<_> = guessers
            .values()
            .map(|remembered| remembered.guesser.clone())
            .collect();
        drop(guessers);
        found.sort_by_key(|guesser| std::cmp::Reverse(guesser.wrong + guesser.refused));
        found.truncate(limit);
        found
    }
}

impl Remembered {
    /// Returns how many wrong logins there were since the last line about them, when it is time for
    /// another.
    fn report_due(&mut self, now: Instant) -> Option<u64> {
        let total = self.guesser.wrong + self.guesser.refused;
        let number = match self.reported {
            None => total,
            Some((since, _)) if now - since < REPORT_INTERVAL => return None,
            Some((_, before)) => total - before,
        };
        if number < MIN_REPORTED {
            return None;
        }
        self.reported = Some((now, total));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses() -> Guesses {
        Guesses::new(LoginLimits {
            by_address: 3,
            by_name: 5,
        })
    }

    #[test]
    fn wrong_logins_are_limited_by_address_and_by_name() {
        let guesses = guesses();
        for number in 0..3 {
            assert!(!guesses.are_too_many("w1", "a1", false), "{number}");
            guesses.wrong(&format!("w{number}"), "a1");
        }
        assert!(guesses.are_too_many("w9", "a1", false), "by address");
        for address in ["a2", "a3", "a4", "a5"] {
            assert!(!guesses.are_too_many("w1", address, false));
            guesses.wrong("w1", address);
        }
        assert!(guesses.are_too_many("w1", "a5", false), "by name");
        assert!(!guesses.are_too_many("w2", "a5", false));
        assert!(
            !guesses.are_too_many("w1", "a6", false),
            "the first of an address"
        );
    }

    #[test]
    fn known_worker_is_not_shut_out_by_others() {
        let guesses = guesses();
        for number in 0..9 {
            guesses.wrong("w1", &format!("a{number}"));
            guesses.wrong("w2", "home");
        }
        assert!(!guesses.are_too_many("w1", "home", true));
        guesses.wrong("w1", "home");
        guesses.wrong("w1", "home");
        guesses.wrong("w1", "home");
        assert!(guesses.are_too_many("w1", "home", true), "its own");
    }

    #[tokio::test(start_paused = true)]
    async fn address_is_reported_once_an_hour() {
        let mut remembered = Remembered {
            guesser: Guesser {
                address: "a".to_owned(),
                wrong: 9,
                refused: 0,
                last_name: "w".to_owned(),
            },
            last: Instant::now(),
            reported: None,
        };
        let start = Instant::now();
        assert_eq!(remembered.report_due(start), None);
        remembered.guesser.refused = 1;
        assert_eq!(remembered.report_due(start), Some(10));
        remembered.guesser.refused = 200;
        assert_eq!(remembered.report_due(start + REPORT_INTERVAL / 2), None);
        assert_eq!(remembered.report_due(start + REPORT_INTERVAL), Some(199));
    }

    #[test]
    fn remembered_addresses_are_bounded() {
        let guesses = guesses();
        for number in 0..MAX_GUESSERS + 10 {
            guesses.wrong("w", &format!("a{number}"));
        }
        assert_eq!(guesses.guessers().len(), MAX_GUESSERS);
        assert_eq!(guesses.guessers_by_number(7).len(), 7);
    }
}
