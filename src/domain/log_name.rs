//! File names in an upload: which are acceptable, and which are logs.

use super::Invalid;

/// The length of the longest file name that file systems store, in bytes.
const MAX_LENGTH: usize = 255;
/// The name of the report among the files of an upload.
pub const REPORT: &str = "result.json";

/// Validates a file name from outside: it must be a name, not a path.
///
/// # Errors
///
/// [`Invalid`] when the name is empty, a path, too long, or has control characters.
///
/// ```
/// use janitor_runner::domain::log_name::{is_log, validate_file_name};
///
/// assert!(validate_file_name("worker.log").is_ok());
/// assert!(validate_file_name("../../etc/passwd").is_err());
/// assert!(is_log("build.log.1"));
/// assert!(!is_log("hello.deb"));
/// ```
pub fn validate_file_name(name: &str) -> Result<(), Invalid> {
    let reason = if name.is_empty() || name == "." || name == ".." {
        "is not the name of a file"
    } else if name.contains(['/', '\\']) {
        "must not contain a slash"
    } else if name.chars().any(char::is_control) {
        "must not contain control characters"
    } else if name.len() > MAX_LENGTH - ".gz".len() {
        // Stores add a suffix when they compress.
        "is too long"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(60).collect();
    Err(Invalid::new("filename", format!("{shown:?} {reason}")))
}

/// Returns whether a file is a log: its name ends in `.log`, or is `x.log.N` with N digits.
pub fn is_log(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let rotated = matches!(parts.as_slice(), [_, "log", number] if is_number(number));
    rotated || parts.last() == Some(&"log") && parts.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn log_names_end_in_log_or_log_and_a_number() {
        for log in ["worker.log", "build.log.1", ".log", "x.log.12", "a.b.log"] {
            assert!(is_log(log), "{log}");
        }
        for other in [
            "worker.txt",
            "a.b.log.1",
            "x.log.",
            "x.log.gz",
            "log",
            "result.json",
        ] {
            assert!(!is_log(other), "{other}");
        }
    }

    #[test]
    fn paths_are_not_file_names() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../../x",
            "a\\b",
            "a\0b",
            "a\nb",
            &"x".repeat(253),
        ] {
            assert!(validate_file_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "hello_2.10-3+jan1_amd64.deb", "ä.log", "...", "a b"] {
            assert!(validate_file_name(good).is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn accepted_name_stays_in_its_folder(name in "\\PC{0,40}|[./a]{0,6}") {
            if validate_file_name(&name).is_ok() {
                let path = std::path::Path::new("base").join(&name);
                prop_assert_eq!(path.components().count(), 2);
                prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), name.as_str());
            }
        }
    }
}
