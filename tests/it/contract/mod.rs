//! The contracts of the ports: plain async functions over a store, run for every adapter by `contract!`.
//! A new adapter gets a line in the macro's list; a new promise of a port gets a case.

mod catalog;
mod credentials;
mod files;
mod queue;
mod results;
mod schedule;

/// Runs each case on a fresh store of each kind.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::memory().store).await;
            })+
        }
        mod sled {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::sled().store).await;
            })+
        }
    };
}
pub(crate) use contract;
