//! Stores, spool, backup and logs are the runner's alone, whatever the umask of the process that starts it.

use crate::support::process::{PROGRAM, Server, send, upload};
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// What below a folder, itself included, lets others in: the path and the mode of each.
fn open_to_others(path: &Path) -> Vec<String> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mut found = vec![];
    if mode(path) & 0o077 != 0 {
        found.push(format!("{} {:o}", path.display(), mode(path)));
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    found
}

/// A server that a shell with the widest umask has started.
async fn server_without_umask(home: &Path, store: &str) -> Server {
    let settings = format!(
        "backup_directory = \"{}\"\n[limits]\nupload_memory = 0\n",
        home.join("backup").display()
    );
    let before = ["sh", "-c", "umask 000; exec \"$@\"", "sh"];
    Server::start_below(home, store, &settings, &before).await
}

async fn run_with_files(server: &Server) -> String {
    server.queue("foo", "gen").await;
    let id = server.claim_of("foo").await;
    let content = vec![0; 100_000];
    let files: [(&str, &[u8]); 2] = [("worker.log", b"a log\n"), ("result.bin", &content)];
    let form = upload(&json!({ "code": "success" }), &files);
    let finished = send(
        server
            .request("POST", &format!("/active-runs/{id}/finish"))
            .multipart(form),
    )
    .await;
    assert_eq!(finished.0, 201, "{finished:?}");
    id
}

#[tokio::test]
async fn new_stores_are_private_whatever_the_umask() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", home.path().join("db").display());
    let server = server_without_umask(home.path(), &store).await;
    run_with_files(&server).await;
    for folder in ["db", "spool", "artifacts", "logs", "backup"] {
        let found = open_to_others(&home.path().join(folder));
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[tokio::test]
async fn open_stores_of_an_earlier_version_are_tightened() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", home.path().join("db").display());
    let mut server = server_without_umask(home.path(), &store).await;
    run_with_files(&server).await;
    server.kill();
    for folder in ["db", "spool", "artifacts", "logs", "backup"] {
        let folder = home.path().join(folder);
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    }
    let files: Vec<_> = fs::read_dir(home.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for file in &files {
        fs::set_permissions(file, Permissions::from_mode(0o777)).unwrap();
    }
    server.run().await;
    for folder in ["db", "spool", "artifacts", "logs", "backup"] {
        let found = open_to_others(&home.path().join(folder));
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// Runs `check` with the stores below a folder.
async fn check(home: &Path, settings: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(["check", "--config", settings.to_str().unwrap()])
        .current_dir(home)
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn warnings(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.starts_with("warning"));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn folder_of_everybody_is_left_alone_and_warned_about() {
    let home = tempfile::tempdir().unwrap();
    let spool = home.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::set_permissions(&spool, Permissions::from_mode(0o1777)).unwrap();
    let settings = home.path().join("settings.toml");
    fs::write(&settings, "store = \"memory:\"\nspool = \"spool\"\n").unwrap();
    let output = check(home.path(), &settings).await;
    assert!(warnings(&output).contains("spool"), "{output:?}");
    assert_eq!(mode(&spool), 0o1777);
}

#[tokio::test]
async fn secrets_that_every_user_may_read_are_warned_about() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let (secret, settings) = (home.path().join("secret"), home.path().join("s.toml"));
    fs::write(&secret, "geheim\n").unwrap();
    fs::write(
        &settings,
        format!(
            "store = \"memory:\"\n[s3]\naccess_key_id = \"k\"\n\
             secret_access_key = \"{{file:{}}}\"\n",
            secret.display()
        ),
    )
    .unwrap();
    for (file, mode, warned) in [
        (&secret, 0o644, true),
        (&secret, 0o640, false),
        (&settings, 0o644, true),
        (&settings, 0o600, false),
    ] {
        for other in [&secret, &settings] {
            fs::set_permissions(other, Permissions::from_mode(0o600)).unwrap();
        }
        fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        let found = warnings(&check(home.path(), &settings).await);
        let named = found.contains(&file.display().to_string());
        assert_eq!(named, warned, "{} {mode:o}: {found}", file.display());
        assert!(!found.contains("geheim"), "{found}");
    }
    // A folder on the way that others may not enter protects both.
    for file in [&secret, &settings] {
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(warnings(&check(home.path(), &settings).await), "");
}
