//! The tokens of the admin API, and what each role may do.
//!
//! A token has 244 random bits, so that nobody finds it by guessing, also with its hash in hand:
//! unlike a password it needs no slow hash, which would make each request dear.

use super::{error::ApiError, public::credentials};
use crate::domain::access::{Access, AdminToken, Role};
use axum::http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What may be asked without a token: probes of the health have none.
const OPEN_PATHS: [&str; 2] = ["/health", "/ready"];

/// What the paths of the accounts begin with.
const ACCOUNTS: &str = "/admin/";

/// Returns the role that a request needs; none when everybody may make it.
pub fn needed_role(method: &Method, path: &str) -> Option<Role> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match reads {
        true if OPEN_PATHS.contains(&path) => None,
        true => Some(Role::Viewer),
        false if path.starts_with(ACCOUNTS) => Some(Role::Admin),
        false => Some(Role::Operator),
    }
}

/// Returns the token of a request: a Bearer one, or the password of a Basic login.
fn presented(headers: &HeaderMap) -> Option<String> {
    if let Some((_, password)) = credentials(headers) {
        return Some(password);
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// Finds the token. Every one is compared to its end, so that the time says nothing about them.
fn find<'a>(tokens: &'a [AdminToken], presented: &str) -> Option<&'a AdminToken> {
    let hash = Sha256::digest(presented.as_bytes());
    let mut found = None;
    for token in tokens {
        if bool::from(token.hash.as_slice().ct_eq(hash.as_slice())) {
            found = Some(token);
        }
    }
    found
}

fn unauthorized() -> ApiError {
    ApiError::problem(
        StatusCode::UNAUTHORIZED,
        "a token is needed: Authorization: Bearer TOKEN, or a Basic login with it as the password",
    )
    .with_header(
        header::WWW_AUTHENTICATE,
        "Basic realm=\"Janitor admin\", Bearer realm=\"Janitor admin\"",
    )
}

/// Returns who makes a request.
///
/// # Errors
///
/// 401 without a valid token when there are tokens, 403 when its role is not enough.
pub fn access(
    tokens: &[AdminToken],
    (method, path): (&Method, &str),
    headers: &HeaderMap,
    address: Option<String>,
) -> Result<Access, ApiError> {
    let access = |token: Option<&AdminToken>, role| Access {
        token: token.map(|token| token.name.clone()),
        role,
        address,
    };
    if tokens.is_empty() {
        return Ok(access(None, Role::Admin));
    }
    let Some(needed) = needed_role(method, path) else {
        return Ok(access(None, Role::Viewer));
    };
    let token = presented(headers)
        .and_then(|presented| find(tokens, &presented))
        .ok_or_else(unauthorized)?;
    if token.role < needed {
        return Err(ApiError::problem(
            StatusCode::FORBIDDEN,
            format!(
                "this needs the role {needed}; the token {:?} has the role {}",
                token.name, token.role
            ),
        ));
    }
    Ok(access(Some(token), token.role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_its_part() {
        for (method, path, needed) in [
            (Method::GET, "/health", None),
            (Method::GET, "/ready", None),
            (Method::POST, "/ready", Some(Role::Operator)),
            (Method::GET, "/metrics", Some(Role::Viewer)),
            (Method::GET, "/docs", Some(Role::Viewer)),
            (Method::GET, "/admin/workers", Some(Role::Viewer)),
            (Method::POST, "/candidates", Some(Role::Operator)),
            (Method::DELETE, "/pauses", Some(Role::Operator)),
            (Method::POST, "/admin/workers", Some(Role::Admin)),
            (Method::DELETE, "/admin/workers/{name}", Some(Role::Admin)),
        ] {
            assert_eq!(needed_role(&method, path), needed, "{method} {path}");
        }
    }
}
