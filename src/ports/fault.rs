//! Failures behind any port, apart from its own cases, and the causes of errors.

use std::{error::Error, fmt};

/// The cause of a [`Fault`].
type Cause = Box<dyn Error + Send + Sync>;

/// A failure of the system behind a port.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system cannot be reached or is overloaded: try again later.
    #[error("{action}: not available")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Cause,
    },
    /// The system responded with an error that a repeat will not cure.
    #[error("{action}: failed")]
    Backend {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Cause,
    },
    /// The system refuses this to us. What was asked for may also be absent: a bucket that does not
    /// let us list it does not say which.
    #[error("{action}: refused")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Why it was refused.
        source: Cause,
    },
}

impl Fault {
    /// Creates a failure that a repeat may cure.
    pub fn unavailable(action: &'static str, source: impl Into<Cause>) -> Self {
        Self::Unavailable {
            action,
            source: source.into(),
        }
    }

    /// Creates a failure that a repeat will not cure.
    pub fn backend(action: &'static str, source: impl Into<Cause>) -> Self {
        Self::Backend {
            action,
            source: source.into(),
        }
    }

    /// Creates a refusal.
    pub fn refused(action: &'static str, source: impl Into<Cause>) -> Self {
        Self::Refused {
            action,
            source: source.into(),
        }
    }

    /// Returns whether the caller should try again later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Returns why the action failed.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        match self {
            Self::Unavailable { source, .. }
            | Self::Backend { source, .. }
            | Self::Refused { source, .. } => source.as_ref(),
        }
    }

    /// Returns the same failure for another caller that waited for the same operation. Its cause is
    /// the text of this one's, because errors of drivers cannot be cloned.
    pub fn duplicate(&self) -> Self {
        let cause = self.cause().to_string();
        match self {
            Self::Unavailable { action, .. } => Self::unavailable(action, cause),
            Self::Backend { action, .. } => Self::backend(action, cause),
            Self::Refused { action, .. } => Self::refused(action, cause),
        }
    }
}

/// Returns the causes of an error, from the direct one to the root.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Displays an error with all its causes in one line: `a: b: c`.
///
/// ```
/// use janitor_runner::ports::{ErrorChain, Fault};
///
/// let fault = Fault::unavailable("read the queue", "connection refused");
/// let text = ErrorChain(&fault).to_string();
/// assert_eq!(text, "read the queue: not available: connection refused");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        causes(self.0).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keeps_kind_action_and_cause() {
        let original = Fault::backend("store a run", "constraint violated");
        let duplicate = original.duplicate();
        assert!(!duplicate.is_unavailable());
        assert_eq!(
            ErrorChain(&duplicate).to_string(),
            ErrorChain(&original).to_string()
        );
    }

    #[test]
    fn causes_end_at_the_root() {
        let root = Fault::unavailable("connect", "refused");
        let outer = Fault::backend("start", root);
        let texts: Vec<String> = causes(&outer).map(ToString::to_string).collect();
        assert_eq!(texts, ["connect: not available", "refused"]);
    }
}
