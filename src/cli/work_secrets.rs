//! Keeps the secrets of a worker where the codemods that it runs cannot find them. Codemods may be
//! processes of the same user, which can read the environment and the arguments of the worker, so
//! the worker starts itself again without secrets in either, and passes them on through a pipe.

use super::program::this_program;
use crate::{
    domain::redact::without_login,
    worker::{PASSWORD_VARIABLE, worker_environment},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    env,
    ffi::OsString,
    io::{self, BufRead, IsTerminal, Read, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};

/// What a pipe takes without a reader.
const MAX_SECRETS_SIZE: usize = 4096;
/// The bits of a mode that let others than the owner read.
const READABLE_BY_OTHERS: u32 = 0o044;

/// Where the secrets of a worker come from, and what codemods get of its environment.
#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// URL of the runner: `http://HOST:9919/runner` with a password, or the admin API
    /// (`http://HOST:9911`)
    #[arg(long, default_value = "http://127.0.0.1:9919/runner")]
    url: String,
    /// File with the password (or `JANITOR_WORKER_PASSWORD` in the environment)
    #[arg(long)]
    pub(super) password_file: Option<PathBuf>,
    /// Read the password from standard input: its first line, or typed at a terminal
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// Name of a variable of the worker's environment that codemods get too; repeatable
    #[arg(long, value_name = "NAME")]
    pub(super) pass_env: Vec<String>,
    /// What this program passes to itself
    #[arg(long, hide = true)]
    pub(super) secrets_on_stdin: bool,
}

impl SecretArgs {
    /// Returns whether codemods cannot read the password in a file, when they are processes of the
    /// worker's user or of another one.
    pub(super) fn is_password_file_closed(&self, other_user: bool) -> bool {
        let is_closed_to_others = |path: &PathBuf| {
            std::fs::metadata(path).is_ok_and(|found| found.mode() & READABLE_BY_OTHERS == 0)
        };
        let path = self.password_file.as_ref();
        path.is_none_or(|path| other_user && is_closed_to_others(path))
    }
}

/// What nobody but the worker itself may read.
#[derive(Serialize, Deserialize)]
pub(super) struct Secrets {
    /// The password of the worker's account.
    pub(super) password: Option<String>,
    /// The URL of the runner, which may have a password.
    pub(super) url: String,
}

/// Which of the measures against codemods are in force in this process.
pub(super) struct Measures {
    /// Whether processes of the same user cannot read the memory of the worker.
    pub(super) memory_is_closed: bool,
    /// Whether programs cannot get more privileges than the worker has.
    pub(super) no_new_privileges: bool,
    /// Whether the worker is root, whose processes can read everything.
    pub(super) is_root: bool,
}

#[cfg(target_os = "linux")]
fn close_memory() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(not(target_os = "linux"))]
fn close_memory() -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn refuse_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(not(target_os = "linux"))]
fn refuse_new_privileges() -> io::Result<()> {
    Ok(())
}

/// Returns which measures are in force.
#[cfg(target_os = "linux")]
pub(super) fn measures() -> Measures {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    let is_root = rustix::process::geteuid().is_root();
    Measures {
        memory_is_closed: !is_root
            && dumpable_behavior().is_ok_and(|found| found == DumpableBehavior::NotDumpable),
        no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
        is_root,
    }
}

/// Returns which measures are in force.
#[cfg(not(target_os = "linux"))]
pub(super) fn measures() -> Measures {
    Measures {
        memory_is_closed: false,
        no_new_privileges: false,
        is_root: rustix::process::geteuid().is_root(),
    }
}

fn without_line_end(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_owned()
}

/// Reads a line of standard input, which is not shown if that is a terminal.
fn password_of_stdin() -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let mut line = String::new();
    if !stdin.is_terminal() {
        stdin.lock().read_line(&mut line)?;
        return Ok(without_line_end(&line));
    }
    io::stderr().write_all(b"Password: ")?;
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    errln!("");
    read?;
    Ok(without_line_end(&line))
}

fn password(args: &SecretArgs) -> Result<Option<String>> {
    if args.password_stdin {
        return Ok(Some(password_of_stdin().context("--password-stdin")?));
    }
    match &args.password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--password-file {}", path.display()))?;
            Ok(Some(without_line_end(&text)))
        }
        None => Ok(env::var(PASSWORD_VARIABLE).ok()),
    }
}

/// Replaces this process by one that has the secrets neither in its environment nor in its
/// arguments. Returns only if that fails.
fn start_again(args: &SecretArgs, secrets: &Secrets) -> Result<Secrets> {
    let text = serde_json::to_vec(secrets)?;
    if text.len() > MAX_SECRETS_SIZE {
        bail!("the password and --url are longer than {MAX_SECRETS_SIZE} bytes");
    }
    let (reader, mut writer) = io::pipe().context("make a pipe")?;
    writer.write_all(&text)?;
    drop(writer);
    refuse_new_privileges().context("refuse new privileges")?;
    let shown = |argument: OsString| match argument.into_string() {
        Ok(text) => without_login(&text).into(),
        Err(argument) => argument,
    };
    let mut arguments = env::args_os().map(shown);
    let mut command = Command::new(this_program()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .arg("--secrets-on-stdin")
        .env_clear()
        .envs(worker_environment(&args.pass_env))
        .stdin(reader);
    Err(command.exec()).context("start the worker without its secrets in the environment")
}

/// Returns the secrets, once they are nowhere but in the memory of this process.
///
/// # Errors
///
/// Returns an error when they cannot be read, or not be removed from the environment.
pub(super) fn take(args: &SecretArgs) -> Result<Secrets> {
    if !args.secrets_on_stdin {
        let secrets = Secrets {
            password: password(args)?,
            url: args.url.clone(),
        };
        return start_again(args, &secrets);
    }
    // First, so that no secret is ever in a memory that others can read.
    close_memory().context("close the memory of the worker to others")?;
    let mut text = vec![];
    io::stdin().read_to_end(&mut text)?;
    serde_json::from_slice(&text).context("--secrets-on-stdin is for this program itself only")
}
