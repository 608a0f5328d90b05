//! The environment of git and of scripts, which is made for each: of what the worker was started
//! with, scripts get only what is listed here. A user's git configuration must not change what they
//! do.

use super::{isolation::Isolation, script_user::ScriptUser};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};
use tokio::process::Command;

/// The variables that scripts get as the worker has them, but for those of the locale.
const INHERITED: [&str; 6] = ["PATH", "TERM", "TZ", "LANG", "LANGUAGE", "LOGNAME"];
/// The variables of proxies, which are written in both cases.
const PROXIES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
];
/// What the worker and its own git commands get besides: where its files and keys are.
const WORKERS_OWN: [&str; 9] = [
    "HOME",
    "USER",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    "XDG_RUNTIME_DIR",
    "NO_COLOR",
];
/// The author of commits when the assignment names none.
const DEFAULT_IDENTITY: [&str; 2] = ["janitor-runner", "janitor-runner@localhost"];
/// The variables of git that an assignment may set.
const IDENTITY_VARIABLES: [&str; 6] = [
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_DATE",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_DATE",
];
/// Settings of git commands of the worker itself, whatever the checkout's own configuration says.
const SETTINGS: [&str; 20] = [
    // Hooks are code that nobody has reviewed.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    // A file of it could say that a commit has other parents than it has.
    "core.commitGraph=false",
    // The repositories within a checkout have configurations of their own.
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "diff.ignoreSubmodules=dirty",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.quotePath=true",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "push.gpgSign=false",
    "format.signOff=false",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "fetch.fsckObjects=false",
    // Both would leave a process in the background.
    "gc.auto=0",
    "maintenance.auto=false",
];

/// What the environment of a run is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Environment<'a> {
    /// The environment of the assignment.
    pub(super) assigned: &'a BTreeMap<String, String>,
    /// The folder in which all folders of the run are.
    pub(super) run_folder: &'a Path,
    /// The git configuration that the worker was started with; none: none.
    pub(super) git_config: Option<&'a Path>,
    /// The git configuration of scripts, which they may change.
    pub(super) script_git_config: &'a Path,
    /// The home directory of scripts.
    pub(super) script_home: &'a Path,
    /// The user of scripts and of the git commands in their checkout; none: the worker's.
    pub(super) user: Option<ScriptUser>,
    /// What keeps the programs of scripts together.
    pub(super) isolation: &'a Isolation,
    /// The names of more variables of the worker that scripts get.
    pub(super) passed: &'a [String],
}

/// Returns whether scripts get a variable as the worker has it.
fn is_inherited(name: &str, passed: &[String]) -> bool {
    INHERITED.contains(&name)
        || name.starts_with("LC_")
        || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        || passed.iter().any(|passed| passed == name)
}

fn variables(is_wanted: impl Fn(&str) -> bool) -> Vec<(OsString, OsString)> {
    let is_wanted = |name: &OsStr| name.to_str().is_some_and(&is_wanted);
    std::env::vars_os()
        .filter(|(name, _)| is_wanted(name))
        .collect()
}

/// Returns the part of its environment that a worker needs itself. Nothing else may stay in it:
/// the environment of a process can be read by all processes of its user.
pub fn worker_environment(passed: &[String]) -> Vec<(OsString, OsString)> {
    variables(|name| is_inherited(name, passed) || WORKERS_OWN.contains(&name))
}

/// Returns the name and the address of `Name <address>`.
fn split_committer(committer: &str) -> Option<[&str; 2]> {
    let (name, address) = committer.trim().strip_suffix('>')?.rsplit_once('<')?;
    Some([name.trim(), address.trim()])
}

