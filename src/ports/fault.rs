//! What can go wrong behind any port, apart from its own cases.

/// A failure of the system behind a port.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be reached or is overloaded: try again later.
    #[error("{action}: not available")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered with something that a repeat will not cure.
    #[error("{action}: failed")]
    Backend {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Fault {
    /// A failure that a repeat may cure.
    pub fn unavailable(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            action,
            source: source.into(),
        }
    }

    /// A failure that a repeat will not cure.
    pub fn backend(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Backend {
            action,
            source: source.into(),
        }
    }

    /// Whether the caller should try again later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
