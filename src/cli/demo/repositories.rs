//! The repositories and codemods of the demo.

use crate::adapters::wire::CodebaseRequest;
use anyhow::{Context, Result, bail};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// A repository.
pub(super) struct Codebase {
    /// Its name in the service.
    pub(super) name: String,
    /// The URL that workers clone it from.
    pub(super) url: String,
}

impl Codebase {
    /// The request that uploads it.
    pub(super) fn request(&self) -> CodebaseRequest {
        CodebaseRequest {
            name: Some(self.name.clone()),
            url: Some(self.url.clone()),
            vcs_type: Some("git".to_owned()),
            branch_url: None,
            branch: None,
            subpath: None,
            vcs_last_revision: None,
            value: None,
            web_url: None,
        }
    }
}

/// A codemod, and the results that its runs should have.
pub(super) struct Campaign {
    /// Its name in the service.
    pub(super) name: String,
    /// The shell command that workers run.
    pub(super) command: String,
    /// The result codes that are as expected.
    pub(super) expected: &'static [&'static str],
}

/// The name and the content of a file.
type ExampleFile = (&'static str, &'static str);

const EXAMPLES: [(&str, &[ExampleFile]); 3] = [
    (
        "greeter",
        &[
            ("README.md", "# greeter\n\nSays hello.   \n"),
            (
                "greeter.py",
                "def greet(name):  \n    return 'hello ' + name\t\n\n\nprint(greet('world'))",
            ),
        ],
    ),
    (
        "numbers",
        &[
            ("README.md", "# numbers \n"),
            (
                "sum.sh",
                "#!/bin/sh\n# Adds its arguments.\t\nexpr \"$1\" + \"$2\"  \n",
            ),
        ],
    ),
    (
        "notes",
        &[
            ("README", "Notes\n"),
            ("2026.txt", "January \nFebruary\nMarch\t\t\n"),
            ("todo.txt", "rest   "),
        ],
    ),
];

const CODEMODS: [(&str, &str, &[&str]); 3] = [
    (
        "tidy-whitespace",
        include_str!("../../../examples/codemods/tidy-whitespace.sh"),
        &["success"],
    ),
    (
        "ensure-readme",
        include_str!("../../../examples/codemods/ensure-readme.sh"),
        &["nothing-to-do"],
    ),
    (
        "needs-makefile",
        include_str!("../../../examples/codemods/needs-makefile.sh"),
        &["no-makefile"],
    ),
];

/// Runs git in a repository.
pub(super) fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let identity = [
        "-c",
        "user.name=Demo Author",
        "-c",
        "user.email=author@localhost",
    ];
    let output = Command::new("git")
        .args(identity)
        .args(arguments)
        .current_dir(folder)
        .output()
        .context("run git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Makes the example repositories.
pub(super) fn make(home: &Path) -> Result<Vec<Codebase>> {
    let mut codebases = vec![];
    for (name, files) in EXAMPLES {
        let folder = home.join("repositories").join(name);
        fs::create_dir_all(&folder)?;
        for (file, content) in files {
            fs::write(folder.join(file), content)?;
        }
        git(&folder, &["init", "--quiet", "--initial-branch=main"])?;
        git(&folder, &["add", "--all"])?;
        git(&folder, &["commit", "--quiet", "--message", "Start"])?;
        codebases.push(Codebase {
            name: name.to_owned(),
            url: format!("file://{}", folder.display()),
        });
    }
    Ok(codebases)
}

/// Writes the shipped codemods to files, for workers to run.
pub(super) fn shipped(home: &Path) -> Result<Vec<Campaign>> {
    let folder = home.join("codemods");
    fs::create_dir_all(&folder)?;
    let mut campaigns = vec![];
    for (name, script, expected) in CODEMODS {
        let path = folder.join(format!("{name}.sh"));
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let path = path.display().to_string();
        let command = shlex::try_quote(&path)
            .context("the demo's folder has a name that no shell can take")?
            .into_owned();
        campaigns.push(Campaign {
            name: name.to_owned(),
            command,
            expected,
        });
    }
    Ok(campaigns)
}

impl Campaign {
    /// Makes a campaign of the user's own command.
    pub(super) fn given(command: &str) -> Self {
        Self {
            name: "demo".to_owned(),
            command: command.to_owned(),
            expected: &["success", "nothing-to-do"],
        }
    }
}

/// Derives the name of a repository from the last part of its path; replaces characters that names
/// cannot have.
fn name_of(repository: &str, taken: &BTreeSet<String>) -> String {
    let path = repository.trim_end_matches('/').trim_end_matches(".git");
    let last = path
        .rsplit(['/', ':'])
        .next()
        .unwrap_or(path)
        .to_ascii_lowercase();
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '+' | '-' | '.');
    let name: String = last
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(200)
        .collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = if name.len() < 2 {
        format!("repo-{name}")
    } else {
        name.to_owned()
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(name)
}

/// Makes codebases of the user's own repositories.
pub(super) fn given(repositories: &[String]) -> Result<Vec<Codebase>> {
    let (mut codebases, mut taken) = (vec![], BTreeSet::new());
    for repository in repositories {
        let url = if Path::new(repository).exists() {
            format!("file://{}", Path::new(repository).canonicalize()?.display())
        } else if repository.contains("://") {
            repository.clone()
        } else {
            bail!("--repo {repository}: neither a folder nor a URL");
        };
        let name = name_of(repository, &taken);
        taken.insert(name.clone());
        codebases.push(Codebase { name, url });
    }
    Ok(codebases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::CodebaseName;

    #[test]
    fn every_repository_gets_a_valid_and_unique_name() {
        let mut taken = BTreeSet::new();
        for repository in [
            "/srv/git/My_Repo.git/",
            "https://h/x",
            "git@h:a/b",
            "https://h/x.git",
            "/",
            "äöü",
        ] {
            let name = name_of(repository, &taken);
            assert!(
                CodebaseName::new(name.clone()).is_ok(),
                "{repository} -> {name} is no name"
            );
            assert!(
                taken.insert(name.clone()),
                "{repository} -> {name} is taken"
            );
        }
    }
}
