//! The server is killed again and again under load: whatever it acknowledged is there afterwards.

use crate::support::process::{Server, answer, upload};
use janitor_runner::{adapters::clock::RandomIds, ports::Ids};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const KILLS: u32 = 10;
const CLIENTS: usize = 6;

/// What the server said that it had done.
#[derive(Default)]
struct Acknowledged {
    codebases: BTreeSet<String>,
    candidates: BTreeSet<String>,
    /// Claimed runs: id to (codebase, queue id).
    claims: BTreeMap<String, (String, i64)>,
    /// Finished runs: id to what was answered.
    results: BTreeMap<String, Value>,
}

struct Load {
    admin: String,
    http: reqwest::Client,
    seen: Mutex<Acknowledged>,
    names: AtomicUsize,
    stop: AtomicBool,
    twice: Mutex<Vec<String>>,
}

impl Load {
    /// The answer, or none when the server was not there to give it.
    async fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let response = self.http.post(format!("{}{path}", self.admin)).json(body).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.ok()?))
    }

    async fn add(&self) -> Option<()> {
        let name = format!("load-{}", self.names.fetch_add(1, Ordering::SeqCst));
        let (status, _) = self.post("/codebases", &json!([{ "name": name }])).await?;
        assert_eq!(status, 200);
        self.seen.lock().unwrap().codebases.insert(name.clone());
        let (status, stored) = self.post("/candidates", &json!([{ "codebase": name, "campaign": "gen" }])).await?;
        assert_eq!((status, stored["success"].as_array().map(Vec::len)), (200, Some(1)));
        self.seen.lock().unwrap().candidates.insert(name);
        Some(())
    }

    async fn claim(&self) -> Option<String> {
        let (status, taken) = self.post("/active-runs", &json!({ "worker": "w1" })).await?;
        if status != 201 {
            return None;
        }
        let id = taken["id"].as_str().unwrap().to_owned();
        let held = (taken["codebase"].as_str().unwrap().to_owned(), taken["queue_id"].as_i64().unwrap());
        let mut seen = self.seen.lock().unwrap();
        let ended: BTreeSet<_> = seen.results.keys().cloned().collect();
        let others = seen.claims.iter().filter(|(other, held_by)| !ended.contains(*other) && held_by.1 == held.1);
        self.twice.lock().unwrap().extend(others.map(|(other, _)| format!("item {} to {other} and {id}", held.1)));
        seen.claims.insert(id.clone(), held);
        Some(id)
    }

    async fn finish(&self, id: &str) -> Option<()> {
        let form = upload(
            &json!({ "code": "success", "revision": id, "target": { "name": "generic" } }),
            &[("w.log", id.as_bytes()), ("out", id.as_bytes())],
        );
        let response = self.http.post(format!("{}/active-runs/{id}/finish", self.admin)).multipart(form).send().await.ok()?;
        assert!(matches!(response.status().as_u16(), 200 | 201), "{}", response.status());
        let answer: Value = response.json().await.ok()?;
        self.seen.lock().unwrap().results.insert(id.to_owned(), answer);
        Some(())
    }

    async fn client(self: Arc<Self>) {
        while !self.stop.load(Ordering::SeqCst) {
            if self.add().await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let Some(id) = self.claim().await else { continue };
            // A worker tries again until it is told that the result is stored.
            while self.finish(&id).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// A moment that differs from run to run of the test, spread over half a second.
fn some_time() -> Duration {
    let [first, second, ..] = *RandomIds.fresh().as_bytes() else { unreachable!("an id has more than two characters") };
    Duration::from_millis(80 + u64::from(first) * 7 % 210 + u64::from(second) * 13 % 210)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::sled(home.path()).await;
    server.add_worker("w1", "secret1").await;
    let load = Arc::new(Load {
        admin: server.admin.clone(),
        http: crate::support::process::client(),
        seen: Mutex::default(),
        names: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        twice: Mutex::default(),
    });
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(load.clone().client())).collect();
    for _ in 0..KILLS {
        tokio::time::sleep(some_time()).await;
        server.kill();
        server.run().await;
    }
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    check(&server, &load).await;
}

async fn check(server: &Server, load: &Load) {
    let seen = std::mem::take(&mut *load.seen.lock().unwrap());
    println!("{} codebases, {} claims, {} results acknowledged over {KILLS} kills", seen.codebases.len(), seen.claims.len(), seen.results.len());
    assert!(seen.results.len() > 20, "too little happened to tell: {}", seen.results.len());
    assert_eq!(*load.twice.lock().unwrap(), Vec::<String>::new());
    let names = |list: Value, field: &str| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
    };
    let codebases = names(server.get("/codebases").await.1, "name");
    let candidates = names(server.get("/candidates").await.1, "codebase");
    assert!(seen.codebases.is_subset(&codebases) && seen.candidates.is_subset(&candidates));
    for (id, answered) in &seen.results {
        let again = answer(server.request("POST", &format!("/active-runs/{id}/finish")).multipart(upload(&json!({}), &[]))).await;
        assert_eq!(again, (200, answered.clone()), "{id}");
        assert_eq!(server.get(&format!("/log/{id}/w.log")).await.1.to_string().trim_matches('"'), id);
        assert_eq!(std::fs::read_to_string(server.home.join("artifacts").join(id).join("out")).unwrap(), *id);
    }
    let active = names(server.get("/active-runs").await.1, "id");
    let lost: Vec<_> = seen.claims.keys().filter(|id| !seen.results.contains_key(*id) && !active.contains(*id)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    follow_ups_happened(server, &seen).await;
}

/// Every codebase with a candidate is queued, or a worker has it.
async fn follow_ups_happened(server: &Server, seen: &Acknowledged) {
    let mut missing = BTreeSet::new();
    for _ in 0..200 {
        let list = |list: Value| -> BTreeSet<String> {
            list.as_array().unwrap().iter().map(|entry| entry["codebase"].as_str().unwrap().to_owned()).collect()
        };
        let queued = list(server.get("/queue").await.1);
        missing = seen.candidates.difference(&queued).cloned().collect();
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never queued again: {missing:?}");
}
