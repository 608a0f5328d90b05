//! Clients that add, claim and finish without end and remember every acknowledged response, and what must hold afterwards.

use super::process::{Server, client, send, upload};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// A request that takes longer hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the servers acknowledged.
#[derive(Default)]
pub struct Acknowledged {
    pub codebases: BTreeSet<String>,
    pub candidates: BTreeSet<String>,
    /// Claimed runs: id to (codebase, queue id).
    pub claims: BTreeMap<String, (String, i64)>,
    /// Finished runs: id to the response.
    pub results: BTreeMap<String, Value>,
    /// What must not happen: items that were assigned twice, and unexpected responses.
    pub violations: Vec<String>,
    /// The number of responses by status; 0 stands for none.
    pub statuses: BTreeMap<u16, usize>,
    /// The slowest request: how long it took, and its path.
    pub slowest: (Duration, String),
}

/// Clients of some servers, which run until they are stopped.
pub struct Load {
    servers: Vec<String>,
    http: reqwest::Client,
    seen: Mutex<Acknowledged>,
    names: AtomicUsize,
    stop: AtomicBool,
}

pub struct Running {
    pub load: Arc<Load>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(servers: &[&Server], clients: usize) -> Running {
        let servers = servers.iter().map(|server| server.admin.clone()).collect();
        let load = Arc::new(Self {
            servers,
            http: client(),
            seen: Mutex::default(),
            names: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let clients = (0..clients)
            .map(|number| tokio::spawn(load.clone().client(number)))
            .collect();
        Running { load, clients }
    }

    pub fn finished(&self) -> usize {
        self.seen.lock().unwrap().results.len()
    }

    /// The response, or none if the server was down or temporarily unavailable.
    async fn send(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
        expected: &[u16],
    ) -> Option<(u16, Value)> {
        let started = Instant::now();
        let response = async {
            let response = request.timeout(REQUEST_TIMEOUT).send().await.ok()?;
            let status = response.status().as_u16();
            let retry = response.headers().contains_key("retry-after");
            Some((status, retry, response.text().await.ok()?))
        };
        let response = response.await;
        let mut seen = self.seen.lock().unwrap();
        *seen
            .statuses
            .entry(response.as_ref().map_or(0, |response| response.0))
            .or_default() += 1;
        if started.elapsed() > seen.slowest.0 {
            seen.slowest = (started.elapsed(), path.to_owned());
        }
        let (status, retry, text) = response?;
        if expected.contains(&status) {
            return Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)));
        }
        let is_temporary = status == 503 && (retry || text.contains("queue empty"));
        if !is_temporary {
            seen.violations.push(format!("{path}: {status} {text}"));
        }
        None
    }

    async fn post(&self, server: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        self.send(
            path,
            self.http.post(format!("{server}{path}")).json(body),
            &[200, 201],
        )
        .await
    }

    async fn add(&self, server: &str) -> Option<()> {
        let name = format!("load-{}", self.names.fetch_add(1, Ordering::SeqCst));
        self.post(server, "/codebases", &json!([{ "name": name }]))
            .await?;
        self.seen.lock().unwrap().codebases.insert(name.clone());
        let (_, stored) = self
            .post(
                server,
                "/candidates",
                &json!([{ "codebase": name, "campaign": "gen" }]),
            )
            .await?;
        assert_eq!(stored["success"].as_array().map(Vec::len), Some(1));
        self.seen.lock().unwrap().candidates.insert(name);
        Some(())
    }

    async fn claim(&self, server: &str) -> Option<String> {
        let (_, taken) = self
            .post(server, "/active-runs", &json!({ "worker": "w1" }))
            .await?;
        let id = taken["id"].as_str()?.to_owned();
        let held = (
            taken["codebase"].as_str().unwrap().to_owned(),
            taken["queue_id"].as_i64().unwrap(),
        );
        let mut seen = self.seen.lock().unwrap();
        let others = seen
            .claims
            .iter()
            .filter(|(other, by)| !seen.results.contains_key(*other) && by.1 == held.1);
        let twice: Vec<String> = others
            .map(|(other, _)| format!("item {} to {other} and {id}", held.1))
            .collect();
        seen.violations.extend(twice);
        seen.claims.insert(id.clone(), held);
        Some(id)
    }

    async fn finish(&self, server: &str, id: &str) -> Option<()> {
        let report = json!({ "code": "success", "revision": id, "target": { "name": "generic" } });
        let form = upload(&report, &[("w.log", id.as_bytes()), ("out", id.as_bytes())]);
        let request = self
            .http
            .post(format!("{server}/active-runs/{id}/finish"))
            .multipart(form);
        let (_, response) = self.send("/finish", request, &[200, 201]).await?;
        self.seen
            .lock()
            .unwrap()
            .results
            .insert(id.to_owned(), response);
        Some(())
    }

    async fn client(self: Arc<Self>, number: usize) {
        let mut turn = number;
        let mut next = || {
            turn += 1;
            self.servers[turn % self.servers.len()].clone()
        };
        let pause = || tokio::time::sleep(Duration::from_millis(20));
        while !self.stop.load(Ordering::SeqCst) {
            if self.add(&next()).await.is_none() {
                pause().await;
                continue;
            }
            // Each server is tried once: otherwise all attempts might go to two that are dead.
            let mut claimed = None;
            for _ in 0..self.servers.len() {
                claimed = self.claim(&next()).await;
                if claimed.is_some() {
                    break;
                }
                pause().await;
            }
            let Some(id) = claimed else { continue };
            // A worker retries until its result is acknowledged, with another server if there is one.
            while self.finish(&next(), &id).await.is_none() {
                pause().await;
            }
        }
    }
}

