//! Salted hashes of passwords.

use crate::ports::{Fault, credentials::LoginStamp};
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

/// Returns the stamp of an account whose password has that hash.
pub fn stamp(stored: &str) -> LoginStamp {
    LoginStamp(Sha256::digest(stored).into())
}

/// Hashes a password by Argon2id, with a new salt.
///
/// # Errors
///
/// Returns [`Fault::Backend`] when the password cannot be hashed.
pub fn hash(password: &str) -> Result<String, Fault> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|e| Fault::backend("hash a password", e.to_string()))
}

/// Returns whether a password has that hash.
///
/// Without a hash the same work is done, so that the time does not reveal whether an account
/// exists.
pub fn matches(password: &str, stored: Option<&str>) -> bool {
    let Some(stored) = stored else {
        drop(hash(password));
        return false;
    };
    PasswordHash::new(stored).is_ok_and(|stored| {
        Argon2::default()
            .verify_password(password.as_bytes(), &stored)
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_salted() {
        let (first, second) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert_ne!(first, second);
        assert!(!first.contains("secret"), "{first}");
    }

    #[test]
    fn hash_matches_only_its_password() {
        let stored = hash("secret").unwrap();
        assert!(matches("secret", Some(&stored)));
        assert!(!matches("wrong", Some(&stored)));
        assert!(!matches("secret", None), "no hash");
        assert!(!matches("secret", Some("garbage")), "no valid hash");
    }
}
