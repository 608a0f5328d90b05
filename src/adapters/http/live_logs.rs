//! Logs that workers send while their runs are active.

use super::{
    AppState,
    error::ApiError,
    extract::{AppPath, read_body},
};
use crate::{
    adapters::wire::SizeResponse,
    domain::{caller::Caller, name::RunId},
};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
};
use std::sync::Arc;

/// The maximum number of bytes in one request.
const MAX_CHUNK_SIZE: u64 = 1 << 20;

fn invalid_range(detail: impl Into<String>) -> ApiError {
    ApiError::problem(StatusCode::BAD_REQUEST, detail).with("field", "Content-Range")
}

/// Parses `Content-Range: bytes FIRST-LAST/*`; returns the first byte and the length.
fn content_range(headers: &HeaderMap) -> Result<(u64, u64), ApiError> {
    let invalid = || invalid_range("Content-Range: must be `bytes FIRST-LAST/*`");
    let text = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok())
        .ok_or_else(invalid)?;
    let (range, _size) = text
        .trim()
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(invalid)?;
    let (first, last) = range.split_once('-').ok_or_else(invalid)?;
    let number = |digits: &str| digits.trim().parse::<u64>().map_err(|_| invalid());
    let (first, last) = (number(first)?, number(last)?);
    let length = last
        .checked_sub(first)
        .and_then(|rest| rest.checked_add(1))
        .ok_or_else(invalid)?;
    Ok((first, length))
}

/// Appends to a log of an active run, at the position that `Content-Range: bytes FIRST-LAST/*`
/// names.
///
/// A repeated request changes nothing. It counts as a heartbeat.
#[utoipa::path(
    patch,
    path = "/active-runs/{run_id}/logs/{name}",
    tag = "active runs",
    params(("run_id" = String, Path), ("name" = String, Path)),
    request_body(content_type = "text/plain", content = String),
    responses(
        (status = 202, body = SizeResponse),
        (status = 400, description = "Content-Range is missing or wrong"),
        (status = 404, description = "there is no such run"),
        (status = 410, description = "it is not active any more; {run_id, stop}"),
        (status = 413, description = "more than 1 MiB, or more than is kept of a run"),
        (status = 416, description = "{size}: there is a gap; the log has this size"),
        (status = 422, description = "the name is not that of a log"),
    )
)]
pub async fn append(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    AppPath((id, name)): AppPath<(RunId, String)>,
    request: Request,
) -> Result<(StatusCode, Json<SizeResponse>), ApiError> {
    let (first, length) = content_range(request.headers())?;
    let bytes = read_body(request, MAX_CHUNK_SIZE, app.request_limits.idle()).await?;
    // A body that was cut off must not be taken for a shorter one: the worker would go on behind
    // what it believes to be stored.
    if bytes.len() as u64 != length {
        return Err(invalid_range(format!(
            "Content-Range: it says {length} bytes, and the body has {}",
            bytes.len()
        )));
    }
    let (size, run) = app
        .live_log
        .append(&id, &caller, &name, first, bytes)
        .await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(SizeResponse {
            size,
            cancel: run.cancel,
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(u64, u64), ApiError> {
        let header = (header::CONTENT_RANGE, text.parse().unwrap());
        content_range(&HeaderMap::from_iter([header]))
    }

    #[test]
    fn valid_ranges_are_parsed() {
        assert_eq!(parse("bytes 0-0/*").unwrap(), (0, 1));
        assert_eq!(parse("bytes 5-9/100").unwrap(), (5, 5));
    }

    #[test]
    fn invalid_ranges_are_rejected() {
        for invalid in [
            "",
            "bytes 5-9",
            "bytes 9-5/*",
            "bytes */5",
            "lines 1-2/*",
            "bytes a-b/*",
            "bytes 0-18446744073709551615/*",
        ] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn missing_range_is_rejected() {
        assert!(content_range(&HeaderMap::new()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_content_range_is_read_or_refused(
            bytes in proptest::collection::vec(0x20_u8..=0xff, 0..200), number in 0_u64..=u64::MAX
        ) {
            use axum::http::HeaderValue;
            let ranges = [
                bytes.clone(),
                [&b"bytes "[..], &bytes].concat(),
                format!("bytes {number}-{}/*", number.wrapping_sub(1)).into_bytes(),
                format!("bytes 0-{number}/{number}").into_bytes(),
            ];
            for range in ranges {
                if let Ok(value) = HeaderValue::from_bytes(&range) {
                    let headers = HeaderMap::from_iter([(header::CONTENT_RANGE, value)]);
                    if let Ok((first, length)) = content_range(&headers) {
                        proptest::prop_assert!(length > 0);
                        proptest::prop_assert!(first.checked_add(length - 1).is_some());
                    }
                }
            }
        }
    }
}
