//! Records as JSON that the server makes or reads, and keys as arrays.

use crate::domain::{
    Invalid,
    name::{CampaignName, CodebaseName},
    queue::QueueKey,
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads a record that the server made into JSON.
pub(super) fn read<T: DeserializeOwned>(json: &str) -> sqlx::Result<T> {
    serde_json::from_str(json).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Reads many records that the server made into JSON.
pub(super) fn read_all<T: DeserializeOwned>(rows: Vec<String>) -> sqlx::Result<Vec<T>> {
    rows.iter().map(|json| read(json)).collect()
}

/// Writes a record as JSON text.
pub(super) fn write(value: &impl Serialize) -> String {
    // The records that are stored so have text keys only, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Converts the number of rows that a caller wants to what `LIMIT` takes.
pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Keys as arrays for `unnest`.
#[derive(Debug, Default)]
pub(super) struct KeyColumns {
    /// The names of the codebases.
    pub(super) codebases: Vec<String>,
    /// The names of the campaigns.
    pub(super) campaigns: Vec<String>,
    /// The change sets; none is an empty text, as in the unique indexes of the tables.
    pub(super) change_sets: Vec<String>,
}

impl<'a> FromIterator<&'a QueueKey> for KeyColumns {
    fn from_iter<I: IntoIterator<Item = &'a QueueKey>>(keys: I) -> Self {
        let mut columns = Self::default();
        for key in keys {
            columns.codebases.push(key.codebase.to_string());
            columns.campaigns.push(key.campaign.to_string());
            columns
                .change_sets
                .push(key.change_set.clone().unwrap_or_default());
        }
        columns
    }
}

/// Makes a key of the columns of a row.
///
/// # Errors
///
/// [`Invalid`] when the database has names that the domain does not allow.
pub(super) fn queue_key(
    codebase: String,
    campaign: String,
    change_set: Option<String>,
) -> Result<QueueKey, Invalid> {
    Ok(QueueKey {
        codebase: CodebaseName::new(codebase)?,
        campaign: CampaignName::new(campaign)?,
        change_set,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_change_set_becomes_empty_text() {
        let key = |change_set: Option<&str>| {
            queue_key("aa".into(), "gen".into(), change_set.map(str::to_owned)).unwrap()
        };
        let keys = [key(None), key(Some("x"))];
        assert_eq!(KeyColumns::from_iter(&keys).change_sets, ["", "x"]);
    }
}
