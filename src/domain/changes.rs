//! `.changes` files, which describe the result of a Debian build.

use super::{Invalid, log_name::validate_file_name};
use deb822_fast::Deb822;
use debversion::Version;
use std::collections::HashSet;

/// The fields of a `.changes` file that the runner keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The name of the source package.
    pub source: String,
    /// The version.
    pub version: String,
    /// The distribution.
    pub distribution: String,
    /// The names of the binary packages.
    pub binary_packages: Vec<String>,
    /// The names of the files that it lists.
    pub files: Vec<String>,
}

/// The maximum number of files that are listed.
const MAX_FILES: usize = 20_000;

/// The fields that list files, and the column of the name in each of their lines.
const FILE_LISTS: [(&str, usize); 3] =
    [("Files", 4), ("Checksums-Sha256", 2), ("Checksums-Sha1", 2)];

/// Returns the names of the packages among the files. The field `Binary` names more: whatever the
/// source package could build.
fn binary_packages(files: &[String]) -> Vec<String> {
    // A file of some megabytes may list a million names: each is looked up, not searched for.
    let (mut packages, mut known) = (vec![], HashSet::new());
    for file in files {
        let is_package = std::path::Path::new(file)
            .extension()
            .is_some_and(|extension| {
                ["deb", "udeb", "ddeb"]
                    .iter()
                    .any(|known| extension == *known)
            });
        let package = file.split('_').next().unwrap_or(file);
        if is_package && known.insert(package) {
            packages.push(package.to_owned());
        }
    }
    packages
}

/// Returns a signed file without its PGP armour.
fn unarmoured(text: &str) -> String {
    let Some(signed) = text
        .trim_start()
        .strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----")
    else {
        return text.to_owned();
    };
    let body = signed.split_once("\n\n").map_or(signed, |(_, body)| body);
    let body = body
        .split("-----BEGIN PGP SIGNATURE-----")
        .next()
        .unwrap_or(body);
    body.lines()
        .map(|line| line.strip_prefix("- ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

/// Parses a `.changes` file.
///
/// # Errors
///
/// [`Invalid`] when the file has no valid version, lacks a field, or lists a file whose name is a
/// path.
pub fn read(name: &str, text: &str) -> Result<Changes, Invalid> {
    let wrong = |reason: String| Invalid::new(name, reason);
    let parsed: Deb822 = unarmoured(&text.replace("\r\n", "\n"))
        .parse()
        .map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let paragraph = parsed
        .iter()
        .next()
        .ok_or_else(|| wrong("is empty".into()))?;
    let field = |key: &str| {
        paragraph
            .get(key)
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
    };
    let needed = |key: &str| field(key).ok_or_else(|| wrong(format!("has no field {key}")));
    let version = needed("Version")?;
    parse_version(&version).ok_or_else(|| wrong(format!("{version:?} is not a Debian version")))?;
    let lists = FILE_LISTS.map(|(key, column)| (field(key).unwrap_or_default(), column));
    let mut known = HashSet::new();
    let files: Vec<String> = lists
        .iter()
        .flat_map(|(list, column)| {
            list.lines()
                .filter_map(|line| line.split_whitespace().nth(*column))
        })
        .filter(|name| known.insert(*name))
        .map(str::to_owned)
        .take(MAX_FILES + 1)
        .collect();
    if files.len() > MAX_FILES {
        return Err(wrong(format!("lists more than {MAX_FILES} files")));
    }
    files
        .iter()
        .try_for_each(|file| validate_file_name(file))
        .map_err(|e| wrong(e.to_string()))?;
    let source = needed("Source")?;
    Ok(Changes {
        source: source
            .split_whitespace()
            .next()
            .unwrap_or(&source)
            .to_owned(),
        version,
        distribution: needed("Distribution")?,
        binary_packages: binary_packages(&files),
        files,
    })
}

/// Parses a version by the rules of dpkg, which are stricter than those of the parser: an epoch is
/// a number, and no part is empty.
pub fn parse_version(text: &str) -> Option<Version> {
    let rest = match text.split_once(':') {
        Some((epoch, rest)) => {
            epoch.parse::<u32>().ok()?;
            rest
        }
        None => text,
    };
    let (upstream, revision) = rest
        .rsplit_once('-')
        .map_or((rest, None), |(u, r)| (u, Some(r)));
    if upstream.is_empty() || revision == Some("") {
        return None;
    }
    text.parse().ok()
}

/// Returns the highest version, in Debian order.
pub fn highest<'a>(versions: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let parsed = versions
        .into_iter()
        .filter_map(|text| Some((parse_version(text)?, text)));
    parsed.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, text)| text)
}

