//! The use cases, built from the ports.

use super::{background::Background, ports::Ports};
use crate::{
    adapters::http::{AppState, Uploads},
    metrics::Metrics,
    ports::HealthCheck,
    services::{
        CoordinatorConfig, Overview,
        assign::Assigner,
        audit::Audit,
        explain::Explainer,
        finish::{Finisher, RunLocks},
        follow_up::FollowUps,
        health::Health,
        ingest::Ingest,
        keepalive::Keepalive,
        leadership::Leader,
        limits::Limits,
        live_log::LiveLogIngest,
        logins::Logins,
        logs::Logs,
        long_poll::LongPoll,
        outbox_publisher::OutboxPublisher,
        parking::ParkedItems,
        pauses::Pauses,
        prober::Prober,
        resumes::Resumes,
        resumption::Resumption,
        retry::RetryPolicy,
        runs::Runs,
        schedule::Scheduler,
        status_publisher::StatusPublisher,
        watch::{Watcher, WatcherPorts},
        worker_limits::WorkerLimits,
        workers::Workers,
    },
    settings::Settings,
};
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the use cases are built from.
pub(super) struct Builder {
    /// The ports.
    pub(super) ports: Ports,
    /// The settings of the use cases.
    pub(super) config: Arc<CoordinatorConfig>,
    /// The metrics.
    pub(super) metrics: Arc<Metrics>,
    /// Cancelled when the process stops: no new work is accepted.
    pub(super) ending: CancellationToken,
    /// The tasks that go on after their clients have gone; the process ends after them.
    pub(super) tasks: TaskTracker,
}

/// The use cases that other use cases call.
struct Shared {
    overview: Arc<Overview>,
    status_publisher: Arc<StatusPublisher>,
    leader: Arc<Leader>,
    outbox_publisher: Arc<OutboxPublisher>,
    follow_ups: Arc<FollowUps>,
    keepalive: Arc<Keepalive>,
    live_log: Arc<LiveLogIngest>,
    finisher: Arc<Finisher>,
    prober: Arc<Prober>,
}

impl Builder {
    fn shared(&self) -> Shared {
        let Self {
            ports,
            config,
            metrics,
            ..
        } = self;
        let prober = self.prober();
        let overview = Arc::new(self.overview(prober.clone()));
        let status_publisher =
            Arc::new(StatusPublisher::new(overview.clone(), ports.events.clone()));
        let leader = Arc::new(Leader::new(ports.store.clone(), ports.ids.fresh()));
        let outbox_publisher = Arc::new(OutboxPublisher::new(
            ports.store.clone(),
            ports.events.clone(),
            leader.clone(),
            metrics.clone(),
        ));
        let follow_ups = Arc::new(FollowUps::new(
            ports.store.clone(),
            ports.store.clone(),
            ports.clock.clone(),
            leader.clone(),
            self.config.intervals,
        ));
        let keepalive = Arc::new(self.keepalive());
        let live_log = Arc::new(LiveLogIngest::new(
            ports.store.clone(),
            keepalive.clone(),
            config.clone(),
        ));
        let finisher = Arc::new(Finisher {
            active_runs: ports.active_runs.clone(),
            runs: ports.store.clone(),
            recorder: ports.recorder.clone(),
            artifacts: ports.artifacts.clone(),
            logs: ports.logs.clone(),
            live_log: live_log.clone(),
            retry_policy: Arc::new(self.retry_policy()),
            follow_ups: follow_ups.clone(),
            outbox_publisher: outbox_publisher.clone(),
            status_publisher: status_publisher.clone(),
            clock: ports.clock.clone(),
            metrics: metrics.clone(),
            run_locks: RunLocks::default(),
            tasks: self.tasks.clone(),
        });
        Shared {
            overview,
            status_publisher,
            leader,
            outbox_publisher,
            follow_ups,
            keepalive,
            live_log,
            finisher,
            prober,
        }
    }

    fn prober(&self) -> Arc<Prober> {
        let (vcs, clock) = (self.ports.vcs.clone(), self.ports.clock.clone());
        let prober = Prober::new(vcs, clock, self.metrics.clone(), self.config.probing);
        Arc::new(prober)
    }

