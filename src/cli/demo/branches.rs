//! The second round: what becomes of branches. One codebase has a new commit since its first run,
//! which the next run resumes; one has moved; and one is on a host that limits the rate of requests.

use super::{
    super::{
        client::Server,
        output::{duration, short, table},
    },
    GIT_CONFIG, POLL_INTERVAL, all_runs,
    forge::{Forge, LIMITED_HOST},
    report::verdict,
    repositories::{self, Codebase},
    workers::{Work, Workers},
};
use crate::{
    adapters::wire::{ResultResponse, StatusResponse},
    worker::Shutdown,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{collections::HashSet, fs, path::Path};

/// The campaign that runs once more.
const CAMPAIGN: &str = "tidy-whitespace";
/// The codebase that gets a commit.
const CHANGED: &str = "greeter";
/// The codebase that has moved, and the repository of which it is.
const MOVED: (&str, &str) = ("numbers-moved", "numbers");
/// The codebase on the host that limits the rate, and the repository of which it is.
const LIMITED: (&str, &str) = ("notes-limited", "notes");

/// A run, with what is to be seen in it.
struct Seen<'a> {
    run: &'a ResultResponse,
    what: String,
    /// Whether that is as it should be.
    is_expected: bool,
}

/// Runs the round; returns whether all went as it should.
pub(super) async fn run(
    server: &Server,
    workers: &Workers,
    home: &Path,
    shutdown: &Shutdown,
) -> Result<bool> {
    let folder = home.join("repositories");
    for repository in [MOVED.1, LIMITED.1] {
        repositories::git(&folder.join(repository), &["update-server-info"])?;
    }
    let changed = folder.join(CHANGED);
    fs::write(changed.join("again.py"), "import greeter\t\n").context("change a repository")?;
    repositories::git(&changed, &["add", "--all"])?;
    repositories::git(&changed, &["commit", "--quiet", "--message", "Greet twice"])?;
    let forge = Forge::start(folder).await?;
    fs::write(home.join(GIT_CONFIG), forge.git_config())?;
    let codebases = [
        Codebase {
            name: MOVED.0.to_owned(),
            url: forge.old_url(MOVED.1),
        },
        Codebase {
            name: LIMITED.0.to_owned(),
            url: forge.limited_url(LIMITED.1),
        },
    ];
    let codebases = codebases.map(|codebase| codebase.request());
    server
        .post::<Value, _>(&["codebases"], &codebases)
        .await
        .context("upload more codebases")?;
    let candidates =
        [MOVED.0, LIMITED.0].map(|codebase| json!({ "codebase": codebase, "campaign": CAMPAIGN }));
    server
        .post::<Value, _>(&["candidates"], &candidates)
        .await
        .context("upload more candidates")?;
    // It may be snoozed: the workers ran it again while they waited for the others.
    let again = json!({ "codebase": CHANGED, "campaign": CAMPAIGN });
    server
        .post::<Value, _>(&["schedule"], &again)
        .await
        .context("schedule a run")?;
    let before = all_runs(server).await?.into_iter();
    let before: HashSet<String> = before.map(|run| run.log_id).collect();
    let was_limited = work(server, workers, shutdown).await?;
    let mut runs = all_runs(server).await?;
    runs.retain(|run| !before.contains(&run.log_id));
    let seen: Vec<Seen<'_>> = [CHANGED, MOVED.0, LIMITED.0]
        .into_iter()
        .map(|name| seen(name, &runs, &forge, was_limited))
        .collect::<Result<_>>()?;
    outln!("\nOnce more, after something has happened to their branches:");
    outln!("{}", shown(&seen));
    Ok(seen.iter().all(|seen| seen.is_expected))
}

/// Runs each codebase once; returns whether the host that limits the rate was left alone meanwhile.
async fn work(server: &Server, workers: &Workers, shutdown: &Shutdown) -> Result<bool> {
    let works = [CHANGED, MOVED.0, LIMITED.0].map(|name| Work {
        campaign: Some(CAMPAIGN.to_owned()),
        codebase: Some(name.to_owned()),
        once: true,
    });
    let mut started = workers.start(works.into(), shutdown);
    let mut was_limited = false;
    loop {
        tokio::select! {
            ended = started.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(was_limited),
            },
            () = tokio::time::sleep(POLL_INTERVAL) => {
                let status = server.get::<StatusResponse>(&["status"], &[]).await?.parse()?;
                was_limited |= status.rate_limit_hosts.contains_key(LIMITED_HOST);
            }
        }
    }
}

fn seen<'a>(
    name: &str,
    runs: &'a [ResultResponse],
    forge: &Forge,
    was_limited: bool,
) -> Result<Seen<'a>> {
    let Some(run) = runs.iter().find(|run| run.codebase == name) else {
        bail!("{name} has no second run");
    };
    let url = run.branch_url.as_deref().unwrap_or_default();
    let (what, is_expected) = if name == CHANGED {
        let resumed = run.resume.as_ref().map(|resumed| resumed.run_id.as_str());
        let what = match resumed {
            Some(earlier) => format!("resumes {}, on top of the new commit", short(earlier)),
            None => "starts afresh".to_owned(),
        };
        (what, resumed.is_some())
    } else if name == MOVED.0 {
        (format!("was found at {url}"), url == forge.new_url(MOVED.1))
    } else {
        let what = match was_limited {
            true => format!("waited while {LIMITED_HOST} limited the rate"),
            false => "did not wait".to_owned(),
        };
        (what, was_limited)
    };
    Ok(Seen {
        is_expected: is_expected && run.code == "success",
        what,
        run,
    })
}

fn shown(seen: &[Seen<'_>]) -> String {
    let rows = seen.iter().map(|seen| {
        [
            seen.run.codebase.clone(),
            seen.run.code.clone(),
            verdict(seen.is_expected),
            duration(seen.run.duration),
            seen.what.clone(),
        ]
    });
    table(["codebase", "result", "", "duration", "its branch"], rows).to_string()
}
