//! The hashes that a Janitor's runner keeps its active runs in. What we write there bears a mark, which others ignore:
//! so what another runner wrote can be told from what we did not clear away.

use super::fault;
use crate::{
    adapters::wire::ActiveRunResponse,
    domain::{
        Invalid,
        active_run::{ActiveRun, BackchannelAddress, Claimant, RunVcs},
        host,
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, QueueId, QueueItem, QueueKey},
        time::{self, Time, iso},
    },
    ports::{Fault, host_backoff::HostBackoff},
};
use ::redis::{AsyncCommands, Pipeline, aio::ConnectionManager};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

const ACTIVE: &str = "active-runs";
const ASSIGNED: &str = "assigned-queue-items";
const KEEPALIVE: &str = "last-keepalive";
const HOSTS: &str = "rate-limit-hosts";

/// The hashes.
#[derive(Clone)]
pub(super) struct Hashes {
    pub(super) connection: ConnectionManager,
}

/// An active run as it is found there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) run: ActiveRun,
    /// Whether we wrote it.
    pub(super) ours: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    shape: ActiveRunResponse,
    /// The mark; also what proves that the claim is ours.
    janitor_runner: &'a str,
}

#[derive(Deserialize)]
struct Read {
    queue_id: QueueId,
    codebase: CodebaseName,
    campaign: CampaignName,
    change_set: Option<String>,
    #[serde(default)]
    command: String,
    estimated_duration: Option<f64>,
    start_time: String,
    worker: Option<String>,
    worker_link: Option<String>,
    #[serde(default)]
    vcs: Option<RunVcs>,
    #[serde(default)]
    backchannel: BTreeMap<String, Value>,
    instigated_context: Option<String>,
    resume_from: Option<RunId>,
    janitor_runner: Option<String>,
}

fn backchannel(fields: &BTreeMap<String, Value>) -> Option<BackchannelAddress> {
    let url = fields.get("my_url")?.as_str()?.to_owned();
    Some(if fields.contains_key("jenkins") {
        BackchannelAddress::Jenkins { url }
    } else {
        BackchannelAddress::Http { url }
    })
}

/// Reads an entry; `token` proves the claim from now on when it is not ours.
fn read(
    id: &str,
    entry: &str,
    keepalive: Option<&String>,
    token: String,
) -> Result<Found, Invalid> {
    let read: Read =
        serde_json::from_str(entry).map_err(|e| Invalid::new("active run", e.to_string()))?;
    let start_time = time::parse("start_time", &read.start_time)?;
    let keepalive = keepalive
        .and_then(|keepalive| time::parse("keepalive", keepalive).ok())
        .unwrap_or(start_time);
    let item = QueueItem {
        id: read.queue_id,
        key: QueueKey {
            codebase: read.codebase,
            campaign: read.campaign,
            change_set: read.change_set,
        },
        bucket: Bucket::Default,
        priority: 0,
        command: read.command,
        context: read.instigated_context,
        estimated_duration: read.estimated_duration,
        refresh: false,
        requester: None,
    };
    let claimant = Claimant {
        worker: read.worker,
        worker_link: read.worker_link,
        backchannel: backchannel(&read.backchannel),
    };
    let run = ActiveRun {
        keepalive,
        vcs: read.vcs.unwrap_or_default(),
        resume_from: read.resume_from,
        ..ActiveRun::new(RunId::new(id), token, item, claimant, start_time)
    };
    Ok(Found {
        run,
        ours: read.janitor_runner.is_some(),
    })
}

fn set<'p>(pipeline: &'p mut Pipeline, run: &ActiveRun, version: &str) -> &'p mut Pipeline {
    let written = Written {
        shape: ActiveRunResponse::new(run, run.start_time),
        janitor_runner: version,
    };
    // The shape has text keys only, so this cannot fail.
    let entry = serde_json::to_string(&written).unwrap_or_default();
    pipeline
        .hset(ACTIVE, run.id.as_str(), entry)
        .ignore()
        .hset(ASSIGNED, run.item.id, run.id.as_str())
        .ignore()
        .hset(KEEPALIVE, run.id.as_str(), iso(run.keepalive))
        .ignore()
}

fn delete<'p>(pipeline: &'p mut Pipeline, id: &RunId, item: QueueId) -> &'p mut Pipeline {
    pipeline
        .hdel(ACTIVE, id.as_str())
        .ignore()
        .hdel(KEEPALIVE, id.as_str())
        .ignore()
        .hdel(ASSIGNED, item)
        .ignore()
}