    fn resumption(&self, shared: &Shared) -> Arc<Resumption> {
        Arc::new(Resumption::new(
            shared.prober.clone(),
            self.ports.store.clone(),
            self.ports.host_backoffs.clone(),
            self.ports.clock.clone(),
            self.config.clone(),
        ))
    }

    fn overview(&self, prober: Arc<Prober>) -> Overview {
        Overview::new(
            self.ports.store.clone(),
            self.ports.active_runs.clone(),
            self.ports.host_backoffs.clone(),
            self.ports.store.clone(),
            self.ports.clock.clone(),
            self.config.clone(),
            prober,
        )
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive::new(
            self.ports.active_runs.clone(),
            self.ports.store.clone(),
            self.ports.clock.clone(),
            self.config.clone(),
        )
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            parking: self.ports.store.clone(),
            pauses: self.ports.store.clone(),
            credentials: self.ports.credentials.clone(),
            clock: self.ports.clock.clone(),
            randomness: self.ports.randomness.clone(),
            config: self.config.clone(),
        }
    }

    fn assigner(&self, shared: &Shared, worker_limits: Arc<WorkerLimits>) -> Assigner {
        Assigner {
            worker_limits,
            queue: self.ports.store.clone(),
            active_runs: self.ports.active_runs.clone(),
            host_backoffs: self.ports.host_backoffs.clone(),
            runs: self.ports.store.clone(),
            prober: shared.prober.clone(),
            resumption: self.resumption(shared),
            finisher: shared.finisher.clone(),
            status_publisher: shared.status_publisher.clone(),
            clock: self.ports.clock.clone(),
            ids: self.ports.ids.clone(),
            config: self.config.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
        }
    }

    fn resumes(&self, shared: &Shared) -> Resumes {
        Resumes {
            runs: self.ports.store.clone(),
            history: self.ports.store.clone(),
            catalog: self.ports.store.clone(),
            resumption: self.resumption(shared),
            config: self.config.clone(),
            host_backoffs: self.ports.host_backoffs.clone(),
        }
    }

    fn watcher(&self, shared: &Shared, settings: &Settings) -> Watcher {
        let ports = WatcherPorts {
            active_runs: self.ports.active_runs.clone(),
            backchannel: self.ports.backchannel.clone(),
            finisher: shared.finisher.clone(),
            live_log: shared.live_log.clone(),
            clock: self.ports.clock.clone(),
            config: self.config.clone(),
            leader: shared.leader.clone(),
            metrics: self.metrics.clone(),
        };
        Watcher::new(ports, settings.poll.into())
    }

    fn logs(&self, shared: &Shared) -> Logs {
        Logs {
            active_runs: self.ports.active_runs.clone(),
            runs: self.ports.store.clone(),
            stored: self.ports.logs.clone(),
            live_log: shared.live_log.clone(),
            backchannel: self.ports.backchannel.clone(),
            ending: self.ending.clone(),
        }
    }

    fn explainer(&self) -> Explainer {
        Explainer {
            queue: self.ports.store.clone(),
            parking: self.ports.store.clone(),
            pauses: self.ports.store.clone(),
            active_runs: self.ports.active_runs.clone(),
            host_backoffs: self.ports.host_backoffs.clone(),
            catalog: self.ports.store.clone(),
            schedules: self.ports.store.clone(),
            clock: self.ports.clock.clone(),
            config: self.config.clone(),
        }
    }

    fn health(&self, watcher: Arc<Watcher>) -> Health {
        let coordination = self.ports.claim_mirror.clone();
        Health {
            runs: self.ports.store.clone(),
            coordination: coordination.map(|mirror| mirror as Arc<dyn HealthCheck>),
            artifacts: self.ports.artifacts.clone(),
            logs: self.ports.logs.clone(),
            events: self.ports.events.clone(),
            has_fallback: self.ports.drainer.is_some(),
            watcher,
            ending: self.ending.clone(),
        }
    }

    fn ingest(&self) -> Ingest {
        Ingest::new(
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.clock.clone(),
            self.config.clone(),
        )
    }

    fn scheduler(&self) -> Scheduler {
        Scheduler::new(
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.clock.clone(),
            self.config.clone(),
        )
    }

    fn pauses(&self) -> Pauses {
        Pauses::new(self.ports.store.clone(), self.ports.clock.clone())
    }

    fn limits(&self, shared: &Shared) -> Limits {
        Limits::new(
            self.ports.store.clone(),
            self.ports.active_runs.clone(),
            self.ports.host_backoffs.clone(),
            shared.prober.clone(),
        )
    }

    fn workers(&self, shared: &Shared, logins: Arc<Logins>) -> Workers {
        Workers {
            credentials: self.ports.credentials.clone(),
            active_runs: self.ports.active_runs.clone(),
            pauses: self.ports.store.clone(),
            logins,
            status_publisher: shared.status_publisher.clone(),
            clock: self.ports.clock.clone(),
            ids: self.ports.ids.clone(),
        }
    }

    fn logins(&self) -> Arc<Logins> {
        let (credentials, metrics) = (self.ports.credentials.clone(), self.metrics.clone());
        Arc::new(Logins::new(credentials, metrics, self.config.logins))
    }

    fn worker_limits(&self) -> Arc<WorkerLimits> {
        let active_runs = self.ports.active_runs.clone();
        Arc::new(WorkerLimits::new(self.config.max_of_worker, active_runs))
    }

    fn audit(&self, shared: &Shared, settings: &Settings) -> Audit {
        Audit {
            log: self.ports.store.clone(),
            clock: self.ports.clock.clone(),
            leader: shared.leader.clone(),
            metrics: self.metrics.clone(),
            retention: settings.audit,
        }
    }

    /// Builds the use cases: those that handlers call, and those that run in the background.
    pub(super) fn build(self, settings: &Settings) -> (Arc<AppState>, Background) {
        let shared = self.shared();
        let (logins, worker_limits) = (self.logins(), self.worker_limits());
        let assigner = Arc::new(self.assigner(&shared, worker_limits.clone()));
        let watcher = Arc::new(self.watcher(&shared, settings));
        let long_poll = Arc::new(LongPoll::new(
            assigner.clone(),
            self.ports.store.clone(),
            self.ports.store.clone(),
            self.ports.clock.clone(),
            self.ending.clone(),
        ));
        let audit = Arc::new(self.audit(&shared, settings));
        let app = AppState {
            assigner,
            ingest: self.ingest(),
            scheduler: self.scheduler(),
            runs: Runs::new(self.ports.store.clone(), shared.outbox_publisher.clone()),
            resumes: self.resumes(&shared),
            logs: Arc::new(self.logs(&shared)),
            explainer: self.explainer(),
            parked: ParkedItems::new(self.ports.store.clone()),
            pauses: self.pauses(),
            limits: self.limits(&shared),
            workers: self.workers(&shared, logins.clone()),
            worker_limits,
            logins,
            health: self.health(watcher.clone()),
            long_poll: long_poll.clone(),
            watcher: watcher.clone(),
            overview: shared.overview,
            finisher: shared.finisher,
            live_log: shared.live_log,
            keepalive: shared.keepalive,
            metrics: self.metrics,
            clock: self.ports.clock,
            config: self.config,
            spool: self.ports.spool,
            request_limits: settings.limits.into(),
            uploads: Uploads::new(settings.limits.uploads, settings.limits.uploads_of_worker),
            admin_access: settings.into(),
            trusted_proxies: settings.connections.trusted_proxies.clone(),
            audit: audit.clone(),
        };
        let background = Background {
            status_publisher: shared.status_publisher,
            follow_ups: shared.follow_ups,
            leader: shared.leader,
            outbox_publisher: shared.outbox_publisher,
            watcher,
            long_poll,
            claim_mirror: self.ports.claim_mirror,
            drainer: self.ports.drainer,
            audit,
        };
        (Arc::new(app), background)
    }
}
