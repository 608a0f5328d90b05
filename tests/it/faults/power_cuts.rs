//! Power cuts: of what the embedded stores had not made durable, any part may be gone; all that was
//! said to be stored is there.
//!
//! A process stores runs, one after the other. It is stopped at any moment, and its files are copied
//! as a power cut may leave them:
//!
//! - as they are then, but for any of the blocks that were written since the last change was said to be
//!   stored, and with any of the lengths since;
//! - from a disk of its own, as far as anything has reached it. Its file system writes its journal by
//!   itself only every five minutes. Without root nobody can mount one.
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
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How many cuts one store sees before the next begins empty.
const CUTS_OF_STORE: u64 = 25;
/// In how many runs the process copies its files once.
const RUNS_OF_COPY: usize = 4;
/// What reaches a disk as a whole, or not.
const BLOCK: usize = 4096;
/// How large the disk is.
const DISK_SIZE: u64 = 512 << 20;
const SEED: u64 = 13;
/// Where the writing process finds its store, which engine it is, and where it copies the files to.
const FOLDER: &str = "POWER_CUT_FOLDER";
const ENGINE: &str = "POWER_CUT_ENGINE";
const COPY: &str = "POWER_CUT_COPY";

fn open(engine: &str, folder: &Path) -> Embedded {
    match engine {
        "sled" => open_sled(folder),
        "redb" => open_redb(folder),
        engine => panic!("{engine}"),
    }
}

/// The files in a folder and below, by their paths in it.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(current).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for name in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// The process that is cut off: stores runs for ever.
#[tokio::test]
#[ignore = "started by the other tests of this module"]
async fn process_that_stores_runs() {
    let variable = |name| PathBuf::from(std::env::var(name).unwrap());
    let (folder, copied) = (variable(FOLDER), variable(COPY));
    let store = open(&std::env::var(ENGINE).unwrap(), &folder);
    let mut random = Random::new(number("POWER_CUTS_SEED", SEED));
    let codebase = vec![bare_codebase("aa")];
    store.upload_codebases(codebase).await.unwrap();
    for sequence in 0_usize.. {
        let id = format!("run-{sequence}");
        let item = enqueue_request("aa", Bucket::Default, 1.0);
        store.enqueue(batch(vec![item])).await.unwrap();
        let active = store.claim(claim(&id)).await.unwrap().unwrap().run;
        let mut run = full_run(&active);
        // Now and then one that the engine keeps in a file of its own.
        let size = match random.below(8) {
            0 => random.below(400_000),
            _ => random.below(3000),
        };
        run.failure_details = Some(json!({ "size": size, "text": "x".repeat(size) }));
        // The test harness begins a line of its own.
        let say = |what: serde_json::Value| writeln!(std::io::stdout(), "\n{what}").unwrap();
        if sequence % RUNS_OF_COPY == 1 {
            drop(fs::remove_dir_all(&copied));
            copy(&folder, &copied);
            say(json!(["copied", id]));
        }
        store.record(new_run(&active, run)).await.unwrap();
        say(json!(["stored", id]));
    }
}

/// What the process has said.
#[derive(Debug, Default)]
struct Said {
    /// The runs that it said to be stored.
    stored: Vec<String>,
    /// Whether it has copied its files since.
    has_copied: bool,
}

/// A process that stores runs.
struct Writer {
    child: Child,
    copied: TempDir,
    said: Arc<Mutex<Said>>,
}

