//! Extractors, whose rejections say what is wrong with a request.

use super::{AppState, error::ApiError};
use crate::{adapters::off_thread, domain::caller::Caller};
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, RawPathParams, Request},
    http::{StatusCode, header, request::Parts},
};
use bytes::BytesMut;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::{error::Error, sync::Arc, time::Duration};
use tokio::time::timeout;

/// The time within which a whole body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// The maximum size of a JSON body of a worker, in bytes. Each of its connections may hold as much.
const MAX_WORKER_BODY: u64 = 64 << 10;

/// The size in bytes from which on a body is parsed off the async threads.
pub(super) const MIN_OFF_THREAD_SIZE: usize = 64 << 10;

/// Extracts a JSON body, up to the limit of the settings. An empty body is null.
pub struct AppJson<T>(pub T);

/// Extracts a JSON body of any content type, as the endpoints of the Python runner do, which does
/// not look at it. Requests of other web sites never come here: the guard refuses them.
pub struct AnyTypeJson<T>(pub T);

/// Returns the content type in lower case, without parameters.
fn content_type(request: &Request) -> Option<String> {
    let kind = request.headers().get(header::CONTENT_TYPE)?;
    let kind = kind.to_str().unwrap_or("?");
    let essence = kind.split(';').next().unwrap_or(kind);
    Some(essence.trim().to_ascii_lowercase())
}

fn is_json(request: &Request) -> bool {
    content_type(request).is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
}

/// Returns whether a body is of a content type.
pub(super) fn is_of_type(request: &Request, wanted: &str) -> bool {
    content_type(request).is_some_and(|kind| kind == wanted)
}

fn late() -> ApiError {
    ApiError::problem(
        StatusCode::REQUEST_TIMEOUT,
        "the body did not arrive in time",
    )
}

fn unreadable(error: &(dyn Error + Send + Sync + 'static), limit: u64) -> ApiError {
    if error.downcast_ref::<LengthLimitError>().is_some() {
        return ApiError::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {limit} bytes"),
        );
    }
    ApiError::problem(
        StatusCode::BAD_REQUEST,
        format!("the body cannot be read: {error}"),
    )
}

/// Reads a body of at most `limit` bytes, which pauses for at most `idle`.
///
/// # Errors
///
/// 408 when it does not arrive in time, 413 when it is larger, 400 when it breaks off.
pub async fn read_body(request: Request, limit: u64, idle: Duration) -> Result<Bytes, ApiError> {
    let limit_size = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Limited::new(request.into_body(), limit_size);
    let mut bytes = BytesMut::new();
    let read = async {
        while let Some(frame) = timeout(idle, body.frame()).await.map_err(|_| late())? {
            let frame = frame.map_err(|error| unreadable(error.as_ref(), limit))?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok::<_, ApiError>(())
    };
    timeout(BODY_TIMEOUT, read).await.map_err(|_| late())??;
    Ok(bytes.freeze())
}

/// Rejects text with NUL bytes: Postgres cannot store them, and no other store should accept what
/// one cannot keep.
fn nul(status: StatusCode, field: &str) -> ApiError {
    ApiError::problem(status, format!("{field}: must not contain NUL bytes")).with("field", field)
}

/// Returns the path of the first text with a NUL byte in it: `[0].name`.
fn find_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .find_map(|(index, value)| Some(format!("[{index}]{}", find_nul(value)?))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let inner = match find_nul(value) {
                Some(inner) => inner,
                None if name.contains('\0') => String::new(),
                None => return None,
            };
            Some(format!(".{}{inner}", name.replace('\0', "\u{fffd}")))
        }),
        _ => None,
    }
}

/// Checks that no text in well-formed JSON has a NUL byte, which can only be there escaped.
fn check_nul(bytes: &[u8]) -> Result<(), ApiError> {
    const ESCAPED: &[u8] = b"\\u0000";
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    let found = serde_json::from_slice(bytes)
        .ok()
        .and_then(|v| find_nul(&v));
    found.map_or(Ok(()), |path| {
        let path = path.trim_start_matches('.');
        let field = if path.is_empty() { "the body" } else { path };
        Err(nul(StatusCode::UNPROCESSABLE_ENTITY, field))
    })
}

/// Parses JSON: 400 when it is not well-formed, 422 when it is not of the expected type.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"null"
    } else {
        bytes
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        // A wrong type may stand before the position at which the JSON is malformed, and only the
        // first of the two is reported.
        let well_formed = inner.is_data() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        let status = if well_formed {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::BAD_REQUEST
        };
        let subject = if path == "." {
            "the body".to_owned()
        } else {
            path.clone()
        };
        ApiError::problem(status, format!("{subject}: {inner}")).with("field", path)
    })?;
    json.end().map_err(|error| {
        ApiError::problem(StatusCode::BAD_REQUEST, format!("the body: {error}"))
    })?;
    check_nul(bytes)?;
    Ok(value)
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for AppJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        if !is_json(&request) {
            return Err(ApiError::problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            ));
        }
        read_json(request, app).await.map(Self)
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for AnyTypeJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        read_json(request, app).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned + Send + 'static>(
    request: Request,
    app: &Arc<AppState>,
) -> Result<T, ApiError> {
    let limits = app.request_limits;
    let limit = match request.extensions().get::<Caller>() {
        Some(Caller::Worker(_)) => limits.json_body.min(MAX_WORKER_BODY),
        Some(Caller::Operator) | None => limits.json_body,
    };
    // Boxed, so that the memory is free again while the handler runs, which may wait for long.
    let bytes = Box::pin(read_body(request, limit, limits.idle())).await?;
    // Parsing tens of thousands of entries would block the thread, and the requests on it.
    if bytes.len() < MIN_OFF_THREAD_SIZE {
        return parse(&bytes);
    }
    off_thread("read a body", move || parse(&bytes)).await?
}

/// Extracts the parameters of the path.
pub struct AppPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<AppState>> for AppPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, ApiError> {
        if let Ok(raw) = RawPathParams::from_request_parts(parts, app).await
            && let Some((name, _)) = raw.iter().find(|(_, value)| value.contains('\0'))
        {
            return Err(nul(StatusCode::BAD_REQUEST, name));
        }
        let path = Path::<T>::from_request_parts(parts, app).await;
        path.map(|Path(value)| Self(value))
            .map_err(|error| ApiError::problem(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// Extracts the parameters of the query.
pub struct AppQuery<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<AppState>> for AppQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let raw = parts.uri.query().unwrap_or_default();
        if let Some((name, _)) = url::form_urlencoded::parse(raw.as_bytes())
            .find(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            let name = name.replace('\0', "\u{fffd}");
            return Err(nul(StatusCode::BAD_REQUEST, &name));
        }
        let query = Query::<T>::from_request_parts(parts, app).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|error| ApiError::problem(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// The result of most handlers.
pub type ApiResult<T> = Result<Json<T>, ApiError>;
