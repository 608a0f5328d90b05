//! Metrics of HTTP requests: ours, and those of aiohttp-openmetrics, which the alerts and dashboards
//! of existing deployments use.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::time::Duration;

/// The methods that are labels; all others share one.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The upper bounds of the buckets of Python's client, in seconds.
const PYTHON_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The label of requests that no route matches: aiohttp's name of a route without a name.
const UNNAMED: &str = "None";

/// The names that the Python runner gives its routes. What it does not have is labelled with its
/// path.
const PYTHON_ROUTES: [(&str, &str, &str); 25] = [
    ("GET", "/health", "health"),
    ("GET", "/ready", "ready"),
    ("GET", "/metrics", "metrics"),
    ("GET", "/status", "status"),
    ("GET", "/queue", "queue"),
    ("GET", "/queue/position", "queue-position"),
    ("POST", "/schedule", "schedule"),
    ("POST", "/schedule-control", "schedule-control"),
    ("GET", "/log/{run_id}", "log-index"),
    ("GET", "/log/{run_id}/{name}", "log"),
    ("POST", "/kill/{run_id}", "kill"),
    ("GET", "/codebases", "download-codebases"),
    ("POST", "/codebases", "upload-codebases"),
    ("GET", "/candidates", "download-candidates"),
    ("POST", "/candidates", "upload-candidates"),
    ("DELETE", "/candidates/{id}", "delete-candidate"),
    ("GET", "/runs/{run_id}", "get-run"),
    ("POST", "/runs/{run_id}", "update-run"),
    ("GET", "/active-runs", "get-active-runs"),
    ("GET", "/active-runs/+peek", "peek"),
    ("GET", "/active-runs/{run_id}", "get-active-run"),
    ("POST", "/active-runs", "assign"),
    ("POST", "/active-runs/{run_id}/finish", "finish"),
    ("POST", "/active-runs/{run_id}/finish-multipart", "finish"),
    ("GET", "/", UNNAMED),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: String,
}

/// Counters and times of requests.
pub(super) struct HttpMetrics {
    requests: Family<OfRequest, Counter>,
    seconds: Family<OfRequest, Histogram>,
    python_requests: Family<OfRequest, Counter>,
    python_exceptions: Family<OfRoute, Counter>,
    python_latency: Family<OfRoute, Histogram>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // From 1 ms to 33 s.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 16))
            }),
            python_requests: Family::default(),
            python_exceptions: Family::default(),
            python_latency: Family::new_with_constructor(|| Histogram::new(PYTHON_BUCKETS)),
        }
    }
}

/// Returns a method as a label. Clients may send any word as a method.
fn method_label(method: &str) -> &'static str {
    METHODS
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// Returns the name that the Python runner has for a route.
fn python_route<'a>(method: &str, route: Option<&'a str>) -> &'a str {
    let Some(path) = route else {
        return UNNAMED;
    };
    // aiohttp answers HEAD with the handler of GET.
    let method = if method == "HEAD" { "GET" } else { method };
    // The workers' routes on the public listener are those of the admin API.
    let admin = path.strip_prefix("/runner").unwrap_or(path);
    PYTHON_ROUTES
        .iter()
        .find(|(of, at, _)| *of == method && *at == admin)
        .map_or(path, |(_, _, name)| name)
}

impl HttpMetrics {
    /// Registers the metrics of aiohttp-openmetrics.
    pub(super) fn register_python_names(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Number of HTTP requests by method, route and status",
            self.python_requests.clone(),
        );
        registry.register(
            "request_latency_seconds",
            "Time from the request to the head of the response, in seconds",
            self.python_latency.clone(),
        );
        registry.register(
            "request_exceptions",
            "Number of HTTP requests that met a defect or a failing store",
            self.python_exceptions.clone(),
        );
    }

    /// Registers the metrics of our own.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Number of HTTP requests by method, route and status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_seconds",
            "Time from the request to the head of the response, in seconds",
            self.seconds.clone(),
        );
    }

    /// Counts a request; `route` is the path with names for its parameters, if one matches.
    pub(super) fn answered(
        &self,
        method: &str,
        route: Option<&str>,
        status: u16,
        is_exception: bool,
        time: Duration,
    ) {
        let seconds = time.as_secs_f64();
        let label = OfRequest {
            method: method_label(method),
            route: route.unwrap_or("none").to_owned(),
            status,
        };
        self.requests.get_or_create(&label).inc();
        self.seconds.get_or_create(&label).observe(seconds);
        let of_route = OfRoute {
            route: python_route(method, route).to_owned(),
        };
        // The alert on exceptions needs a series from the first request on: a rate over a series
        // that begins with one is zero.
        let exceptions = self.python_exceptions.get_or_create_owned(&of_route);
        if is_exception {
            exceptions.inc();
        }
        self.python_latency
            .get_or_create(&of_route)
            .observe(seconds);
        let label = OfRequest {
            route: of_route.route,
            ..label
        };
        self.python_requests.get_or_create(&label).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_the_names_of_the_python_runner() {
        for (method, route, name) in [
            ("GET", Some("/status"), "status"),
            ("HEAD", Some("/status"), "status"),
            ("POST", Some("/runner/active-runs"), "assign"),
            (
                "POST",
                Some("/runner/active-runs/{run_id}/finish"),
                "finish",
            ),
            ("GET", Some("/pauses"), "/pauses"),
            ("GET", None, "None"),
        ] {
            assert_eq!(python_route(method, route), name);
        }
    }

    #[test]
    fn unknown_methods_share_a_label() {
        assert_eq!(method_label("POST"), "POST");
        assert_eq!(method_label("BREW"), "other");
    }
}
