//! The keys of the embedded stores: a letter for the table, then the parts, encoded so that the
//! order of the bytes is the order in which the records are read.
//!
//! Letters and names are part of the stored format and must not change.

use crate::domain::{
    name::{CampaignName, CodebaseName, RunId},
    pause::Scope,
    queue::{QueueId, QueueKey},
    schedule::Pair,
    time::Time,
};

/// A whole key, or the prefix of some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(pub(super) Vec<u8>);

/// The key of the format version.
pub(super) const FORMAT_KEY: &[u8] = b"M/format";

impl Key {
    /// Starts a key of a table.
    fn table(letter: u8) -> Self {
        Self(vec![letter])
    }

    /// Appends text, which a NUL byte ends, so that a shorter text sorts before its extensions. The
    /// bytes 0 and 1 are escaped by a 1, which keeps the order of texts and keeps different texts
    /// different.
    fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            match byte {
                0 | 1 => self.0.extend([1, byte + 1]),
                _ => self.0.push(byte),
            }
        }
        self.0.push(0);
        self
    }

    /// Appends a number.
    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Appends a signed number; the flipped sign bit makes negative numbers sort first.
    fn signed(mut self, number: i64) -> Self {
        let [first, rest @ ..] = number.to_be_bytes();
        self.0.push(first ^ 0x80);
        self.0.extend(rest);
        self
    }

    /// Appends a time in microseconds.
    fn time(self, time: Time) -> Self {
        self.signed(time.timestamp_micros())
    }
}

/// Returns the signed number that a key ends in.
fn last_number(key: &[u8]) -> Option<i64> {
    let bytes = key.last_chunk::<8>()?;
    let [first, rest @ ..] = *bytes;
    let mut number = [first ^ 0x80, 0, 0, 0, 0, 0, 0, 0];
    number.get_mut(1..)?.copy_from_slice(&rest);
    Some(i64::from_be_bytes(number))
}

/// Returns the signed number right after the table's letter.
pub(super) fn first_number(key: &[u8]) -> Option<i64> {
    last_number(key.get(..9)?)
}

/// The key of a counter or another single value.
pub(super) fn meta(name: &str) -> Key {
    Key(format!("M/{name}").into_bytes())
}

// Queue items.
pub(super) fn item(id: QueueId) -> Key {
    Key::table(b'Q').signed(id)
}
pub(super) fn items() -> Key {
    Key::table(b'Q')
}

// Active runs and host backoffs.
pub(super) fn active(id: &RunId) -> Key {
    Key::table(b'A').text(id.as_str())
}
pub(super) fn all_active() -> Key {
    Key::table(b'A')
}
pub(super) fn host(name: &str) -> Key {
    Key::table(b'L').text(name)
}
pub(super) fn all_hosts() -> Key {
    Key::table(b'L')
}

// Pauses and concurrency limits.
pub(super) fn pause(scope: &Scope) -> Key {
    Key::table(b'P').text(scope.kind()).text(scope.name())
}
pub(super) fn pauses() -> Key {
    Key::table(b'P')
}
pub(super) fn limit(scope: &Scope) -> Key {
    Key::table(b'p').text(scope.kind()).text(scope.name())
}
pub(super) fn limits() -> Key {
    Key::table(b'p')
}

// Logs of active runs: the size of each, and its blocks.
pub(super) fn live_log(run: &RunId, name: &str) -> Key {
    live_logs_of(run).text(name)
}
pub(super) fn live_logs_of(run: &RunId) -> Key {
    live_logs().text(run.as_str())
}
pub(super) fn live_logs() -> Key {
    Key::table(b't')
}
pub(super) fn live_block(run: &RunId, name: &str, number: u64) -> Key {
    live_blocks_of(run).text(name).number(number)
}
pub(super) fn live_blocks_of(run: &RunId) -> Key {
    Key::table(b'T').text(run.as_str())
}

