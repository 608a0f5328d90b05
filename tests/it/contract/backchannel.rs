//! `Backchannel`: how each adapter interprets the responses of its kind of worker, from a fake one.

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

fn guarded_client() -> GuardedClient {
    guarded_client_for(&["127.0.0.0/8"])
}

fn guarded_client_for(networks: &[&str]) -> GuardedClient {
    let settings = GuardedHttpSettings {
        timeout: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(300),
        transfer_timeout: Duration::from_millis(1500),
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
    let item = enqueue_request("aa", Bucket::Default, 1.0).into_item(1, None);
    ActiveRun::new(
        RunId::new("r1"),
        "t".into(),
        item,
        Claimant::default(),
        start(),
    )
}

fn ping_kind(ping: &Ping) -> &'static str {
    match ping {
        Ping::Alive => "alive",
        Ping::Impossible => "impossible",
        Ping::Fatal(_) => "lost",
        Ping::Refused(_) => "refused",
        Ping::Failed(_) => "failed",
    }
}

fn polling(fake: &FakeWorker) -> PollingBackchannel {
    PollingBackchannel::new(guarded_client(), &fake.url())
}

fn jenkins(fake: &FakeWorker) -> JenkinsBackchannel {
    JenkinsBackchannel::new(guarded_client(), &fake.url())
}

