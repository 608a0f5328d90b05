//! The contracts of the ports: plain async functions over a store, run for every adapter by `contract!`.
//! A new adapter gets an entry in the macro's list; a new rule of a port gets a case.

mod active_runs;
mod artifact_store;
mod audit_log;
mod backchannel;
mod catalog;
mod credentials;
mod event_bus;
mod held_runs;
mod host_backoff;
mod late_results;
mod leadership;
mod live_logs;
mod log_store;
mod odd_text;
mod outbox;
mod parking;
mod pauses;
mod queue_notifier;
mod queue_store;
mod reopen;
mod run_history;
mod run_recorder;
pub mod run_store;
mod schedule_store;
pub mod steps;

/// Runs each case on a fresh store of each kind.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        contract!(@each [memory sled redb postgres] $($case),+);
    };
    (@each [$first:ident $($kind:ident)*] $($case:ident),+) => {
        mod $first {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::$first().await.store).await;
            })+
        }
        contract!(@each [$($kind)*] $($case),+);
    };
    (@each [] $($case:ident),+) => {};
}
pub(crate) use contract;
