//! Host names that were stored before there was one rule for them, see [`host`].
//!
//! They are rewritten each time a store is opened, which is a few reads once nothing is left to do.
//! On Postgres a migration does the same.

use super::{
    codebases, keys,
    kv::{Batch, Kv},
    records::Moment,
    txn::{Txn, decode},
};
use crate::{
    domain::{
        active_run::ActiveRun,
        host,
        pause::{ConcurrencyLimit, Pause, Scope},
        time::Time,
    },
    ports::Fault,
};
use std::{collections::BTreeMap, ops::ControlFlow};

/// Returns the scope with the name that the rule gives it, if it is of a host with another name.
fn renamed(scope: &Scope) -> Option<Scope> {
    let Scope::Host(name) = scope else {
        return None;
    };
    let normalized = host::normalize(name);
    (normalized != *name).then_some(Scope::Host(normalized))
}

/// Of two backoffs that become one, the later end stays.
fn rename_backoffs(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let mut stored: BTreeMap<String, Time> = BTreeMap::new();
    txn.scan(&keys::all_hosts(), |key, value| -> Result<_, Fault> {
        let Moment(until) = decode(value)?;
        let name = key.get(1..key.len() - 1).unwrap_or_default();
        stored.insert(String::from_utf8_lossy(name).into_owned(), until);
        Ok(ControlFlow::Continue(()))
    })?;
    for (name, until) in stored {
        let normalized = host::normalize(&name);
        if normalized != name {
            txn.delete(keys::host(&name));
            let earlier = txn.get::<Moment>(&keys::host(&normalized))?;
            let until = earlier.map_or(until, |Moment(earlier)| earlier.max(until));
            txn.put(keys::host(&normalized), &Moment(until))?;
        }
    }
    Ok(())
}

/// Of two pauses that become one, the longer one stays.
fn rename_pauses(txn: &mut Txn<'_>) -> Result<(), Fault> {
    for pause in txn.list::<Pause>(&keys::pauses(), usize::MAX)? {
        let Some(scope) = renamed(&pause.scope) else {
            continue;
        };
        txn.delete(keys::pause(&pause.scope));
        let is_longer = |than: &Pause| match (pause.until, than.until) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(until), Some(other)) => until > other,
        };
        let other = txn.get::<Pause>(&keys::pause(&scope))?;
        if other.as_ref().is_none_or(is_longer) {
            txn.put(
                keys::pause(&scope),
                &Pause {
                    scope: scope.clone(),
                    ..pause
                },
            )?;
        }
    }
    Ok(())
}

/// Of two limits that become one, the smaller one stays.
fn rename_limits(txn: &mut Txn<'_>) -> Result<(), Fault> {
    for limit in txn.list::<ConcurrencyLimit>(&keys::limits(), usize::MAX)? {
        let Some(scope) = renamed(&limit.scope) else {
            continue;
        };
        txn.delete(keys::limit(&limit.scope));
        let other = txn.get::<ConcurrencyLimit>(&keys::limit(&scope))?;
        let most = other.map_or(limit.most, |other| other.most.min(limit.most));
        txn.put(
            keys::limit(&scope),
            &ConcurrencyLimit {
                scope: scope.clone(),
                most,
            },
        )?;
    }
    Ok(())
}

/// The hosts of active runs are those of their codebases, which limits count by.
fn rename_hosts_of_active_runs(txn: &mut Txn<'_>) -> Result<(), Fault> {
    for run in txn.list::<ActiveRun>(&keys::all_active(), usize::MAX)? {
        let codebase = codebases::get(txn, &run.item.key.codebase)?;
        let host = codebase.and_then(|codebase| codebase.host());
        if host != run.host {
            txn.put(
                keys::active(&run.id),
                &ActiveRun {
                    host,
                    ..run.clone()
                },
            )?;
        }
    }
    Ok(())
}

/// Returns what is to be written so that all hosts have the names of the rule.
fn changes(kv: &dyn Kv) -> Result<Batch, Fault> {
    let mut txn = Txn::new(kv);
    rename_backoffs(&mut txn)?;
    rename_pauses(&mut txn)?;
    rename_limits(&mut txn)?;
    rename_hosts_of_active_runs(&mut txn)?;
    Ok(txn.into_batch())
}

