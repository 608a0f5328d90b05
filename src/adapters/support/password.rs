//! Salted hashes of passwords.

use crate::ports::Fault;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};

/// Hashes with a fresh salt, by Argon2id.
pub fn hash(password: &str) -> Result<String, Fault> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|e| Fault::backend("hash a password", e.to_string()))
}

/// Whether a password has that hash. Without a hash the same work is done, so that the time tells nothing.
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
    fn hashes_are_salted_and_match_only_their_password() {
        let (one, two) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert_ne!(one, two);
        assert!(!one.contains("secret"));
        assert!(matches("secret", Some(&one)) && matches("secret", Some(&two)));
        assert!(
            !matches("wrong", Some(&one))
                && !matches("secret", None)
                && !matches("secret", Some("garbage"))
        );
    }
}
