//! One request to a bucket: whether its bytes move, what the bucket responded, and when to try
//! again.
//!
//! The clients of both buckets hide this in layers of their own. So the request notes it in a
//! task-local [`Attempt`]: the body of an upload counts the bytes that the connection takes, and
//! the HTTP client below notes status and `Retry-After`.

use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use std::{
    error::Error,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task_local,
    time::{Instant, sleep},
};
use tokio_util::io::ReaderStream;

/// How long a transfer may make no progress before it fails.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often progress is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How many bytes are sent at a time. The connection takes several of them ahead, so that larger
/// ones would hide whether they move.
pub const CHUNK_SIZE: usize = 64 << 10;
/// How many bytes may lie in the buffers of sockets, where nothing shows how they move.
const MAX_BUFFERED: u64 = 8 << 20;
/// How many bytes of those buffers a connection must move in a second.
const MIN_RATE: u64 = 256 << 10;
/// How often a request is sent before it fails.
const MAX_ATTEMPTS: usize = 5;
/// How often a bucket is sent a request that it does not even accept a connection for: it is likely
/// to be away for longer, and the backup directory can take the files at once.
const MAX_CONNECT_ATTEMPTS: usize = 3;
/// The delay before the second attempt; later ones grow, each with jitter.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// The longest delay between two attempts, unless the bucket asks for a longer one.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How long after the first failure another attempt may begin. The worker that sent the files waits
/// meanwhile.
const RETRY_TIMEOUT: Duration = Duration::from_secs(8);

/// The content of an upload, chunk by chunk.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// The cause of a failure.
type Cause = Box<dyn Error + Send + Sync>;

task_local! {
    static CURRENT: Arc<Attempt>;
}

/// What is known of one request.
#[derive(Debug, Default)]
pub struct Attempt {
    /// Grows whenever something moves.
    moved: AtomicU64,
    /// The bytes that the connection has taken.
    sent: AtomicU64,
    /// The status of the last response; 0 while there is none.
    status: AtomicU16,
    /// Whether there was no connection.
    unreached: AtomicBool,
    /// The seconds that the bucket asks to wait, plus one; 0 when it asks for none.
    retry_after: AtomicU64,
}

