//! `Assigner`: failures, rate-limited hosts and callers that disconnect.

use crate::support::{fixture::*, start};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::{BackchannelAddress, Claimant},
        branch_query::{BranchQuery, FoundBranches},
        host::host_of,
        vcs::{VcsStore, VcsType},
    },
    ports::{
        ActiveRunStore, HostBackoffs, QueueStore, RunStore, Vcs,
        queue_store::ClaimFilter,
        run_store::MockRunStore,
        vcs::{MockVcs, Probe},
    },
    services::{ServiceError, assign::AssignRequest},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a repository answers that has the branch.
fn found(query: &BranchQuery) -> FoundBranches {
    FoundBranches {
        repository: query.repository.clone(),
        vcs_type: VcsType::Git,
        branch: Some("main".into()),
        revision: Some("r".into()),
        others: BTreeMap::new(),
    }
}

#[tokio::test]
async fn failed_assignment_releases_the_item() {
    let fixture = Fixture::with_config(|config| {
        config.vcs_store = VcsStore::parse("https://vcs.example").unwrap();
    });
    fixture.queued(&["aa"]).await;
    let mut vcs = MockVcs::new();
    vcs.expect_probe().returning(|query| {
        Probe::Found(FoundBranches {
            others: query
                .others
                .iter()
                .map(|name| (name.clone(), "r".into()))
                .collect(),
            ..found(query)
        })
    });
    let mut runs = MockRunStore::new();
    runs.expect_run_of_revision()
        .returning(|_, _| Err(unavailable().into()));
    let refused = fixture
        .assigner(Arc::new(runs), Arc::new(vcs))
        .assign(AssignRequest::default())
        .await;
    assert!(matches!(refused, Err(ServiceError::Fault(_))));
    assert!(fixture.nothing_is_claimed().await);
}

