//! The hashes in which the runner of a Janitor keeps its active runs.
//!
//! Each entry that this runner writes has a mark, a field that others ignore. Without it, an entry
//! of another runner could not be distinguished from one of ours that was not deleted.

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

/// Active runs as JSON, by run id.
const ACTIVE: &str = "active-runs";
/// Run ids, by the id of the queue item.
const ASSIGNED: &str = "assigned-queue-items";
/// The time of the last keepalive, by run id.
const KEEPALIVE: &str = "last-keepalive";
/// The end of the backoff, by host.
const HOSTS: &str = "rate-limit-hosts";

/// Reads and writes the hashes.
#[derive(Clone)]
pub(super) struct Hashes {
    /// The connection to Redis.
    pub(super) connection: ConnectionManager,
}

/// An active run as it was read from the hashes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MirroredRun {
    /// The active run.
    pub(super) run: ActiveRun,
    /// Whether this runner wrote it.
    pub(super) ours: bool,
}

/// An entry as this runner writes it.
#[derive(Serialize)]
struct WrittenEntry<'a> {
    #[serde(flatten)]
    run: ActiveRunResponse,
    /// The mark: the version of this runner.
    janitor_runner: &'a str,
}

/// The fields that are read of an entry, whoever wrote it.
#[derive(Deserialize)]
struct ReadEntry {
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

/// Reads an entry. `token` becomes the token of the claim when the run is adopted.
fn read_entry(
    id: &str,
    entry: &str,
    keepalive: Option<&String>,
    token: String,
) -> Result<MirroredRun, Invalid> {
    let read: ReadEntry =
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
        ..Claimant::default()
    };
    let run = ActiveRun {
        keepalive,
        vcs: read.vcs.unwrap_or_default(),
        resume_from: read.resume_from,
        ..ActiveRun::new(RunId::new(id), token, item, claimant, start_time)
    };
    Ok(MirroredRun {
        run,
        ours: read.janitor_runner.is_some(),
    })
}

/// Adds the commands that write an active run.
fn set<'p>(pipeline: &'p mut Pipeline, run: &ActiveRun, version: &str) -> &'p mut Pipeline {
    let written = WrittenEntry {
        run: ActiveRunResponse::new(run, run.start_time),
        janitor_runner: version,
    };
    // Serializing fails only for keys that are no text, which it has none of.
    let entry = serde_json::to_string(&written).unwrap_or_default();
    pipeline
        .hset(ACTIVE, run.id.as_str(), entry)
        .ignore()
        .hset(ASSIGNED, run.item.id, run.id.as_str())
        .ignore()
        .hset(KEEPALIVE, run.id.as_str(), iso(run.keepalive))
        .ignore()
}

/// Adds the commands that delete an active run.
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

    /// Writes active runs, and deletes ended ones, in one transaction, so that readers see either
    /// before or after.
    pub(super) async fn write(
        &self,
        active: &[ActiveRun],
        ended: &[(RunId, QueueId)],
    ) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline.atomic();
        // Deleted first: an item that was claimed again must keep its new entry.
        for (id, item) in ended {
            delete(&mut pipeline, id, *item);
        }
        for run in active {
            set(&mut pipeline, run, env!("CARGO_PKG_VERSION"));
        }
        self.run("write active runs", &pipeline).await
    }

    /// Writes the time of the last keepalive of a run.
    pub(super) async fn keepalive(&self, id: &RunId, now: Time) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline.hset(KEEPALIVE, id.as_str(), iso(now)).ignore();
        self.run("write a keepalive", &pipeline).await
    }

    /// Writes the end of the backoff of a host.
    pub(super) async fn back_off_host(&self, backoff: &HostBackoff) -> Result<(), Fault> {
        let mut pipeline = ::redis::pipe();
        pipeline
            .hset(HOSTS, &backoff.host, iso(backoff.until))
            .ignore();
        self.run("write a host backoff", &pipeline).await
    }

    /// Removes the backoff of a host, however its name is written.
    pub(super) async fn end_backoff(&self, host: &str) -> Result<(), Fault> {
        let mut connection = self.connection.clone();
        let failed = |e| fault("end a host backoff", e);
        let names: Vec<String> = connection.hkeys(HOSTS).await.map_err(failed)?;
        for name in names.iter().filter(|name| host::normalize(name) == host) {
            let () = connection.hdel(HOSTS, name).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Returns all active runs in the hashes, with new tokens. Entries that cannot be read are
    /// skipped.
    pub(super) async fn read(&self, token: impl Fn() -> String) -> Result<Vec<MirroredRun>, Fault> {
        let mut connection = self.connection.clone();
        let failed = |e| fault("read the active runs", e);
        let entries: BTreeMap<String, String> = connection.hgetall(ACTIVE).await.map_err(failed)?;
        let keepalives: BTreeMap<String, String> =
            connection.hgetall(KEEPALIVE).await.map_err(failed)?;
        let read = |(id, entry): (String, String)| match read_entry(
            &id,
            &entry,
            keepalives.get(&id),
            token(),
        ) {
            Ok(run) => Some(run),
            Err(error) => {
                tracing::warn!(run.id = id, %error, "an active run in Redis cannot be read");
                None
            }
        };
        Ok(entries.into_iter().filter_map(read).collect())
    }

    /// Returns all host backoffs in the hashes, passed ones included.
    pub(super) async fn backed_off_hosts(&self) -> Result<Vec<HostBackoff>, Fault> {
        let hosts: BTreeMap<String, String> = self
            .connection
            .clone()
            .hgetall(HOSTS)
            .await
            .map_err(|e| fault("read the host backoffs", e))?;
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
    fn entry_of_the_python_runner_is_read_as_foreign() {
        let entry = r#"{"queue_id": 7, "id": "r1", "codebase": "aa", "change_set": null,
            "campaign": "gen", "command": "true", "estimated_duration": 15.0,
            "current_duration": 0.1, "start_time": "2026-11-23T10:00:00.5", "worker": "w1",
            "worker_link": null, "vcs": {"branch_url": "u"},
            "backchannel": {"my_url": "http://j/", "jenkins": {}}, "instigated_context": "c",
            "resume_from": null}"#;
        let keepalive = "2026-11-23T10:05:00".to_owned();
        let MirroredRun { run, ours } =
            read_entry("r1", entry, Some(&keepalive), "t".into()).unwrap();
        assert!(!ours, "it has no mark");
        assert_eq!(run.item.id, 7);
        assert_eq!(run.item.context.as_deref(), Some("c"));
        assert_eq!(iso(run.keepalive), keepalive);
        let jenkins = BackchannelAddress::Jenkins {
            url: "http://j/".into(),
        };
        assert_eq!(run.claimant.backchannel, Some(jenkins));
    }

    #[test]
    fn incomplete_entry_is_an_error() {
        assert!(read_entry("r1", "{}", None, "t".into()).is_err());
    }

    #[test]
    fn written_entry_is_read_as_ours() {
        let entry = r#"{"queue_id": 7, "codebase": "aa", "campaign": "gen",
            "start_time": "2026-11-23T10:00:00"}"#;
        let run = read_entry("r1", entry, None, "t".into()).unwrap().run;
        let written = WrittenEntry {
            run: ActiveRunResponse::new(&run, run.start_time),
            janitor_runner: "1",
        };
        let written = serde_json::to_string(&written).unwrap();
        let again = read_entry("r1", &written, None, "t".into()).unwrap();
        assert_eq!(again, MirroredRun { run, ours: true });
    }
}