impl Attempt {
    /// Returns the attempt that this task makes, or one that nobody reads.
    pub fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Notes that the connection has taken so many bytes.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a part of the response has arrived.
    pub fn received(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that no connection could be made.
    pub fn unreached(&self) {
        self.unreached.store(true, Ordering::Relaxed);
    }

    /// Notes the head of the response.
    pub fn responded(&self, status: u16, retry_after: Option<&str>) {
        let seconds = retry_after.and_then(|text| text.trim().parse::<u32>().ok());
        self.retry_after
            .store(seconds.map_or(0, |s| u64::from(s) + 1), Ordering::Relaxed);
        self.status.store(status, Ordering::Relaxed);
        self.received();
    }

    /// Returns after a while in which nothing moved.
    ///
    /// What was sent may still lie in the buffers of sockets, so that a slow connection seems to
    /// stand still for as long as it needs for them.
    async fn stalled(&self) {
        let mut last = (self.moved.load(Ordering::Relaxed), Instant::now());
        loop {
            sleep(CHECK_INTERVAL).await;
            let moved = self.moved.load(Ordering::Relaxed);
            if moved != last.0 {
                last = (moved, Instant::now());
                continue;
            }
            let buffered = self.sent.load(Ordering::Relaxed).min(MAX_BUFFERED);
            let limit = STALL_TIMEOUT + Duration::from_millis(buffered * 1000 / MIN_RATE);
            if last.1.elapsed() >= limit {
                return;
            }
        }
    }
}

/// Why a client says that its request failed.
#[derive(Debug)]
pub struct Rejection {
    /// The status of the response, if the client knows it.
    pub status: Option<u16>,
    /// The client's own error.
    pub source: Cause,
}

impl From<io::Error> for Rejection {
    fn from(error: io::Error) -> Self {
        Self {
            status: None,
            source: Box::new(error),
        }
    }
}

/// Why a request failed, after its last attempt.
#[derive(Debug)]
pub struct Failure {
    /// The status of the response; none when there was none, or a response broke off.
    pub status: Option<u16>,
    /// The failure, for callers.
    pub fault: Fault,
    /// Whether another attempt may succeed soon.
    transient: bool,
    /// Whether there was no connection.
    unreached: bool,
    /// How long the bucket asks to wait.
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(action: &'static str, attempt: &Attempt, rejection: Rejection) -> Self {
        // A success that the client could not read is a response that broke off.
        let seen = Some(attempt.status.load(Ordering::Relaxed)).filter(|status| *status >= 400);
        let status = rejection.status.or(seen);
        let retry_after = attempt.retry_after.load(Ordering::Relaxed).checked_sub(1);
        let transient = status.is_none_or(|code| matches!(code, 408 | 429) || code >= 500);
        let source = rejection.source;
        let fault = match status {
            _ if transient => Fault::unavailable(action, source),
            Some(401 | 403) => Fault::refused(action, source),
            _ => Fault::backend(action, source),
        };
        Self {
            status,
            fault,
            transient,
            unreached: attempt.unreached.load(Ordering::Relaxed),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn stalled(action: &'static str) -> Self {
        let seconds = STALL_TIMEOUT.as_secs();
        Self {
            status: None,
            fault: Fault::unavailable(action, format!("nothing moved for {seconds} s or more")),
            // Another attempt would take as long; callers wait.
            transient: false,
            unreached: false,
            retry_after: None,
        }
    }

    /// Returns how long to wait before the next attempt; `None` when there is to be none.
    fn delay(&self, delays: &mut ExponentialBackoff) -> Option<Duration> {
        let delay = delays.next()?;
        self.transient
            .then(|| delay.max(self.retry_after.unwrap_or_default()))
    }
}

/// Makes one attempt, as long as it makes progress.
///
/// # Errors
///
/// Returns [`Failure`] when the request fails or stalls.
pub async fn once<T>(
    action: &'static str,
    request: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Failure> {
    let attempt = Arc::new(Attempt::default());
    tokio::select! {
        done = CURRENT.scope(attempt.clone(), request) => {
            done.map_err(|rejection| Failure::new(action, &attempt, rejection))
        }
        () = attempt.stalled() => Err(Failure::stalled(action)),
    }
}

/// Makes attempts until one succeeds, with growing delays, as long as a failure may pass: the
/// connection was cut, or the bucket is overloaded (408, 429, 5xx). A `Retry-After` that would take
/// too long ends them.
///
/// # Errors
///
/// Returns the [`Failure`] of the last attempt.
pub async fn with_retries<T, F>(
    action: &'static str,
    mut request: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Rejection>>,
{
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(MIN_BACKOFF)
        .with_max_delay(MAX_BACKOFF)
        .with_max_times(MAX_ATTEMPTS - 1)
        .with_jitter()
        .build();
    let mut first_failure = None;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let failure = match once(action, request()).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        // Counted from the first failure, and not from the start: a large file that takes an hour
        // may be sent again, too.
        let since: Instant = *first_failure.get_or_insert_with(Instant::now);
        match failure.delay(&mut delays) {
            _ if failure.unreached && attempts >= MAX_CONNECT_ATTEMPTS => return Err(failure),
            Some(delay) if since.elapsed() + delay <= RETRY_TIMEOUT => {
                tracing::debug!(
                    error = &failure.fault as &dyn Error,
                    status = failure.status,
                    ?delay,
                    "a request to a bucket is tried again"
                );
                sleep(delay).await;
            }
            _ => return Err(failure),
        }
    }
}

/// Splits bytes into chunks of [`CHUNK_SIZE`].
pub fn split(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = bytes.len().min(CHUNK_SIZE);
        (size > 0).then(|| bytes.split_to(size))
    })
}

/// Opens a file on disk as a stream of chunks.
async fn open(path: &Path) -> io::Result<ReaderStream<tokio::fs::File>> {
    let file = tokio::fs::File::open(path).await?;
    Ok(ReaderStream::with_capacity(file, CHUNK_SIZE))
}

/// Returns content chunk by chunk.
///
/// # Errors
///
/// Returns the error of the file system when the file cannot be opened.
pub async fn chunks(content: &Content) -> io::Result<Chunks> {
    Ok(match content {
        Content::Memory(bytes) => Box::pin(futures::stream::iter(split(bytes.clone()).map(Ok))),
        Content::File(path) => Box::pin(open(path).await?),
    })
}

/// Returns content as the body of the current attempt: what is taken of it counts as progress.
///
/// # Errors
///
/// Returns the error of the file system when the file cannot be opened.
pub async fn body(content: &Content) -> io::Result<Chunks> {
    let attempt = Attempt::current();
    let counted = chunks(content)
        .await?
        .inspect_ok(move |chunk| attempt.sent(chunk.len()));
    Ok(Box::pin(counted))
}

/// Makes a reader of a download, which fails when it stalls. How slowly it is read does not matter.
pub fn reader<E: Into<Cause> + 'static>(
    download: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
) -> FileReader {
    let chunks = futures::stream::unfold(download, |mut download| async move {
        let next = tokio::time::timeout(STALL_TIMEOUT, download.next()).await;
        let chunk = match next {
            Ok(None) => return None,
            Ok(Some(chunk)) => chunk.map_err(io::Error::other),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        Some((chunk, download))
    });
    Box::new(tokio_util::io::StreamReader::new(Box::pin(chunks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Rejection {
        Rejection {
            status: Some(code),
            source: "no".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn passing_failures_are_tried_again_a_few_times() {
        for code in [408, 429, 500, 503] {
            let mut attempts = 0;
            let failed = with_retries("try", || {
                attempts += 1;
                async move { Err::<(), _>(status(code)) }
            });
            assert!(failed.await.unwrap_err().fault.is_unavailable(), "{code}");
            assert_eq!(attempts, MAX_ATTEMPTS, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_not_tried_again() {
        for code in [400, 401, 403, 404, 412] {
            let mut attempts = 0;
            let failed = with_retries("try", || {
                attempts += 1;
                async move { Err::<(), _>(status(code)) }
            });
            assert!(!failed.await.unwrap_err().fault.is_unavailable(), "{code}");
            assert_eq!(attempts, 1, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_and_a_long_one_ends_the_attempts() {
        for (seconds, expected) in [("3", 3), ("60", 1)] {
            let (mut attempts, start) = (0, Instant::now());
            let failed = with_retries("try", || {
                attempts += 1;
                async move {
                    Attempt::current().responded(429, Some(seconds));
                    Err::<(), _>(status(429))
                }
            });
            failed.await.unwrap_err();
            assert_eq!(attempts, expected, "{seconds}");
            assert!(start.elapsed() <= RETRY_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upload_stalls_only_when_no_byte_moves() {
        let slow = async {
            for _ in 0..20 {
                sleep(STALL_TIMEOUT / 2).await;
                Attempt::current().sent(1);
            }
            Ok(())
        };
        once("send", slow).await.unwrap();
        let start = Instant::now();
        let still = once("send", std::future::pending::<Result<(), _>>()).await;
        assert!(still.unwrap_err().fault.is_unavailable());
        assert!(start.elapsed() < STALL_TIMEOUT + Duration::from_secs(1));
    }
}
