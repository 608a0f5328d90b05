//! Commands that ask a running service, over its admin API.

use super::table::{duration, short, table};
use crate::worker::http_client;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Write, path::PathBuf, process::ExitCode};

/// Entries in one request of an import.
const IMPORT_BATCH: usize = 1000;

/// Which service, and how to answer.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The admin API of the service
    #[arg(long, env = "JANITOR_SERVER", default_value = "http://127.0.0.1:9911")]
    pub(super) server: String,
    /// JSON rather than tables
    #[arg(long)]
    pub(super) json: bool,
}

/// The queue.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// What is queued, in order
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Why an item is where it is, and what keeps it from being handed out
    Explain {
        /// The item's id
        id: i64,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Finished runs.
#[derive(Debug, Subcommand)]
pub(super) enum RunCommand {
    /// The latest runs
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// All that is known of a run
    Show {
        /// The run's id
        id: String,
        #[command(flatten)]
        server: ServerArgs,
        /// Print its logs too
        #[arg(long)]
        log: bool,
    },
    /// A run's log; of an active one too
    Logs(super::logs::LogsArgs),
    /// Tell the worker of an active run to stop
    Kill {
        /// The run's id
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Candidates.
#[derive(Debug, Subcommand)]
pub(super) enum CandidateCommand {
    /// Upload candidates from a file: JSON, NDJSON or YAML
    Import {
        /// The file; - for standard input
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Codebases.
#[derive(Debug, Subcommand)]
pub(super) enum CodebaseCommand {
    /// Upload codebases from a file: JSON, NDJSON or YAML
    Import {
        /// The file; - for standard input
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// A running service.
pub(super) struct Server {
    http: Client,
    base: String,
}

impl Server {
    pub(super) fn new(base: &str) -> Result<Self> {
        Ok(Self {
            http: http_client()?,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// The URL of a path; its parts are names, whatever characters they have.
    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<url::Url> {
        let mut url: url::Url = self
            .base
            .parse()
            .with_context(|| format!("--server {}", self.base))?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--server {} is not an http URL", self.base))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<reqwest::Response> {
        let mut request = self.http.request(method, self.url(path, query)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("no service answers at {}", self.base))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = (response.status(), response.text().await.unwrap_or_default());
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = ["detail", "reason"]
            .iter()
            .find_map(|key| problem.get(key)?.as_str())
            .unwrap_or(&text)
            .to_owned();
        bail!("{status}: {said}")
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value> {
        Ok(self
            .send(Method::GET, path, query, None)
            .await?
            .json()
            .await?)
    }

    /// All entries of a list that comes in pages.
    pub(super) async fn pages(&self, path: &[&str], field: &str) -> Result<Vec<Value>> {
        let mut page = self.get(path, &[]).await?;
        let mut entries = list(page.get(field).unwrap_or(&Value::Null)).to_vec();
        while page.get("next").is_some_and(|next| !next.is_null()) {
            page = self.get(path, &[("cursor", text(&page, "next"))]).await?;
            entries.extend_from_slice(list(page.get(field).unwrap_or(&Value::Null)));
        }
        Ok(entries)
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        Ok(self
            .send(Method::POST, path, &[], Some(body))
            .await?
            .json()
            .await?)
    }

    pub(super) async fn put(&self, path: &[&str], body: &Value) -> Result<Value> {
        Ok(self
            .send(Method::PUT, path, &[], Some(body))
            .await?
            .json()
            .await?)
    }

    pub(super) async fn delete(&self, path: &[&str], query: &[(&str, String)]) -> Result<()> {
        self.send(Method::DELETE, path, query, None).await.map(drop)
    }

    /// Copies a log to standard output as it comes.
    async fn print_log(&self, id: &str, name: &str) -> Result<()> {
        let mut response = self
            .send(Method::GET, &["log", id, name], &[], None)
            .await?;
        let mut out = std::io::stdout().lock();
        while let Some(chunk) = response.chunk().await? {
            out.write_all(&chunk)?;
        }
        Ok(out.flush()?)
    }
}

/// A field as text for a table.
pub(super) fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn number(value: &Value, field: &str) -> f64 {
    value.get(field).and_then(Value::as_f64).unwrap_or_default()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn print_json(value: &Value) -> Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(ExitCode::SUCCESS)
}

/// Says what was done, or all of it in JSON.
pub(super) fn done(args: &ServerArgs, answer: &Value, said: &str) -> Result<ExitCode> {
    if args.json {
        return print_json(answer);
    }
    println!("{said}");
    Ok(ExitCode::SUCCESS)
}

/// What a service is doing.
pub(super) async fn status(args: ServerArgs) -> Result<ExitCode> {
    let server = Server::new(&args.server)?;
    let (status, stats) = (
        server.get(&["status"], &[]).await?,
        server.get(&["queue", "stats"], &[]).await?,
    );
    if args.json {
        return print_json(&json!({ "status": status, "queue": stats }));
    }
    let hour = stats
        .pointer("/finished/last_hour")
        .cloned()
        .unwrap_or_default();
    println!(
        "queued {}, running {}, finished in the last hour {} ({} failed)",
        text(&stats, "queue_length"),
        text(&stats, "active_runs"),
        text(&hour, "total"),
        text(&hour, "failure")
    );
    let running = list(status.get("processing").unwrap_or(&Value::Null));
    if !running.is_empty() {
        let rows = running.iter().map(|run| {
            [
                text(run, "id"),
                text(run, "campaign"),
                text(run, "codebase"),
                text(run, "worker"),
                duration(number(run, "current_duration")),
                duration(number(run, "keepalive_age")),
            ]
        });
        println!(
            "{}",
            table(
                [
                    "run",
                    "campaign",
                    "codebase",
                    "worker",
                    "for",
                    "last sign of life"
                ],
                rows
            )
        );
    }
    for (host, until) in status
        .get("rate_limit_hosts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        println!(
            "{host} is left alone until {}",
            until.as_str().unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `queue …`.
pub(super) async fn queue(command: QueueCommand) -> Result<ExitCode> {
    let (args, limit) = match command {
        QueueCommand::Ls { server, limit } => (server, limit),
        QueueCommand::Explain { id, server } => return explain(&server, id).await,
    };
    let items = Server::new(&args.server)?
        .get(&["queue"], &[("limit", limit.to_string())])
        .await?;
    if args.json {
        return print_json(&items);
    }
    let rows = list(&items).iter().map(|item| {
        ["queue_id", "campaign", "codebase", "command", "context"].map(|field| text(item, field))
    });
    println!(
        "{}",
        table(["id", "campaign", "codebase", "command", "context"], rows)
    );
    Ok(ExitCode::SUCCESS)
}

async fn explain(args: &ServerArgs, id: i64) -> Result<ExitCode> {
    let told = Server::new(&args.server)?
        .get(&["queue", &id.to_string(), "explain"], &[])
        .await?;
    if args.json {
        return print_json(&told);
    }
    let place = [
        ("campaign", "campaign"),
        ("codebase", "codebase"),
        ("bucket", "bucket"),
        ("priority", "priority"),
        ("position", "position"),
    ];
    let place = place.map(|(name, field)| [name.to_owned(), text(&told, field)]);
    let score = told
        .get("score")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(part, value)| [format!("score: {part}"), value.to_string()]);
    println!(
        "{}",
        table(["fact", "value"], place.into_iter().chain(score))
    );
    let blockers = list(told.get("blockers").unwrap_or(&Value::Null));
    if blockers.is_empty() {
        println!("a worker that asks gets it when its turn comes");
    }
    for blocker in blockers {
        let until = blocker
            .get("until")
            .and_then(Value::as_str)
            .map_or_else(String::new, |until| format!(" (until {until})"));
        println!(
            "not handed out: {}: {}{until}",
            text(blocker, "kind"),
            text(blocker, "detail")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs as a table.
fn runs_table(runs: &Value) -> String {
    let rows = list(runs).iter().map(|run| {
        let revision = run
            .get("revision")
            .and_then(Value::as_str)
            .map(short)
            .unwrap_or_default();
        [
            text(run, "log_id"),
            text(run, "campaign"),
            text(run, "codebase"),
            text(run, "code"),
            duration(number(run, "duration")),
            revision,
            text(run, "finish_time"),
        ]
    });
    table(
        [
            "run", "campaign", "codebase", "result", "duration", "revision", "finished",
        ],
        rows,
    )
    .to_string()
}

/// `run …`.
pub(super) async fn run(command: RunCommand) -> Result<ExitCode> {
    match command {
        RunCommand::Ls {
            server: args,
            limit,
        } => {
            let runs = Server::new(&args.server)?
                .get(&["runs"], &[("limit", limit.to_string())])
                .await?;
            if args.json {
                return print_json(&runs);
            }
            println!("{}", runs_table(&runs));
            Ok(ExitCode::SUCCESS)
        }
        RunCommand::Logs(args) => super::logs::logs(args).await,
        RunCommand::Kill { id, server: args } => {
            let run = Server::new(&args.server)?
                .send(Method::POST, &["kill", &id], &[], None)
                .await?
                .json()
                .await?;
            done(&args, &run, &format!("run {id} is to stop"))
        }
        RunCommand::Show {
            id,
            server: args,
            log,
        } => show(&Server::new(&args.server)?, &id, args.json, log).await,
    }
}

async fn show(server: &Server, id: &str, as_json: bool, log: bool) -> Result<ExitCode> {
    let run = server.get(&["runs", id], &[("full", "1".into())]).await?;
    if as_json {
        print_json(&run)?;
    } else {
        let fields: BTreeMap<&String, &Value> = run
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .collect();
        println!(
            "{}",
            table(
                ["fact", "value"],
                fields
                    .into_keys()
                    .map(|field| [field.clone(), text(&run, field)])
            )
        );
    }
    if log {
        for name in list(run.get("logfilenames").unwrap_or(&Value::Null))
            .iter()
            .filter_map(Value::as_str)
        {
            if !as_json {
                println!("--- {name}");
            }
            server.print_log(id, name).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A list of entries in JSON, NDJSON or YAML.
fn entries(text: &str) -> Result<Vec<Value>> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(entries)) => return Ok(entries),
        Ok(entry @ Value::Object(_)) => return Ok(vec![entry]),
        Ok(_) => bail!("the file holds no list"),
        Err(_) => {}
    }
    let lines: Result<Vec<Value>, _> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect();
    if let Ok(lines) = lines {
        return Ok(lines);
    }
    let read: Value = serde_saphyr::from_str(text)
        .context("the file is neither JSON nor NDJSON, and as YAML it is broken")?;
    match read {
        Value::Array(entries) => Ok(entries),
        _ => bail!("the file holds no list"),
    }
}

fn read_entries(file: &PathBuf) -> Result<Vec<Value>> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    entries(&text.with_context(|| file.display().to_string())?)
        .with_context(|| file.display().to_string())
}

/// Uploads entries bit by bit, showing how it goes; answers what was answered to each part.
async fn import(args: &ServerArgs, path: &str, file: &PathBuf) -> Result<(usize, Vec<Value>)> {
    let (server, entries) = (Server::new(&args.server)?, read_entries(file)?);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(entries.len() as u64)
        .with_style(style)
        .with_message(path.to_owned());
    let mut answers = vec![];
    for (batch, part) in entries.chunks(IMPORT_BATCH).enumerate() {
        let answer = server.post(&[path], &Value::from(part)).await;
        let from = batch * IMPORT_BATCH;
        answers.push(answer.with_context(|| {
            format!(
                "entries {from} to {}; those before are stored",
                from + part.len() - 1
            )
        })?);
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    Ok((entries.len(), answers))
}

/// `candidate …`.
pub(super) async fn candidate(command: CandidateCommand) -> Result<ExitCode> {
    let CandidateCommand::Import { file, server: args } = command;
    let (total, answers) = import(&args, "candidates", &file).await?;
    let mut joined: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, values) in answers.iter().filter_map(Value::as_object).flatten() {
        joined
            .entry(key.clone())
            .or_default()
            .extend(list(values).iter().cloned());
    }
    let accepted = joined.get("success").map_or(0, Vec::len);
    if args.json {
        print_json(&json!(joined))?;
    } else {
        println!("{accepted} of {total} candidates stored and queued");
        for (kind, values) in joined
            .iter()
            .filter(|(kind, values)| *kind != "success" && !values.is_empty())
        {
            let names: Vec<String> = values.iter().take(10).map(ToString::to_string).collect();
            println!(
                "{} left out, {}: {}{}",
                values.len(),
                kind.replace('_', " "),
                names.join(", "),
                if values.len() > 10 { ", …" } else { "" }
            );
        }
    }
    Ok(if accepted == total {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `codebase …`.
pub(super) async fn codebase(command: CodebaseCommand) -> Result<ExitCode> {
    let CodebaseCommand::Import { file, server: args } = command;
    let (total, _) = import(&args, "codebases", &file).await?;
    done(
        &args,
        &json!({ "stored": total }),
        &format!("{total} codebases stored"),
    )
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn lists_are_read_in_every_notation() {
        for text in [
            "[{\"name\": \"a\"}, {\"name\": \"b\"}]",
            "{\"name\": \"a\"}\n\n{\"name\": \"b\"}\n",
            "- name: a\n- name: b\n",
        ] {
            let names: Vec<_> = entries(text)
                .unwrap()
                .iter()
                .map(|entry| entry["name"].clone())
                .collect();
            assert_eq!(names, ["a", "b"], "{text}");
        }
        assert_eq!(entries("{\"name\": \"a\"}").unwrap().len(), 1);
        for bad in ["5", "name: a", "{nonsense", "- a: [1"] {
            assert!(entries(bad).is_err(), "{bad}");
        }
    }
}
