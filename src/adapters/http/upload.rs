//! Receives a worker's upload, part by part, into the spool. Only the report is kept in memory.
//!
//! A result is worth more than the rules for files: files that cannot be accepted are renamed, cut
//! or left out, which is noted with the run.

use super::{
    AppState,
    error::ApiError,
    multipart::{MultipartError, PartHeaders, Parts},
    uploads::Receiving,
};
use crate::{
    adapters::local::SpoolFolder,
    domain::{
        Invalid,
        active_run::ActiveRun,
        log_name::{FileNames, REPORT, is_log},
    },
    ports::{Fault, artifact_store::Content},
    services::finish::Upload,
};
use axum::{
    body::BodyDataStream,
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use futures::StreamExt;
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// The maximum size of the `.changes` files of an upload, which are read into memory.
const MAX_CHANGES_SIZE: u64 = 16 << 20;
/// The maximum number of files of one upload about which something is noted.
const MAX_NOTES: usize = 50;
/// How long a client may take to send the rest of an upload whose response is known.
const MAX_DRAIN_TIME: Duration = Duration::from_mins(5);
/// How long it may send nothing of it.
const MAX_DRAIN_IDLE: Duration = Duration::from_secs(10);
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

/// Reads what is left of a request that has its response already, up to the limit of an upload.
///
/// A client that is still sending does not read the response before it has sent all: were the
/// connection closed now, it would see that, and not the response.
pub async fn drain(app: &AppState, body: &mut BodyDataStream) {
    let (mut left, idle) = (app.request_limits.upload, app.request_limits.idle());
    let idle = idle.min(MAX_DRAIN_IDLE);
    let rest = async {
        while let Ok(Some(Ok(chunk))) = timeout(idle, body.next()).await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever still sends after that learns nothing.
    drop(timeout(MAX_DRAIN_TIME, rest).await);
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
    /// The content of `result.json`, once it has arrived.
    report: Option<Vec<u8>>,
    /// The artifacts that are not accepted.
    left_out: Vec<Invalid>,
    /// The `.changes` files that are stored, but too large to be read.
    unread_changes: Vec<Invalid>,
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
        let limit = self.app.request_limits.json_body;
        let mut report = vec![];
        let mut is_cut = false;
        while let Some(chunk) = self.chunk().await? {
            let left = usize::try_from(limit).unwrap_or(usize::MAX) - report.len();
            report.extend_from_slice(&chunk[..chunk.len().min(left)]);
            is_cut |= chunk.len() > left;
        }
        if is_cut {
            self.note(REPORT, format!("{}, and was cut", larger_than(limit)));
        }
        self.report = Some(report);
        Ok(())
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
        let mut is_cut = false;
        while let Some(chunk) = self.chunk().await? {
            let left = usize::try_from(limits.upload_file - file.size()).unwrap_or(usize::MAX);
            is_cut |= chunk.len() > left;
            let kept = &chunk[..chunk.len().min(left)];
            self.folder
                .write(&mut file, kept)
                .await
                .map_err(spool_failed)?;
        }
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

    /// Returns the text of the `.changes` files that have arrived, by name.
    async fn changes(&mut self) -> Result<Vec<(String, String)>, ApiError> {
        let (mut changes, mut too_large) = (vec![], vec![]);
        let mut left = MAX_CHANGES_SIZE;
        for file in self
            .folder
            .files()
            .iter()
            .filter(|file| file.name.ends_with(".changes"))
        {
            let Some(rest) = left.checked_sub(file.size) else {
                too_large.push(file.name.clone());
                continue;
            };
            left = rest;
            let bytes = match &file.content {
                Content::Memory(bytes) => bytes.to_vec(),
                Content::File(path) => tokio::fs::read(path).await.map_err(spool_failed)?,
            };
            changes.push((
                file.name.clone(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        let reason = format!("{}, and is not read", larger_than(MAX_CHANGES_SIZE));
        let unread = |name| Invalid::new(name, reason.clone());
        self.unread_changes = too_large.iter().take(MAX_NOTES).map(unread).collect();
        Ok(changes)
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
        unread_changes: vec![],
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
    let changes = receiver.changes().await?;
    let report = receiver
        .report
        .ok_or_else(|| bad_request("Missing result JSON"))?;
    Ok(Received {
        upload: Upload {
            report,
            files: receiver.folder.files().to_vec(),
            changes,
            left_out: receiver.left_out,
            unread_changes: receiver.unread_changes,
            notes: receiver.notes,
            refused: receiver.refused,
        },
        refusal,
        _folder: receiver.folder,
    })
}
