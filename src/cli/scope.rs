//! The scope of a pause or a limit, as commands name it.

use super::{client::ServerArgs, output::print_done};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::{fmt, process::ExitCode};

/// What is paused or limited.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// One of all, campaign, host, codebase, bucket, worker
    pub(super) kind: String,
    /// Name of the campaign, host, …; none for all
    pub(super) name: Option<String>,
}

/// What is paused or limited, and by which service.
#[derive(Debug, Args)]
pub(super) struct ScopedArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl fmt::Display for ScopeArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

impl ScopedArgs {
    /// Returns what has that kind and name, of that service.
    pub(super) fn new(kind: String, name: String, server: ServerArgs) -> Self {
        let scope = ScopeArgs {
            kind,
            name: Some(name),
        };
        Self { scope, server }
    }

    /// Removes the pause or the limit with this scope, then prints what that means for it.
    pub(super) async fn remove(self, resource: &str, consequence: &str) -> Result<ExitCode> {
        let Self { scope, server } = self;
        let mut query = vec![("kind", scope.kind.clone())];
        query.extend(scope.name.clone().map(|name| ("name", name)));
        server.client()?.delete(&[resource], &query).await?;
        print_done(
            &server,
            &json!({ "kind": scope.kind, "name": scope.name }),
            &format!("{scope} {consequence}"),
        )
    }
}
