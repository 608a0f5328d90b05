//! Who may use the admin API, and for what.

use super::Invalid;
use std::{fmt, str::FromStr};

/// What the holder of a token may do. Each role may do what those before it may.
///
/// ```
/// use janitor_runner::domain::access::Role;
///
/// assert!(Role::Admin > Role::Operator);
/// assert_eq!("viewer".parse(), Ok(Role::Viewer));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Changes the queue, runs, pauses and limits.
    Operator,
    /// Manages the accounts of workers.
    Admin,
}

impl Role {
    /// Every role, the one with the fewest rights first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Returns the name of the role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| Invalid::new("role", "is none of viewer, operator, admin"))
    }
}

/// A token of the admin API.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The name of who has it.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// Its SHA-256 hash.
    pub hash: [u8; 32],
}

/// Leaves the hash out.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken({}, {})", self.name, self.role)
    }
}

/// Who makes a request to the admin API. The layer that checks access adds it to the extensions of
/// each request that it lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The name of the token; none while there are no tokens, and for probes of the health.
    pub token: Option<String>,
    /// What the request may do.
    pub role: Role,
    /// The address of the client, if it is known.
    pub address: Option<String>,
}

impl Access {
    /// Returns the name for the audit log: that of the token, else `operator`.
    pub fn who(&self) -> &str {
        self.token.as_deref().unwrap_or("operator")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_by_their_names() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>().unwrap_err().field, "role");
    }

    #[test]
    fn token_gives_the_name() {
        let mut access = Access {
            token: None,
            role: Role::Admin,
            address: None,
        };
        assert_eq!(access.who(), "operator");
        access.token = Some("anna".to_owned());
        assert_eq!(access.who(), "anna");
    }
}