impl Hashes {
    async fn run(&self, action: &'static str, pipeline: &Pipeline) -> Result<(), Fault> {
        pipeline
            .query_async::<()>(&mut self.connection.clone())
            .await
            .map_err(|e| fault(action, e))
    }

    /// Writes active runs, and clears others away, in one step.
    pub(super) async fn write(
        &self,
        held: &[ActiveRun],
        gone: &[(RunId, QueueId)],
    ) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline.atomic();
        for (id, item) in gone {
            delete(&mut pipeline, id, *item);
        }
        for run in held {
            set(&mut pipeline, run, env!("CARGO_PKG_VERSION"));
        }
        self.run("write active runs", &pipeline).await
    }

    pub(super) async fn keepalive(&self, id: &RunId, now: Time) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline.hset(KEEPALIVE, id.as_str(), iso(now)).ignore();
        self.run("write a keepalive", &pipeline).await
    }

    pub(super) async fn back_off_host(&self, limit: &HostBackoff) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline.hset(HOSTS, &limit.host, iso(limit.until)).ignore();
        self.run("write a limited host", &pipeline).await
    }

    /// All that is there; entries that cannot be read are left alone.
    pub(super) async fn read(&self, token: impl Fn() -> String) -> Result<Vec<Found>, Fault> {
        let mut connection = self.connection.clone();
        let failed = |e| fault("read the active runs", e);
        let entries: BTreeMap<String, String> = connection.hgetall(ACTIVE).await.map_err(failed)?;
        let keepalives: BTreeMap<String, String> =
            connection.hgetall(KEEPALIVE).await.map_err(failed)?;
        let read =
            |(id, entry): (String, String)| match read(&id, &entry, keepalives.get(&id), token()) {
                Ok(found) => Some(found),
                Err(error) => {
                    tracing::warn!(run.id = id, %error, "an active run in Redis cannot be read");
                    None
                }
            };
        Ok(entries.into_iter().filter_map(read).collect())
    }

    pub(super) async fn backed_off_hosts(&self) -> Result<Vec<HostBackoff>, Fault> {
        let hosts: BTreeMap<String, String> = self
            .connection
            .clone()
            .hgetall(HOSTS)
            .await
            .map_err(|e| fault("read the limited hosts", e))?;
        Ok(hosts
            .into_iter()
            .filter_map(|(host, until)| {
                Some(HostBackoff {
                    host: host::normalize(&host),
                    until: time::parse("until", &until).ok()?,
                })
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_python_runner_is_read() {
        let entry = r#"{"queue_id": 7, "id": "r1", "codebase": "aa", "change_set": null, "campaign": "gen", "command": "true", "estimated_duration": 15.0,
            "current_duration": 0.1, "start_time": "2026-11-23T10:00:00.5", "worker": "w1", "worker_link": null, "vcs": {"branch_url": "u"},
            "backchannel": {"my_url": "http://j/", "jenkins": {}}, "instigated_context": "c", "resume_from": null}"#;
        let found = read(
            "r1",
            entry,
            Some(&"2026-11-23T10:05:00".to_owned()),
            "t".into(),
        )
        .unwrap();
        assert!(!found.ours);
        assert_eq!(
            (
                found.run.item.id,
                found.run.item.context.as_deref(),
                iso(found.run.keepalive).as_str()
            ),
            (7, Some("c"), "2026-11-23T10:05:00")
        );
        assert_eq!(
            found.run.claimant.backchannel,
            Some(BackchannelAddress::Jenkins {
                url: "http://j/".into()
            })
        );
        assert!(read("r1", "{}", None, "t".into()).is_err());
    }

    #[test]
    fn what_we_write_is_read_as_ours() {
        let entry = r#"{"queue_id": 7, "codebase": "aa", "campaign": "gen", "start_time": "2026-11-23T10:00:00"}"#;
        let run = read("r1", entry, None, "t".into()).unwrap().run;
        let written = Written {
            shape: ActiveRunResponse::new(&run, run.start_time),
            janitor_runner: "1",
        };
        let again = read(
            "r1",
            &serde_json::to_string(&written).unwrap(),
            None,
            "t".into(),
        )
        .unwrap();
        assert_eq!(again, Found { run, ours: true });
    }
}
