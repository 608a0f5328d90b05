//! Pauses. Times are ISO 8601 in UTC without a zone.

use crate::domain::{
    Invalid,
    pause::{Pause, Scope},
    time::{self, Time, iso},
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// A pause to set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PauseRequest {
    /// What is paused: all, campaign, host, codebase, bucket or worker.
    pub(crate) kind: String,
    /// The name of the campaign, host or so; absent for all.
    pub(crate) name: Option<String>,
    /// Why, for people to read.
    #[serde(default)]
    pub(crate) reason: String,
    /// The time at which it ends by itself; without one it holds until somebody ends it.
    pub(crate) until: Option<String>,
}

impl PauseRequest {
    /// Returns the scope, the reason and the end of the pause.
    ///
    /// # Errors
    ///
    /// When the scope or the time is not valid.
    pub fn parts(self) -> Result<(Scope, String, Option<Time>), Invalid> {
        let until = self
            .until
            .map(|until| time::parse("until", &until))
            .transpose()?;
        Ok((
            Scope::parse(&self.kind, self.name.as_deref())?,
            self.reason,
            until,
        ))
    }
}

/// A pause that holds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PauseResponse {
    /// What is paused: all, campaign, host, codebase, bucket or worker.
    pub(crate) kind: Cow<'static, str>,
    /// The name of the campaign, host or so; null for all.
    pub(crate) name: Option<String>,
    /// Why, for people to read.
    pub(crate) reason: String,
    /// The time at which it was set.
    pub(crate) since: String,
    /// The time at which it ends by itself; null if it holds until somebody ends it.
    pub(crate) until: Option<String>,
}

impl From<Pause> for PauseResponse {
    fn from(pause: Pause) -> Self {
        let name = Some(pause.scope.name().to_owned()).filter(|name| !name.is_empty());
        Self {
            kind: pause.scope.kind().into(),
            name,
            reason: pause.reason,
            since: iso(pause.since),
            until: pause.until.map(iso),
        }
    }
}

/// All pauses.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PausesResponse {
    /// The pauses that hold now.
    pub pauses: Vec<PauseResponse>,
}
