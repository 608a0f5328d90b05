//! Probes branches so that a slow forge delays nobody else, and one that limits the rate of requests
//! is left alone.

use crate::{
    domain::{
        branch_query::{BranchQuery, FoundBranches},
        host::host_of,
        host_pause::HostPauses,
        probe_limits::ProbeLimits,
        time::Time,
    },
    metrics::Metrics,
    ports::{Clock, Vcs, host_backoff::HostBackoff, vcs::Probe},
};
use moka::sync::Cache;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// Time-outs in a row after which a host counts as slow.
const SLOW_AFTER: u32 = 3;
/// How long a probe waits for its turn at a host. Beyond, its item is assigned unprobed: the workers
/// that wait would be missed elsewhere.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// How long a host must have been silent for a time-out to count.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a slow host is not probed.
const SLOW_PAUSE: Duration = Duration::from_secs(60);
/// Hosts of which something is known at a time.
const MAX_HOSTS: u64 = 10_000;
/// How long a host is known that is not probed: longer than any growing pause lasts.
const HOST_IDLE: Duration = Duration::from_secs(3 * 3600);
/// How many bytes of answers are remembered at a time.
const MAX_ANSWERS: u64 = 8 << 20;
/// What an answer takes besides its texts, in bytes.
const ANSWER_SIZE: usize = 300;
/// The longest URL that is probed, in bytes.
const MAX_URL: usize = 4 << 10;
/// The longest name of a host.
const MAX_HOST: usize = 255;

/// What is known of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// What its repository answered.
    Found(FoundBranches),
    /// Nothing. Carries the reason.
    Unknown(String),
    /// Its host is to be left alone.
    RateLimited(HostBackoff),
}

/// What is known of a host.
#[derive(Debug)]
struct Host {
    permits: Semaphore,
    state: Mutex<HostState>,
}

#[derive(Debug, Default)]
struct HostState {
    /// Time-outs since the last answer.
    timeouts: u32,
    /// Whether a probe waited in vain for its turn since the last answer.
    is_busy: bool,
    /// When the host may be probed again, if it is slow.
    slow_until: Option<Instant>,
    /// When it last said that it limits the rate, and until when.
    limited: Option<(Instant, Time)>,
    pauses: HostPauses,
}

/// Probes branches within limits.
pub struct Prober {
    vcs: Arc<dyn Vcs>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    limits: ProbeLimits,
    all: Semaphore,
    hosts: Cache<String, Arc<Host>>,
    answers: Cache<BranchQuery, Arc<Probed>>,
}

/// Returns about how many bytes an answer takes.
fn size(query: &BranchQuery, probed: &Probed) -> u32 {
    let of_query = query.repository.len() + query.others.iter().map(String::len).sum::<usize>();
    let of_answer = match probed {
        Probed::Found(found) => {
            let others = found.others.iter();
            found.repository.len()
                + others
                    .map(|(name, id)| name.len() + id.len())
                    .sum::<usize>()
        }
        Probed::Unknown(why) => why.len(),
        Probed::RateLimited(limit) => limit.host.len(),
    };
    u32::try_from(of_query + of_answer + ANSWER_SIZE).unwrap_or(u32::MAX)
}

impl HostState {
    /// Returns whether the host may be probed. Of a slow host one probe in a while may.
    fn admits(&mut self, now: Instant) -> bool {
        match self.slow_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.slow_until = Some(now + SLOW_PAUSE);
                true
            }
            None => true,
        }
    }

    /// Returns until when the host limits the rate, if it has said so since then.
    fn limited_since(&self, then: Instant) -> Option<Time> {
        let (_, until) = self.limited.filter(|(said, _)| *said >= then)?;
        Some(until)
    }

    fn timed_out(&mut self, now: Instant) {
        self.timeouts += 1;
        if self.timeouts >= SLOW_AFTER {
            self.slow_until = Some(now + SLOW_PAUSE);
        }
    }

    fn answered(&mut self) {
        self.timeouts = 0;
        self.is_busy = false;
        self.slow_until = None;
    }
}

