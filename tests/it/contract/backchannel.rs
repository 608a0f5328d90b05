//! `Backchannel`: what each adapter makes of the answers of its kind of worker, from a server that plays one.

use crate::support::{fake_backchannel::FakeWorker, start, values::*};
use janitor_runner::{
    adapters::{
        backchannel::jenkins::JenkinsBackchannel,
        backchannel::none::NoBackchannel,
        backchannel::polling::PollingBackchannel,
        support::guarded_http::{GuardedClient, GuardedHttpSettings},
    },
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
        queue::Bucket,
        watch::Ping,
    },
    ports::{Backchannel, BackchannelError},
};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

fn caller() -> GuardedClient {
    caller_to(&["127.0.0.0/8"])
}

fn caller_to(networks: &[&str]) -> GuardedClient {
    let settings = GuardedHttpSettings {
        patience: Duration::from_millis(400),
        log_stall: Duration::from_millis(300),
        log_total: Duration::from_millis(1500),
        allowed_networks: networks
            .iter()
            .map(|network| network.parse().unwrap())
            .collect(),
        user_agent: "test".into(),
    };
    janitor_runner::tls::install();
    GuardedClient::new(settings).unwrap()
}

fn run() -> ActiveRun {
    let item = wish("aa", Bucket::Default, 1.0).into_item(1, None);
    ActiveRun::new(
        RunId::new("r1"),
        "t".into(),
        item,
        Claimant::default(),
        start(),
    )
}

fn word(ping: &Ping) -> &'static str {
    match ping {
        Ping::Alive => "alive",
        Ping::Impossible => "impossible",
        Ping::Fatal(_) => "lost",
        Ping::Failed(_) => "failed",
    }
}

/// An adapter at a worker that plays this.
fn polling(play: &FakeWorker) -> PollingBackchannel {
    PollingBackchannel::new(caller(), &play.url())
}

fn jenkins(play: &FakeWorker) -> JenkinsBackchannel {
    JenkinsBackchannel::new(caller(), &play.url())
}

