//! The processes of runs: those that leave the process group of their program are found through
//! `/proc`, ended and reaped. Elsewhere than on Linux there are process groups only.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};
use tokio_util::task::AbortOnDropHandle;

/// How long processes that were sent SIGKILL are waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The shortest time between two looks for orphans to reap.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// The children that tokio waits for, which must not be reaped before it does.
static OWN_CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A process; the time of its start, because ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    id: i32,
    started: u64,
}

#[derive(Debug)]
struct Stat {
    process: Process,
    parent: i32,
    is_zombie: bool,
}

/// A child that is waited for by its id.
pub(super) struct OwnChild {
    /// The child itself.
    pub(super) child: Child,
    id: Option<i32>,
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            own_children().remove(&id);
        }
    }
}

fn own_children() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program.
///
/// # Errors
///
/// Returns an error when it cannot be started.
pub(super) fn spawn(command: &mut Command) -> io::Result<OwnChild> {
    // Held over the start, so that a child which exits immediately is not taken for an orphan.
    let mut own = own_children();
    let child = command.spawn()?;
    let id = child.id().map(u32::cast_signed);
    own.extend(id);
    drop(own);
    Ok(OwnChild { child, id })
}

fn parse_stat(id: i32, text: &str) -> Option<Stat> {
    // The name of the program comes before the last parenthesis, and may have any characters.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        process: Process { id, started },
        parent,
        is_zombie: state == "Z",
    })
}

/// Returns all processes of the machine that can be seen.
fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            parse_stat(id, &fs::read_to_string(entry.path().join("stat")).ok()?)
        })
        .collect()
}

/// Returns the processes below this one, but for those in `except` and what is below them.
fn descendants(all: &[Stat], except: &HashSet<Process>) -> HashSet<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for stat in all.iter().filter(|stat| !except.contains(&stat.process)) {
        children.entry(stat.parent).or_default().push(stat.process);
    }
    let mut found = HashSet::new();
    let mut parents = vec![std::process::id().cast_signed()];
    while let Some(parent) = parents.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                parents.push(child.id);
            }
        }
    }
    found
}

/// Reaps the children among these that have exited and nobody waits for; returns how many there were.
fn reap(all: &[Stat]) -> usize {
    let own = own_children();
    let this = std::process::id().cast_signed();
    let is_orphan =
        |stat: &&Stat| stat.is_zombie && stat.parent == this && !own.contains(&stat.process.id);
    let orphans = all.iter().filter(is_orphan);
    let ids: Vec<Pid> = orphans
        .filter_map(|stat| Pid::from_raw(stat.process.id))
        .collect();
    for id in &ids {
        // An error means that it is no child any more.
        let _ = waitpid(Some(*id), WaitOptions::NOHANG);
    }
    ids.len()
}

async fn reap_forever() {
    let Ok(mut exits) = signal(SignalKind::child()) else {
        return;
    };
    while exits.recv().await.is_some() {
        reap(&all());
        tokio::time::sleep(REAP_INTERVAL).await;
    }
}

/// Finds and ends the processes that runs leave behind.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// What was below this process before the worker began; none when other parts of this process
    /// start programs too.
    earlier: Option<HashSet<Process>>,
    _reaper: Option<AbortOnDropHandle<()>>,
}

impl Family {
    /// Makes this process the parent of all orphans below it, which are reaped from now on. Only
    /// one worker in a process can do so.
    pub(super) fn adopt() -> Self {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error, "orphans of codemods cannot be adopted");
        }
        Self {
            earlier: Some(descendants(&all(), &HashSet::new())),
            _reaper: Some(AbortOnDropHandle::new(tokio::spawn(reap_forever()))),
        }
    }

    /// Returns the live processes among these of the run that has this entry in its environment.
    fn members(&self, all: &[Stat], entry: &str) -> Vec<Process> {
        let below = match &self.earlier {
            Some(earlier) => descendants(all, earlier),
            None => HashSet::new(),
        };
        let own = own_children();
        let is_marked = |id: i32| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|found| found == entry.as_bytes())
        };
        all.iter()
            .filter(|stat| !stat.is_zombie && !own.contains(&stat.process.id))
            .map(|stat| stat.process)
            .filter(|process| below.contains(process) || is_marked(process.id))
            .collect()
    }

    /// Ends the processes of a run: those below this process if it has adopted them, and those
    /// with the entry in their environment. That `quiet_looks` in a row must find none, and no child
    /// of them that has exited since: one that forks faster than processes are listed is in no list.
    ///
    /// Returns how many are left, which happens only if they may not be killed, wait for the kernel,
    /// or fork too fast.
    pub(super) async fn end(&self, entry: &str, quiet_looks: usize) -> usize {
        let started = Instant::now();
        let mut quiet = 0;
        loop {
            let all = all();
            let members = self.members(&all, entry);
            for id in members.iter().filter_map(|member| Pid::from_raw(member.id)) {
                // An error means that it has ended, or that it will be counted as left.
                let _ = kill_process(id, Signal::KILL);
            }
            let orphans = self.reap_orphans(&all);
            let is_quiet = members.is_empty() && (orphans == 0 || quiet_looks == 1);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet >= quiet_looks {
                return 0;
            }
            if started.elapsed() > KILL_TIMEOUT {
                return members.len().max(1);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Reaps the children that have exited and nobody waits for, if they are this worker's to reap;
    /// returns how many there were.
    fn reap_orphans(&self, all: &[Stat]) -> usize {
        match self.earlier {
            Some(_) => reap(all),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_any_program_is_parsed() {
        let text = "7 (a) Z 1) S 3 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = parse_stat(7, text).unwrap();
        assert_eq!(
            stat.process,
            Process {
                id: 7,
                started: 4242
            }
        );
        assert_eq!(stat.parent, 3);
        assert!(!stat.is_zombie);
        assert!(parse_stat(7, "7 (a").is_none());
    }
}
