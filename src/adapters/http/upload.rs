//! Receives a worker's upload part by part into the spool; nothing but the report is kept in memory.

use super::{AppState, error::ApiError};
use crate::{
    adapters::local::SpoolFolder,
    domain::{
        active_run::ActiveRun,
        log_name::{REPORT, is_log, validate_file_name},
    },
    ports::artifact_store::Content,
    services::finish::Upload,
};
use axum::{
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::StatusCode,
};
use bytes::Bytes;
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// `.changes` files are read whole.
const LARGEST_CHANGES: u64 = 1 << 20;

/// An upload and the folder that its files lie in, which goes with it.
pub struct Received {
    upload: Upload,
    _folder: SpoolFolder,
}

impl Received {
    /// What arrived. Borrowed of the whole, so that the files stay as long as somebody works with it.
    pub fn upload(&self) -> &Upload {
        &self.upload
    }
}

fn bad(detail: impl Into<String>) -> ApiError {
    ApiError::text(StatusCode::BAD_REQUEST, detail)
}

fn too_large(what: &str, limit: u64) -> ApiError {
    ApiError::problem(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("{what} is larger than {limit} bytes"),
    )
}

fn spool_failed(error: io::Error) -> ApiError {
    crate::ports::Fault::unavailable("receive an upload", error).into()
}

struct Receiver<'a> {
    app: &'a AppState,
    folder: SpoolFolder,
    report: Option<Vec<u8>>,
    received: u64,
    /// The run that it is of, to which it is a sign of life.
    run: &'a ActiveRun,
    touched: Instant,
}

impl Receiver<'_> {
    async fn chunk(&mut self, field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
        let patience = Duration::from_secs(self.app.limits.upload_idle_seconds);
        let chunk = timeout(patience, field.chunk()).await;
        let chunk = chunk.map_err(|_| {
            ApiError::problem(StatusCode::REQUEST_TIMEOUT, "the upload has stalled")
        })?;
        let chunk = chunk.map_err(|e| bad(format!("the upload is broken: {}", e.body_text())))?;
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.received > self.app.limits.upload {
            return Err(too_large("the upload", self.app.limits.upload));
        }
        self.touch().await;
        Ok(chunk)
    }

    /// Keeps a lease from running out under a large upload. A result that comes late is taken all the same.
    async fn touch(&mut self) {
        let pause = self.app.keepalive.pause().to_std().unwrap_or_default();
        if self.touched.elapsed() < pause {
            return;
        }
        self.touched = Instant::now();
        if let Err(error) = self.app.keepalive.touch(self.run).await {
            tracing::debug!(run.id = %self.run.id, error = &error as &dyn std::error::Error, "an upload is not noted as a sign of life");
        }
    }

    async fn report(&mut self, mut field: Field<'_>) -> Result<(), ApiError> {
        let mut report = vec![];
        while let Some(chunk) = self.chunk(&mut field).await? {
            report.extend_from_slice(&chunk);
            if report.len() as u64 > self.app.limits.json_body {
                return Err(too_large(REPORT, self.app.limits.json_body));
            }
        }
        if self.report.replace(report).is_some() {
            return Err(bad("two parts are named result.json"));
        }
        Ok(())
    }

    async fn file(&mut self, name: &str, mut field: Field<'_>) -> Result<(), ApiError> {
        validate_file_name(name).map_err(|e| bad(e.to_string()))?;
        if self.folder.files().iter().any(|file| file.name == name) {
            return Err(bad(format!("two parts are named {name}")));
        }
        if self.folder.files().len() as u64 >= self.app.limits.upload_files {
            return Err(too_large(
                "the number of files",
                self.app.limits.upload_files,
            ));
        }
        let mut file = self.folder.create(name);
        while let Some(chunk) = self.chunk(&mut field).await? {
            self.folder
                .write(&mut file, &chunk)
                .await
                .map_err(spool_failed)?;
            if file.size() > self.app.limits.upload_file {
                return Err(too_large(name, self.app.limits.upload_file));
            }
        }
        self.app
            .metrics
            .uploaded(if is_log(name) { "logs" } else { "artifacts" }, file.size());
        self.folder.keep(file).await.map_err(spool_failed)
    }

    async fn part(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        if field
            .content_type()
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
        {
            return Err(bad("nested multi-part"));
        }
        let name = field
            .file_name()
            .ok_or_else(|| bad("Part without filename"))?
            .to_owned();
        if name == REPORT {
            self.report(field).await
        } else {
            self.file(&name, field).await
        }
    }

    async fn changes(&self) -> Result<Vec<(String, String)>, ApiError> {
        let mut changes = vec![];
        for file in self
            .folder
            .files()
            .iter()
            .filter(|file| file.name.ends_with(".changes"))
        {
            if file.size > LARGEST_CHANGES {
                return Err(too_large(&file.name, LARGEST_CHANGES));
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

/// Receives a whole upload.
pub async fn receive(
    app: &Arc<AppState>,
    run: &ActiveRun,
    request: Request,
) -> Result<Received, ApiError> {
    let multipart = Multipart::from_request(request, app).await;
    let mut parts = multipart.map_err(|e| {
        bad(format!(
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
    let patience = Duration::from_secs(app.limits.upload_idle_seconds);
    loop {
        let next = timeout(patience, parts.next_field()).await;
        let next = next.map_err(|_| {
            ApiError::problem(StatusCode::REQUEST_TIMEOUT, "the upload has stalled")
        })?;
        let Some(field) =
            next.map_err(|e| bad(format!("the upload is broken: {}", e.body_text())))?
        else {
            break;
        };
        receiver.part(field).await?;
    }
    let changes = receiver.changes().await?;
    let Receiver { folder, report, .. } = receiver;
    let report = report.ok_or_else(|| bad("Missing result JSON"))?;
    Ok(Received {
        upload: Upload {
            report,
            files: folder.files().to_vec(),
            changes,
        },
        _folder: folder,
    })
}
