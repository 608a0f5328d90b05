//! The connections of a listener: how many there may be, and which are closed for others.
//!
//! A connection without a request may be closed at any time. So it is closed when it has waited for
//! too long, and before that when its place is needed: whoever opens connections and says nothing
//! shuts nobody out.

use super::client_address::network_of;
use hyper::body::{Body, Frame, SizeHint};
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long a new connection may take to send the head of its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may wait for its next request. It is more than the 60 seconds for which
/// nginx keeps connections, so that nginx does not send a request on one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(65);
/// The interval at which connections without a request are looked through.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The limits on the connections of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The maximum number of connections.
    pub total: usize,
    /// The maximum number of connections of one address that have not logged in; `None` means no
    /// limit.
    pub per_address: Option<usize>,
    /// The maximum number of connections with a request of one worker's account; `None` means no
    /// limit.
    pub per_worker: Option<usize>,
    /// The networks of proxies, which `per_address` does not hold for.
    pub trusted_proxies: Vec<IpNet>,
}

/// When a connection without a request is closed, and its id.
type Deadline = (Instant, u64);

#[derive(Default)]
struct OfAddress {
    /// The number of connections that have not logged in.
    anonymous: usize,
    /// Those of them that have no request.
    idle: BTreeSet<Deadline>,
}

struct Entry {
    /// The network of its address, until it has logged in; `None` when the limit does not hold for
    /// it.
    stranger: Option<IpAddr>,
    /// Until when it may have no request; `None` while it has one.
    idle_until: Option<Instant>,
    /// The account of the worker whose request it has, once that has logged in.
    worker: Option<String>,
    close: Arc<Notify>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    open: HashMap<u64, Entry>,
    idle: BTreeSet<Deadline>,
    /// Only of addresses with anonymous connections.
    addresses: HashMap<IpAddr, OfAddress>,
    /// The number of connections with a request of each account.
    workers: HashMap<String, usize>,
}