/// Merges the `.changes` files of one build.
///
/// # Errors
///
/// [`Invalid`] when they differ in source, version or distribution.
pub fn merge(files: &[(String, Changes)]) -> Result<Option<Changes>, Invalid> {
    let Some((_, first)) = files.first() else {
        return Ok(None);
    };
    let mut merged = first.clone();
    let packages: HashSet<&String> = first.binary_packages.iter().collect();
    let listed: HashSet<&String> = first.files.iter().collect();
    for (name, other) in files.iter().skip(1) {
        if (&other.source, &other.version, &other.distribution)
            != (&first.source, &first.version, &first.distribution)
        {
            return Err(Invalid::new(
                name,
                "names another source, version or distribution than the other .changes files",
            ));
        }
        merged.binary_packages.extend(
            other
                .binary_packages
                .iter()
                .filter(|p| !packages.contains(p))
                .cloned(),
        );
        merged
            .files
            .extend(other.files.iter().filter(|f| !listed.contains(f)).cloned());
        if merged.files.len() > MAX_FILES {
            return Err(Invalid::new(
                name,
                format!("lists, with the other .changes files, more than {MAX_FILES} files"),
            ));
        }
    }
    Ok(Some(merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANGES: &str = "\
Format: 1.8
Source: hello (2.10-2)
Binary: hello hello-doc
Version: 2.10-3+jan1
Distribution: unstable
Files:
 d41d8 5 devel optional hello_2.10-3+jan1_amd64.deb
 d41d8 5 devel optional hello_2.10-3+jan1.dsc
";

    #[test]
    fn fields_are_parsed() {
        let changes = read("x.changes", CHANGES).unwrap();
        assert_eq!(changes.source, "hello");
        assert_eq!(changes.version, "2.10-3+jan1");
        assert_eq!(changes.distribution, "unstable");
        assert_eq!(
            changes.files,
            ["hello_2.10-3+jan1_amd64.deb", "hello_2.10-3+jan1.dsc"]
        );
        assert_eq!(changes.binary_packages, ["hello"]);
    }

    #[test]
    fn pgp_armour_is_removed() {
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{CHANGES}\n\
             -----BEGIN PGP SIGNATURE-----\n\nxxx\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(
            read("x.changes", &signed).unwrap(),
            read("x.changes", CHANGES).unwrap()
        );
    }

    #[test]
    fn signed_file_may_have_lines_that_end_in_crlf() {
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{CHANGES}\n\
             -----BEGIN PGP SIGNATURE-----\n\nxxx\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(
            read("x.changes", &signed.replace('\n', "\r\n")).unwrap(),
            read("x.changes", CHANGES).unwrap()
        );
    }

    #[test]
    fn binary_packages_are_those_of_the_listed_files() {
        let text = "Source: hello\nBinary: hello hello-data hello-udeb\nVersion: 1\n\
                    Distribution: sid\nChecksums-Sha256:\n a 1 hello_1_amd64.deb\n \
                    b 2 hello-udeb_1_amd64.udeb\n c 3 hello-dbgsym_1_amd64.ddeb\n \
                    d 4 hello_1_i386.deb\n e 5 hello_1.dsc\n";
        let changes = read("x.changes", text).unwrap();
        assert_eq!(
            changes.binary_packages,
            ["hello", "hello-udeb", "hello-dbgsym"]
        );
        assert_eq!(changes.files.len(), 5);
    }

    #[test]
    fn broken_files_are_rejected() {
        for (bad, what) in [
            ("", "empty"),
            ("Source: x\n", "no version"),
            ("Source: x\nVersion: x:1\nDistribution: d\n", "epoch"),
            (
                &CHANGES.replace("hello_2.10-3+jan1.dsc", "../../etc/passwd"),
                "path",
            ),
        ] {
            assert!(read("x.changes", bad).is_err(), "{what}");
        }
    }

    #[test]
    fn merging_requires_equal_source_version_and_distribution() {
        let one = read("a.changes", CHANGES).unwrap();
        let other = read(
            "b.changes",
            &CHANGES.replace("Version: 2.10-3+jan1", "Version: 3"),
        )
        .unwrap();
        assert!(merge(&[("a".into(), one.clone()), ("b".into(), other)]).is_err());
        assert_eq!(
            merge(&[("a".into(), one.clone()), ("b".into(), one.clone())]).unwrap(),
            Some(one)
        );
        assert_eq!(merge(&[]).unwrap(), None);
    }

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        let ordered = [
            "1.0~~",
            "1.0~rc1",
            "1.0",
            "1.0-1",
            "1.0-1+jan1",
            "1.0-1.1",
            "1.0-10",
            "1.0a",
            "1:0.1",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(highest([pair[1], pair[0]]), Some(pair[1]), "{pair:?}");
        }
        for bad in ["1:", "1.0-", "x:1", ""] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
        assert_eq!(highest(["x:1"]), None);
    }

    proptest! {
        #[test]
        fn order_of_versions_is_total(
            a in "[0-9][0-9a-z.+~]{0,6}",
            b in "[0-9][0-9a-z.+~]{0,6}",
            c in "[0-9][0-9a-z.+~]{0,6}",
        ) {
            let [a, b, c] = [&a, &b, &c].map(|v| parse_version(v).unwrap());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,200}") {
            let _ = read("x.changes", &text);
        }
    }
}
