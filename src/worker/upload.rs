//! Uploads the result of a run. What the runner refuses is uploaded with less, so that every run
//! ends with a result.

use super::{
    WorkerError,
    api::{Api, Assignment},
    artifacts::{Collection, UploadFile, listed},
    folders::Folders,
    log::RunLog,
    report,
};
use serde_json::{Map, Value};

/// The result of a run, and where its files are.
pub(super) struct Upload<'a> {
    /// The client of the runner.
    pub(super) api: &'a Api,
    /// The assignment that has been executed.
    pub(super) assignment: &'a Assignment,
    /// The folders of the run.
    pub(super) folders: &'a Folders,
    /// The log of the run.
    pub(super) log: &'a RunLog,
}

/// Returns the reason why a runner refuses an upload that it may accept with less in it.
fn reason_of_refusal(error: &WorkerError) -> Option<String> {
    match error {
        WorkerError::Refused {
            status: status @ (400 | 413 | 422),
            detail,
            ..
        } => Some(format!(
            "the runner refused the upload ({status}): {detail}"
        )),
        _ => None,
    }
}

impl Upload<'_> {
    async fn finish(
        &self,
        report: &Map<String, Value>,
        files: &[UploadFile],
    ) -> Result<(), WorkerError> {
        self.api.finish(&self.assignment.id, report, files).await
    }

    /// Collects the files of the run, and names in the log those that are renamed or left out.
    fn collect(&self) -> Collection {
        if let Err(error) = self.log.restore() {
            tracing::warn!(run.id = self.assignment.id, %error, "the log of a run is lost");
        }
        let collection = Collection::of_run(self.folders, &self.assignment.campaign);
        for renamed in &collection.renamed {
            self.log.line(&format!("artifact renamed: {renamed}"));
        }
        if collection.left_out.is_empty() && collection.renamed.is_empty() {
            return collection;
        }
        if !collection.left_out.is_empty() {
            let names = listed(&collection.left_out);
            self.log.line(&format!("artifacts left out: {names}"));
        }
        // The size of the log is another now.
        Collection::of_run(self.folders, &self.assignment.campaign)
    }

    /// Uploads the report and all files.
    ///
    /// # Errors
    ///
    /// Returns an error when the runner cannot be reached, or accepts no result of this run at all.
    pub(super) async fn send(&self, report: Map<String, Value>) -> Result<(), WorkerError> {
        let collection = self.collect();
        let report = if collection.left_out.is_empty() {
            report
        } else {
            let names = listed(&collection.left_out);
            report::with_files_left_out(report, &format!("artifacts left out: {names}"))
        };
        let error = match self.finish(&report, &collection.files).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match reason_of_refusal(&error) {
            Some(reason) => self.send_less(report, &reason).await,
            None => Err(error),
        }
    }

    /// Uploads the report of a run with its log only; if that is refused too, less of the report.
    async fn send_less(&self, report: Map<String, Value>, reason: &str) -> Result<(), WorkerError> {
        tracing::warn!(
            run.id = self.assignment.id,
            reason,
            "an upload was refused; sending the report and the log only"
        );
        self.log.line(&format!("artifacts left out: {reason}"));
        let cut = self.folders.all.join("cut.log");
        if let Err(error) = self.log.write_cut(&cut) {
            tracing::warn!(run.id = self.assignment.id, %error, "the log of a run is lost");
        }
        let report = report::with_files_left_out(report, reason);
        let error = match self.finish(&report, &Collection::log_only(cut).files).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match reason_of_refusal(&error) {
            Some(_) => self.finish(&report::essential(&report), &[]).await,
            None => Err(error),
        }
    }
}
