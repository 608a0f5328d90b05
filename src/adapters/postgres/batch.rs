//! Serves requests that wait at the same moment together, with a result of its own for each. A few
//! batches are under way at the same time: while one waits for the disk, the next is worked on.

use crate::ports::Fault;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Requests that may wait; further callers wait until there is space.
const QUEUE_CAPACITY: usize = 1024;

type Request<Q, A> = (Q, oneshot::Sender<A>);
type Requests<Q, A> = Arc<Mutex<mpsc::Receiver<Request<Q, A>>>>;

/// Accepts requests and has them processed in batches.
#[derive(Debug)]
pub(super) struct Batcher<Q, A> {
    requests: mpsc::Sender<Request<Q, A>>,
}

async fn worker<Q, A>(
    requests: Requests<Q, A>,
    batch_size: usize,
    process: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>>,
) {
    let mut batch = Vec::with_capacity(batch_size);
    // The lock is held while waiting, so that one worker at a time collects a batch: two would
    // share the requests between them and halve the batches.
    while requests
        .lock()
        .await
        .recv_many(&mut batch, batch_size)
        .await
        > 0
    {
        // Callers that went away wait for no result, and nothing was done for them yet: to claim
        // an item for one of them would leave the item held by nobody.
        batch.retain(|(_, reply)| !reply.is_closed());
        let (requests, replies): (Vec<Q>, Vec<_>) = batch.drain(..).unzip();
        if requests.is_empty() {
            continue;
        }
        for (reply, result) in replies.into_iter().zip(process(requests).await) {
            drop(reply.send(result));
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Starts workers, each of which has one batch under way at a time. `process` returns the
    /// results of a batch in its order. The workers end when the batcher is dropped.
    pub(super) fn start(
        workers: usize,
        batch_size: usize,
        process: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..workers {
            tokio::spawn(worker(receiver.clone(), batch_size, process.clone()));
        }
        Self { requests: sender }
    }

    /// Adds a request to the next batch, and returns its result.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`] when the workers have stopped.
    pub(super) async fn submit(&self, action: &'static str, request: Q) -> Result<A, Fault> {
        let stopped = || Fault::unavailable(action, "the batches have stopped");
        let (reply, result) = oneshot::channel();
        self.requests
            .send((request, reply))
            .await
            .map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn waiting_requests_share_a_batch_and_get_their_own_results() {
        let batcher = Arc::new(Batcher::<u32, (u32, usize)>::start(2, 8, |batch| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let size = batch.len();
                batch.into_iter().map(|number| (number * 2, size)).collect()
            })
        }));
        let submitted: Vec<_> = (0..17)
            .map(|number| {
                let batcher = batcher.clone();
                tokio::spawn(
                    async move { (number, batcher.submit("double", number).await.unwrap()) },
                )
            })
            .collect();
        let mut largest = 0;
        for submitted in submitted {
            let (number, (doubled, size)) = submitted.await.unwrap();
            assert_eq!(doubled, number * 2);
            largest = largest.max(size);
        }
        assert!(
            (2..=8).contains(&largest),
            "the largest batch had {largest} requests"
        );
    }
}
