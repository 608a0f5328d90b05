//! Receives a worker's upload, part by part, into the spool. Only the report is kept in memory.

use super::{AppState, error::ApiError};
use crate::{
    adapters::local::SpoolFolder,
    domain::{
        active_run::ActiveRun,
        log_name::{REPORT, is_log, validate_file_name},
    },
    ports::{Fault, artifact_store::Content},
    services::finish::Upload,
};
use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
};
use bytes::Bytes;
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// The maximum size of a `.changes` file, which is read into memory.
const MAX_CHANGES_SIZE: u64 = 1 << 20;

/// An upload, and the folder of its files, which is deleted when this is dropped.
pub struct Received {
    upload: Upload,
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

fn too_large(what: &str, limit: u64) -> ApiError {
    ApiError::problem(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("{what} is larger than {limit} bytes"),
    )
}

fn spool_failed(error: io::Error) -> ApiError {
    Fault::unavailable("receive an upload", error).into()
}

/// An upload that is being received.
struct Receiver<'a> {
    app: &'a AppState,
    /// The folder of the files that have arrived.
    folder: SpoolFolder,
    /// The content of `result.json`, once it has arrived.
    report: Option<Vec<u8>>,
    /// The bytes that have arrived.
    received: u64,
    /// The run that the upload finishes.
    run: &'a ActiveRun,
    /// When the upload last counted as a heartbeat.
    touched: Instant,
}

fn stalled() -> ApiError {
    ApiError::problem(StatusCode::REQUEST_TIMEOUT, "the upload has stalled")
}

fn broken(error: &MultipartError) -> ApiError {
    bad_request(format!("the upload is broken: {}", error.body_text()))
}

impl Receiver<'_> {
    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.app.request_limits.upload_idle_seconds)
    }

    /// Receives the next chunk of a part; none at its end.
    async fn chunk(&mut self, field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
        let chunk = timeout(self.idle_timeout(), field.chunk()).await;
        let chunk = chunk
            .map_err(|_| stalled())?
            .map_err(|error| broken(&error))?;
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.received > self.app.request_limits.upload {
            return Err(too_large("the upload", self.app.request_limits.upload));
        }
        self.touch().await;
        Ok(chunk)
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

    /// Receives `result.json`.
    async fn report(&mut self, mut field: Field<'_>) -> Result<(), ApiError> {
        let mut report = vec![];
        while let Some(chunk) = self.chunk(&mut field).await? {
            report.extend_from_slice(&chunk);
            if report.len() as u64 > self.app.request_limits.json_body {
                return Err(too_large(REPORT, self.app.request_limits.json_body));
            }
        }
        if self.report.replace(report).is_some() {
            return Err(bad_request("two parts are named result.json"));
        }
        Ok(())
    }

    /// Receives a log or an artifact.
    async fn file(&mut self, name: &str, mut field: Field<'_>) -> Result<(), ApiError> {
        validate_file_name(name).map_err(|e| bad_request(e.to_string()))?;
        if self.folder.files().iter().any(|file| file.name == name) {
            return Err(bad_request(format!("two parts are named {name}")));
        }
        if self.folder.files().len() as u64 >= self.app.request_limits.upload_files {
            return Err(too_large(
                "the number of files",
                self.app.request_limits.upload_files,
            ));
        }
        let mut file = self.folder.create(name);
        while let Some(chunk) = self.chunk(&mut field).await? {
            self.folder
                .write(&mut file, &chunk)
                .await
                .map_err(spool_failed)?;
            if file.size() > self.app.request_limits.upload_file {
                return Err(too_large(name, self.app.request_limits.upload_file));
            }
        }
        self.app
            .metrics
            .uploaded(if is_log(name) { "logs" } else { "artifacts" }, file.size());
        self.folder.keep(file).await.map_err(spool_failed)
    }

    /// Receives a part, by its file name.
    async fn part(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        if field
            .content_type()
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
        {
            return Err(bad_request("nested multi-part"));
        }
        let name = field
            .file_name()
            .ok_or_else(|| bad_request("Part without filename"))?
            .to_owned();
        if name == REPORT {
            self.report(field).await
        } else {
            self.file(&name, field).await
        }
    }

    /// Returns the text of the `.changes` files that have arrived, by name.
    async fn changes(&self) -> Result<Vec<(String, String)>, ApiError> {
        let mut changes = vec![];
        for file in self
            .folder
            .files()
            .iter()
            .filter(|file| file.name.ends_with(".changes"))
        {
            if file.size > MAX_CHANGES_SIZE {
                return Err(too_large(&file.name, MAX_CHANGES_SIZE));
            }
            let bytes = match &file.content {
                Content::Memory(bytes) => bytes.to_vec(),
                Content::File(path) => tokio::fs::read(path).await.map_err(spool_failed)?,
            };
            changes.push((
                file.name.clone(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        Ok(changes)
    }
}

/// Receives an upload completely.
///
/// # Errors
///
/// 400 when it is not a valid upload, 408 when it stalls, 413 when it exceeds a limit.
pub async fn receive(
    app: &Arc<AppState>,
    run: &ActiveRun,
    request: Request,
) -> Result<Received, ApiError> {
    let multipart = Multipart::from_request(request, app).await;
    let mut parts = multipart.map_err(|e| {
        bad_request(format!(
            "not a multipart/form-data upload: {}",
            e.body_text()
        ))
    })?;
    let mut receiver = Receiver {
        app,
        folder: app.spool.folder(),
        report: None,
        received: 0,
        run,
        touched: Instant::now(),
    };
    loop {
        let next = timeout(receiver.idle_timeout(), parts.next_field()).await;
        let next = next.map_err(|_| stalled())?;
        let Some(field) = next.map_err(|error| broken(&error))? else {
            break;
        };
        receiver.part(field).await?;
    }
    let changes = receiver.changes().await?;
    let Receiver { folder, report, .. } = receiver;
    let report = report.ok_or_else(|| bad_request("Missing result JSON"))?;
    Ok(Received {
        upload: Upload {
            report,
            files: folder.files().to_vec(),
            changes,
        },
        _folder: folder,
    })
}
