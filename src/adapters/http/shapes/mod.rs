//! The JSON that others send and read. Field names, null or absent, are part of the contract with existing clients.

mod active_run;
mod assignment;
mod catalog;
mod restraint;
mod run;
mod schedule;

pub use active_run::{ActiveRunShape, AssignBody, BackchannelBody, StatusShape, WatchdogShape};
pub use assignment::AssignmentShape;
pub use catalog::{
    CandidateShape, CandidateUploadBody, CandidatesUploaded, CodebaseBody, CodebaseShape,
};
pub use restraint::{
    ExplanationShape, LimitBody, LimitShape, LimitsShape, ParkedPageShape, ParkedShape, PauseBody,
    PauseShape, PausesShape, ReleaseBody, ReleasedShape,
};
pub use run::{FinishShape, PublishStatusShape, ResultShape, RunShape};
pub use schedule::{
    BulkShape, FinishedShape, PositionShape, QueueItemShape, QueueStatsShape, ScheduleBody,
    ScheduleShape,
};
