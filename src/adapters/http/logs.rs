//! Logs of active and finished runs.

use super::{
    AppState,
    error::{ApiError, map_not_found},
    extract::{ApiResult, AppPath, AppQuery},
};
use crate::{
    domain::{log_name::validate_file_name, name::RunId},
    services::{
        ServiceError,
        logs::{LogPart, LogStream, READABLE_LOG},
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

/// A line that is longer is split over several events.
const MAX_EVENT_SIZE: usize = 64 << 10;

/// Selects a part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PartQuery {
    /// The first byte to return.
    offset: Option<u64>,
    /// `1`: go on with what is appended, until the run has ended.
    follow: Option<u8>,
}

/// Maps failures to those of the Python runner, which are text.
pub fn no_current_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    let text = format!("No such current run: {id}");
    move |error| match error {
        ServiceError::NotFound { what: "log", .. } => {
            ApiError::text(StatusCode::NOT_FOUND, "No such log file")
        }
        ServiceError::NotFound {
            what: READABLE_LOG, ..
        } => ApiError::text(
            StatusCode::NOT_FOUND,
            "No such log file, or the store of logs does not allow to read it",
        ),
        // Pages that show logs do not look at the status: the body must not pass for a list.
        ServiceError::WorkerUnreachable(why) => ApiError::text(StatusCode::GATEWAY_TIMEOUT, why),
        error => map_not_found(ApiError::text(StatusCode::NOT_FOUND, text))(error).in_text(),
    }
}

/// Lists the names of a run's logs.
#[utoipa::path(
    get,
    path = "/log/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path)),
    responses(
        (status = 200, body = [String]),
        (status = 404, description = "text"),
        (status = 501, description = "text: the worker cannot be asked"),
        (status = 504, description = "text: the worker does not respond"),
    )
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<Vec<String>> {
    Ok(Json(app.logs.list(&id).await.map_err(no_current_run(&id))?))
}

/// Returns how many of these bytes of a log make an event: the whole lines among them. Of a line
/// that is longer than an event, it is as many whole characters as fit.
fn event_end(bytes: &[u8]) -> usize {
    if let Some(line_end) = bytes.iter().rposition(|byte| *byte == b'\n') {
        return line_end + 1;
    }
    if bytes.len() <= MAX_EVENT_SIZE {
        return 0;
    }
    // A character has at most four bytes, and the others begin with the bits 10.
    let begins_character = |end: &usize| bytes.get(*end).is_none_or(|byte| byte & 0xC0 != 0x80);
    (MAX_EVENT_SIZE - 3..=MAX_EVENT_SIZE)
        .rev()
        .find(begins_character)
        .unwrap_or(MAX_EVENT_SIZE)
}

/// The state of [`lines`]: the log that is left to read, the bytes that were read and not returned
/// yet, and their offset.
type Unread = (Option<LogStream>, Vec<u8>, u64);

/// Splits a log into pieces of whole lines, as many as there are at a time, each with the offset
/// after it.
///
/// Clients resume at such an offset, so that it must not lie within a line or a character.
fn lines(log: LogStream, offset: u64) -> impl Stream<Item = Result<(Vec<u8>, u64), ServiceError>> {
    stream::unfold(
        (Some(log), vec![], offset),
        |(log, mut buffer, offset): Unread| async move {
            let mut log = log?;
            loop {
                let end = event_end(&buffer);
                if end > 0 {
                    let rest = buffer.split_off(end);
                    let offset = offset + buffer.len() as u64;
                    return Some((Ok((buffer, offset)), (Some(log), rest, offset)));
                }
                match log.next().await {
                    Some(Ok(bytes)) => buffer.extend_from_slice(&bytes),
                    Some(Err(error)) => return Some((Err(error), (None, vec![], offset))),
                    None if buffer.is_empty() => return None,
                    None => {
                        let offset = offset + buffer.len() as u64;
                        return Some((Ok((buffer, offset)), (None, vec![], offset)));
                    }
                }
            }
        },
    )
}

