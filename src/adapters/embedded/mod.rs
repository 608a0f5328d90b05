//! The stores that need no server: queue, active runs, runs, catalog and accounts on any ordered
//! key-value store.
//!
//! One writer thread applies all changes, one after the other, each all or nothing (`writer.rs`).
//! Queue, active runs, pauses and limits are also kept in memory (`memory_index.rs`), since every
//! request needs them. The rules live here once; `adapters/sled`, `adapters/redb` and
//! `adapters/memory` only bring the key-value store ([`Kv`]).
//!
//! Each port is implemented in the file named like it. Steps that several ports share are in
//! `items.rs` (queue items), `claiming.rs` (which item a worker gets), `codebases.rs` (look-ups)
//! and `change_sets.rs`. A new kind of record gets a key in `keys.rs` and, unless it is a domain
//! type, a type in `records.rs`.

mod active_runs;
mod audit_log;
mod candidates;
mod catalog;
mod change_sets;
mod claiming;
mod codebases;
mod credentials;
mod engine;
mod host_backoff;
mod host_names;
mod items;
mod keys;
mod kv;
mod leadership;
mod live_logs;
mod memory_index;
mod notifier;
mod outbox;
mod parking;
mod pauses;
mod queue;
mod records;
mod run_history;
mod run_recorder;
mod runs;
mod schedule;
mod store;
mod txn;
mod writer;

pub use engine::{collect_range, open_engine, sync_folders};
pub use kv::{Batch, Entry, Kv, KvError};
pub use store::Embedded;
