//! The contracts of the ports: plain async functions over a store, run for every adapter by `contract!`.
//! A new adapter gets a line in the macro's list; a new promise of a port gets a case.

mod active_runs;
mod backchannel;
mod catalog;
mod credentials;
mod files;
mod live_logs;
mod outbox;
mod pauses;
mod queue;
pub mod run_store;
mod schedule;

/// Runs each case on a fresh store of each kind.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        contract!(@each [memory sled postgres] $($case),+);
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