#[tokio::test]
async fn rate_limited_host_is_skipped_and_its_item_stays_queued() {
    let fixture = Fixture::new();
    fixture.queued(&["aa", "bb"]).await;
    let until = start() + TimeDelta::minutes(2);
    let mut vcs = MockVcs::new();
    vcs.expect_probe()
        .returning(move |query| match host_of(&query.repository).as_deref() {
            Some("aa.example") => Probe::RateLimited {
                retry_after: Some(TimeDelta::minutes(2)),
            },
            _ => Probe::Found(FoundBranches {
                repository: "https://elsewhere/x".into(),
                ..found(query)
            }),
        });
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(vcs));
    let assignment = assigner.assign(AssignRequest::default()).await.unwrap();
    assert_eq!(assignment.run.item.key.codebase.as_str(), "bb");
    assert_eq!(
        assignment.branch_url.as_deref(),
        Some("https://elsewhere/x")
    );
    let stored = fixture
        .store
        .get(&assignment.run.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stored.vcs.branch_url.as_deref(),
        Some("https://elsewhere/x")
    );
    assert!(matches!(
        assigner.assign(AssignRequest::default()).await,
        Err(ServiceError::QueueEmpty)
    ));
    assert_eq!(fixture.store.latest(9).await.unwrap(), vec![]);
    fixture.clock.advance(TimeDelta::minutes(3));
    assert!(
        fixture
            .store
            .peek(&ClaimFilter::default(), until)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn assignment_reports_when_rate_limited_hosts_are_free() {
    let fixture = Fixture::new();
    fixture.queued(&["aa"]).await;
    let until = start() + TimeDelta::minutes(2);
    let mut vcs = MockVcs::new();
    vcs.expect_probe()
        .returning(|_| Probe::RateLimited { retry_after: None });
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(vcs));
    assert!(
        matches!(assigner.assign(AssignRequest::default()).await, Err(ServiceError::RateLimited(reported)) if reported == until)
    );
    assert!(
        ActiveRunStore::list(fixture.store.as_ref())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn worker_asks_again_soon_when_others_wait_behind_many_limited_hosts() {
    let fixture = Fixture::new();
    let names: Vec<String> = (0..60).map(|number| format!("c{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fixture.queued(&names).await;
    let mut vcs = MockVcs::new();
    vcs.expect_probe()
        .returning(|query| match host_of(&query.repository).as_deref() {
            Some("c59.example") => Probe::Found(found(query)),
            _ => Probe::RateLimited { retry_after: None },
        });
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(vcs));
    let soon = start() + TimeDelta::seconds(1);
    let refused = assigner.assign(AssignRequest::default()).await;
    assert!(
        matches!(refused, Err(ServiceError::RateLimited(until)) if until == soon),
        "{refused:?}"
    );
    let assignment = assigner.assign(AssignRequest::default()).await.unwrap();
    assert_eq!(assignment.run.item.key.codebase.as_str(), "c59");
}

#[tokio::test]
async fn vcs_store_that_limits_the_rate_is_left_alone_and_holds_no_item() {
    let fixture = Fixture::with_config(|config| {
        config.vcs_store = VcsStore::parse("https://vcs.example").unwrap();
    });
    fixture.queued(&["aa", "bb", "cc"]).await;
    let mut vcs = MockVcs::new();
    let of_store =
        |query: &BranchQuery| host_of(&query.repository).as_deref() == Some("vcs.example");
    vcs.expect_probe()
        .times(1)
        .withf(of_store)
        .returning(|_| Probe::RateLimited { retry_after: None });
    vcs.expect_probe()
        .withf(move |query| !of_store(query))
        .returning(|query| Probe::Found(found(query)));
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(vcs));
    for _ in 0..3 {
        let assignment = assigner.assign(AssignRequest::default()).await.unwrap();
        assert_eq!(assignment.resume, None);
    }
    let limited = fixture.store.backed_off_hosts(start()).await.unwrap();
    assert_eq!(limited[0].host, "vcs.example");
}

/// Notifies when it is probed, and returns once it is notified itself.
struct SlowVcs(Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>);

#[async_trait::async_trait]
impl Vcs for SlowVcs {
    async fn probe(&self, _: &BranchQuery) -> Probe {
        self.0.notify_one();
        self.1.notified().await;
        Probe::Unknown("slow".into())
    }
}

/// A forge that says, some seconds after each question, that it limits the rate.
struct SlowlyLimited;

#[async_trait::async_trait]
impl Vcs for SlowlyLimited {
    async fn probe(&self, _: &BranchQuery) -> Probe {
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let retry_after = Some(TimeDelta::zero());
        Probe::RateLimited { retry_after }
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_refuse_slowly_do_not_hold_a_claim_for_long() {
    let fixture = Fixture::new();
    fixture.queued(&["aa", "bb", "cc", "dd", "ee"]).await;
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(SlowlyLimited));
    let asked = tokio::time::Instant::now();
    let refused = assigner.assign(AssignRequest::default()).await;
    assert!(
        matches!(refused, Err(ServiceError::RateLimited(_))),
        "{refused:?}"
    );
    assert!(asked.elapsed().as_secs() <= 12, "{:?}", asked.elapsed());
    assert!(fixture.nothing_is_claimed().await);
}

async fn nothing_is_claimed_soon(fixture: &Fixture) {
    let free = async {
        while !fixture.nothing_is_claimed().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), free)
        .await
        .unwrap();
}

#[tokio::test]
async fn disconnected_caller_leaves_nothing_claimed() {
    let fixture = Fixture::new();
    fixture.queued(&["aa"]).await;
    let (asked, wait) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let assigner = fixture.assigner(
        fixture.store.clone(),
        Arc::new(SlowVcs(asked.clone(), wait.clone())),
    );
    let caller = tokio::spawn(async move { assigner.assign(AssignRequest::default()).await });
    asked.notified().await;
    caller.abort();
    assert!(caller.await.is_err());
    wait.notify_one();
    nothing_is_claimed_soon(&fixture).await;
}

#[tokio::test]
async fn claim_of_a_disconnected_caller_counts_until_it_is_released() {
    let fixture = Fixture::new();
    fixture.queued(&["aa", "bb"]).await;
    let (asked, wait) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let vcs = SlowVcs(asked.clone(), wait.clone());
    let assigner = fixture.assigner_for(1, fixture.store.clone(), Arc::new(vcs));
    let request = || AssignRequest {
        claimant: Claimant {
            worker: Some("w1".into()),
            ..Claimant::default()
        },
        is_limited: true,
        ..AssignRequest::default()
    };
    let asking = assigner.clone();
    let caller = tokio::spawn(async move { asking.assign(request()).await });
    asked.notified().await;
    caller.abort();
    assert!(caller.await.is_err());
    let refused = assigner.assign(request()).await;
    assert!(
        matches!(refused, Err(ServiceError::TooManyOfWorker(_))),
        "{refused:?}"
    );
    wait.notify_one();
    nothing_is_claimed_soon(&fixture).await;
}

#[tokio::test]
async fn worker_that_asks_again_has_lost_its_run() {
    let fixture = Fixture::new();
    fixture.queued(&["aa", "bb", "cc"]).await;
    let mut vcs = MockVcs::new();
    vcs.expect_probe().returning(|_| Probe::Unknown("x".into()));
    let assigner = fixture.assigner(fixture.store.clone(), Arc::new(vcs));
    let ask = async |url: Option<&str>| {
        let request = AssignRequest {
            claimant: Claimant {
                backchannel: url.map(|url| BackchannelAddress::Http { url: url.into() }),
                ..Claimant::default()
            },
            ..AssignRequest::default()
        };
        assigner.assign(request).await.unwrap().run
    };
    let first = ask(Some("http://a/")).await;
    let other = ask(Some("http://b/")).await;
    let again = ask(Some("http://a/")).await;
    assert_eq!(again.item.id, first.item.id, "it returned to its position");
    let ended = fixture.store.run(&first.id).await.unwrap().unwrap();
    assert_eq!(ended.code.as_str(), "run-disappeared");
    assert!(ended.given_up);
    let unnamed = ask(None).await;
    assert_eq!(unnamed.item.key.codebase.as_str(), "cc");
    for run in [other, again, unnamed] {
        assert!(fixture.store.get(&run.id).await.unwrap().is_some());
    }
}
