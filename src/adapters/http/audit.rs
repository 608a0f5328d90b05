//! The audit log: every change through the admin API is recorded, and the records are listed.
//!
//! A handler returns its changes beside its response, in [`Audited`]; [`record`] takes them from
//! there, so that a handler knows neither who calls nor the log.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppQuery},
    page::page_size,
};
use crate::{
    adapters::wire::AuditResponse,
    domain::{
        access::Access,
        audit::{Action, Actor, AuditFilter, Change},
        time,
    },
    ports::audit_log::AuditQuery,
};
use axum::{
    Json,
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use tower_http::request_id::RequestId;
use utoipa::IntoParams;

/// The changes that a response is about.
#[derive(Debug, Clone)]
struct Changes(Vec<Change>);

/// A response with the changes that it is about. A request that has changed nothing has none.
pub struct Audited<R>(pub R, pub Vec<Change>);

impl<R: IntoResponse> IntoResponse for Audited<R> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(Changes(self.1));
        response
    }
}

/// The response of a handler that changes something.
pub type AuditedResult<T> = Result<Audited<Json<T>>, ApiError>;

/// Returns who makes a request; the guard has added that to it.
fn actor(request: &Request) -> Option<Actor> {
    let extensions = request.extensions();
    let id = extensions
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok());
    let access = extensions.get::<Access>()?;
    Some(Actor {
        who: access.who().to_owned(),
        address: access.address.clone(),
        request_id: id.map(str::to_owned),
    })
}

/// Takes the changes out of a response. A request that succeeds without saying what it has changed
/// is a defect of its handler.
fn changes_of(response: &mut Response, path: &str) -> Vec<Change> {
    if let Some(Changes(changes)) = response.extensions_mut().remove::<Changes>() {
        return changes;
    }
    if response.status().is_success() {
        tracing::error!(http.path = path, "a change has no entry in the audit log");
    }
    vec![]
}

/// Records the changes of a request once they are made.
///
/// The request goes on in its own task: a client that disconnects would otherwise leave a change
/// without a record.
pub async fn record(State(app): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let Some(actor) = actor(&request) else {
        return ApiError::defect().into_response();
    };
    let span = tracing::Span::current();
    let work = tracing::Instrument::instrument(
        async move {
            let path = request.uri().path().to_owned();
            let mut response = next.run(request).await;
            let changes = changes_of(&mut response, &path);
            if !changes.is_empty() {
                app.audit.record(&actor, changes).await;
            }
            response
        },
        span,
    );
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| ApiError::defect().into_response())
}

/// Selects entries of the audit log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditListQuery {
    /// Who made the change: the name of a token or user.
    who: Option<String>,
    /// What was done, such as `worker.add`.
    action: Option<String>,
    /// The name of what was changed.
    object: Option<String>,
    /// The earliest time, in UTC.
    since: Option<String>,
    /// The time before which the change was made, in UTC.
    until: Option<String>,
    /// The maximum number of entries: 1 to 1000, 100 when absent.
    limit: Option<usize>,
    /// The field `next` of the page before.
    cursor: Option<i64>,
}

impl AuditListQuery {
    fn query(self) -> Result<AuditQuery, ApiError> {
        let time = |field: &str, text: Option<String>| {
            text.map(|text| time::parse(field, &text)).transpose()
        };
        let action = self
            .action
            .map(|name| name.parse::<Action>())
            .transpose()?
            .map(|action| action.to_string());
        Ok(AuditQuery {
            filter: AuditFilter {
                who: self.who,
                action,
                object: self.object,
                since: time("since", self.since)?,
                until: time("until", self.until)?,
            },
            before: self.cursor,
            limit: page_size(self.limit),
        })
    }
}

/// Lists who changed what, latest first.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "admin",
    params(AuditListQuery),
    responses((status = 200, body = AuditResponse), (status = 422))
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<AuditListQuery>,
) -> ApiResult<AuditResponse> {
    Ok(Json(app.audit.entries(query.query()?).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Role;
    use axum::{body::Body, http::StatusCode};

    fn request() -> Request {
        Request::new(Body::empty())
    }

    #[test]
    fn actor_is_the_holder_and_address_of_the_request() {
        assert!(actor(&request()).is_none());
        let mut request = request();
        request.extensions_mut().insert(Access {
            token: Some("anna".to_owned()),
            role: Role::Operator,
            address: Some("192.0.2.1".to_owned()),
        });
        let actor = actor(&request).unwrap();
        assert_eq!(actor.who, "anna");
        assert_eq!(actor.address.as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn changes_are_taken_out_of_the_response() {
        let change = Change::new(Action::KillRun, "r");
        let mut response = Audited(StatusCode::OK, vec![change.clone()]).into_response();
        assert_eq!(changes_of(&mut response, "/"), [change]);
        assert!(response.extensions().get::<Changes>().is_none());
    }
}
