//! Work off the async threads.

use crate::ports::Fault;

/// Has a thread do what blocks or takes long. When the process ends before the work has begun, there is no answer: whoever waits
/// for it goes no further, rather than taking the end for a failure of the work.
pub async fn off_thread<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Err(error) if error.is_cancelled() => std::future::pending().await,
        done => done.map_err(|e| Fault::backend(action, e)),
    }
}
