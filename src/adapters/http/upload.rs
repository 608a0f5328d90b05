//! Receives a worker's upload, part by part, into the spool, and reads what the runner understands.
//!
//! A result is worth more than the rules for files: files that cannot be accepted are renamed, cut
//! or left out, which is noted with the run.

use super::{
    AppState,
    error::ApiError,
    extract::MIN_OFF_THREAD_SIZE,
    multipart::{MultipartError, PartHeaders, Parts},
    uploads::Receiving,
};
use crate::{
    adapters::{
        local::{SpoolFolder, SpoolWriter},
        off_thread,
    },
    domain::{
        Invalid,
        active_run::ActiveRun,
        changes::{self, Changes},
        log_name::{FileNames, REPORT, is_log},
        report::{self, Report},
    },
    ports::{Fault, SpooledFile, artifact_store::Content},
    services::finish::Upload,
};
use axum::{
    body::BodyDataStream,
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// The maximum size of the `.changes` files of an upload, which are read into memory.
const MAX_CHANGES_SIZE: u64 = 16 << 20;
/// The maximum number of files of one upload about which something is noted.
const MAX_NOTES: usize = 50;
/// The number of characters of a name that a note shows.
const MAX_SHOWN: usize = 100;

/// An upload, and the folder of its files, which is deleted when this is dropped.
pub struct Received {
    upload: Upload,
    /// The response to the worker when the upload was not accepted completely. What was accepted of
    /// it is stored nevertheless, with the reason.
    pub refusal: Option<ApiError>,
    _folder: SpoolFolder,
}

// Only by reference: whoever uses the upload must keep the folder.
impl AsRef<Upload> for Received {
    fn as_ref(&self) -> &Upload {
        &self.upload
    }
}

fn bad_request(detail: impl Into<String>) -> ApiError {
    ApiError::text(StatusCode::BAD_REQUEST, detail)
}

fn larger_than(limit: u64) -> String {
    format!("is larger than {limit} bytes")
}

fn spool_failed(error: io::Error) -> ApiError {
    Fault::unavailable("receive an upload", error).into()
}

/// An upload that is being received.
struct Receiver<'a> {
    app: &'a AppState,
    parts: Parts<'a>,
    /// The folder of the files that have arrived.
    folder: SpoolFolder,
    /// That the upload is being received, and how much of it.
    receiving: Receiving,
    /// The names of the files that have arrived.
    names: FileNames,
    /// `result.json`, once it has arrived.
    report: Option<SpooledFile>,
    /// The artifacts that are not accepted.
    left_out: Vec<Invalid>,
    /// What was changed of the files.
    notes: Vec<Invalid>,
    /// Why the rest of the upload is refused, if it is.
    refused: Option<Invalid>,
    /// Whether more was sent than is accepted.
    is_too_large: bool,
    /// The run that the upload finishes.
    run: &'a ActiveRun,
    /// When the upload last counted as a heartbeat.
    touched: Instant,
}

fn stalled() -> ApiError {
    ApiError::problem(StatusCode::REQUEST_TIMEOUT, "the upload has stalled")
}

