//! Hosts that say nothing, at whatever step: each is a time-out, by which a host becomes a slow one.

use super::probes::{prober_with, settings};
use janitor_runner::{
    domain::branch_query::BranchQuery,
    ports::{Vcs, vcs::Probe},
};
use std::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_at_any_step_is_a_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let prober = prober_with(settings(), &["127.0.0.0/8"]);
    let probe = async |url: String| {
        let query = BranchQuery::of_branch(&url, None).unwrap();
        prober.probe(&query).await
    };
    // The connection is there, though nobody takes it; then nothing comes back.
    let (tls, http, git) = tokio::join!(
        probe(format!("https://127.0.0.1:{port}/x")),
        probe(format!("http://127.0.0.1:{port}/x")),
        probe(format!("git://127.0.0.1:{port}/x")),
    );
    assert_eq!(
        [tls, http, git],
        [Probe::TimedOut, Probe::TimedOut, Probe::TimedOut]
    );
    let odd = probe(format!("http:127.0.0.1:{port}/x")).await;
    assert!(matches!(odd, Probe::Unknown(_)), "{odd:?}");
}
