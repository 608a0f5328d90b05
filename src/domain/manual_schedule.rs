//! Manual schedules: runs that somebody asked for, including control runs.

use super::{
    queue::{Bucket, EnqueueRequest, QueueKey},
    schedule::MeanDurations,
};

/// The offset of a run that somebody asked for.
pub const MANUAL_OFFSET: f64 = -1.0;

/// A run that somebody asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ManualSchedule {
    /// What is to be run.
    pub key: QueueKey,
    /// The bucket; `None` means the default of the kind of run.
    pub bucket: Option<Bucket>,
    /// The offset; `None` means [`MANUAL_OFFSET`].
    pub offset: Option<f64>,
    /// Whether the run starts afresh rather than resumes an earlier one.
    pub refresh: bool,
    /// Who asked for it.
    pub requester: Option<String>,
    /// The estimated duration, in seconds; `None` means [`MeanDurations::estimate`].
    pub estimated_duration: Option<f64>,
}

impl ManualSchedule {
    /// Returns the request to enqueue `command`, with the defaults filled in.
    pub fn enqueue(
        self,
        command: String,
        context: Option<String>,
        default_bucket: Bucket,
        means: MeanDurations,
    ) -> EnqueueRequest {
        EnqueueRequest {
            key: self.key,
            bucket: self.bucket.unwrap_or(default_bucket),
            offset: self.offset.unwrap_or(MANUAL_OFFSET),
            command,
            context,
            estimated_duration: Some(self.estimated_duration.unwrap_or_else(|| means.estimate())),
            refresh: self.refresh,
            requester: self.requester,
            interval: None,
        }
    }
}

/// Returns the command of a control run, which brings the unchanged branch to `revision`; `None`
/// when no shell can quote the revision.
pub fn control_command(revision: &str) -> Option<String> {
    let quoted = shlex::try_quote(revision).ok()?;
    Some(format!("brz up --revision={quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_command_quotes_the_revision() {
        assert_eq!(control_command("rev1").unwrap(), "brz up --revision=rev1");
        assert_eq!(
            control_command("rev 1").unwrap(),
            "brz up --revision='rev 1'"
        );
        assert_eq!(control_command("a\0b"), None);
    }
}
