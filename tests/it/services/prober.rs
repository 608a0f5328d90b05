//! `Prober`: limits, memory, slow hosts, and hosts that limit the rate of requests.

use crate::support::{FakeClock, start};
use async_trait::async_trait;
use chrono::TimeDelta;
use janitor_runner::{
    domain::{branch_query::BranchQuery, host::host_of, probe_limits::ProbeLimits},
    metrics::Metrics,
    ports::{
        Vcs,
        vcs::{MockVcs, Probe},
    },
    services::prober::{Probed, Prober},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

fn query(url: &str) -> BranchQuery {
    BranchQuery::of_branch(url, None).unwrap()
}

fn prober(vcs: Arc<dyn Vcs>, limits: ProbeLimits) -> (Arc<Prober>, Arc<FakeClock>) {
    let clock = FakeClock::new();
    let metrics = Arc::new(Metrics::new());
    let prober = Prober::new(vcs, clock.clone(), metrics, limits);
    (Arc::new(prober), clock)
}

/// Counts the probes that are going on, and takes an hour for those of one host.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
    asked: AtomicUsize,
}

#[async_trait]
impl Vcs for Counting {
    async fn probe(&self, query: &BranchQuery) -> Probe {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let seconds = match host_of(&query.repository).as_deref() {
            Some(host) if host.starts_with("hangs") => 3600,
            _ => 1,
        };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Probe::Unknown("counted".into())
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_limited_by_host_and_in_all() {
    let limits = ProbeLimits {
        of_host: 2,
        in_all: 5,
        timeout: Duration::from_secs(100),
        ..ProbeLimits::default()
    };
    for (hosts, most) in [(1, 2), (2, 4), (9, 5)] {
        let vcs = Arc::new(Counting::default());
        let (prober, _) = prober(vcs.clone(), limits);
        let probe = |number: usize| {
            let url = format!("https://h{}/r{number}", number % hosts);
            let prober = prober.clone();
            tokio::spawn(async move { prober.probe(&query(&url)).await })
        };
        let probes: Vec<_> = (0..30).map(probe).collect();
        for probe in probes {
            probe.await.unwrap();
        }
        assert_eq!(vcs.most.load(Ordering::SeqCst), most, "{hosts} hosts");
    }
}

#[tokio::test(start_paused = true)]
async fn host_that_hangs_delays_no_other() {
    let vcs = Arc::new(Counting::default());
    let (prober, _) = prober(vcs, ProbeLimits::default());
    let hanging: Vec<_> = (0..50)
        .map(|number| {
            let (prober, url) = (prober.clone(), format!("https://hangs/r{number}"));
            tokio::spawn(async move { prober.probe(&query(&url)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = tokio::time::Instant::now();
    prober.probe(&query("https://other/x")).await;
    assert_eq!(started.elapsed().as_secs(), 1);
    // Eight are being asked; the others are not kept waiting for that.
    let (mut quick, mut slow) = (0, 0);
    for probe in hanging {
        match probe.await.unwrap() {
            Probed::Unknown(why) if why == "hangs is busy" => quick += 1,
            Probed::Unknown(_) => slow += 1,
            probed => panic!("{probed:?}"),
        }
    }
    assert_eq!((quick, slow), (42, 8));
    let asked = tokio::time::Instant::now();
    prober.probe(&query("https://hangs/another")).await;
    assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waits again");
    assert!(started.elapsed() <= Duration::from_secs(12));
}

#[tokio::test]
async fn answer_is_remembered_for_a_while() {
    let vcs = Arc::new(Counting::default());
    let limits = ProbeLimits {
        memory: Duration::from_millis(1500),
        ..ProbeLimits::default()
    };
    let (prober, _) = prober(vcs.clone(), limits);
    for (url, asked) in [
        ("https://h/x", 1),
        ("https://h/x", 1),
        ("https://h/x,branch=b", 2),
    ] {
        prober.probe(&query(url)).await;
        assert_eq!(vcs.asked.load(Ordering::SeqCst), asked, "{url}");
    }
    tokio::time::sleep(Duration::from_millis(1600)).await;
    prober.probe(&query("https://h/x")).await;
    assert_eq!(vcs.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn url_that_is_too_long_is_not_probed() {
    let vcs = Arc::new(Counting::default());
    let (prober, _) = prober(vcs.clone(), ProbeLimits::default());
    for url in [
        format!("https://h/{}", "x".repeat(5000)),
        format!("https://{}/x", "h".repeat(300)),
    ] {
        let probed = prober.probe(&query(&url)).await;
        assert_eq!(probed, Probed::Unknown("the URL is too long".into()));
    }
    assert_eq!(vcs.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn many_hosts_that_hang_make_no_other_slow() {
    let vcs = Arc::new(Counting::default());
    let limits = ProbeLimits {
        in_all: 16,
        ..ProbeLimits::default()
    };
    let (prober, _) = prober(vcs, limits);
    let hanging: Vec<_> = (0..16)
        .map(|number| {
            let url = format!("https://hangs{}/r{number}", number % 4);
            let prober = prober.clone();
            tokio::spawn(async move { prober.probe(&query(&url)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    for number in 0..5 {
        let asked = tokio::time::Instant::now();
        let probed = prober
            .probe(&query(&format!("https://other/{number}")))
            .await;
        if let Probed::Unknown(why) = &probed {
            assert!(!why.contains("slow") && !why.contains("in time"), "{why}");
        }
        assert!(asked.elapsed() <= Duration::from_secs(3), "{probed:?}");
    }
    for probe in hanging {
        probe.await.unwrap();
    }
    assert!(!prober.slow_hosts().contains(&"other".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn host_that_never_answers_in_less_time_is_slow_too_and_can_be_forgiven() {
    let (prober, _) = prober(Arc::new(Counting::default()), ProbeLimits::default());
    let within = Duration::from_secs(5);
    for number in 0..3 {
        let asked = tokio::time::Instant::now();
        let url = format!("https://hangs/r{number}");
        let probed = prober.probe_anew(&query(&url), within).await;
        assert!(matches!(probed, Probed::Unknown(_)), "{probed:?}");
        assert_eq!(asked.elapsed(), within);
    }
    assert_eq!(prober.slow_hosts(), ["hangs"]);
    assert!(prober.forgive("hangs"));
    assert!(!prober.forgive("hangs"));
    assert!(prober.slow_hosts().is_empty());
}

/// Limits the rate after a second, and counts who asked.
#[derive(Default)]
struct Limiting(AtomicUsize);

#[async_trait]
impl Vcs for Limiting {
    async fn probe(&self, _: &BranchQuery) -> Probe {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        Probe::RateLimited { retry_after: None }
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_a_host_do_not_ask_once_it_limits_the_rate() {
    let vcs = Arc::new(Limiting::default());
    let limits = ProbeLimits {
        of_host: 2,
        ..ProbeLimits::default()
    };
    let (prober, _) = prober(vcs.clone(), limits);
    let probe = |number: usize| {
        let (prober, url) = (prober.clone(), format!("https://h/r{number}"));
        tokio::spawn(async move { prober.probe(&query(&url)).await })
    };
    let probes: Vec<_> = (0..10).map(probe).collect();
    for probe in probes {
        let probed = probe.await.unwrap();
        assert!(matches!(&probed, Probed::RateLimited(limit) if limit.host == "h"));
    }
    assert_eq!(vcs.0.load(Ordering::SeqCst), 2);
    // Who asks later does so because its pause is over, or was ended by hand.
    tokio::time::sleep(Duration::from_secs(1)).await;
    probe(10).await.unwrap();
    assert_eq!(vcs.0.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn slow_host_is_left_alone_for_a_minute_and_then_tried_once() {
    let vcs = Arc::new(Counting::default());
    let (prober, _) = prober(vcs.clone(), ProbeLimits::default());
    let probe = async |number: u32| {
        let probed = prober
            .probe(&query(&format!("https://hangs/r{number}")))
            .await;
        let asked = vcs.asked.load(Ordering::SeqCst);
        (probed, asked)
    };
    for number in 1..=3 {
        assert_eq!(probe(number).await.1, number as usize);
    }
    assert_eq!(prober.slow_hosts(), ["hangs"]);
    let (probed, asked) = probe(4).await;
    assert_eq!(probed, Probed::Unknown("hangs is slow".into()));
    assert_eq!(asked, 3);
    tokio::time::advance(Duration::from_secs(61)).await;
    let (once, _) = tokio::join!(probe(5), probe(6));
    assert_eq!(once.1, 4, "one of the two is let through");
    // A host that answers is none of the slow ones.
    prober.probe(&query("https://other/x")).await;
    assert_eq!(vcs.asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn pauses_of_a_host_grow_unless_it_names_one() {
    let mut vcs = MockVcs::new();
    vcs.expect_probe().returning(|query| {
        let named = query.repository.ends_with("/named");
        Probe::RateLimited {
            retry_after: named.then(|| TimeDelta::seconds(7)),
        }
    });
    let (prober, clock) = prober(Arc::new(vcs), ProbeLimits::default());
    let mut pauses = vec![];
    for path in ["named", "x", "x", "named"] {
        let now = start() + TimeDelta::seconds(pauses.iter().sum());
        let probed = prober.probe(&query(&format!("https://h/{path}"))).await;
        let Probed::RateLimited(limit) = probed else {
            panic!("{probed:?}")
        };
        assert_eq!(limit.host, "h");
        let pause = (limit.until - now).num_seconds();
        pauses.push(pause);
        clock.advance(TimeDelta::seconds(pause));
    }
    assert_eq!(pauses, [7, 120, 240, 7]);
}