impl Receiver<'_> {
    fn idle_timeout(&self) -> Duration {
        self.app.request_limits.idle()
    }

    fn broken(&mut self, error: &MultipartError) -> ApiError {
        match error {
            MultipartError::TooLarge => {
                self.is_too_large = true;
                let reason = larger_than(self.app.request_limits.upload);
                ApiError::problem(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the upload {reason}"),
                )
            }
            error => bad_request(format!("the upload is broken: {error}")),
        }
    }

    /// Notes what was changed or left out, also in the log: whoever looks for the file finds it. Of
    /// an upload with thousands of such files, the first are noted.
    fn note(&mut self, name: &str, reason: String) {
        if self.notes.len() < MAX_NOTES {
            tracing::warn!(run.id = %self.run.id, file = name, reason, "a file was not stored as sent");
            self.notes.push(Invalid::new(name, reason));
        }
    }

    /// Notes that a file is not accepted. Without a log, a run is still what its report says.
    fn leave_out(&mut self, name: &str, reason: String) {
        if is_log(name) {
            return self.note(name, reason);
        }
        if self.left_out.len() < MAX_NOTES {
            tracing::warn!(run.id = %self.run.id, file = name, reason, "an artifact was left out");
            self.left_out.push(Invalid::new(name, reason));
        }
    }

    /// Receives the next chunk of a part; none at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let chunk = timeout(self.idle_timeout(), self.parts.chunk()).await;
        let chunk = chunk.map_err(|_| stalled())?;
        let chunk = chunk.map_err(|error| self.broken(&error))?;
        let size = chunk.as_ref().map_or(0, Bytes::len);
        self.receiving.add(size as u64)?;
        self.touch().await;
        Ok(chunk)
    }

    async fn next_part(&mut self) -> Result<Option<PartHeaders>, ApiError> {
        let part = timeout(self.idle_timeout(), self.parts.next()).await;
        let part = part.map_err(|_| stalled())?;
        part.map_err(|error| self.broken(&error))
    }

    /// Records a heartbeat now and then, so that a lease does not end during a large upload.
    ///
    /// A failure does no harm: a late result is accepted too.
    async fn touch(&mut self) {
        let interval = self.app.keepalive.min_interval();
        if self.touched.elapsed() < interval.to_std().unwrap_or_default() {
            return;
        }
        self.touched = Instant::now();
        if let Err(error) = self.app.keepalive.touch(self.run).await {
            tracing::debug!(
                run.id = %self.run.id,
                error = &error as &dyn std::error::Error,
                "an upload is not recorded as a heartbeat"
            );
        }
    }

    /// Receives `result.json`. The rest of one that is too large is skipped: what remains is no
    /// JSON, and is stored with the run as an invalid report.
    async fn report(&mut self) -> Result<(), ApiError> {
        let limit = self.app.request_limits.report;
        let mut report = self.folder.create(REPORT);
        if self.copy(&mut report, limit).await? {
            self.note(REPORT, format!("{}, and was cut", larger_than(limit)));
        }
        let report = self.folder.received(report).await;
        self.report = Some(report.map_err(spool_failed)?);
        Ok(())
    }

    /// Copies a part to a file, up to a limit. Returns whether there was more.
    async fn copy(&mut self, file: &mut SpoolWriter, limit: u64) -> Result<bool, ApiError> {
        let mut is_cut = false;
        while let Some(chunk) = self.chunk().await? {
            let left = usize::try_from(limit - file.size()).unwrap_or(usize::MAX);
            is_cut |= chunk.len() > left;
            let kept = &chunk[..chunk.len().min(left)];
            self.folder.write(file, kept).await.map_err(spool_failed)?;
        }
        Ok(is_cut)
    }

    async fn skip(&mut self) -> Result<(), ApiError> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }

    /// Returns the name under which a file is stored.
    fn name(&mut self, sent: &str) -> String {
        let name = self.names.storable(sent);
        if name != sent {
            let shown: String = sent.chars().take(MAX_SHOWN).collect();
            self.note(
                &name,
                format!("was sent as {shown:?}, which cannot be stored"),
            );
        }
        name
    }

    /// Receives a log or an artifact.
    async fn file(&mut self, sent: &str) -> Result<(), ApiError> {
        let limits = self.app.request_limits;
        if self.folder.files().len() as u64 >= limits.upload_files {
            let shown: String = sent.chars().take(MAX_SHOWN).collect();
            self.leave_out(
                &shown,
                format!("is one of more than {} files", limits.upload_files),
            );
            return self.skip().await;
        }
        let name = self.name(sent);
        let mut file = self.folder.create(&name);
        let is_cut = self.copy(&mut file, limits.upload_file).await?;
        let reason = larger_than(limits.upload_file);
        if is_cut && !is_log(&name) {
            self.leave_out(&name, reason);
            return self.folder.discard(file).await.map_err(spool_failed);
        }
        if is_cut {
            self.note(&name, format!("{reason}, and was cut"));
        }
        self.app.metrics.uploaded(
            if is_log(&name) { "logs" } else { "artifacts" },
            file.size(),
        );
        self.folder.keep(file).await.map_err(spool_failed)
    }

    /// Receives a part, by its file name.
    async fn part(&mut self, headers: PartHeaders) -> Result<(), ApiError> {
        if headers.is_multipart {
            return Err(bad_request("nested multi-part"));
        }
        let name = headers
            .file_name
            .ok_or_else(|| bad_request("Part without filename"))?;
        if name == REPORT && self.report.is_none() {
            self.report().await
        } else {
            self.file(&name).await
        }
    }

    async fn all_parts(&mut self) -> Result<(), ApiError> {
        while let Some(headers) = self.next_part().await? {
            self.part(headers).await?;
        }
        Ok(())
    }

    /// Returns the `.changes` files that are to be read, and the names of those that are too large.
    fn changes(&self) -> (Vec<SpooledFile>, Vec<String>) {
        let mut left = MAX_CHANGES_SIZE;
        let fits = |file: &SpooledFile| match left.checked_sub(file.size) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let files = self.folder.files().iter();
        let is_changes = |file: &&SpooledFile| file.name.ends_with(".changes");
        let (read, too_large): (Vec<SpooledFile>, Vec<SpooledFile>) =
            files.filter(is_changes).cloned().partition(fits);
        let names = too_large.into_iter().take(MAX_NOTES);
        (read, names.map(|file| file.name).collect())
    }
}

