//! Logs of all runs, and the order to stop one.

use super::{
    AppState,
    error::{ApiError, map_not_found},
    extract::{ApiResult, AppPath, AppQuery},
};
use crate::adapters::wire::ActiveRunResponse;
use crate::{
    domain::{log_name::validate_file_name, name::RunId},
    services::{
        ServiceError,
        logs::{LogPart, LogStream},
    },
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use std::{convert::Infallible, sync::Arc};
use utoipa::IntoParams;

/// An event holds at most about so many bytes.
const LONGEST_EVENT: usize = 64 << 10;

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PartQuery {
    /// The first byte wanted.
    offset: Option<u64>,
    /// `1`: go on with what comes, until the run has ended.
    follow: Option<u8>,
}

fn no_current_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    let text = format!("No such current run: {id}");
    move |error| match error {
        ServiceError::NotFound { what: "log", .. } => {
            ApiError::text(StatusCode::NOT_FOUND, "No such log file")
        }
        error => map_not_found(ApiError::text(StatusCode::NOT_FOUND, text))(error).in_text(),
    }
}

/// The names of a run's logs.
#[utoipa::path(get, path = "/log/{run_id}", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = [String]), (status = 404, description = "text"), (status = 501, description = "text: the worker cannot be asked"), (status = 502)))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<Vec<String>> {
    Ok(Json(app.logs.list(&id).await.map_err(no_current_run(&id))?))
}

/// What of the log in server-sent events is left to read, to tell, and where that is.
type Reading = (Option<LogStream>, Vec<u8>, u64);

/// Whole lines of a log, as many as there are, with the offset after them.
fn lines(log: LogStream, offset: u64) -> impl Stream<Item = Result<(Vec<u8>, u64), ServiceError>> {
    stream::unfold(
        (Some(log), vec![], offset),
        |(log, mut held, offset): Reading| async move {
            let mut log = log?;
            loop {
                let ended = match log.next().await {
                    None => true,
                    Some(Ok(bytes)) => {
                        held.extend_from_slice(&bytes);
                        false
                    }
                    Some(Err(error)) => return Some((Err(error), (None, vec![], offset))),
                };
                let line_end = held
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map(|place| place + 1);
                let end = if ended || held.len() > LONGEST_EVENT {
                    held.len()
                } else {
                    line_end.unwrap_or(0)
                };
                if end > 0 {
                    let rest = held.split_off(end);
                    let offset = offset + held.len() as u64;
                    return Some((
                        Ok((held, offset)),
                        (Some(log).filter(|_| !ended), rest, offset),
                    ));
                }
                if ended {
                    return None;
                }
            }
        },
    )
}

fn events(log: LogStream, offset: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    let told = lines(log, offset).map(|part| match part {
        Ok((bytes, offset)) => {
            let text = String::from_utf8_lossy(&bytes).replace('\r', "");
            Event::default()
                .id(offset.to_string())
                .data(text.strip_suffix('\n').unwrap_or(&text))
        }
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a log that somebody follows breaks off"
            );
            Event::default()
                .event("error")
                .data("the log cannot be read on")
        }
    });
    told.chain(stream::once(async {
        Event::default().event("end").data("the run has ended")
    }))
    .map(Ok)
}

fn plain(log: LogStream) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (kind, Body::from_stream(log)).into_response()
}

/// A log: of an active run, what its worker sent or shows; the stored one after it, under the same URL. With `Accept: text/event-stream`,
/// events of whole lines, whose id is the offset after them, and one named `end`.
#[utoipa::path(get, path = "/log/{run_id}/{name}", tag = "runs", params(("run_id" = String, Path), ("name" = String, Path), PartQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400, description = "text"), (status = 404, description = "text"), (status = 501, description = "text"), (status = 502)))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    AppPath((id, name)): AppPath<(RunId, String)>,
    AppQuery(query): AppQuery<PartQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    validate_file_name(&name)
        .map_err(|e| ApiError::text(StatusCode::BAD_REQUEST, e.to_string()))?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let as_events = header("accept").is_some_and(|accept| accept.contains("text/event-stream"));
    // A browser that lost its connection says where it was.
    let offset = header("last-event-id")
        .and_then(|id| id.parse().ok())
        .or(query.offset)
        .unwrap_or(0);
    let part = LogPart {
        offset,
        follow: query.follow.is_some_and(|follow| follow != 0),
    };
    let log = app
        .logs
        .open(&id, &name, part)
        .await
        .map_err(no_current_run(&id))?;
    Ok(match as_events {
        true => Sse::new(events(log, offset))
            .keep_alive(KeepAlive::default())
            .into_response(),
        false => plain(log),
    })
}

/// Says that an active run is to stop. Its claim is marked, which its worker is told with its next keepalive, and by its backchannel at once.
#[utoipa::path(post, path = "/kill/{run_id}", tag = "active runs", params(("run_id" = String, Path)),
    responses((status = 200, body = ActiveRunResponse), (status = 404, description = "text"),
        (status = 501, description = "text: its worker cannot be told; the claim is marked all the same"), (status = 502, description = "its worker was not reached; the claim is marked all the same")))]
pub async fn kill(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<ActiveRunResponse> {
    let run = app.logs.kill(&id).await.map_err(no_current_run(&id))?;
    Ok(Json(ActiveRunResponse::new(&run, app.clock.now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_whole_lines_and_what_is_left_at_the_end() {
        let parts = ["one\ntw", "o\nthree\nfo", "ur"].map(|part| Ok(bytes::Bytes::from(part)));
        let told: Vec<_> = lines(stream::iter(parts).boxed(), 10)
            .map(Result::unwrap)
            .collect()
            .await;
        let told: Vec<_> = told
            .iter()
            .map(|(bytes, offset)| (std::str::from_utf8(bytes).unwrap(), *offset))
            .collect();
        assert_eq!(told, [("one\n", 14), ("two\nthree\n", 24), ("four", 28)]);
    }
}