async fn read_all(
    reader: Result<janitor_runner::ports::artifact_store::FileReader, BackchannelError>,
) -> String {
    let mut text = String::new();
    reader.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn polling_ping_reports_the_run_of_the_worker() {
    let fake = FakeWorker::start().await;
    for (status, body, expected) in [
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
        fake.respond_with("/log-id", status, body);
        assert_eq!(
            ping_kind(&polling(&fake).ping(&run()).await),
            expected,
            "{status} {body}"
        );
    }
    fake.respond_with("/log-id", 200, &"x".repeat(100_000));
    assert_eq!(ping_kind(&polling(&fake).ping(&run()).await), "failed");
}

#[tokio::test]
async fn jenkins_ping_reports_the_state_of_the_job() {
    let fake = FakeWorker::start().await;
    for (status, body, expected) in [
        (200, r#"{"building": true, "result": null}"#, "alive"),
        (200, "{}", "alive"),
        (200, r#"{"building": false, "result": "FAILURE"}"#, "lost"),
        (200, r#"{"result": "FAILURE"}"#, "lost"),
        (200, r#"{"building": false, "result": "ABORTED"}"#, "lost"),
        (
            200,
            r#"{"building": false, "result": "SUCCESS_REPORT"}"#,
            "failed",
        ),
        (200, r#"{"building": true, "result": "UNSTABLE"}"#, "alive"),
        (404, "", "lost"),
        (500, "{}", "failed"),
        (200, "<html>", "failed"),
        (200, "[1]", "failed"),
        (200, r#"{"result": 5}"#, "failed"),
    ] {
        fake.respond_with("/api/json", status, body);
        assert_eq!(
            ping_kind(&jenkins(&fake).ping(&run()).await),
            expected,
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn refused_connection_and_timeout_are_distinguished() {
    let closed = format!("http://127.0.0.1:{}/", crate::support::process::free_port());
    let kinds = |url: &str| -> [Box<dyn Backchannel>; 2] {
        [
            Box::new(PollingBackchannel::new(guarded_client(), url)),
            Box::new(JenkinsBackchannel::new(guarded_client(), url)),
        ]
    };
    for kind in kinds(&closed) {
        assert_eq!(ping_kind(&kind.ping(&run()).await), "refused");
    }
    let fake = FakeWorker::start().await;
    for path in ["/log-id", "/api/json"] {
        fake.never_respond(path);
    }
    for kind in kinds(&fake.url()) {
        let asked = Instant::now();
        assert_eq!(ping_kind(&kind.ping(&run()).await), "failed");
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
    for path in ["/log-id", "/api/json"] {
        fake.trickle(path);
    }
    for kind in kinds(&fake.url()) {
        let asked = Instant::now();
        assert_eq!(ping_kind(&kind.ping(&run()).await), "failed");
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "a trickling worker blocks the task"
        );
    }
}

#[tokio::test]
async fn hosts_outside_allowed_networks_are_never_called() {
    let fake = FakeWorker::start().await;
    fake.respond_with("/log-id", 200, "r1");
    for networks in [vec![], vec!["10.0.0.0/8"]] {
        let backchannel = PollingBackchannel::new(guarded_client_for(&networks), &fake.url());
        assert_eq!(backchannel.ping(&run()).await, Ping::Impossible);
        assert!(
            matches!(backchannel.kill(&run()).await, Err(BackchannelError::Unreachable(why)) if why.contains("allowed networks"))
        );
        let by_name = PollingBackchannel::new(
            guarded_client_for(&networks),
            &fake.url().replace("127.0.0.1", "localhost"),
        );
        assert_eq!(ping_kind(&by_name.ping(&run()).await), "failed");
    }
    assert_eq!(fake.received_requests("/log-id"), 0);
}

#[tokio::test]
async fn kill_reaches_only_the_worker_of_that_run() {
    let fake = FakeWorker::start().await;
    fake.respond_with("/log-id", 200, "r1");
    fake.respond_with("/kill", 200, "r1");
    polling(&fake).kill(&run()).await.unwrap();
    // The newer generation of workers has no such route.
    fake.respond_with("/kill", 404, "");
    assert!(matches!(
        polling(&fake).kill(&run()).await,
        Err(BackchannelError::Unsupported(_))
    ));
    fake.respond_with("/kill", 500, "");
    assert!(matches!(
        polling(&fake).kill(&run()).await,
        Err(BackchannelError::Unreachable(_))
    ));
    let kills = fake.received_requests("/kill");
    for other in ["r2", "null"] {
        fake.respond_with("/log-id", 200, other);
        assert!(matches!(
            polling(&fake).kill(&run()).await,
            Err(BackchannelError::Unreachable(_))
        ));
    }
    assert_eq!(fake.received_requests("/kill"), kills);
    // Jenkins redirects the caller to the job.
    fake.respond_with("/stop", 302, "");
    jenkins(&fake).kill(&run()).await.unwrap();
    fake.respond_with("/stop", 403, "");
    assert!(jenkins(&fake).kill(&run()).await.is_err());
    assert!(matches!(
        NoBackchannel.kill(&run()).await,
        Err(BackchannelError::Unsupported("kill"))
    ));
}

#[tokio::test]
async fn backchannel_logs_are_read_from_an_offset() {
    let fake = FakeWorker::start().await;
    fake.respond_with("/logs", 200, r#"["worker.log", "b.log"]"#);
    fake.respond_with("/logs/worker.log", 200, "0123456789");
    let worker = polling(&fake);
    assert_eq!(
        worker.list_logs(&run()).await.unwrap(),
        ["worker.log", "b.log"]
    );
    for (offset, expected) in [(0, "0123456789"), (7, "789"), (10, ""), (99, "")] {
        assert_eq!(
            read_all(worker.read_log(&run(), "worker.log", offset).await).await,
            expected,
            "{offset}"
        );
        fake.serve_ranges("/logs/worker.log", "0123456789");
        assert_eq!(
            read_all(worker.read_log(&run(), "worker.log", offset).await).await,
            expected,
            "{offset}, by ranges"
        );
        fake.respond_with("/logs/worker.log", 200, "0123456789");
    }
    assert!(matches!(
        worker.read_log(&run(), "none.log", 0).await,
        Err(BackchannelError::NoSuchLog)
    ));
    fake.respond_with("/logs", 200, "nonsense");
    assert!(matches!(
        worker.list_logs(&run()).await,
        Err(BackchannelError::Unreachable(_))
    ));
    fake.serve_progressive("/logText/progressiveText", "0123456789");
    let job = jenkins(&fake);
    assert_eq!(job.list_logs(&run()).await.unwrap(), ["worker.log"]);
    for (offset, expected) in [(0, "0123456789"), (7, "789"), (10, ""), (99, "")] {
        assert_eq!(
            read_all(job.read_log(&run(), "worker.log", offset).await).await,
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
async fn endless_trickling_log_times_out() {
    let fake = FakeWorker::start().await;
    fake.trickle("/logs/worker.log");
    let mut log = polling(&fake)
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

#[tokio::test]
async fn logs_are_listed_with_and_without_a_slash() {
    let fake = FakeWorker::start().await;
    let names = || async { polling(&fake).list_logs(&run()).await };
    assert_eq!(names().await.unwrap(), Vec::<String>::new());
    for status in [404, 405, 301, 308] {
        fake.respond_with("/logs", status, "");
        fake.respond_with("/logs/", 200, r#"["w.log"]"#);
        assert_eq!(names().await.unwrap(), ["w.log"], "{status}");
    }
    fake.respond_with("/logs", 500, "");
    assert!(matches!(
        names().await,
        Err(BackchannelError::Unreachable(_))
    ));
}

#[tokio::test]
async fn large_jenkins_job_is_a_heartbeat() {
    let fake = FakeWorker::start().await;
    let job = |size: usize, building: bool| {
        let actions = vec![format!(r#"{{"text": "{}"}}"#, "x".repeat(1000)); size / 1000];
        format!(
            r#"{{"actions": [{}], "building": {building}, "result": null}}"#,
            actions.join(",")
        )
    };
    fake.respond_with("/api/json", 200, &job(200_000, true));
    assert_eq!(ping_kind(&jenkins(&fake).ping(&run()).await), "alive");
    assert_eq!(
        fake.last_query("/api/json").as_deref(),
        Some("tree=building%2Cresult")
    );
    fake.respond_with("/api/json", 200, &job(20 << 20, true));
    assert_eq!(ping_kind(&jenkins(&fake).ping(&run()).await), "failed");
}
