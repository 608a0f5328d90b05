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
    /// Creates the error that `field` is wrong because of `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Validates free text: NUL bytes are rejected, because Postgres cannot store them.
///
/// # Errors
///
/// [`Invalid`] when the text contains a NUL byte.
pub fn text(field: &str, value: String) -> Result<String, Invalid> {
    if value.contains('\0') {
        return Err(Invalid::new(field, "must not contain NUL bytes"));
    }
    Ok(value)
}
