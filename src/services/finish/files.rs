//! The files of an upload: which there are, and storing them.

use super::{Finisher, Upload};
use crate::{
    domain::{
        Invalid, changes,
        finish::{ARTIFACT_UPLOAD_FAILED, UploadedFiles, failed},
        log_name::is_log,
        run::Run,
    },
    ports::{Fault, SpooledFile, log_store::LogFolder},
};
use serde_json::Value;
use std::collections::HashSet;

/// Returns the names of the uploaded files by kind, and what is wrong with the `.changes` files.
pub(super) fn described(upload: &Upload) -> (UploadedFiles, Option<Invalid>) {
    let (files, changes) = (&upload.files, &upload.changes);
    let names = |logs: bool| {
        files
            .iter()
            .filter(|f| is_log(&f.name) == logs)
            .map(|f| f.name.clone())
            .collect()
    };
    let read: Result<Vec<_>, _> = changes
        .iter()
        .map(|(name, text)| Ok((name.clone(), changes::read(name, text)?)))
        .collect();
    let merged = read.and_then(|read| changes::merge(&read));
    let described = UploadedFiles {
        logs: names(true),
        others: names(false),
        all: files.iter().map(|f| f.name.clone()).collect(),
        changes: merged.clone().ok().flatten(),
        changes_filenames: changes.iter().map(|(name, _)| name.clone()).collect(),
        left_out: upload.left_out.clone(),
        notes: upload.notes.clone(),
        refused: upload.refused.clone(),
    };
    (described, merged.err())
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
    /// uploaded `files`; returns their names.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`] when they cannot be read now: the worker uploads again. Logs that
    /// cannot be read for another reason are left out, so that the result is not lost with them.
    pub(super) async fn store_missing_logs(
        &self,
        run: &Run,
        files: &[SpooledFile],
    ) -> Result<Vec<String>, Fault> {
        let uploaded: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let stored = self
            .live_log
            .collect(&run.id, &uploaded, async |missing| {
                let names: Vec<String> = missing.iter().map(|file| file.name.clone()).collect();
                if names.is_empty() {
                    return names;
                }
                let run = Run {
                    logfilenames: names.clone(),
                    ..run.clone()
                };
                // A failure is logged where it happens.
                let stored = self.store_logs(&run, &missing).await;
                stored.map_or_else(|_| vec![], |()| names)
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
    pub(super) async fn with_live_logs(&self, run: Run, files: Vec<SpooledFile>) -> Run {
        let logfilenames: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        let log_bytes: u64 = files.iter().map(|file| file.size).sum();
        let mut run = run;
        if let Some(Value::Object(details)) = &mut run.failure_details {
            details.insert("log_bytes".to_owned(), log_bytes.into());
        }
        let run = Run {
            filenames: logfilenames.clone(),
            logfilenames,
            ..run
        };
        let stored = if files.is_empty() {
            Ok(())
        } else {
            self.store_logs(&run, &files).await
        };
        with_stored(run, stored, Ok(()))
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
