//! The description of the API, in the format of `OpenAPI`.

use super::tokens::needed_role;
use axum::http::Method;
use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Description, PathItem, RefOr, Response, ServerBuilder, ServerVariableBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
        server::Server,
    },
};

/// The security schemes: a token for the admin API as a Bearer token or a Basic password, and the
/// login of a worker.
const TOKEN: &str = "admin_token";
const TOKEN_AS_PASSWORD: &str = "admin_token_as_password";
const WORKER: &str = "worker";

#[derive(OpenApi)]
#[openapi(info(
    title = "janitor-runner",
    description = "Coordinates automated code changes: decides what runs next, assigns it to \
                   workers and stores their results.",
    license(name = "Apache-2.0")
))]
struct Base;

/// Returns the description without any route.
pub fn base() -> Description {
    let mut description = Base::openapi();
    let components = description.components.get_or_insert_default();
    for (name, scheme) in [
        (TOKEN, HttpAuthScheme::Bearer),
        (TOKEN_AS_PASSWORD, HttpAuthScheme::Basic),
        (WORKER, HttpAuthScheme::Basic),
    ] {
        components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
    }
    description
}

/// Returns the operations of a path with their methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn security(schemes: &[&str]) -> Vec<SecurityRequirement> {
    schemes
        .iter()
        .map(|scheme| SecurityRequirement::new(*scheme, <[&str; 0]>::default()))
        .collect()
}

/// Adds to the description of the admin API what tokens mean for it.
pub fn require_token(mut description: Description) -> Description {
    for (path, item) in &mut description.paths.paths {
        for (method, operation) in operations(item) {
            let Some(role) = needed_role(&method, path) else {
                operation.security = Some(vec![SecurityRequirement::default()]);
                continue;
            };
            let mut any_of = security(&[TOKEN, TOKEN_AS_PASSWORD]);
            // Without tokens in the settings no request needs one.
            any_of.push(SecurityRequirement::default());
            operation.security = Some(any_of);
            add_response(operation, "401", "a token is needed, and missing or wrong");
            add_response(
                operation,
                "403",
                &format!(
                    "the token lacks the role {role}, the host is none of admin.hosts, or a web \
                     page of another host sends this"
                ),
            );
        }
    }
    description
}

/// Returns the public listener, whose address nobody knows here.
fn public_server() -> Server {
    ServerBuilder::new()
        .url("http://{host}:{port}")
        .description(Some("the public listener, for workers"))
        .parameter(
            "host",
            ServerVariableBuilder::new().default_value("localhost"),
        )
        .parameter("port", ServerVariableBuilder::new().default_value("9919"))
        .build()
}

/// Adapts the description of routes that are served on both listeners to the public one: they
/// belong to the workers, and need a login.
pub fn require_login(mut description: Description) -> Description {
    for (path, item) in &mut description.paths.paths {
        item.servers = Some(vec![public_server()]);
        for (_, operation) in operations(item) {
            operation.tags = Some(vec!["workers".to_owned()]);
            operation.security = Some(security(&[WORKER]));
            // The operation of the same handler on the admin listener has the id without a prefix.
            if let Some(id) = &mut operation.operation_id {
                id.insert_str(0, "worker_");
            }
            add_response(operation, "401", "the login is missing or wrong");
            add_response(
                operation,
                "429",
                "too many requests; Retry-After says when to ask again",
            );
            let refused = match path.contains("{run_id}") {
                true => "another worker holds the run, or a web page of another host sends this",
                false => "a web page of another host sends this",
            };
            add_response(operation, "403", refused);
        }
    }
    description
}

fn add_response(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    responses
        .entry(status.to_owned())
        .or_insert_with(|| RefOr::T(Response::new(description)));
}
