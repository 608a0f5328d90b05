//! The description of the API, in the format of `OpenAPI`.

use utoipa::{
    OpenApi,
    openapi::{OpenApi as Description, RefOr, Response, path::Operation},
};

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
    Base::openapi()
}

/// Adapts the description of routes that are served on both listeners to the public one: they
/// belong to the workers, and need a login.
pub fn require_login(mut description: Description) -> Description {
    for (path, item) in &mut description.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            operation.tags = Some(vec!["workers".to_owned()]);
            // The operation of the same handler on the admin listener has the id without a prefix.
            if let Some(id) = &mut operation.operation_id {
                id.insert_str(0, "worker_");
            }
            add_response(operation, "401", "the login is missing or wrong");
            if path.contains("{run_id}") {
                add_response(operation, "403", "another worker holds the run");
            }
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
