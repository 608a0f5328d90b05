//! Input that breaks a rule: which field, and why.

/// A value from outside that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field as the caller wrote it.
    pub field: String,
    /// What is wrong with it, in words for the caller.
    pub reason: String,
}

impl Invalid {
    /// Says that `field` is wrong because of `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Free text that a store must be able to keep: no NUL bytes (Postgres cannot hold them).
pub fn text(field: &str, value: String) -> Result<String, Invalid> {
    if value.contains('\0') {
        return Err(Invalid::new(field, "must not contain NUL bytes"));
    }
    Ok(value)
}
