//! Blocking work off the async threads.

use crate::ports::Fault;

/// Runs work that blocks or takes long on a blocking thread.
///
/// When the process ends before the work has begun, this never returns: the caller stops here,
/// rather than taking the shutdown for a failure of the work.
///
/// # Errors
///
/// Returns [`Fault::Backend`] when the work panics.
pub async fn off_thread<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Err(error) if error.is_cancelled() => std::future::pending().await,
        done => done.map_err(|e| Fault::backend(action, e)),
    }
}