impl Running {
    /// Waits until that many more results are acknowledged.
    pub async fn finishes(&self, more: usize) {
        let (wanted, began) = (self.load.finished() + more, Instant::now());
        while self.load.finished() < wanted {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "too little is finished: {} of {wanted}",
                self.load.finished()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(self) -> Acknowledged {
        self.load.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        std::mem::take(&mut *self.load.seen.lock().unwrap())
    }
}

fn names(list: &Value, field: &str) -> BTreeSet<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[field].as_str().unwrap().to_owned())
        .collect()
}

/// Checks that whatever was acknowledged is stored, nothing was done twice, and follow-ups were processed.
pub async fn assert_nothing_lost(server: &Server, seen: &Acknowledged) {
    assert_eq!(seen.violations, Vec::<String>::new());
    let codebases = names(&server.get("/codebases").await.1, "name");
    let candidates = names(&server.get("/candidates").await.1, "codebase");
    let missing: Vec<_> = seen.codebases.difference(&codebases).collect();
    assert!(missing.is_empty(), "codebases: {missing:?}");
    let missing: Vec<_> = seen.candidates.difference(&candidates).collect();
    assert!(missing.is_empty(), "candidates: {missing:?}");
    for (id, acknowledged) in &seen.results {
        let again = send(
            server
                .request("POST", &format!("/active-runs/{id}/finish"))
                .multipart(upload(&json!({}), &[])),
        )
        .await;
        assert_eq!(again, (200, acknowledged.clone()), "{id}");
        assert_eq!(acknowledged["result"]["code"], "success", "{acknowledged}");
        assert_eq!(
            server
                .get(&format!("/log/{id}/w.log"))
                .await
                .1
                .to_string()
                .trim_matches('"'),
            id
        );
    }
    let active = names(&server.get("/active-runs").await.1, "id");
    let lost: Vec<_> = seen
        .claims
        .keys()
        .filter(|id| !seen.results.contains_key(*id) && !active.contains(*id))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_every_candidate_is_queued(server, seen).await;
}

/// Checks that every codebase with a candidate is queued, claimed ones included.
async fn assert_every_candidate_is_queued(server: &Server, seen: &Acknowledged) {
    let mut missing = BTreeSet::new();
    for _ in 0..200 {
        let queued = names(&server.get("/queue").await.1, "codebase");
        missing = seen.candidates.difference(&queued).cloned().collect();
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never queued again: {missing:?}");
}
