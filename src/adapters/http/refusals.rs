//! Delays responses to clients that are refused and ask again at once: a worker with a wrong
//! password would otherwise ask thousands of times a second.

use super::{
    RequestLimits,
    client_address::{ClientAddress, network_of},
};
use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use moka::sync::Cache;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, time::sleep};

/// How many clients are remembered at most.
const MAX_CLIENTS: u64 = 10_000;

/// Who was refused a moment ago, and how many responses are delayed now.
pub struct Refusals {
    delay: Duration,
    permits: Semaphore,
    /// Hashes of the clients that were refused within twice the delay.
    recent: Cache<u64, ()>,
    hasher: RandomState,
}

impl Refusals {
    /// Creates the delay that the limits describe.
    pub fn new(limits: &RequestLimits) -> Self {
        let delay = Duration::from_millis(limits.refusal_delay_milliseconds);
        let max_delayed = usize::try_from(limits.max_delayed_refusals).unwrap_or(usize::MAX);
        Self {
            delay,
            permits: Semaphore::new(max_delayed.min(Semaphore::MAX_PERMITS)),
            recent: Cache::builder()
                .max_capacity(MAX_CLIENTS)
                .time_to_live(delay * 2)
                .build(),
            hasher: RandomState::new(),
        }
    }

    /// Returns what a client is known by: its address, or its login on a Unix socket. Whoever
    /// guesses has another login each time. Behind a proxy that is not trusted all workers are the
    /// same client: the refusals of one are delayed because another was refused, and nothing else.
    fn client(&self, request: &Request) -> u64 {
        let address = request.extensions().get::<ClientAddress>();
        if let Some(address) = address.and_then(|address| address.0) {
            return self.hasher.hash_one(network_of(address));
        }
        let login = request.headers().get(header::AUTHORIZATION);
        self.hasher.hash_one(login.map(HeaderValue::as_bytes))
    }

    /// Waits, if the client was refused a moment ago. Only so many wait at a time, so that nobody
    /// can use up connections this way.
    async fn wait(&self, client: u64) {
        if self.delay.is_zero() {
            return;
        }
        let is_repeated = self.recent.contains_key(&client);
        self.recent.insert(client, ());
        if !is_repeated {
            return;
        }
        if let Ok(_permit) = self.permits.try_acquire() {
            sleep(self.delay).await;
        }
    }
}

/// Delays responses of 401 and 429. The request is complete by then: nothing is held while it
/// waits but its connection.
///
/// It is no `async fn`, for the same reason as [`observe`](super::observe::observe).
pub fn delay(
    State(refusals): State<Arc<Refusals>>,
    request: Request,
    next: Next,
) -> impl Future<Output = Response> {
    let client = refusals.client(&request);
    let response = next.run(request);
    async move {
        let response = response.await;
        let is_refusal = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS
        );
        if is_refusal {
            refusals.wait(client).await;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tokio::time::Instant;

    fn refusals(delay: u64, max_delayed: u64) -> Refusals {
        Refusals::new(&RequestLimits {
            json_body: 0,
            report: 0,
            upload_file: 0,
            upload: 0,
            uploads: 0,
            uploads_of_worker: 0,
            upload_files: 0,
            upload_idle_seconds: 0,
            refusal_delay_milliseconds: delay,
            max_delayed_refusals: max_delayed,
        })
    }

    async fn waited(refusals: &Refusals, client: u64) -> Duration {
        let asked = Instant::now();
        refusals.wait(client).await;
        asked.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_refusal_is_delayed() {
        let refusals = refusals(1000, 256);
        assert_eq!(waited(&refusals, 1).await, Duration::ZERO);
        assert_eq!(waited(&refusals, 2).await, Duration::ZERO);
        assert!(waited(&refusals, 1).await >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_delayed_at_a_time() {
        let refusals = refusals(1000, 2);
        waited(&refusals, 1).await;
        let all = futures::future::join_all((0..5).map(|_| waited(&refusals, 1))).await;
        let delayed = all.iter().filter(|waited| !waited.is_zero()).count();
        assert_eq!(delayed, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_delay_means_none() {
        let refusals = refusals(0, 256);
        for _ in 0..2 {
            assert_eq!(waited(&refusals, 1).await, Duration::ZERO);
        }
    }

    #[test]
    fn client_is_known_by_its_address_or_else_its_login() {
        let refusals = refusals(1000, 2);
        let with = |address: Option<&str>, login: &'static str| {
            let mut request = Request::new(Body::empty());
            let login = HeaderValue::from_static(login);
            request.headers_mut().insert(header::AUTHORIZATION, login);
            let address = address.map(|address| address.parse().unwrap());
            request.extensions_mut().insert(ClientAddress(address));
            refusals.client(&request)
        };
        let here = Some("192.0.2.1");
        assert_eq!(with(here, "Basic a"), with(here, "Basic b"));
        assert_ne!(with(here, "Basic a"), with(Some("192.0.2.2"), "Basic a"));
        assert_eq!(with(None, "Basic a"), with(None, "Basic a"));
        assert_ne!(with(None, "Basic a"), with(None, "Basic b"));
    }
}
