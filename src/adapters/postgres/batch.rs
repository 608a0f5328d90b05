//! Serves requests that wait at the same moment together, each answered for itself. A few batches are under way at the
//! same time: while one waits for the disk, the next is worked on.

use crate::ports::Fault;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Requests that may wait; more wait outside.
const WAITING: usize = 1024;

type Asked<Q, A> = (Q, oneshot::Sender<A>);
type Waiting<Q, A> = Arc<Mutex<mpsc::Receiver<Asked<Q, A>>>>;

/// Takes requests in, and has them carried out in batches, one batch at a time.
#[derive(Debug)]
pub(super) struct Batcher<Q, A> {
    requests: mpsc::Sender<Asked<Q, A>>,
}

async fn lane<Q, A>(
    waiting: Waiting<Q, A>,
    most: usize,
    serve: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>>,
) {
    let mut batch = Vec::with_capacity(most);
    // The lock is held while waiting, so that one lane collects at a time.
    while waiting.lock().await.recv_many(&mut batch, most).await > 0 {
        // Nobody waits for an answer to these any more, and nothing was done for them yet.
        batch.retain(|(_, answer)| !answer.is_closed());
        let (asked, answers): (Vec<Q>, Vec<_>) = batch.drain(..).unzip();
        if asked.is_empty() {
            continue;
        }
        for (answer, done) in answers.into_iter().zip(serve(asked).await) {
            drop(answer.send(done));
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// `serve` answers a batch, in its order. It ends with the last batcher.
    pub(super) fn start(
        lanes: usize,
        most: usize,
        serve: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..lanes {
            tokio::spawn(lane(waiting.clone(), most, serve.clone()));
        }
        Self { requests }
    }
    pub(super) async fn ask(&self, action: &'static str, request: Q) -> Result<A, Fault> {
        let stopped = || Fault::unavailable(action, "the batches have stopped");
        let (answer, answered) = oneshot::channel();
        self.requests
            .send((request, answer))
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn those_that_wait_are_served_together_and_answered_apart() {
        let batcher = Arc::new(Batcher::<u32, (u32, usize)>::start(2, 8, |batch| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let size = batch.len();
                batch.into_iter().map(|number| (number * 2, size)).collect()
            })
        }));
        let asked: Vec<_> = (0..17)
            .map(|number| {
                let batcher = batcher.clone();
                tokio::spawn(async move { (number, batcher.ask("double", number).await.unwrap()) })
            })
            .collect();
        let mut largest = 0;
        for asked in asked {
            let (number, (answer, size)) = asked.await.unwrap();
            assert_eq!(answer, number * 2);
            largest = largest.max(size);
        }
        assert!((2..=8).contains(&largest), "{largest}");
    }
}