impl Writer {
    fn start(engine: &str, folder: &Path) -> Self {
        let copied = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("faults::power_cuts::process_that_stores_runs")
            .env(FOLDER, folder)
            .env(ENGINE, engine)
            .env(COPY, copied.path().join("store"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let said = Arc::<Mutex<Said>>::default();
        let heard = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok([what, id]) = serde_json::from_str::<[String; 2]>(&line.unwrap()) else {
                    continue;
                };
                let mut heard = heard.lock().unwrap();
                heard.has_copied = what == "copied";
                if !heard.has_copied {
                    heard.stored.push(id);
                }
            }
        });
        Self {
            child,
            copied,
            said,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has said something.
    fn wait_until(&mut self, is_it: impl Fn(&Said) -> bool) {
        let started = Instant::now();
        while !is_it(&self.said.lock().unwrap()) {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            assert!(started.elapsed() < Duration::from_secs(60), "it hangs");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether none of its threads runs.
    fn is_stopped(&self) -> bool {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut tasks = fs::read_dir(tasks).unwrap();
        tasks.all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    }

    /// Stops it, and waits until everything that it said has been heard.
    fn stop(&self) {
        self.signal(Signal::STOP);
        while !self.is_stopped() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut heard = usize::MAX;
        while std::mem::replace(&mut heard, self.said.lock().unwrap().stored.len()) != heard {
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

/// Returns the content of a file after a power cut, of which some blocks are older than others.
fn mixed(old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    let (least, most) = (old.len().min(new.len()), old.len().max(new.len()));
    let length = least + random.below(most - least + 1);
    let mut left = vec![0; length];
    for (number, block) in left.chunks_mut(BLOCK).enumerate() {
        let source = if random.below(2) == 0 { old } else { new };
        let source = source.get(number * BLOCK..).unwrap_or_default();
        let size = block.len().min(source.len());
        block[..size].copy_from_slice(&source[..size]);
    }
    left
}

/// Where the files of a store are.
trait Place {
    fn new() -> Self;

    fn folder(&self) -> &Path;

    /// Waits for a moment in which the power may be cut.
    fn wait(writer: &mut Writer, random: &mut Random);

    /// Copies the files of a process that is stopped as a power cut may leave them; `None` when this
    /// was no moment for it.
    fn cut(&self, writer: &Writer, random: &mut Random) -> Option<Self>
    where
        Self: Sized;
}

impl Place for TempDir {
    fn new() -> Self {
        tempfile::tempdir().unwrap()
    }

    fn folder(&self) -> &Path {
        self.path()
    }

    fn wait(writer: &mut Writer, random: &mut Random) {
        writer.wait_until(|said| said.has_copied);
        thread::sleep(Duration::from_micros(random.below(2000) as u64));
    }

    fn cut(&self, writer: &Writer, random: &mut Random) -> Option<Self> {
        if !writer.said.lock().unwrap().has_copied {
            return None;
        }
        let (old, new) = (writer.copied.path().join("store"), self.path());
        let left = tempfile::tempdir().unwrap();
        for name in files(&old).union(&files(new)) {
            // It is never made durable, so that it may be gone.
            if name.ends_with("acknowledged") {
                continue;
            }
            let content = |folder: &Path| fs::read(folder.join(name)).unwrap_or_default();
            let target = left.path().join(name);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, mixed(&content(&old), &content(new), random)).unwrap();
        }
        Some(left)
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

    fn wait(writer: &mut Writer, random: &mut Random) {
        let more = writer.said.lock().unwrap().stored.len() + 1 + random.below(20);
        writer.wait_until(|said| said.stored.len() >= more);
        thread::sleep(Duration::from_micros(random.below(3000) as u64));
    }

    fn cut(&self, _: &Writer, _: &mut Random) -> Option<Self> {
        let left = Self::unmounted();
        let (from, to) = (self.image(), left.image());
        let paths = [from.to_str().unwrap(), to.to_str().unwrap()];
        run("cp", &[&["--sparse=always"], &paths[..]].concat());
        Some(left.mount())
    }
}

/// Checks that a run is there as it was stored, and is active no more.
async fn is_whole(store: &Embedded, id: &str) -> bool {
    let id = RunId::new(id);
    let Some(run) = store.run(&id).await.unwrap() else {
        return false;
    };
    let details = run.failure_details.unwrap();
    let text = details["text"].as_str().unwrap();
    details["size"] == text.len() && store.get(&id).await.unwrap().is_none()
}

/// Cuts the power of a store, and looks whether all is there that was said to be stored.
async fn nothing_is_lost<P: Place>(engine: &str, cuts: u64) {
    let seed = number("POWER_CUTS_SEED", SEED);
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
        let left = loop {
            P::wait(writer, &mut random);
            writer.stop();
            let left = place.cut(writer, &mut random);
            if let Some(left) = left {
                break left;
            }
            writer.signal(Signal::CONT);
        };
        let ids = writer.said.lock().unwrap().stored.clone();
        writer.signal(Signal::CONT);
        assert!(!ids.is_empty());
        let store = open(engine, left.folder());
        for id in &ids {
            let place = format!("cut {number} (seed {seed})");
            assert!(is_whole(&store, id).await, "{place}: {id} is lost");
        }
    }
}

#[tokio::test]
async fn mixed_blocks_of_sled_have_all_that_was_stored() {
    nothing_is_lost::<TempDir>("sled", number("POWER_CUTS", 20)).await;
}

#[tokio::test]
async fn mixed_blocks_of_redb_have_all_that_was_stored() {
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
