//! Power cuts: of what the embedded stores had not made durable, any part may be gone; all that was
//! said to be stored is there.
//!
//! A process stores runs, one after the other, and says after each how long the files are. It is
//! stopped at any moment, and its files are copied as a power cut may leave them:
//!
//! - the files as they are then, of which what was added since the last run was said to be stored is
//!   cut off or torn;
//! - a disk of its own, of a file system that writes by itself only every five minutes, as far as
//!   anything has reached it. Without root nobody can mount one.
//!
//! `POWER_CUTS` is the number of cuts for each engine, `POWER_CUTS_SEED` what they are made of.

use crate::support::{
    open_redb, open_sled,
    random::{Random, number},
    values::*,
};
use janitor_runner::{
    adapters::embedded::Embedded,
    domain::{name::RunId, queue::Bucket},
    ports::{ActiveRunStore, Catalog, QueueStore, RunRecorder, RunStore},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How many cuts one store sees before the next begins empty.
const CUTS_OF_STORE: u64 = 25;
/// How large the disk is.
const DISK_SIZE: u64 = 512 << 20;
/// What may be torn at the end of a file.
const MAX_TORN: u64 = 4096;
/// Where the writing process finds its store, and which engine it is.
const FOLDER: &str = "POWER_CUT_FOLDER";
const ENGINE: &str = "POWER_CUT_ENGINE";

fn open(engine: &str, folder: &Path) -> Embedded {
    match engine {
        "sled" => open_sled(folder),
        "redb" => open_redb(folder),
        engine => panic!("{engine}"),
    }
}

/// The lengths of the files in a folder, by their paths in it.
fn lengths(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(current).unwrap() {
            let entry = entry.unwrap();
            // Large values that were replaced go away meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_owned();
                found.insert(name, metadata.len());
            }
        }
    }
    found
}

/// Says that all so far is stored, and how long the files are; and which run it is.
fn say_stored(folder: &Path, id: Option<&str>) {
    writeln!(std::io::stdout(), "{}", json!([id, lengths(folder)])).unwrap();
}

/// The process that is cut off: stores runs for ever.
#[tokio::test]
#[ignore = "started by the other tests of this module"]
async fn process_that_stores_runs() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let store = open(&std::env::var(ENGINE).unwrap(), &folder);
    let mut random = Random::new(u64::from(std::process::id()));
    let codebase = vec![bare_codebase("aa")];
    store.upload_codebases(codebase).await.unwrap();
    say_stored(&folder, None);
    for sequence in 0.. {
        let id = format!("run-{sequence}");
        let item = enqueue_request("aa", Bucket::Default, 1.0);
        store.enqueue(batch(vec![item])).await.unwrap();
        say_stored(&folder, None);
        let active = store.claim(claim(&id)).await.unwrap().unwrap().run;
        say_stored(&folder, None);
        let mut run = full_run(&active);
        // Now and then one that the engine keeps in a file of its own.
        let size = match random.below(8) {
            0 => random.below(400_000),
            _ => random.below(3000),
        };
        run.failure_details = Some(json!({ "text": "x".repeat(size) }));
        store.record(new_run(&active, run)).await.unwrap();
        say_stored(&folder, Some(&id));
    }
}

/// What was said to be stored: the runs, and how long the files were when that was said last.
#[derive(Debug, Default)]
struct Acknowledged {
    ids: Vec<String>,
    lengths: BTreeMap<PathBuf, u64>,
}

