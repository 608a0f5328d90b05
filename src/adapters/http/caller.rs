//! Who calls: an operator on the admin listener, a worker on the public one.
//!
//! A router inserts the [`Caller`] into the extensions of each request, and handlers extract it.
//! The admin router inserts [`Caller::Operator`]; on the public listener only the login inserts
//! one, and that is always a worker. So a route that somebody adds to the public listener without
//! the login has no caller at all: its requests fail, instead of passing for an operator's.

use super::error::ApiError;
use crate::domain::caller::Caller;
use axum::{extract::FromRequestParts, http::request::Parts};

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(
                http.path = parts.uri.path(),
                "a route has neither an operator's nor a worker's access"
            );
            ApiError::defect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        http::{Request, StatusCode},
        response::IntoResponse,
    };

    async fn extract(inserted: Option<Caller>) -> Result<Caller, StatusCode> {
        let mut request = Request::new(());
        if let Some(caller) = inserted {
            request.extensions_mut().insert(caller);
        }
        let mut parts = request.into_parts().0;
        Caller::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| error.into_response().status())
    }

    #[tokio::test]
    async fn inserted_caller_is_extracted() {
        for caller in [Caller::Operator, Caller::Worker("w1".to_owned())] {
            assert_eq!(extract(Some(caller.clone())).await, Ok(caller));
        }
    }

    #[tokio::test]
    async fn request_without_a_caller_is_refused() {
        assert_eq!(extract(None).await, Err(StatusCode::INTERNAL_SERVER_ERROR));
    }
}