async fn all(
    reader: Result<janitor_runner::ports::artifact_store::FileReader, BackchannelError>,
) -> String {
    let mut text = String::new();
    reader.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn polling_tells_what_a_worker_is_on() {
    let play = FakeWorker::start().await;
    for (status, body, said) in [
        (200, "r1", "alive"),
        (200, "\"r1\"", "alive"),
        (200, "r2", "lost"),
        (200, "null", "lost"),
        (200, "", "lost"),
        (200, "<html>hello</html>", "failed"),
        (404, "r1", "failed"),
        (500, "r1", "failed"),
        (302, "", "failed"),
    ] {
        play.answer("/log-id", status, body);
        assert_eq!(
            word(&polling(&play).ping(&run()).await),
            said,
            "{status} {body}"
        );
    }
    play.answer("/log-id", 200, &"x".repeat(100_000));
    assert_eq!(word(&polling(&play).ping(&run()).await), "failed");
}

#[tokio::test]
async fn jenkins_tells_how_a_job_stands() {
    let play = FakeWorker::start().await;
    for (status, body, said) in [
        (200, r#"{"building": true, "result": null}"#, "alive"),
        (200, "{}", "alive"),
        (200, r#"{"building": false, "result": "FAILURE"}"#, "lost"),
        (200, r#"{"result": "FAILURE"}"#, "lost"),
        (200, r#"{"building": false, "result": "ABORTED"}"#, "lost"),
        (200, r#"{"building": false, "result": "SUCCESS"}"#, "failed"),
        (200, r#"{"building": true, "result": "UNSTABLE"}"#, "alive"),
        (404, "", "lost"),
        (500, "{}", "failed"),
        (200, "<html>", "failed"),
        (200, "[1]", "failed"),
        (200, r#"{"result": 5}"#, "failed"),
    ] {
        play.answer("/api/json", status, body);
        assert_eq!(
            word(&jenkins(&play).ping(&run()).await),
            said,
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_told_from_no_answer() {
    let closed = format!("http://127.0.0.1:{}/", crate::support::process::free_port());
    let kinds = |url: &str| -> [Box<dyn Backchannel>; 2] {
        [
            Box::new(PollingBackchannel::new(caller(), url)),
            Box::new(JenkinsBackchannel::new(caller(), url)),
        ]
    };
    for kind in kinds(&closed) {
        assert_eq!(word(&kind.ping(&run()).await), "lost");
    }
    let play = FakeWorker::start().await;
    for path in ["/log-id", "/api/json"] {
        play.hang(path);
    }
    for kind in kinds(&play.url()) {
        let asked = Instant::now();
        assert_eq!(word(&kind.ping(&run()).await), "failed");
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
    for path in ["/log-id", "/api/json"] {
        play.drip(path);
    }
    for kind in kinds(&play.url()) {
        let asked = Instant::now();
        assert_eq!(word(&kind.ping(&run()).await), "failed");
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "a worker that drips holds the task"
        );
    }
}

#[tokio::test]
async fn only_allowed_networks_are_called() {
    let play = FakeWorker::start().await;
    play.answer("/log-id", 200, "r1");
    for networks in [vec![], vec!["10.0.0.0/8"]] {
        let backchannel = PollingBackchannel::new(caller_to(&networks), &play.url());
        assert_eq!(backchannel.ping(&run()).await, Ping::Impossible);
        assert!(
            matches!(backchannel.kill(&run()).await, Err(BackchannelError::Unreachable(why)) if why.contains("allowed networks"))
        );
        let by_name = PollingBackchannel::new(
            caller_to(&networks),
            &play.url().replace("127.0.0.1", "localhost"),
        );
        assert_eq!(word(&by_name.ping(&run()).await), "failed");
    }
    assert_eq!(play.asked("/log-id"), 0);
}

#[tokio::test]
async fn workers_are_told_to_stop_unless_they_are_on_another_run() {
    let play = FakeWorker::start().await;
    play.answer("/log-id", 200, "r1");
    play.answer("/kill", 200, "r1");
    polling(&play).kill(&run()).await.unwrap();
    // The newer generation has no such route.
    play.answer("/kill", 404, "");
    assert!(matches!(
        polling(&play).kill(&run()).await,
        Err(BackchannelError::Unsupported(_))
    ));
    play.answer("/kill", 500, "");
    assert!(matches!(
        polling(&play).kill(&run()).await,
        Err(BackchannelError::Unreachable(_))
    ));
    let told = play.asked("/kill");
    for other in ["r2", "null"] {
        play.answer("/log-id", 200, other);
        assert!(matches!(
            polling(&play).kill(&run()).await,
            Err(BackchannelError::Unreachable(_))
        ));
    }
    assert_eq!(play.asked("/kill"), told);
    // Jenkins sends the caller back to the job.
    play.answer("/stop", 302, "");
    jenkins(&play).kill(&run()).await.unwrap();
    play.answer("/stop", 403, "");
    assert!(jenkins(&play).kill(&run()).await.is_err());
    assert!(matches!(
        NoBackchannel.kill(&run()).await,
        Err(BackchannelError::Unsupported("kill"))
    ));
}

#[tokio::test]
async fn logs_are_listed_and_read_from_an_offset() {
    let play = FakeWorker::start().await;
    play.answer("/logs", 200, r#"["worker.log", "b.log"]"#);
    play.answer("/logs/worker.log", 200, "0123456789");
    let worker = polling(&play);
    assert_eq!(
        worker.list_logs(&run()).await.unwrap(),
        ["worker.log", "b.log"]
    );
    for (offset, expected) in [(0, "0123456789"), (7, "789"), (10, ""), (99, "")] {
        assert_eq!(
            all(worker.read_log(&run(), "worker.log", offset).await).await,
            expected,
            "{offset}"
        );
        play.serve_ranges("/logs/worker.log", "0123456789");
        assert_eq!(
            all(worker.read_log(&run(), "worker.log", offset).await).await,
            expected,
            "{offset}, by ranges"
        );
        play.answer("/logs/worker.log", 200, "0123456789");
    }
    assert!(matches!(
        worker.read_log(&run(), "none.log", 0).await,
        Err(BackchannelError::NoSuchLog)
    ));
    play.answer("/logs", 200, "nonsense");
    assert!(matches!(
        worker.list_logs(&run()).await,
        Err(BackchannelError::Unreachable(_))
    ));
    play.progressive("/logText/progressiveText", "0123456789");
    let job = jenkins(&play);
    assert_eq!(job.list_logs(&run()).await.unwrap(), ["worker.log"]);
    for (offset, expected) in [(0, "0123456789"), (7, "789"), (10, ""), (99, "")] {
        assert_eq!(
            all(job.read_log(&run(), "worker.log", offset).await).await,
            expected,
            "{offset}"
        );
    }
    assert!(matches!(
        job.read_log(&run(), "other.log", 0).await,
        Err(BackchannelError::NoSuchLog)
    ));
}

#[tokio::test]
async fn a_log_that_drips_for_ever_ends() {
    let play = FakeWorker::start().await;
    play.drip("/logs/worker.log");
    let mut log = polling(&play)
        .read_log(&run(), "worker.log", 0)
        .await
        .unwrap();
    let (mut text, began) = (vec![], Instant::now());
    assert!(log.read_to_end(&mut text).await.is_err());
    assert!(!text.is_empty(), "{:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}