impl Environment<'_> {
    /// Returns who makes the commits, as variables of git.
    fn identity(&self) -> BTreeMap<&str, &str> {
        let committer = self.assigned.get("COMMITTER");
        let [name, address] = committer
            .and_then(|committer| split_committer(committer))
            .filter(|[name, address]| !name.is_empty() && !address.is_empty())
            .unwrap_or(DEFAULT_IDENTITY);
        let mut identity = BTreeMap::from([
            ("GIT_AUTHOR_NAME", name),
            ("GIT_AUTHOR_EMAIL", address),
            ("GIT_COMMITTER_NAME", name),
            ("GIT_COMMITTER_EMAIL", address),
        ]);
        for variable in IDENTITY_VARIABLES {
            // git makes no commit by somebody without a name.
            if let Some(value) = self
                .assigned
                .get(variable)
                .filter(|value| !value.is_empty())
            {
                identity.insert(variable, value);
            }
        }
        identity
    }

    /// Sets what git and scripts have in common.
    fn apply(&self, command: &mut Command) {
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            // A prompt for a password would block the run until its timeout.
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "")
            .env("GIT_CEILING_DIRECTORIES", self.run_folder)
            .envs(self.identity());
    }

    /// Makes a shell command of a script, with more variables.
    pub(super) fn shell(&self, command: &str, more: &BTreeMap<String, String>) -> Command {
        let mut shell = self.isolation.command("sh", self.run_folder);
        shell
            .env_clear()
            .envs(variables(|name| is_inherited(name, self.passed)))
            .env("HOME", self.script_home);
        self.apply(&mut shell);
        shell
            .arg("-c")
            .arg(command)
            .env("GIT_CONFIG_GLOBAL", self.script_git_config)
            .envs(self.assigned)
            .envs(more);
        if let Some(user) = self.user {
            user.apply(&mut shell);
        }
        shell
    }

    /// Makes a git command that can do and see no more than scripts can: repositories below the
    /// checkout may have settings by which git runs programs, and no option prevents that.
    pub(super) fn git_of_scripts(&self) -> Command {
        let mut git = self.isolation.command("git", self.run_folder);
        git.env_clear()
            .envs(variables(|name| is_inherited(name, &[])))
            .env("HOME", self.script_home);
        self.configure(&mut git);
        if let Some(user) = self.user {
            user.apply(&mut git);
        }
        git
    }

    /// Makes a git command of the worker, which has its keys. It is none that reads the files of
    /// the checkout.
    pub(super) fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.env_clear().envs(worker_environment(&[]));
        self.configure(&mut git);
        git.env(
            "GIT_CONFIG_GLOBAL",
            self.git_config.unwrap_or(Path::new("/dev/null")),
        );
        git
    }

    /// Sets what all git commands of a run have in common.
    fn configure(&self, git: &mut Command) {
        for (name, value) in self.assigned {
            if !name.starts_with("GIT_") {
                git.env(name, value);
            }
        }
        self.apply(git);
        git.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            // The protocols ext and fd run commands.
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            // References of a codemod must not put one commit in the place of another.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("LC_ALL", "C");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committer_is_the_identity_unless_git_variables_are_set() {
        let committer = |text: &str| BTreeMap::from([("COMMITTER".to_owned(), text.to_owned())]);
        let mut assigned = committer("A B <a@b>");
        assigned.insert("GIT_AUTHOR_NAME".into(), "C".into());
        assigned.insert("GIT_COMMITTER_NAME".into(), String::new());
        let environment = Environment {
            assigned: &assigned,
            run_folder: Path::new("/"),
            git_config: None,
            script_git_config: Path::new("/"),
            script_home: Path::new("/"),
            user: None,
            isolation: &Isolation::None,
            passed: &[],
        };
        let identity = environment.identity();
        assert_eq!(identity["GIT_AUTHOR_NAME"], "C");
        assert_eq!(identity["GIT_COMMITTER_NAME"], "A B");
        assert_eq!(identity["GIT_COMMITTER_EMAIL"], "a@b");
        for odd in ["", "A", "<>", "A <>", "<a@b>"] {
            let environment = Environment {
                assigned: &committer(odd),
                ..environment
            };
            let identity = environment.identity();
            assert_eq!(identity["GIT_COMMITTER_NAME"], "janitor-runner", "{odd}");
        }
    }
}
