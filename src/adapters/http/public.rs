//! The login of workers on the public listener: HTTP Basic authentication, before anything else of
//! a request is read.

use super::{AppState, connections::Connection, error::ApiError};
use crate::domain::caller::Caller;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::sync::Arc;

fn unauthorized() -> ApiError {
    ApiError::text(StatusCode::UNAUTHORIZED, "worker login required")
        .with_header(header::WWW_AUTHENTICATE, "Basic Realm=\"Janitor\"")
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
/// 401 when the login is missing or wrong.
pub async fn require_login(
    State(app): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (name, password) = credentials(request.headers()).ok_or_else(unauthorized)?;
    if !app.workers.log_in(&name, &password).await? {
        return Err(unauthorized());
    }
    if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
        connection.logged_in();
    }
    request.extensions_mut().insert(Caller::Worker(name));
    Ok(next.run(request).await)
}