impl Host {
    /// Waits for a turn; `None` when none comes soon. Once one waited in vain, the next ones do not
    /// wait at all, until the host answers.
    async fn permit(&self, end: Instant) -> Option<SemaphorePermit<'_>> {
        let max_wait = match self.state().is_busy {
            true => Duration::ZERO,
            false => MAX_WAIT,
        };
        let end = end.min(Instant::now() + max_wait);
        if let Ok(permit) = timeout_at(end, self.permits.acquire()).await {
            return permit.ok();
        }
        self.state().is_busy = true;
        None
    }

    fn state(&self) -> std::sync::MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober {
    /// Creates the service over these ports.
    pub fn new(
        vcs: Arc<dyn Vcs>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        limits: ProbeLimits,
    ) -> Self {
        Self {
            vcs,
            clock,
            metrics,
            limits,
            all: Semaphore::new(limits.in_all),
            hosts: Cache::builder()
                .max_capacity(MAX_HOSTS)
                .time_to_idle(HOST_IDLE)
                .build(),
            answers: Cache::builder()
                .max_capacity(MAX_ANSWERS)
                .weigher(|query: &BranchQuery, probed: &Arc<Probed>| size(query, probed))
                .time_to_live(limits.memory)
                .build(),
        }
    }

    /// Probes a repository, or returns what it answered a moment ago.
    #[tracing::instrument(
        name = "services.prober.probe", level = "debug", skip_all,
        fields(host = host_of(&query.repository))
    )]
    pub async fn probe(&self, query: &BranchQuery) -> Probed {
        if let Some(known) = self.answers.get(query) {
            self.metrics.probed("remembered", None);
            return (*known).clone();
        }
        self.probe_anew(query, self.limits.timeout).await
    }

    /// Probes a repository, whatever it answered a moment ago: a run may have changed it since. Takes
    /// no longer than `within`.
    pub async fn probe_anew(&self, query: &BranchQuery, within: Duration) -> Probed {
        let started = Instant::now();
        let end = started + within.min(self.limits.timeout);
        let name = host_of(&query.repository).unwrap_or_default();
        if query.repository.len() > MAX_URL || name.len() > MAX_HOST {
            return Probed::Unknown("the URL is too long".to_owned());
        }
        let host = self.hosts.get_with(name.clone(), || {
            Arc::new(Host {
                permits: Semaphore::new(self.limits.of_host),
                state: Mutex::default(),
            })
        });
        let (outcome, probed) = self.probe_host(&host, &name, query, end).await;
        self.metrics.probed(outcome, Some(started.elapsed()));
        // A limit is in the store, where it can be removed by hand; a slow host answers soon again.
        if matches!(probed, Probed::Found(_)) || outcome == "unknown" {
            self.answers.insert(query.clone(), Arc::new(probed.clone()));
        }
        probed
    }

    /// Forgets what was bad about a host, so that it is probed at once and its next pause is short;
    /// returns whether it was slow.
    pub fn forgive(&self, name: &str) -> bool {
        let Some(host) = self.hosts.get(name) else {
            return false;
        };
        let earlier = std::mem::take(&mut *host.state());
        earlier
            .slow_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Returns the hosts that are not probed for a moment, by name.
    pub fn slow_hosts(&self) -> Vec<String> {
        let now = Instant::now();
        let is_slow = |host: &Host| host.state().slow_until.is_some_and(|until| now < until);
        let slow = self.hosts.iter().filter(|(_, host)| is_slow(host));
        let mut names: Vec<String> = slow.map(|(name, _)| (*name).clone()).collect();
        names.sort();
        names
    }

    /// Probes a repository of a host; returns the outcome for metrics, too.
    async fn probe_host(
        &self,
        host: &Host,
        name: &str,
        query: &BranchQuery,
        end: Instant,
    ) -> (&'static str, Probed) {
        let waiting = Instant::now();
        let slow = || ("slow-host", Probed::Unknown(format!("{name} is slow")));
        let admitted = {
            let mut state = host.state();
            if !state.admits(Instant::now()) {
                return slow();
            }
            state.slow_until
        };
        let Some(_of_host) = host.permit(end).await else {
            return ("busy-host", Probed::Unknown(format!("{name} is busy")));
        };
        let turn = timeout_at(end.min(Instant::now() + MAX_WAIT), self.all.acquire()).await;
        let Ok(Ok(_of_all)) = turn else {
            let why = "too many branches are being probed".to_owned();
            return ("busy", Probed::Unknown(why));
        };
        // It may have become slow, or had enough, while this waited for its turn.
        if host.state().slow_until > admitted {
            return slow();
        }
        if let Some(until) = host.state().limited_since(waiting) {
            let host = name.to_owned();
            let limited = Probed::RateLimited(HostBackoff { host, until });
            return ("limited-host", limited);
        }
        let asked = Instant::now();
        let probe = timeout_at(end, self.vcs.probe(query)).await;
        let probe = probe.unwrap_or(Probe::TimedOut);
        let mut state = host.state();
        if probe != Probe::TimedOut {
            state.answered();
        } else if asked.elapsed() >= MIN_TIMEOUT && !name.is_empty() {
            // Not what waited for its turn nearly all the time, and no path of this machine.
            state.timed_out(Instant::now());
        }
        match probe {
            Probe::Found(found) => ("found", Probed::Found(found)),
            Probe::Unknown(why) => ("unknown", Probed::Unknown(why)),
            Probe::TimedOut => (
                "timeout",
                Probed::Unknown(format!("{name} did not answer in time")),
            ),
            Probe::RateLimited { retry_after } => {
                let until = state.pauses.end_of_next(retry_after, self.clock.now());
                state.limited = Some((Instant::now(), until));
                let host = name.to_owned();
                (
                    "rate-limited",
                    Probed::RateLimited(HostBackoff { host, until }),
                )
            }
        }
    }
}
