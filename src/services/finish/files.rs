//! The files of an upload: which there are, and storing them.

use super::{Finisher, Upload};
use crate::{
    domain::{
        Invalid,
        finish::{ARTIFACT_UPLOAD_FAILED, UploadedFiles, failed},
        log_name::is_log,
        run::Run,
    },
    ports::{Fault, SpooledFile, artifact_store::Content, log_store::LogFolder},
};
use bytes::Bytes;
use serde_json::Value;
use std::collections::HashSet;
use tokio::io::AsyncReadExt;

/// Returns the names of the uploaded files by kind, and what is wrong with the `.changes` files.
pub(super) fn described(upload: &Upload) -> (UploadedFiles, Option<Invalid>) {
    let files = &upload.files;
    let names = |logs: bool| {
        files
            .iter()
            .filter(|f| is_log(&f.name) == logs)
            .map(|f| f.name.clone())
            .collect()
    };
    let logs = files.iter().filter(|file| is_log(&file.name));
    let described = UploadedFiles {
        log_bytes: logs.map(|file| file.size).sum(),
        logs: names(true),
        others: names(false),
        all: files.iter().map(|f| f.name.clone()).collect(),
        changes: upload.changes.clone().ok().flatten(),
        changes_filenames: upload.changes_filenames.clone(),
        left_out: upload.left_out.clone(),
        unread_changes: upload.unread_changes.clone(),
        notes: upload.notes.clone(),
        refused: upload.refused.clone(),
    };
    (described, upload.changes.clone().err())
}

/// Returns the files of these names.
fn selected<'a>(files: &'a [SpooledFile], names: &'a [String]) -> Vec<SpooledFile> {
    let names: HashSet<&String> = names.iter().collect();
    files
        .iter()
        .filter(|file| names.contains(&file.name))
        .cloned()
        .collect()
}

impl Finisher {
    pub(super) async fn store_logs(&self, run: &Run, files: &[SpooledFile]) -> Result<(), Fault> {
        let logs = selected(files, &run.logfilenames);
        let folder = LogFolder {
            codebase: run.codebase.clone(),
            run: run.id.clone(),
        };
        let stored = self.logs.store(&folder, &logs, run.finish_time).await;
        match &stored {
            Ok(()) => self.metrics.logs_stored(logs.len()),
            Err(error) => {
                self.metrics.logs_not_stored();
                tracing::error!(
                    run.id = %run.id,
                    error = error as &dyn std::error::Error,
                    "the logs of a run are lost"
                );
            }
        }
        stored
    }

    pub(super) async fn store_artifacts(
        &self,
        run: &Run,
        files: &[SpooledFile],
    ) -> Result<(), Fault> {
        let artifacts = selected(files, run.artifacts.as_deref().unwrap_or_default());
        let stored = self.artifacts.store(&run.id, &artifacts).await;
        if let Err(error) = &stored {
            self.metrics.artifacts_not_stored();
            tracing::error!(
                run.id = %run.id,
                error = error as &dyn std::error::Error,
                "the artifacts of a run are lost"
            );
        }
        stored
    }

    /// Stores the logs that the worker sent while the run was active and that are not among the
    /// uploaded `files`; returns them.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`] when they cannot be read now: the worker uploads again. Logs that
    /// cannot be read for another reason are left out, so that the result is not lost with them.
    pub(super) async fn store_missing_logs(
        &self,
        run: &Run,
        files: &[SpooledFile],
    ) -> Result<Vec<SpooledFile>, Fault> {
        let uploaded: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let stored = self
            .live_log
            .collect(&run.id, &uploaded, async |missing| {
                if missing.is_empty() {
                    return vec![];
                }
                let run = Run {
                    logfilenames: missing.iter().map(|file| file.name.clone()).collect(),
                    ..run.clone()
                };
                // A failure is logged where it happens.
                let stored = self.store_logs(&run, &missing).await;
                stored.map_or_else(|_| vec![], |()| without_content(missing))
            })
            .await;
        match stored {
            Err(error) if !error.is_unavailable() => {
                tracing::error!(
                    run.id = %run.id,
                    error = &error as &dyn std::error::Error,
                    "the logs that a worker sent while its run was active cannot be read"
                );
                Ok(vec![])
            }
            stored => stored,
        }
    }

    /// Returns the run with the logs that its worker sent while it was active, stored.
    pub(super) async fn with_live_logs(&self, mut run: Run, files: Vec<SpooledFile>) -> Run {
        add_log_bytes(&mut run, files.iter().map(|file| file.size).sum());
        let logfilenames: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        let run = Run {
            filenames: logfilenames.clone(),
            logfilenames,
            ..run
        };
        let mut missing = vec![];
        for file in files {
            if !self.has_as_much_of(&run, &file).await {
                missing.push(file);
            }
        }
        let stored = if missing.is_empty() {
            Ok(())
        } else {
            self.store_logs(&run, &missing).await
        };
        with_stored(run, stored, Ok(()))
    }

    /// Returns whether the log store has a log, no shorter than `file`.
    ///
    /// It has when an upload was cut off after its logs, or is being stored by another runner.
    async fn has_as_much_of(&self, run: &Run, file: &SpooledFile) -> bool {
        let folder = LogFolder {
            codebase: run.codebase.clone(),
            run: run.id.clone(),
        };
        // One that cannot be read now is stored again.
        let Ok(Some(stored)) = self.logs.open(&folder, &file.name).await else {
            return false;
        };
        let size = tokio::io::copy(&mut stored.take(file.size), &mut tokio::io::sink()).await;
        size.is_ok_and(|size| size == file.size)
    }
}

/// Returns names and sizes only; what is in memory is freed.
fn without_content(files: Vec<SpooledFile>) -> Vec<SpooledFile> {
    let content = Content::Memory(Bytes::new());
    let without = |file| SpooledFile {
        content: content.clone(),
        ..file
    };
    files.into_iter().map(without).collect()
}

/// Adds to the bytes of logs among the failure details of a run that did not end by itself.
pub(super) fn add_log_bytes(run: &mut Run, bytes: u64) {
    if let Some(Value::Object(details)) = &mut run.failure_details
        && let Some(known) = details.get("log_bytes").and_then(Value::as_u64)
    {
        details.insert("log_bytes".to_owned(), known.saturating_add(bytes).into());
    }
}

/// Returns the run without the files that could not be stored.
pub(super) fn with_stored(
    mut run: Run,
    logs: Result<(), Fault>,
    artifacts: Result<(), Fault>,
) -> Run {
    if logs.is_err() {
        run.logfilenames.clear();
    }
    match artifacts {
        Ok(()) => run,
        Err(fault) => {
            let why = format!("the artifacts could not be stored: {}", cause(&fault));
            Run {
                artifacts: Some(vec![]),
                ..failed(run, ARTIFACT_UPLOAD_FAILED, why)
            }
        }
    }
}

/// Returns the message of what caused a fault, in which the fault's own action would only repeat.
fn cause(fault: &Fault) -> String {
    std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string)
}