/// Returns a log as server-sent events, whose ids are the offsets after them.
///
/// The last one is `end` if the run has ended by then, otherwise `active`: more may come, which a
/// client gets by asking again from the last id on.
fn events(
    log: LogStream,
    offset: u64,
    has_ended: impl Future<Output = bool> + Send,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let parts = lines(log, offset).map(|part| match part {
        Ok((bytes, offset)) => {
            let text = String::from_utf8_lossy(&bytes).replace('\r', "");
            Event::default()
                .id(offset.to_string())
                .data(text.strip_suffix('\n').unwrap_or(&text))
        }
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a log that a client follows breaks off"
            );
            Event::default()
                .event("error")
                .data("the log cannot be read on")
        }
    });
    parts
        .chain(stream::once(async {
            match has_ended.await {
                true => Event::default().event("end").data("the run has ended"),
                false => Event::default().event("active").data("the run is active"),
            }
        }))
        .map(Ok)
}

/// Returns a log as plain text.
fn plain(log: LogStream) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(log)).into_response()
}

/// Returns a log.
///
/// Of an active run it is what its worker has sent so far, or returns when it is asked; of a
/// finished run it is the stored log. With `Accept: text/event-stream`, returns events of whole
/// lines, whose ids are the offsets after them, and a last one named `end` if the run has ended, or
/// `active` while more may come.
#[utoipa::path(
    get,
    path = "/log/{run_id}/{name}",
    tag = "runs",
    params(("run_id" = String, Path), ("name" = String, Path), PartQuery),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 400, description = "text"),
        (status = 404, description = "text"),
        (status = 501, description = "text"),
        (status = 504, description = "text: the worker does not respond"),
    )
)]
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
    // A browser that reconnects sends the id of the last event, which is the offset to resume at.
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
        true => {
            let logs = app.logs.clone();
            let has_ended = async move { logs.has_ended(&id).await };
            Sse::new(events(log, offset, has_ended))
                .keep_alive(KeepAlive::default())
                .into_response()
        }
        false => plain(log),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_whole_lines_and_the_rest_at_the_end() {
        let parts = ["one\ntw", "o\nthree\nfo", "ur"].map(|part| Ok(bytes::Bytes::from(part)));
        let pieces: Vec<_> = lines(stream::iter(parts).boxed(), 10)
            .map(Result::unwrap)
            .collect()
            .await;
        let pieces: Vec<_> = pieces
            .iter()
            .map(|(bytes, offset)| (std::str::from_utf8(bytes).unwrap(), *offset))
            .collect();
        assert_eq!(pieces, [("one\n", 14), ("two\nthree\n", 24), ("four", 28)]);
    }

    /// Returns the events of a log that comes in chunks of 64 KiB, as the readers of stores give it.
    async fn events_of(log: &str) -> Vec<(String, u64)> {
        let chunks: Vec<_> = log
            .as_bytes()
            .chunks(64 << 10)
            .map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk)))
            .collect();
        lines(stream::iter(chunks).boxed(), 0)
            .map(Result::unwrap)
            .map(|(bytes, offset)| (String::from_utf8(bytes).unwrap(), offset))
            .collect()
            .await
    }

    #[tokio::test]
    async fn events_of_a_large_log_are_whole_lines() {
        let log = format!("{}\n", "ä".repeat(50)).repeat(2000);
        let events = events_of(&log).await;
        assert!(events.len() > 2, "{}", events.len());
        for (text, offset) in &events {
            assert!(text.ends_with('\n'), "the event before {offset}");
        }
        let joined: String = events.into_iter().map(|(text, _)| text).collect();
        assert_eq!(joined, log);
    }

    #[tokio::test]
    async fn line_that_is_longer_than_an_event_is_cut_between_characters() {
        let log = format!("x{}\nend\n", "€".repeat(100_000));
        let events = events_of(&log).await;
        let mut offset = 0;
        for (text, end) in &events {
            offset += text.len() as u64;
            assert_eq!(offset, *end);
            assert!(text.len() <= MAX_EVENT_SIZE, "{}", text.len());
        }
        let joined: String = events.into_iter().map(|(text, _)| text).collect();
        assert_eq!(joined, log);
    }
}
