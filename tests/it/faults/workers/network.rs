//! Workers whose network is cut.

use super::{SHORT_TIMEOUTS, codemod_until, seconds, set_flag};
use crate::support::{
    for_each_store,
    process::free_port,
    worker_harness::{WorkerHarness, record_outcome},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

for_each_store!(late_result_after_a_network_cut_is_accepted);

/// A network namespace for a worker, with a link to the one of the server.
struct NetworkLink {
    namespace: String,
    host: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl NetworkLink {
    fn create() -> Self {
        // No other test has this port now, so that the names and the subnet made of its number are free too.
        let port = free_port();
        let (name, net) = (
            format!("jr{port}"),
            format!("10.{}.{}", 64 + port / 256 % 128, port % 256),
        );
        let (inside, host) = (format!("{name}b"), format!("{net}.1"));
        ip(&["netns", "add", &name]);
        let link = Self {
            namespace: name.clone(),
            host: host.clone(),
        };
        ip(&[
            "link",
            "add",
            &format!("{name}a"),
            "type",
            "veth",
            "peer",
            "name",
            &inside,
            "netns",
            &name,
        ]);
        ip(&[
            "address",
            "add",
            &format!("{host}/30"),
            "dev",
            &format!("{name}a"),
        ]);
        ip(&["link", "set", &format!("{name}a"), "up"]);
        ip(&[
            "-n",
            &name,
            "address",
            "add",
            &format!("{net}.2/30"),
            "dev",
            &inside,
        ]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "link", "set", &inside, "up"]);
        link
    }

    /// Sets the link up or down.
    fn set(&self, state: &str) {
        ip(&[
            "-n",
            &self.namespace,
            "link",
            "set",
            &format!("{}b", self.namespace),
            state,
        ]);
    }
}

impl Drop for NetworkLink {
    fn drop(&mut self) {
        // This removes the link too.
        drop(
            Command::new("ip")
                .args(["netns", "delete", &self.namespace])
                .status(),
        );
    }
}

async fn late_result_after_a_network_cut_is_accepted(kind: &str) {
    let link = NetworkLink::create();
    let harness = WorkerHarness::open(
        kind,
        &format!("listen_address = \"0.0.0.0\"\n{SHORT_TIMEOUTS}"),
    )
    .await;
    harness.queue("cut", &codemod_until(&harness, "go")).await;
    let port = harness.server.public.rsplit_once(':').unwrap().1.to_owned();
    let _worker = harness.worker_in(
        &link.namespace,
        "w1",
        &format!("http://{}:{port}/runner", link.host),
    );
    let id = harness.active_run_of("cut").await;
    harness.wait_for_log(&id, "begun").await;
    link.set("down");
    let cut = Instant::now();
    harness.wait_for_run(&id, "worker-timeout").await;
    let after = seconds(cut);
    set_flag(&harness, "go");
    tokio::time::sleep(Duration::from_secs(2)).await;
    link.set("up");
    harness.wait_for_run(&id, "success").await;
    assert_eq!(harness.runs("cut").await.len(), 1);
    record_outcome(
        &format!("a4-{kind}"),
        &[
            "network between worker and server",
            "cut (network namespaces), mended once the codemod had ended",
            kind,
            &format!(
                "`worker-timeout` after {after}, then the late result in the place of that: `success`"
            ),
        ],
    );
}