/// The files of an upload that the runner reads.
struct Readable {
    report: SpooledFile,
    changes: Vec<SpooledFile>,
}

/// What they say.
struct Read {
    report: Report,
    changes: Result<Option<Changes>, Invalid>,
}

fn bytes_of(file: &SpooledFile) -> io::Result<Bytes> {
    match &file.content {
        Content::Memory(bytes) => Ok(bytes.clone()),
        Content::File(path) => Ok(std::fs::read(path)?.into()),
    }
}

impl Readable {
    /// Returns whether reading takes hardly any time.
    fn is_small(&self) -> bool {
        let mut all = self.changes.iter().chain([&self.report]);
        all.all(|file| {
            matches!(file.content, Content::Memory(_)) && file.size < MIN_OFF_THREAD_SIZE as u64
        })
    }

    /// Reads the files, one after the other: only one is in memory at a time.
    fn read(&self) -> io::Result<Read> {
        let report = report::read(&bytes_of(&self.report)?);
        let mut read = vec![];
        for file in &self.changes {
            let text = String::from_utf8_lossy(&bytes_of(file)?).into_owned();
            match changes::read(&file.name, &text) {
                Ok(changes) => read.push((file.name.clone(), changes)),
                Err(invalid) => {
                    let changes = Err(invalid);
                    return Ok(Read { report, changes });
                }
            }
        }
        let changes = changes::merge(&read);
        Ok(Read { report, changes })
    }

    /// Reads small files at once, and large ones off the async threads, a few at a time: parsed,
    /// they take many times their size.
    async fn read_in_turn(self, app: &AppState) -> Result<Read, ApiError> {
        if self.is_small() {
            return self.read().map_err(spool_failed);
        }
        let _turn = app.uploads.turn_to_read().await?;
        off_thread("read a report", move || self.read())
            .await?
            .map_err(spool_failed)
    }
}

/// Receives an upload.
///
/// An upload that exceeds the limit for all of it, but brings the report before that, is returned
/// as far as it has arrived, with [`Received::refusal`].
///
/// # Errors
///
/// 400 when it is not a valid upload, 408 when it stalls, 413 when it is too large.
pub async fn receive(
    app: &Arc<AppState>,
    run: &ActiveRun,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Received, ApiError> {
    let receiving = app.uploads.begin(run, app.request_limits.idle()).await?;
    let parts = Parts::new(headers, body, app.request_limits.upload)
        .map_err(|error| bad_request(format!("not a multipart/form-data upload: {error}")))?;
    let mut receiver = Receiver {
        app,
        parts,
        folder: app.spool.folder(),
        receiving,
        names: FileNames::default(),
        report: None,
        left_out: vec![],
        notes: vec![],
        refused: None,
        is_too_large: false,
        run,
        touched: Instant::now(),
    };
    let refusal = receiver.all_parts().await.err();
    if let Some(error) = refusal {
        if !receiver.is_too_large || receiver.report.is_none() {
            return Err(error);
        }
        let reason = larger_than(app.request_limits.upload);
        receiver.refused = Some(Invalid::new("the upload", reason));
        return received(receiver, Some(error)).await;
    }
    received(receiver, None).await
}

async fn received(
    mut receiver: Receiver<'_>,
    refusal: Option<ApiError>,
) -> Result<Received, ApiError> {
    let report = receiver.report.take();
    let report = report.ok_or_else(|| bad_request("Missing result JSON"))?;
    let (changes, too_large) = receiver.changes();
    let changes_filenames = changes.iter().map(|file| file.name.clone()).collect();
    let readable = Readable { report, changes };
    let read = readable.read_in_turn(receiver.app).await?;
    let reason = format!("{}, and is not read", larger_than(MAX_CHANGES_SIZE));
    let unread = |name| Invalid::new(name, reason.clone());
    Ok(Received {
        upload: Upload {
            report: read.report,
            files: receiver.folder.files().to_vec(),
            changes: read.changes,
            changes_filenames,
            left_out: receiver.left_out,
            unread_changes: too_large.into_iter().map(unread).collect(),
            notes: receiver.notes,
            refused: receiver.refused,
        },
        refusal,
        _folder: receiver.folder,
    })
}
