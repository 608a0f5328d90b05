//! What every request passes before anything else of it is read, and what every response has.

use super::{
    AdminAccess,
    client_address::{ClientAddress, client_address},
    error::ApiError,
    hosts::{self, Hosts},
    tokens,
};
use crate::domain::access::AdminToken;
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ipnet::IpNet;
use std::{net::SocketAddr, sync::Arc};

/// What pages may do: only what they have from this service, without any script in the page itself.
/// Swagger UI sets styles of its own, and has its pictures in its style sheet.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
     'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// What the requests to a listener pass.
pub struct Guard {
    /// The networks of the proxies, which say for whom they send a request.
    trusted_proxies: Vec<IpNet>,
    /// What is checked on the admin listener only.
    admin: Option<(Hosts, Vec<AdminToken>)>,
}

impl Guard {
    /// Creates the guard of the admin listener.
    pub fn admin(trusted_proxies: &[IpNet], access: &AdminAccess) -> Self {
        Self {
            trusted_proxies: trusted_proxies.to_vec(),
            admin: Some((Hosts::new(&access.hosts), access.tokens.clone())),
        }
    }

    /// Creates the guard of the public listener. It may have any name, and workers log in; a page
    /// may still not use a login that a browser has stored.
    pub fn public(trusted_proxies: &[IpNet]) -> Self {
        Self {
            trusted_proxies: trusted_proxies.to_vec(),
            admin: None,
        }
    }

    /// Checks a request, and adds to it who makes it.
    fn check(&self, request: &mut Request) -> Result<(), ApiError> {
        if let Some((hosts, _)) = &self.admin {
            hosts.check(request.uri(), request.headers())?;
        }
        hosts::check_page(request.method(), request.headers())?;
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|peer| peer.0.ip());
        let address = client_address(peer, request.headers(), &self.trusted_proxies);
        request.extensions_mut().insert(ClientAddress(address));
        if let Some((_, tokens)) = &self.admin {
            let extensions = request.extensions();
            // The route, since a path may be written in several ways.
            let path = extensions
                .get::<MatchedPath>()
                .map_or(request.uri().path(), MatchedPath::as_str);
            let asked = (request.method(), path);
            let access = tokens::access(
                tokens,
                asked,
                request.headers(),
                address.map(|address| address.to_string()),
            )?;
            request.extensions_mut().insert(access);
        }
        Ok(())
    }
}

/// Adds what keeps a browser from running a response, or showing a page within another.
fn add_headers(headers: &mut HeaderMap) {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if is_page {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        );
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
}

/// Passes on the requests that the guard allows.
///
/// It is no `async fn`, for the same reason as [`observe`](super::observe::observe).
pub fn guard(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> impl Future<Output = Response> {
    let passed = guard.check(&mut request).map(|()| next.run(request));
    async move {
        let mut response = match passed {
            Ok(response) => response.await,
            Err(refusal) => refusal.into_response(),
        };
        add_headers(response.headers_mut());
        response
    }
}
