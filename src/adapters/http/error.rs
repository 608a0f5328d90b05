//! The mapping of failures to responses; no other file maps one to a status.

use super::observe::IsException;
use crate::{
    domain::{Invalid, redact::redact_start},
    ports::Fault,
    ports::fault::ErrorChain,
    services::ServiceError,
};
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// `Retry-After` for failures that may be over soon, in seconds.
const RETRY_AFTER: u64 = 2;
/// The maximum size of the text that says what is wrong, in bytes: it may repeat what was sent.
const MAX_DETAIL: usize = 4 << 10;

/// The format in which an endpoint returns failures.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Style {
    /// RFC 9457: endpoints of our own, and cases in which the Python runner crashes.
    Problem,
    /// Plain text, as the Python runner's endpoints do.
    Text,
    /// `{"reason": …}`, as other endpoints of the Python runner do.
    Reason,
}

/// A failure as it is returned to a client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    style: Style,
    headers: Vec<(HeaderName, String)>,
    fields: Map<String, Value>,
    /// Whether the runner is at fault, or a store, rather than the request.
    is_exception: bool,
}

impl ApiError {
    /// Creates a problem of that status.
    pub fn problem(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            style: Style::Problem,
            headers: vec![],
            fields: Map::new(),
            is_exception: false,
        }
    }

    /// Creates a failure of that status as plain text.
    pub fn text(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            style: Style::Text,
            ..Self::problem(status, detail)
        }
    }

    /// Creates a failure of that status as `{"reason": …}`.
    pub fn reason(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            style: Style::Reason,
            ..Self::problem(status, detail)
        }
    }

    /// Creates the response to a defect of the runner, whose details are only logged.
    pub fn defect() -> Self {
        let defect = Self::problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the runner has a defect; its log says more",
        );
        defect.into_exception()
    }

    /// Marks the failure as one of the runner or a store, for the metrics.
    fn into_exception(self) -> Self {
        Self {
            is_exception: true,
            ..self
        }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Adds a field to the problem.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// Returns whether the request is at fault.
    pub fn is_of_caller(&self) -> bool {
        self.status.is_client_error()
    }

    /// Returns what is wrong.
    pub fn into_detail(self) -> String {
        self.detail
    }

    /// Returns the failure as plain text.
    pub fn in_text(self) -> Self {
        Self {
            style: Style::Text,
            ..self
        }
    }
}

/// Maps `NotFound` to `response`, and every other failure as usual.
pub fn map_not_found(response: ApiError) -> impl FnOnce(ServiceError) -> ApiError {
    move |error| {
        if matches!(error, ServiceError::NotFound { .. }) {
            response
        } else {
            error.into()
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match error {
            ServiceError::NotFound { .. } => Self::problem(StatusCode::NOT_FOUND, detail),
            ServiceError::Invalid(invalid) => invalid.into(),
            ServiceError::NoCommand => Self::text(StatusCode::BAD_REQUEST, detail),
            ServiceError::QueueEmpty | ServiceError::WorkerPaused(_) => {
                Self::reason(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
            ServiceError::RateLimited(_) => Self::reason(StatusCode::TOO_MANY_REQUESTS, detail),
            ServiceError::TooManyOfWorker(_) => Self::reason(StatusCode::TOO_MANY_REQUESTS, detail)
                .with_header(header::RETRY_AFTER, RETRY_AFTER),
            ServiceError::NotYours(id) => {
                Self::problem(StatusCode::FORBIDDEN, detail).with("run_id", id.to_string())
            }
            ServiceError::Gone { run, stop } => Self::problem(StatusCode::GONE, detail)
                .with("run_id", run.to_string())
                .with("stop", stop),
            ServiceError::Gap(size) => {
                let range = format!("bytes */{size}");
                Self::problem(StatusCode::RANGE_NOT_SATISFIABLE, detail)
                    .with("size", size)
                    .with_header(header::CONTENT_RANGE, range)
            }
            ServiceError::TooLarge { .. } => Self::problem(StatusCode::PAYLOAD_TOO_LARGE, detail),
            ServiceError::Stopping => Self::reason(StatusCode::SERVICE_UNAVAILABLE, detail)
                .with_header(header::RETRY_AFTER, RETRY_AFTER),
            ServiceError::Conflict(_) => Self::problem(StatusCode::CONFLICT, detail),
            ServiceError::Unsupported(_) => Self::text(StatusCode::NOT_IMPLEMENTED, detail),
            ServiceError::WorkerUnreachable(_) => Self::problem(StatusCode::BAD_GATEWAY, detail),
            ServiceError::Fault(fault) => fault.into(),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::problem(StatusCode::UNPROCESSABLE_ENTITY, invalid.to_string())
            .with("field", invalid.field)
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        tracing::error!(error = %ErrorChain(&fault), "a request failed");
        // Only the action is returned: causes may name hosts and paths, and are for the log.
        let detail = fault.to_string();
        let failure = if fault.is_unavailable() {
            Self::problem(StatusCode::SERVICE_UNAVAILABLE, detail)
                .with_header(header::RETRY_AFTER, RETRY_AFTER)
        } else {
            Self::problem(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        failure.into_exception()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = redact_start(&self.detail, MAX_DETAIL);
        let mut response = match self.style {
            Style::Text => (self.status, detail).into_response(),
            Style::Reason => (self.status, Json(json!({ "reason": detail }))).into_response(),
            Style::Problem => {
                let mut problem = self.fields;
                problem.insert("type".into(), "about:blank".into());
                problem.insert(
                    "title".into(),
                    self.status.canonical_reason().unwrap_or("Error").into(),
                );
                problem.insert("status".into(), self.status.as_u16().into());
                problem.insert("detail".into(), detail.into());
                let kind = (header::CONTENT_TYPE, "application/problem+json");
                (self.status, [kind], Value::Object(problem).to_string()).into_response()
            }
        };
        if self.is_exception {
            response.extensions_mut().insert(IsException);
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
