//! The JSON that others send and read. Field names, null or absent, are part of the contract with existing clients.

mod account;
mod active_run;
mod assignment;
mod catalog;
mod restraint;
mod run;
mod schedule;

pub(crate) use account::AccountResponse;
pub use account::{AccountsResponse, NewWorkerRequest, PasswordResponse};
pub use active_run::{
    ActiveRunResponse, AssignmentRequest, BackchannelRequest, StatusResponse, WatchdogResponse,
};
pub use assignment::AssignmentResponse;
pub use catalog::{
    CandidateRequest, CandidateResponse, CandidatesResponse, CodebaseRequest, CodebaseResponse,
};
pub use restraint::{
    ExplanationResponse, LimitRequest, LimitResponse, LimitsResponse, ParkedPageResponse,
    ParkedResponse, PauseRequest, PauseResponse, PausesResponse, UnparkRequest, UnparkedResponse,
};
pub use run::{FinishResponse, PublishStatusResponse, ResultResponse, RunResponse};
pub use schedule::{
    BulkResponse, FinishedResponse, PositionResponse, QueueItemResponse, QueueStatsResponse,
    ScheduleResponse, ScheduleRunRequest,
};
