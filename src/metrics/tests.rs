use super::*;

#[test]
fn names_of_the_python_runner_are_exposed() {
    let metrics = Metrics::new();
    metrics.assigned(Some("w1"));
    metrics.queue_empty();
    metrics.host_rate_limited("example.com");
    let millisecond = Duration::from_millis(1);
    metrics.answered("GET", Some("/status"), 200, false, millisecond);
    metrics.answered("POST", Some("/schedule"), 500, true, millisecond);
    let text = metrics
        .text(
            &BTreeMap::from([(Bucket::Manual, 3)]),
            &BTreeMap::from([("w1".into(), 2)]),
        )
        .unwrap();
    for line in [
        "run_count_total 0",
        "queue_empty_total 1",
        "assignments_total{worker=\"w1\"} 1",
        "active_runs{worker=\"w1\"} 2",
        "rate_limited_host_total{host=\"example.com\"} 1",
        "artifact_upload_failed_total 0",
        "primary_logfile_upload_failed_total 0",
        "logfile_uploads_total 0",
        "job_last_success_unixtime 0",
        "requests_total{method=\"GET\",route=\"status\",status=\"200\"} 1",
        "request_exceptions_total{route=\"schedule\"} 1",
        "request_exceptions_total{route=\"status\"} 0",
        "request_latency_seconds_bucket{le=\"0.005\",route=\"status\"} 1",
        "request_latency_seconds_count{route=\"schedule\"} 1",
        "process_start_time_seconds 1",
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "janitor_runner_log_lines_dropped_total ",
        "janitor_runner_queue_size{bucket=\"manual\"} 3",
        "janitor_runner_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