/// Gives all stored hosts the names of the rule.
pub(super) fn normalize(kv: &dyn Kv) -> Result<(), Fault> {
    let batch = changes(kv)?;
    if batch.is_empty() {
        return Ok(());
    }
    let written = kv.apply(batch).and_then(|()| kv.flush());
    written.map_err(|e| Fault::backend("rewrite the names of hosts", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::{
            embedded::{Embedded, records::StoredCodebase},
            memory::MemoryKv,
        },
        domain::{codebase::CodebaseUpload, finish::tests::item, name::RunId, time},
        metrics::Metrics,
        ports::{ActiveRunStore, HostBackoffs, PauseStore, host_backoff::HostBackoff},
    };
    use std::sync::Arc;

    fn at(time: &str) -> Time {
        time::parse("at", &format!("2026-11-23T{time}")).unwrap()
    }

    fn pause(name: &str, until: Option<Time>) -> Pause {
        Pause {
            scope: Scope::Host(name.into()),
            reason: name.into(),
            since: at("09:00:00"),
            until,
        }
    }

    /// Writes what an earlier version has stored.
    fn earlier_store() -> MemoryKv {
        let kv = MemoryKv::default();
        let mut txn = Txn::new(&kv);
        for (name, until) in [("Git.example:443", "11:00:00"), ("git.example", "10:30:00")] {
            txn.put(keys::host(name), &Moment(at(until))).unwrap();
        }
        for pause in [
            pause("GIT.example.", None),
            pause("git.example", Some(at("12:00:00"))),
            pause("other.example", None),
        ] {
            txn.put(keys::pause(&pause.scope), &pause).unwrap();
        }
        for (name, most) in [("user@Git.example", 2), ("git.example", 3)] {
            let scope = Scope::Host(name.into());
            let limit = ConcurrencyLimit {
                scope: scope.clone(),
                most,
            };
            txn.put(keys::limit(&scope), &limit).unwrap();
        }
        let item = item();
        let upload = CodebaseUpload {
            name: Some(item.key.codebase.to_string()),
            branch_url: Some("https://Git.example:443/x".into()),
            ..CodebaseUpload::default()
        };
        let codebase = StoredCodebase {
            sequence: 1,
            codebase: upload.validate().unwrap(),
        };
        txn.put(keys::codebase_named(&item.key.codebase), &1_u64)
            .unwrap();
        txn.put(keys::codebase(1), &codebase).unwrap();
        let run = ActiveRun {
            host: Some("Git.example:443".into()),
            ..ActiveRun::new(
                RunId::new("r1"),
                "t".into(),
                item,
                crate::domain::active_run::Claimant::default(),
                at("09:00:00"),
            )
        };
        txn.put(keys::active(&run.id), &run).unwrap();
        let batch = txn.into_batch();
        kv.apply(batch).unwrap();
        kv
    }

    #[tokio::test]
    async fn hosts_of_earlier_versions_have_the_names_of_the_rule() {
        let kv = Arc::new(earlier_store());
        // Twice: the second time there is nothing left to do.
        for _ in 0..2 {
            let store = Embedded::open(kv.clone(), "memory", Arc::new(Metrics::new())).unwrap();
            let backoff = HostBackoff {
                host: "git.example".into(),
                until: at("11:00:00"),
            };
            let now = at("10:00:00");
            assert_eq!(store.backed_off_hosts(now).await.unwrap(), [backoff]);
            let mut longer = pause("git.example", None);
            longer.reason = "GIT.example.".into();
            let pauses = store.pauses(now).await.unwrap();
            assert_eq!(pauses, [longer, pause("other.example", None)]);
            let limit = ConcurrencyLimit {
                scope: Scope::Host("git.example".into()),
                most: 2,
            };
            assert_eq!(store.limits().await.unwrap(), [limit]);
            let active = ActiveRunStore::list(&store).await.unwrap();
            assert_eq!(active[0].host.as_deref(), Some("git.example"));
            assert!(changes(kv.as_ref()).unwrap().is_empty());
        }
    }
}
