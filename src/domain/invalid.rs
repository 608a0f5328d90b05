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

/// Validates text that is stored and shown with others: like [`text`], and at most `max` characters.
///
/// # Errors
///
/// [`Invalid`] when the text is longer, or contains a NUL byte.
pub fn bounded_text(field: &str, max: usize, value: String) -> Result<String, Invalid> {
    if value.chars().nth(max).is_some() {
        return Err(Invalid::new(
            field,
            format!("is longer than {max} characters"),
        ));
    }
    text(field, value)
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
