//! Branch URLs: `URL`, or `URL,branch=NAME` with the branch's name percent-escaped.
//!
//! Breezy's rule: parameters (`,KEY=VALUE`, any number) belong to the last segment of the path. A
//! comma elsewhere, or one without `KEY=`, is part of the path.

use super::{Invalid, percent};

/// The starts of the full names of branches and tags. git takes the rest for either.
const NAMED_REFS: [&str; 2] = ["refs/heads/", "refs/tags/"];

/// Returns whether git allows a branch of this name. Others could mean something else where they are
/// written, such as in `refs/heads/NAME:refs/heads/NAME`.
///
/// ```
/// use janitor_runner::domain::branch_url::is_git_branch;
///
/// assert!(is_git_branch("debian/sid"));
/// assert!(!is_git_branch("x:refs/heads/main"));
/// ```
pub fn is_git_branch(name: &str) -> bool {
    let full = format!("refs/heads/{name}");
    gix_validate::reference::branch_name(full.as_bytes().into()).is_ok()
}

/// Percent-escapes the name of a branch for `URL,branch=NAME`; slashes stay as they are.
pub fn escape_branch(branch: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    branch
        .bytes()
        .map(|b| {
            if keep(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn unescape(field: &str, escaped: &str) -> Result<String, Invalid> {
    let name = String::from_utf8(percent::unescape(escaped));
    name.map_err(|_| Invalid::new(field, "the branch name is not UTF-8"))
}

fn parameter(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let is_key = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (!key.is_empty() && key.bytes().all(is_key)).then_some((key, value))
}

/// Returns where the segment begins that may have parameters.
fn last_segment(url: &str) -> usize {
    let last = url.rfind('/').map_or(0, |slash| slash + 1);
    if url.get(last..).is_some_and(|segment| segment.contains(',')) {
        return last;
    }
    // The Python runner does not escape slashes in names of branches, and so neither do we: in
    // `x.git,branch=debian/sid` the parameter began some segments before. A folder that is called
    // like that is recognized by the repository in it.
    let branch = [",branch=", ",ref="]
        .iter()
        .filter_map(|start| url.rfind(start))
        .max();
    let branch = branch.filter(|_| {
        !std::path::Path::new(url)
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("git"))
    });
    branch.map_or(last, |at| {
        let before = url.get(..at).and_then(|before| before.rfind('/'));
        before.map_or(0, |slash| slash + 1)
    })
}

/// Splits a URL from its parameters.
fn split_parameters(branch_url: &str) -> (&str, Vec<(&str, &str)>) {
    let url = branch_url.trim_end_matches('/');
    let segment = last_segment(url);
    let (mut end, mut parameters) = (url.len(), vec![]);
    // From the end, so that a comma in the name of a repository stays in it.
    while let Some(comma) = url.get(..end).and_then(|url| url.rfind(',')) {
        let text = url.get(comma + 1..end).filter(|_| comma >= segment);
        let Some(found) = text.and_then(parameter) else {
            break;
        };
        parameters.push(found);
        end = comma;
    }
    if parameters.is_empty() {
        return (branch_url, parameters);
    }
    (url.get(..end).unwrap_or(url), parameters)
}

/// Splits a branch URL into the URL of the repository and the unescaped name of the branch, which
/// is that of `branch=NAME`, or of `ref=refs/heads/NAME` or `ref=refs/tags/NAME`. Another ref is
/// returned in full; other parameters are left out.
///
/// # Errors
///
/// [`Invalid`] when the name is not UTF-8 after unescaping.
///
/// ```
/// use janitor_runner::domain::branch_url::split_branch_url;
///
/// let (url, branch) = split_branch_url("https://host/x.git,branch=debian%2Fsid")?;
/// assert_eq!(url, "https://host/x.git");
/// assert_eq!(branch.as_deref(), Some("debian/sid"));
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
pub fn split_branch_url(branch_url: &str) -> Result<(String, Option<String>), Invalid> {
    let (url, parameters) = split_parameters(branch_url);
    let value = |key| parameters.iter().find(|(name, _)| *name == key);
    let branch = match (value("branch"), value("ref")) {
        (Some((_, branch)), _) => Some(unescape("branch_url", branch)?),
        (None, Some((_, name))) => {
            let name = unescape("branch_url", name)?;
            let short = NAMED_REFS.iter().find_map(|start| name.strip_prefix(start));
            Some(short.map(str::to_owned).unwrap_or(name))
        }
        (None, None) => None,
    };
    Ok((url.to_owned(), branch.filter(|name| !name.is_empty())))
}

/// Joins the URL of a repository and the name of a branch to `URL,branch=NAME`.
///
/// ```
/// use janitor_runner::domain::branch_url::join_branch_url;
///
/// let joined = join_branch_url("https://host/x.git", Some("two words"));
/// assert_eq!(joined, "https://host/x.git,branch=two%20words");
/// assert_eq!(join_branch_url("https://host/x.git", None), "https://host/x.git");
/// ```
pub fn join_branch_url(url: &str, branch: Option<&str>) -> String {
    branch.map_or_else(
        || url.to_owned(),
        |branch| format!("{url},branch={}", escape_branch(branch)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Branch URLs, with the URL and the branch that they name.
    const SPLIT: &[(&str, &str, Option<&str>)] = &[
        ("https://h/x.git", "https://h/x.git", None),
        (
            "https://h/x.git,branch=main",
            "https://h/x.git",
            Some("main"),
        ),
        (
            "https://h/x.git,branch=main/",
            "https://h/x.git",
            Some("main"),
        ),
        (
            "https://h/x.git,branch=dev/x",
            "https://h/x.git",
            Some("dev/x"),
        ),
        (
            "https://h/x.git,branch=a%2Cb",
            "https://h/x.git",
            Some("a,b"),
        ),
        (
            "https://h/x.git,branch=100%",
            "https://h/x.git",
            Some("100%"),
        ),
        ("https://h/x.git,branch=%+1", "https://h/x.git", Some("%+1")),
        ("https://h/x.git,branch=", "https://h/x.git", None),
        (
            "https://h/x,ref=refs%2Fheads%2Fdev",
            "https://h/x",
            Some("dev"),
        ),
        ("https://h/x,ref=refs/heads/dev", "https://h/x", Some("dev")),
        (
            "https://h/x,ref=refs%2Ftags%2Fv1",
            "https://h/x",
            Some("v1"),
        ),
        (
            "https://h/x,ref=refs%2Fmr%2F1",
            "https://h/x",
            Some("refs/mr/1"),
        ),
        ("https://h/x,a=1,branch=b,c=2", "https://h/x", Some("b")),
        (
            "https://h/x,branch=b,ref=refs%2Ftags%2Fv1",
            "https://h/x",
            Some("b"),
        ),
        ("https://h/x,depth=1", "https://h/x", None),
        ("https://h/a,b/x.git", "https://h/a,b/x.git", None),
        ("https://h/a,b=c/x", "https://h/a,b=c/x", None),
        (
            "https://h/a,branch=c/x.git",
            "https://h/a,branch=c/x.git",
            None,
        ),
        (
            "https://h/a,branch=c/x,branch=d",
            "https://h/a,branch=c/x",
            Some("d"),
        ),
        ("https://h/lib,x", "https://h/lib,x", None),
        (
            "https://h/lib,x,branch=dev/y",
            "https://h/lib,x",
            Some("dev/y"),
        ),
        ("git@h:x.git,branch=b", "git@h:x.git", Some("b")),
        ("https://h/x/", "https://h/x/", None),
    ];

    #[test]
    fn parameters_belong_to_the_last_segment() {
        for (branch_url, url, branch) in SPLIT {
            let split = split_branch_url(branch_url).unwrap();
            assert_eq!(split.0, *url, "{branch_url}");
            assert_eq!(split.1.as_deref(), *branch, "{branch_url}");
        }
        assert!(split_branch_url("https://h/x,branch=%ff").is_err());
    }

    proptest! {
        #[test]
        fn splitting_a_joined_url_returns_its_parts(
            path in "[a-z,]{1,8}/[a-z0-9.+,-]{1,12}",
            branch in "[^/\\x00-\\x1f]([^\\x00]{0,28}[^/\\x00-\\x1f])?",
        ) {
            // A name like that of a repository inside of the branch's folder is the one exception.
            prop_assume!(!(branch.contains('/') && branch.to_ascii_lowercase().ends_with(".git")));
            let url = format!("https://h/{path}");
            let joined = join_branch_url(&url, Some(&branch));
            prop_assert_eq!(split_branch_url(&joined).unwrap(), (url, Some(branch)));
        }

        #[test]
        fn any_url_splits_without_loss_of_the_path(url in "[a-z:/,=%.@]{0,40}") {
            if let Ok((base, _)) = split_branch_url(&url) {
                prop_assert!(url.starts_with(&base));
            }
        }
    }
}
