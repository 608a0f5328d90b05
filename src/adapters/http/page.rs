//! The parts of lists that clients ask for.

use serde::Deserialize;
use utoipa::IntoParams;

/// The number of entries on a page when the client asks for none.
const DEFAULT_PAGE_SIZE: usize = 100;
/// The maximum number of entries on a page.
const MAX_PAGE_SIZE: usize = 1000;

/// Bounds a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The maximum number of entries.
    pub limit: Option<usize>,
}

/// Returns the number of entries on a page for which the client asks for `limit`.
pub fn page_size(limit: Option<usize>) -> usize {
    limit.unwrap_or(DEFAULT_PAGE_SIZE).clamp(1, MAX_PAGE_SIZE)
}