// Runs.
pub(super) fn all_runs() -> Key {
    Key::table(b'R')
}
pub(super) fn run(id: &RunId) -> Key {
    Key::table(b'R').text(id.as_str())
}
/// The run of an item that was abandoned last.
pub(super) fn abandoned_run(item: QueueId) -> Key {
    Key::table(b'K').signed(item)
}
/// Runs by the time they were stored; both parts are negated, so that the newest sorts first.
pub(super) fn stored(at: Time, sequence: u64) -> Key {
    Key::table(b'Z')
        .signed(-at.timestamp_micros())
        .number(!sequence)
}
pub(super) fn all_stored() -> Key {
    Key::table(b'Z')
}
pub(super) fn all_past() -> Key {
    Key::table(b'S')
}
pub(super) fn past_of_codebase(codebase: &CodebaseName) -> Key {
    Key::table(b'S').text(codebase.as_str())
}
pub(super) fn past_of_pair(pair: &Pair) -> Key {
    past_of_codebase(&pair.codebase).text(pair.campaign.as_str())
}
pub(super) fn past(pair: &Pair, started: Time, id: &RunId) -> Key {
    past_of_pair(pair).time(started).text(id.as_str())
}
pub(super) fn durations_of_campaign(campaign: &CampaignName) -> Key {
    Key::table(b'D').text(campaign.as_str())
}
pub(super) fn highest_version(codebase: &CodebaseName, distribution: &str) -> Key {
    Key::table(b'B').text(codebase.as_str()).text(distribution)
}
pub(super) fn change_set(id: &str) -> Key {
    Key::table(b'G').text(id)
}
pub(super) fn finished(minute: i64, code: &str) -> Key {
    Key::table(b'I').signed(minute).text(code)
}
pub(super) fn all_finished() -> Key {
    Key::table(b'I')
}
pub(super) fn follow_up(id: u64) -> Key {
    Key::table(b'F').number(id)
}
pub(super) fn follow_ups() -> Key {
    Key::table(b'F')
}

// The outbox.
pub(super) fn outbox_entry(id: u64) -> Key {
    Key::table(b'N').number(id)
}
pub(super) fn outbox_entries() -> Key {
    Key::table(b'N')
}

// The audit log, latest entry first.
pub(super) fn audit_entry(id: i64) -> Key {
    Key::table(b'H').signed(!id)
}
pub(super) fn audit_entries() -> Key {
    Key::table(b'H')
}

// Catalog.
pub(super) fn codebase(sequence: u64) -> Key {
    Key::table(b'C').number(sequence)
}
pub(super) fn codebases() -> Key {
    Key::table(b'C')
}
pub(super) fn codebase_named(name: &CodebaseName) -> Key {
    Key::table(b'c').text(name.as_str())
}
pub(super) fn codebase_at(branch_url: &str, subpath: &str) -> Key {
    Key::table(b'U').text(branch_url).text(subpath)
}
pub(super) fn codebase_value(value: i32, sequence: u64) -> Key {
    Key::table(b'V').signed(value.into()).number(sequence)
}
pub(super) fn codebase_values() -> Key {
    Key::table(b'V')
}
pub(super) fn candidate(id: i64) -> Key {
    Key::table(b'E').signed(id)
}
pub(super) fn candidates() -> Key {
    Key::table(b'E')
}
pub(super) fn candidate_of(key: &QueueKey) -> Key {
    candidates_of_codebase(&key.codebase)
        .text(key.campaign.as_str())
        .text(key.change_set.as_deref().unwrap_or(""))
}
pub(super) fn candidates_of_codebase(codebase: &CodebaseName) -> Key {
    Key::table(b'X').text(codebase.as_str())
}
pub(super) fn origin(candidate: i64, run: &RunId) -> Key {
    origins(candidate).text(run.as_str())
}
pub(super) fn origins(candidate: i64) -> Key {
    Key::table(b'Y').signed(candidate)
}
pub(super) fn publish_policy(name: &str) -> Key {
    Key::table(b'J').text(name)
}

// Workers.
pub(super) fn worker(name: &str) -> Key {
    Key::table(b'W').text(name)
}
pub(super) fn workers() -> Key {
    Key::table(b'W')
}
pub(super) fn worker_failures(name: &str) -> Key {
    Key::table(b'f').text(name)
}
/// The prefix of [`worker_failures`] of the nodes of an account, `ACCOUNT/NODE`.
pub(super) fn node_failures(account: &str) -> Key {
    let mut key = Key::table(b'f').text(&format!("{account}/"));
    // Without the byte that ends the text, since the name of the node follows.
    key.0.pop();
    key
}
pub(super) fn worker_seen(name: &str) -> Key {
    Key::table(b'w').text(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_parts_do(
            a in "[\\x00-\\x02a]{0,4}",
            b in "[\\x00-\\x02a]{0,4}",
            x in any::<i64>(),
            y in any::<i64>(),
        ) {
            let key = |text: &str, number| Key::table(b'x').text(text).signed(number);
            let by_parts = (a.as_str(), x).cmp(&(b.as_str(), y));
            prop_assert_eq!(key(&a, x).0.cmp(&key(&b, y).0), by_parts);
            prop_assert_eq!(last_number(&key(&a, x).0), Some(x));
        }
    }
}
