//! Uploads of any number of entries, one in each line (`application/x-ndjson`): they are stored in
//! steps while they arrive, each entry on its own.

use super::{
    AppState,
    audit::Audited,
    error::ApiError,
    extract::{is_of_type, parse},
};
use crate::{
    adapters::{
        off_thread,
        wire::{LineError, LinesResponse},
    },
    domain::audit::{Action, Change},
};
use axum::{
    Json,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// The content type.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// How many entries one step stores at most: other writers wait for it.
const MAX_STEP: usize = 250;
/// How many bytes of lines one step has at most, but for its last line.
const MAX_STEP_SIZE: usize = 1 << 20;
/// How long a line may be, in bytes.
const MAX_LINE: usize = 1 << 20;
/// How many of the entries that were not stored the response has the reasons of.
const MAX_ERRORS: usize = 100;

/// An entry, and the number of its line, from 1.
#[derive(Debug, Clone)]
pub(super) struct Line<T> {
    pub(super) number: u64,
    pub(super) entry: T,
}

/// What became of the entries so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    stored: u64,
    rejected: u64,
    errors: Vec<LineError>,
}

impl Report {
    /// Notes that so many entries were stored.
    pub(super) fn stored(&mut self, count: usize) {
        self.stored += count as u64;
    }

    /// Notes why an entry was not stored.
    pub(super) fn rejected(&mut self, line: u64, reason: impl Into<String>) {
        self.rejected += 1;
        if self.errors.len() < MAX_ERRORS {
            let reason = reason.into();
            self.errors.push(LineError { line, reason });
        }
    }
}

/// Stores entries.
pub(super) trait StoreEntries: Send + Sync {
    /// What is stored.
    type Entry: DeserializeOwned + Clone + Send + 'static;

    /// How the audit log calls it.
    const ACTION: Action;

    /// Stores entries; says in the report what became of each.
    ///
    /// # Errors
    ///
    /// When a step cannot be stored, of which nothing is stored then.
    fn store(
        &self,
        app: &AppState,
        entries: Vec<Line<Self::Entry>>,
        report: &mut Report,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Returns whether a body has one entry in each line.
pub(super) fn has_lines(request: &Request) -> bool {
    is_of_type(request, NDJSON)
}

/// The lines of a body.
struct Lines {
    body: Body,
    idle: Duration,
    buffer: BytesMut,
    /// How much of the buffer has no end of a line.
    searched: usize,
    /// The number of the last line.
    number: u64,
    /// Whether the rest of a line that is too long is to be skipped.
    skips: bool,
}

impl Lines {
    /// Returns the next line without its end; `None` in place of one that is too long.
    async fn next(&mut self) -> Result<Option<Option<Bytes>>, ApiError> {
        loop {
            let found = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(found) = found {
                let mut line = self.buffer.split_to(self.searched + found + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return Ok(Some(self.line(line)));
            }
            if self.skips || self.buffer.len() > MAX_LINE {
                self.skips = true;
                self.buffer.clear();
            }
            self.searched = self.buffer.len();
            if self.fill().await? {
                continue;
            }
            let rest = self.buffer.split();
            self.searched = 0;
            let is_line = self.skips || !rest.is_empty();
            return Ok(is_line.then(|| self.line(rest)));
        }
    }

    fn line(&mut self, line: BytesMut) -> Option<Bytes> {
        self.number += 1;
        let is_long = std::mem::take(&mut self.skips) || line.len() > MAX_LINE;
        (!is_long).then(|| line.freeze())
    }

    /// Reads more of the body; returns false at its end.
    async fn fill(&mut self) -> Result<bool, ApiError> {
        let problem = |status, detail: String| Err(ApiError::problem(status, detail));
        match timeout(self.idle, self.body.frame()).await {
            Err(_) => problem(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not go on in time".into(),
            ),
            Ok(None) => Ok(false),
            Ok(Some(Err(error))) => {
                let detail = format!("the body cannot be read: {error}");
                problem(StatusCode::BAD_REQUEST, detail)
            }
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
                Ok(true)
            }
        }
    }

    /// Returns the lines of the next step; none at the end of the body.
    async fn step(&mut self, report: &mut Report) -> Result<Vec<Line<Bytes>>, ApiError> {
        let (mut step, mut size) = (vec![], 0);
        while step.len() < MAX_STEP && size < MAX_STEP_SIZE {
            match self.next().await? {
                None => break,
                Some(None) => {
                    let reason = format!("the line is longer than {MAX_LINE} bytes");
                    report.rejected(self.number, reason);
                }
                Some(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                Some(Some(line)) => {
                    size += line.len();
                    step.push(Line {
                        number: self.number,
                        entry: line,
                    });
                }
            }
        }
        Ok(step)
    }
}

/// Reads the entries of lines off the async threads; those that are none are rejected.
async fn read<T: DeserializeOwned + Send + 'static>(
    lines: Vec<Line<Bytes>>,
    report: &mut Report,
) -> Result<Vec<Line<T>>, ApiError> {
    let read = off_thread("read lines", move || {
        let parsed = lines.into_iter().map(|Line { number, entry }| {
            let entry = parse::<T>(&entry).map_err(|error| (number, error.into_detail()))?;
            Ok(Line { number, entry })
        });
        parsed.collect::<Vec<Result<Line<T>, (u64, String)>>>()
    });
    let mut entries = vec![];
    for entry in read.await? {
        match entry {
            Ok(entry) => entries.push(entry),
            Err((number, reason)) => report.rejected(number, reason),
        }
    }
    Ok(entries)
}

/// Stores one entry after the other: a step with one that the store refuses is stored by halves of
/// its own.
async fn store_each<S: StoreEntries>(
    app: &AppState,
    entries: Vec<Line<S::Entry>>,
    store: &S,
    report: &mut Report,
) -> Result<(), ApiError> {
    for line in entries {
        let number = line.number;
        match store.store(app, vec![line], report).await {
            Err(error) if error.is_of_caller() => report.rejected(number, error.into_detail()),
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn store_all<S: StoreEntries>(
    app: &AppState,
    lines: &mut Lines,
    store: &S,
    report: &mut Report,
) -> Result<(), ApiError> {
    loop {
        let step = lines.step(report).await?;
        if step.is_empty() {
            return Ok(());
        }
        let entries = read(step, report).await?;
        match store.store(app, entries.clone(), report).await {
            Err(error) if error.is_of_caller() => {
                store_each(app, entries, store, report).await?;
            }
            outcome => outcome?,
        }
    }
}

/// Stores the entries of a body.
pub(super) async fn upload<S: StoreEntries>(
    app: &AppState,
    request: Request,
    store: S,
) -> Audited<Response> {
    let mut lines = Lines {
        body: request.into_body(),
        idle: app.request_limits.idle(),
        buffer: BytesMut::new(),
        searched: 0,
        number: 0,
        skips: false,
    };
    let mut report = Report::default();
    let outcome = store_all(app, &mut lines, &store, &mut report).await;
    let changes = match report.stored {
        0 => vec![],
        stored => vec![Change::new(S::ACTION, format!("{stored} entries of lines"))],
    };
    let response = match outcome {
        Ok(()) => Json(LinesResponse {
            lines: lines.number,
            stored: report.stored,
            rejected: report.rejected,
            errors: report.errors,
        })
        .into_response(),
        // Repeating all of it is harmless: what is stored is replaced.
        Err(error) => error
            .with("stored", report.stored)
            .with("line", lines.number)
            .into_response(),
    };
    Audited(response, changes)
}
