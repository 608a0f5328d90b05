//! Who is on the public API: workers, by Basic authentication, before anything else is read.

use super::{AppState, error::ApiError};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::sync::Arc;

/// The worker that is logged in.
#[derive(Debug, Clone)]
pub struct Login(pub String);

fn refused() -> ApiError {
    ApiError::text(StatusCode::UNAUTHORIZED, "worker login required")
        .with_header(header::WWW_AUTHENTICATE, "Basic Realm=\"Janitor\"")
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Lets workers pass that log in rightly.
pub async fn require_login(
    State(app): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (name, password) = credentials(request.headers()).ok_or_else(refused)?;
    if !app.workers.log_in(&name, &password).await? {
        return Err(refused());
    }
    request.extensions_mut().insert(Login(name));
    Ok(next.run(request).await)
}