impl State {
    fn set_idle(&mut self, id: u64, until: Option<Instant>) {
        let Some(entry) = self.open.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.idle_until, until);
        let of_address = entry
            .stranger
            .and_then(|address| self.addresses.get_mut(&address));
        let mut sets = [Some(&mut self.idle), of_address.map(|of| &mut of.idle)];
        for set in sets.iter_mut().flatten() {
            if let Some(before) = before {
                set.remove(&(before, id));
            }
            if let Some(until) = until {
                set.insert((until, id));
            }
        }
    }

    /// Stops to count a connection among those of its address that have not logged in.
    fn forget_address(&mut self, id: u64) {
        let Some(entry) = self.open.get_mut(&id) else {
            return;
        };
        let Some(address) = entry.stranger.take() else {
            return;
        };
        if let Some(of_address) = self.addresses.get_mut(&address) {
            of_address.anonymous -= 1;
            if let Some(until) = entry.idle_until {
                of_address.idle.remove(&(until, id));
            }
            if of_address.anonymous == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Stops to count a connection among those with a request of its worker's account.
    fn forget_worker(&mut self, id: u64) {
        let Some(worker) = self.open.get_mut(&id).and_then(|entry| entry.worker.take()) else {
            return;
        };
        if let Some(number) = self.workers.get_mut(&worker) {
            *number -= 1;
            if *number == 0 {
                self.workers.remove(&worker);
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.set_idle(id, None);
        self.forget_address(id);
        self.forget_worker(id);
        self.open.remove(&id)
    }

    fn close(&mut self, (_, id): Deadline) {
        if let Some(entry) = self.remove(id) {
            entry.close.notify_one();
        }
    }
}

/// The connections of a listener.
pub(super) struct Connections {
    limits: ConnectionLimits,
    state: Mutex<State>,
    /// Notified when a connection may have freed a place.
    freed: Notify,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a place for a connection, or another without a request that can be
    /// closed for it.
    pub(super) async fn has_place(&self) {
        loop {
            let changed = self.freed.notified();
            {
                let state = self.state();
                if state.open.len() < self.limits.total || !state.idle.is_empty() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Admits a connection, for which others without a request are closed; `None` when there are
    /// too many with one. Those of a Unix socket have no address: only the limit of all counts.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: impl Into<Option<IpAddr>>,
    ) -> Option<Arc<Connection>> {
        let limited = self
            .limits
            .per_address
            .zip(address.into())
            .filter(|(limit, address)| {
                let proxies = &self.limits.trusted_proxies;
                *limit > 0
                    && !proxies
                        .iter()
                        .any(|network| network.contains(&address.to_canonical()))
            });
        let stranger = limited.map(|(_, address)| network_of(address));
        let mut state = self.state();
        if let Some((limit, _)) = limited
            && let Some(of_address) = stranger.and_then(|address| state.addresses.get(&address))
            && of_address.anonymous >= limit
        {
            let oldest = *of_address.idle.first()?;
            state.close(oldest);
        }
        if state.open.len() >= self.limits.total {
            let oldest = *state.idle.first()?;
            state.close(oldest);
        }
        state.next_id += 1;
        let id = state.next_id;
        let close = Arc::new(Notify::new());
        let entry = Entry {
            stranger,
            idle_until: None,
            worker: None,
            close: close.clone(),
        };
        state.open.insert(id, entry);
        if let Some(address) = stranger {
            state.addresses.entry(address).or_default().anonymous += 1;
        }
        state.set_idle(id, Some(Instant::now() + FIRST_REQUEST_TIMEOUT));
        Some(Arc::new(Connection {
            id,
            all: self.clone(),
            close,
        }))
    }

    /// Closes the connections that have waited for a request for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.state();
        while let Some(oldest) = state
            .idle
            .first()
            .copied()
            .filter(|(until, _)| *until < now)
        {
            state.close(oldest);
        }
    }
}

/// A connection, which counts until this is dropped.
pub struct Connection {
    id: u64,
    all: Arc<Connections>,
    close: Arc<Notify>,
}

impl Connection {
    /// Waits until the connection is closed for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Marks the connection as one with a request, until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        self.all.state().set_idle(self.id, None);
        Request(self.clone())
    }

    /// Counts the connection as one with a request of a worker's account, and no more as one of a
    /// stranger. Returns whether the account has few enough of them.
    pub(super) fn logged_in(&self, worker: &str) -> bool {
        let mut state = self.all.state();
        state.forget_address(self.id);
        state.forget_worker(self.id);
        let number = state.workers.get(worker).copied().unwrap_or_default();
        if self
            .all
            .limits
            .per_worker
            .is_some_and(|limit| number >= limit)
        {
            return false;
        }
        let Some(entry) = state.open.get_mut(&self.id) else {
            return true;
        };
        entry.worker = Some(worker.to_owned());
        state.workers.insert(worker.to_owned(), number + 1);
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.state().remove(self.id);
        self.all.freed.notify_one();
    }
}

/// A request of a connection.
pub(super) struct Request(Arc<Connection>);

impl Drop for Request {
    fn drop(&mut self) {
        let until = Instant::now() + IDLE_TIMEOUT;
        let mut state = self.0.all.state();
        state.set_idle(self.0.id, Some(until));
        state.forget_worker(self.0.id);
        drop(state);
        self.0.all.freed.notify_one();
    }
}

/// The body of a response, with the request that it belongs to.
pub(super) struct OfRequest {
    body: axum::body::Body,
    request: Option<Request>,
}

impl OfRequest {
    pub(super) fn new(body: axum::body::Body, request: Request) -> Self {
        Self {
            body,
            request: Some(request),
        }
    }
}

impl Body for OfRequest {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.request = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn there(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn connections(total: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(ConnectionLimits {
            total,
            per_address: Some(per_address),
            per_worker: Some(2),
            trusted_proxies: vec!["192.0.2.99/32".parse().unwrap()],
        })
    }

    async fn is_closed(connection: &Connection) -> bool {
        tokio::time::timeout(Duration::from_millis(1), connection.closed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn oldest_without_a_request_is_closed_first() {
        let all = connections(3, 0);
        let open: Vec<_> = (1..4).map(|n| all.admit(there(n)).unwrap()).collect();
        let request = open[0].begin();
        let next = all.admit(there(9)).unwrap();
        assert!(!is_closed(&open[0]).await && !is_closed(&open[2]).await);
        assert!(is_closed(&open[1]).await);
        let requests = [next.begin(), open[2].begin()];
        assert!(all.admit(there(10)).is_none());
        assert!(
            tokio::time::timeout(Duration::from_millis(1), all.has_place())
                .await
                .is_err()
        );
        drop(request);
        all.has_place().await;
        assert!(all.admit(there(10)).is_some());
        assert!(is_closed(&open[0]).await);
        drop(requests);
    }

    #[tokio::test]
    async fn address_has_so_many_connections_until_it_logs_in() {
        let all = connections(100, 2);
        let (first, second) = (all.admit(HERE).unwrap(), all.admit(HERE).unwrap());
        let requests = [first.begin(), second.begin()];
        assert!(all.admit(HERE).is_none());
        assert!(all.admit(there(1)).is_some());
        assert!(first.logged_in("w1"));
        let third = all.admit(HERE).unwrap();
        let fourth = all.admit(HERE).unwrap();
        assert!(is_closed(&third).await, "its place was needed");
        drop(requests);
        assert!(!is_closed(&fourth).await);
    }

    #[tokio::test]
    async fn proxies_have_no_limit_of_their_own() {
        let all = connections(100, 2);
        let open: Vec<_> = (0..50).map(|_| all.admit(there(99)).unwrap()).collect();
        for connection in &open {
            assert!(!is_closed(connection).await);
        }
    }

    #[tokio::test]
    async fn waiting_for_too_long_closes() {
        let all = connections(100, 0);
        let (new, idle, busy) = (
            all.admit(HERE).unwrap(),
            all.admit(HERE).unwrap(),
            all.admit(HERE).unwrap(),
        );
        drop(idle.begin());
        let _request = busy.begin();
        let seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        all.sweep(seconds(29));
        assert!(!is_closed(&new).await);
        all.sweep(seconds(31));
        assert!(is_closed(&new).await && !is_closed(&idle).await);
        all.sweep(seconds(66));
        assert!(is_closed(&idle).await && !is_closed(&busy).await);
    }

    #[test]
    fn nothing_is_left_of_closed_connections() {
        let all = connections(10, 5);
        for n in 0..20 {
            let connection = all.admit(there(n % 3)).unwrap();
            if n % 2 == 0 {
                connection.logged_in("w1");
            }
            drop(connection.begin());
        }
        let state = all.state();
        assert!(state.open.is_empty() && state.idle.is_empty());
        assert!(state.addresses.is_empty() && state.workers.is_empty());
    }

    #[test]
    fn account_has_so_many_requests_at_the_same_time() {
        let all = connections(10, 10);
        let open = [1, 2, 3].map(|n| all.admit(there(n)).unwrap());
        let first = open[0].begin();
        let _second = open[1].begin();
        let third = open[2].begin();
        assert!(open[0].logged_in("w1") && open[0].logged_in("w1"));
        assert!(open[1].logged_in("w1"));
        assert!(!open[2].logged_in("w1"));
        assert!(open[2].logged_in("w2"), "a proxy has those of many");
        drop(third);
        let _third = open[2].begin();
        assert!(!open[2].logged_in("w1"));
        drop(first);
        assert!(open[2].logged_in("w1"));
        assert_eq!(all.state().workers.len(), 1);
    }
}
