//! File names in an upload: which are acceptable, and which are logs.

use super::Invalid;
use std::collections::{HashMap, HashSet};

/// The length of the longest file name that file systems store, in bytes.
const MAX_LENGTH: usize = 255;
/// The length of the longest part of a name that counts as its extensions, in bytes.
const MAX_EXTENSION: usize = 20;
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

/// The names of the files of an upload.
///
/// ```
/// use janitor_runner::domain::log_name::FileNames;
///
/// let mut names = FileNames::default();
/// assert_eq!(names.storable("hello.deb"), "hello.deb");
/// assert_eq!(names.storable("../../etc/passwd"), "passwd");
/// assert_eq!(names.storable("out.tar.gz"), "out.tar.gz");
/// assert_eq!(names.storable("out.tar.gz"), "out-2.tar.gz");
/// ```
#[derive(Debug, Default)]
pub struct FileNames {
    taken: HashSet<String>,
    /// The last number that was tried for a name, so that a thousand files of one name do not try
    /// each number again.
    numbers: HashMap<String, u64>,
}

impl FileNames {
    /// Returns a name under which a file can be stored, made of any name. None is returned twice,
    /// and never that of the report.
    pub fn storable(&mut self, name: &str) -> String {
        let base = file_part(name);
        let mut candidate = with_length(&base, "");
        while candidate == REPORT || self.taken.contains(&candidate) {
            let number = self.numbers.entry(base.clone()).or_insert(1);
            *number += 1;
            candidate = with_length(&base, &format!("-{number}"));
        }
        self.taken.insert(candidate.clone());
        candidate
    }
}

/// Returns the last part of a path, without control characters.
fn file_part(name: &str) -> String {
    let part: String = name
        .rsplit(['/', '\\'])
        .find(|part| !part.is_empty())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect();
    match part.as_str() {
        "" | "." | ".." => "file".to_owned(),
        _ => part,
    }
}

/// Returns a name with a suffix before its extensions, cut so that file systems store it.
fn with_length(name: &str, suffix: &str) -> String {
    let dot = name
        .match_indices('.')
        .map(|(index, _)| index)
        .find(|index| *index > 0 && name.len() - index <= MAX_EXTENSION)
        .unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let max = MAX_LENGTH - ".gz".len() - extension.len() - suffix.len();
    let stem = &stem[..stem.floor_char_boundary(max.min(stem.len()))];
    format!("{stem}{suffix}{extension}")
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

    #[test]
    fn names_that_cannot_be_stored_are_changed() {
        let free = |name: &str| FileNames::default().storable(name);
        for (name, expected) in [
            ("a/b.deb", "b.deb"),
            ("C:\\out\\b.deb", "b.deb"),
            ("a\nb\0.log", "a_b_.log"),
            ("", "file"),
            ("..", "file"),
            ("a/", "a"),
            (".log", ".log"),
        ] {
            assert_eq!(free(name), expected, "{name:?}");
        }
        let long = free(&format!("{}.tar.gz", "ä".repeat(200)));
        assert!(long.len() <= 252 && long.ends_with("ä.tar.gz"), "{long}");
    }

    #[test]
    fn names_that_are_taken_get_a_number() {
        let mut names = FileNames::default();
        for (sent, stored) in [
            ("x.log", "x.log"),
            ("x-2.log", "x-2.log"),
            ("x.log", "x-3.log"),
            ("x.log.1", "x.log.1"),
            ("x.log.1", "x-2.log.1"),
            ("result.json", "result-2.json"),
            ("result.json", "result-3.json"),
        ] {
            assert_eq!(names.storable(sent), stored);
        }
    }

    proptest! {
        #[test]
        fn every_name_can_be_made_storable(name in "\\PC{0,40}|[./a\\\\\n]{0,9}|[a-z.ä]{200,400}") {
            let mut names = FileNames::default();
            let first = names.storable(&name);
            prop_assert!(validate_file_name(&first).is_ok(), "{:?}", first);
            let second = names.storable(&name);
            prop_assert!(validate_file_name(&second).is_ok(), "{:?}", second);
            prop_assert_ne!(first, second);
        }

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
