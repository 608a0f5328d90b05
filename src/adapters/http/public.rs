//! The login of workers on the public listener: HTTP Basic authentication, before anything else of
//! a request is read.

use super::{
    AppState,
    client_address::{ClientAddress, network_of},
    connections::Connection,
    detached::is_upload,
    error::ApiError,
};
use crate::{
    domain::caller::Caller,
    services::logins::{Credential, Login, LoginResult},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long the upload of a worker that sends too many requests waits, at a time and in all.
const UPLOAD_DELAY: Duration = Duration::from_millis(200);
const MAX_UPLOAD_DELAY: Duration = Duration::from_secs(20);

fn unauthorized() -> ApiError {
    ApiError::text(StatusCode::UNAUTHORIZED, "worker login required")
        .with_header(header::WWW_AUTHENTICATE, "Basic Realm=\"Janitor\"")
}

fn too_many_logins(wait: Duration) -> ApiError {
    ApiError::text(StatusCode::TOO_MANY_REQUESTS, "too many wrong logins")
        .with_header(header::RETRY_AFTER, wait.as_secs())
}

fn too_many_requests() -> ApiError {
    let detail = "this worker has too many requests at the same time";
    ApiError::text(StatusCode::TOO_MANY_REQUESTS, detail).with_header(header::RETRY_AFTER, 1)
}

/// Counts a request of a worker. A result waits for its turn rather than being refused: not every
/// worker sends it again.
async fn count_request(app: &AppState, name: &str, is_upload: bool) -> Result<(), ApiError> {
    let first = Instant::now();
    loop {
        match app.worker_limits.count_request(name) {
            Err(_) if is_upload && first.elapsed() < MAX_UPLOAD_DELAY => {
                sleep(UPLOAD_DELAY).await;
            }
            counted => return Ok(counted?),
        }
    }
}

/// Returns the error for a request whose login was revoked after the request had begun.
///
/// # Errors
///
/// 401 when it was revoked; a failure of the store.
pub async fn check_again(app: &AppState, login: Option<&Login>) -> Result<(), ApiError> {
    match login {
        Some(login) if !app.logins.is_valid(login).await? => Err(unauthorized()),
        _ => Ok(()),
    }
}

/// Returns the name and password of a Basic `Authorization` header.
pub fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // No account has a NUL byte in its name, and Postgres cannot look for one.
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded
        .split_once(':')
        .filter(|_| !decoded.contains('\0'))?;
    Some((name.to_owned(), password.to_owned()))
}

/// Passes on requests with a valid login, with the worker as their [`Caller`].
///
/// # Errors
///
/// 401 when the login is missing or wrong, 429 when there are too many wrong ones, or the worker
/// sends too many requests.
pub async fn require_login(
    State(app): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (name, password) = credentials(request.headers()).ok_or_else(unauthorized)?;
    let credential = Credential {
        name: &name,
        password: &password,
    };
    let address = request.extensions().get::<ClientAddress>();
    let address = address.and_then(|address| address.0);
    let from = || address.map_or_else(|| "unknown".to_owned(), |a| network_of(a).to_string());
    let login = match app.logins.log_in(credential, from).await? {
        LoginResult::Right(login) => login,
        LoginResult::Wrong => return Err(unauthorized()),
        LoginResult::TryLater(wait) => return Err(too_many_logins(wait)),
    };
    count_request(&app, &name, is_upload(request.uri().path())).await?;
    request.extensions_mut().insert(login);
    if let Some(connection) = request.extensions().get::<Arc<Connection>>()
        && !connection.logged_in(&name)
    {
        return Err(too_many_requests());
    }
    request.extensions_mut().insert(Caller::Worker(name));
    Ok(next.run(request).await)
}
