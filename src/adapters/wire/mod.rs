//! The JSON that other programs send and read: used by HTTP, by the events in Redis and by the
//! command line.
//!
//! Names of fields, and whether a field is null or absent, are part of the contract with existing
//! clients. A new type gets a file named after its resource, and its name ends in `Request` or
//! `Response`.

mod active_run;
mod assignment;
mod audit;
mod catalog;
mod explain;
mod keepalive;
mod limits;
mod number;
mod parked;
mod pauses;
mod resume;
mod run;
mod schedule;
mod security;
mod watchdog;
mod workers;

pub use active_run::{ActiveRunResponse, AssignmentRequest, BackchannelRequest, StatusResponse};
pub use assignment::AssignmentResponse;
pub(crate) use audit::AuditEntryResponse;
pub use audit::AuditResponse;
pub use catalog::{
    CandidateRequest, CandidateResponse, CandidatesResponse, CodebaseRequest, CodebaseResponse,
    LineError, LinesResponse,
};
pub use explain::ExplanationResponse;
pub use keepalive::{KeepaliveResponse, SizeResponse};
pub use limits::{LimitRequest, LimitResponse, LimitsResponse};
pub use parked::{ParkedPageResponse, ParkedResponse, UnparkRequest, UnparkedResponse};
pub use pauses::{PauseRequest, PauseResponse, PausesResponse};
pub use resume::{
    ResumeChainResponse, ResumeCheckRequest, ResumeCheckResponse, ResumeDescendantsResponse,
    ResumeValidationResponse,
};
pub use run::{
    BriefRunResponse, FinishResponse, PublishStatusRequest, PublishStatusResponse, ResultResponse,
    RunResponse,
};
pub use schedule::{
    BulkResponse, FinishedResponse, PositionResponse, QueueItemResponse, QueueStatsResponse,
    ScheduleResponse, ScheduleRunRequest,
};
pub use security::SecurityStatsResponse;
pub use watchdog::WatchdogResponse;
pub(crate) use workers::AccountResponse;
pub use workers::{AccountsResponse, NewWorkerRequest, PasswordResponse, WorkersResponse};
