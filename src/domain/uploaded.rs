//! The files of an upload, and which of them are the artifacts of its build target.

use super::{
    Invalid,
    changes::Changes,
    report::ReportTarget,
    run::{DebianPackage, Target},
};
use std::collections::HashSet;

/// The names of the uploaded files, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadedFiles {
    /// The logs.
    pub logs: Vec<String>,
    /// The bytes of the logs.
    pub log_bytes: u64,
    /// The files that are not logs.
    pub others: Vec<String>,
    /// All files, in the order of the upload.
    pub all: Vec<String>,
    /// The contents of the `.changes` files, merged.
    pub changes: Option<Changes>,
    /// The names of the `.changes` files.
    pub changes_filenames: Vec<String>,
    /// The artifacts that were not accepted, each with the reason.
    pub left_out: Vec<Invalid>,
    /// The `.changes` files that are too large to be read, each with the reason. Only a build for
    /// Debian needs them.
    pub unread_changes: Vec<Invalid>,
    /// What was changed of the names and contents of the files.
    pub notes: Vec<Invalid>,
    /// Why the rest of the upload was refused, if it was.
    pub refused: Option<Invalid>,
}

/// What a report and its files say about the build target.
#[derive(Default)]
pub(super) struct TargetOutcome {
    /// What was built.
    pub(super) target: Option<Target>,
    /// The artifacts to keep.
    pub(super) artifacts: Option<Vec<String>>,
    /// Why the target is not supported.
    pub(super) unsupported: Option<String>,
    /// The rule that the files break.
    pub(super) problem: Option<Invalid>,
}

/// Returns what a report and its files say about the build target.
pub(super) fn resolve_target(
    target: Option<&ReportTarget>,
    files: &UploadedFiles,
) -> TargetOutcome {
    let Some(target) = target else {
        return TargetOutcome::default();
    };
    match target.name.as_str() {
        "generic" => TargetOutcome {
            target: Some(Target::Generic {
                details: target.details.clone(),
            }),
            artifacts: Some(files.others.clone()),
            ..TargetOutcome::default()
        },
        "debian" => debian(target, files),
        other => TargetOutcome {
            unsupported: Some(format!(
                "the runner does not accept results for the target {other:?}"
            )),
            ..TargetOutcome::default()
        },
    }
}

fn debian(target: &ReportTarget, files: &UploadedFiles) -> TargetOutcome {
    let Some(changes) = &files.changes else {
        return TargetOutcome {
            artifacts: Some(vec![]),
            ..TargetOutcome::default()
        };
    };
    let others: HashSet<&String> = files.others.iter().collect();
    let is_here = |file: &&String| others.contains(*file);
    let missing = changes.files.iter().find(|file| !is_here(file));
    // A file that was left out is missing for a reason that is known.
    let missing = missing.filter(|_| files.left_out.is_empty() && files.unread_changes.is_empty());
    if let Some(missing) = missing {
        return TargetOutcome {
            problem: Some(Invalid::new(
                "target",
                format!(".changes lists {missing:?}, which was not uploaded"),
            )),
            ..TargetOutcome::default()
        };
    }
    let lintian = target
        .details
        .get("lintian")
        .filter(|l| !l.is_null())
        .cloned();
    let package = DebianPackage {
        source: changes.source.clone(),
        version: changes.version.clone(),
        distribution: changes.distribution.clone(),
        changes_filenames: files.changes_filenames.clone(),
        binary_packages: changes.binary_packages.clone(),
        lintian,
    };
    let artifacts = changes
        .files
        .iter()
        .chain(&files.changes_filenames)
        .filter(is_here)
        .cloned()
        .collect();
    TargetOutcome {
        target: Some(Target::Debian(package)),
        artifacts: Some(artifacts),
        ..TargetOutcome::default()
    }
}