/// A process that stores runs.
struct Writer {
    child: Child,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Writer {
    fn start(engine: &str, folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("faults::power_cuts::process_that_stores_runs")
            .env(FOLDER, folder)
            .env(ENGINE, engine)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let acknowledged = Arc::<Mutex<Acknowledged>>::default();
        let heard = acknowledged.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                // The test harness writes lines of its own.
                let Ok((id, lengths)) = serde_json::from_str(&line.unwrap()) else {
                    continue;
                };
                let mut heard = heard.lock().unwrap();
                heard.ids.extend::<Option<String>>(id);
                heard.lengths = lengths;
            }
        });
        Self {
            child,
            acknowledged,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has stored that many runs.
    fn wait_for(&mut self, runs: usize) {
        while self.acknowledged.lock().unwrap().ids.len() < runs {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it, and waits until it is and everything that it said has been heard.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            thread::sleep(Duration::from_millis(1));
        }
        let mut heard = usize::MAX;
        while std::mem::replace(&mut heard, self.acknowledged.lock().unwrap().ids.len()) != heard {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the files of a store as a power cut may leave them.
fn cut(from: &Path, to: &Path, durable: &BTreeMap<PathBuf, u64>, random: &mut Random) {
    for (name, length) in lengths(from) {
        // It is never made durable, so that it may be gone; nor is it of use here: what the process was
        // doing has been made durable without having been said yet.
        if name.ends_with("acknowledged") {
            continue;
        }
        let target = to.join(&name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), &target).unwrap();
        let durable = durable.get(&name).copied().unwrap_or(0);
        let Some(added) = length.checked_sub(durable).filter(|added| *added > 0) else {
            continue;
        };
        let kept = random.below(usize::try_from(added).unwrap() + 1) as u64;
        let file = OpenOptions::new().write(true).open(&target).unwrap();
        file.set_len(durable + kept).unwrap();
        if random.below(2) == 0 {
            let torn = kept.min(MAX_TORN);
            let zeros = vec![0; usize::try_from(torn).unwrap()];
            file.write_all_at(&zeros, durable + kept - torn).unwrap();
        }
    }
}

/// Where the files of a store are.
trait Place {
    fn new() -> Self;

    fn folder(&self) -> &Path;

    /// Copies the files as a power cut may leave them.
    fn cut(&self, durable: &BTreeMap<PathBuf, u64>, random: &mut Random) -> Self;
}

impl Place for TempDir {
    fn new() -> Self {
        tempfile::tempdir().unwrap()
    }

    fn folder(&self) -> &Path {
        self.path()
    }

    fn cut(&self, durable: &BTreeMap<PathBuf, u64>, random: &mut Random) -> Self {
        let left = tempfile::tempdir().unwrap();
        cut(self.path(), left.path(), durable, random);
        left
    }
}

/// A disk with a file system.
struct Disk {
    home: TempDir,
    mounted: PathBuf,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

impl Disk {
    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    fn unmounted() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mounted = home.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        Self { home, mounted }
    }

    fn mount(self) -> Self {
        let (image, mounted) = (self.image(), self.mounted.clone());
        let options = ["-t", "ext4", "-o", "loop,commit=300"];
        let paths = [image.to_str().unwrap(), mounted.to_str().unwrap()];
        run("mount", &[&options[..], &paths].concat());
        self
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What keeps it in use ends soon.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.mounted)
            .status();
        drop(unmounted);
    }
}

impl Place for Disk {
    fn new() -> Self {
        let disk = Self::unmounted();
        let image = disk.image();
        fs::File::create(&image)
            .unwrap()
            .set_len(DISK_SIZE)
            .unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        disk.mount()
    }

    fn folder(&self) -> &Path {
        &self.mounted
    }

    fn cut(&self, _: &BTreeMap<PathBuf, u64>, _: &mut Random) -> Self {
        let left = Self::unmounted();
        let (from, to) = (self.image(), left.image());
        run(
            "cp",
            &[
                "--sparse=always",
                from.to_str().unwrap(),
                to.to_str().unwrap(),
            ],
        );
        left.mount()
    }
}

/// Cuts the power of a store, and looks whether all is there that was said to be stored.
async fn nothing_is_lost<P: Place>(engine: &str, cuts: u64) {
    let seed = number("POWER_CUTS_SEED", 13);
    let mut random = Random::new(seed);
    let mut running = None;
    for number in 0..cuts {
        if number % CUTS_OF_STORE == 0 {
            running = None;
        }
        let (writer, place) = running.get_or_insert_with(|| {
            let place = P::new();
            (Writer::start(engine, place.folder()), place)
        });
        let stored = writer.acknowledged.lock().unwrap().ids.len();
        writer.wait_for(stored + 1 + random.below(20));
        thread::sleep(Duration::from_micros(random.below(3000) as u64));
        writer.stop();
        let (ids, left) = {
            let acknowledged = writer.acknowledged.lock().unwrap();
            let left = place.cut(&acknowledged.lengths, &mut random);
            (acknowledged.ids.clone(), left)
        };
        writer.signal(Signal::CONT);
        assert!(!ids.is_empty());
        let store = open(engine, left.folder());
        for id in &ids {
            let run = store.run(&RunId::new(id.clone())).await.unwrap();
            assert!(run.is_some(), "cut {number} (seed {seed}): {id} is lost");
        }
    }
}

#[tokio::test]
async fn cut_files_of_sled_have_all_that_was_stored() {
    nothing_is_lost::<TempDir>("sled", number("POWER_CUTS", 20)).await;
}

#[tokio::test]
async fn cut_files_of_redb_have_all_that_was_stored() {
    nothing_is_lost::<TempDir>("redb", number("POWER_CUTS", 20)).await;
}

#[tokio::test]
async fn disk_of_sled_has_all_that_was_stored() {
    nothing_is_lost::<Disk>("sled", number("POWER_CUTS", 4)).await;
}

#[tokio::test]
async fn disk_of_redb_has_all_that_was_stored() {
    nothing_is_lost::<Disk>("redb", number("POWER_CUTS", 4)).await;
}
