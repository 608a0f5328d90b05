//! File names in an upload: which are acceptable, and which are logs.

use super::Invalid;

const LONGEST: usize = 255;
/// The name of the report in an upload.
pub const REPORT: &str = "result.json";

/// A file name from outside: a name, not a path.
pub fn check_file_name(name: &str) -> Result<(), Invalid> {
    let reason = if name.is_empty() || name == "." || name == ".." {
        "is not the name of a file"
    } else if name.contains(['/', '\\']) {
        "must not contain a slash"
    } else if name.chars().any(char::is_control) {
        "must not contain control characters"
    } else if name.len() > LONGEST - ".gz".len() {
        "is too long"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(60).collect();
    Err(Invalid::new("filename", format!("{shown:?} {reason}")))
}

/// Whether a file is a log: its name ends in `.log`, or is `x.log.N` with N digits.
pub fn is_log(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let rotated = matches!(parts.as_slice(), [_, "log", n] if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    rotated || parts.last() == Some(&"log") && parts.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn logs_end_in_log_or_a_number_after_it() {
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
    fn paths_are_not_names() {
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
            assert!(check_file_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "hello_2.10-3+jan1_amd64.deb", "ä.log", "...", "a b"] {
            assert!(check_file_name(good).is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_in_its_folder(name in "\\PC{0,40}|[./a]{0,6}") {
            if check_file_name(&name).is_ok() {
                let path = std::path::Path::new("base").join(&name);
                prop_assert_eq!(path.components().count(), 2);
                prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), name.as_str());
            }
        }
    }
}
