//! Figures about logins.

use crate::services::logins::{Guesser, LoginFigures};
use serde::Serialize;
use utoipa::ToSchema;

/// An address from which wrong logins came.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuesserResponse {
    /// The address; of IPv6 the first one of its /64.
    address: String,
    /// The number of wrong logins.
    wrong: u64,
    /// The number of logins that were refused without looking at the password.
    refused: u64,
    /// The name that was tried last.
    last_name: String,
}

/// Figures about the logins of workers since the runner started.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecurityStatsResponse {
    /// The number of passwords that were checked and right; remembered ones are not counted.
    right: u64,
    /// The number of passwords that were checked and wrong.
    wrong: u64,
    /// The number of logins that were refused without looking at the password.
    refused: u64,
    /// The addresses with the most wrong and refused ones, at most 100.
    addresses: Vec<GuesserResponse>,
}

impl From<Guesser> for GuesserResponse {
    fn from(guesser: Guesser) -> Self {
        Self {
            address: guesser.address,
            wrong: guesser.wrong,
            refused: guesser.refused,
            last_name: guesser.last_name,
        }
    }
}

impl From<LoginFigures> for SecurityStatsResponse {
    fn from(figures: LoginFigures) -> Self {
        Self {
            right: figures.right,
            wrong: figures.wrong,
            refused: figures.refused,
            addresses: figures.guessers.into_iter().map(Into::into).collect(),
        }
    }
}
