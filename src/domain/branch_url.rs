//! Branch URLs: `URL`, or `URL,branch=NAME` with the branch's name percent-escaped.

use super::Invalid;

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
    let bytes = escaped.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        // A percent sign without two hex digits after it stands for itself, as in Python's
        // `unquote`.
        let code = escaped
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).map_err(|_| Invalid::new(field, "the branch name is not UTF-8"))
}

/// Splits a branch URL into the URL of the repository and the unescaped name of the branch.
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
    let (url, parameters) = match branch_url.split_once(",branch=") {
        Some((url, parameters)) => (url, Some(parameters)),
        None => (branch_url, None),
    };
    let branch = parameters
        .map(|p| unescape("branch_url", p.split(',').next().unwrap_or(p)))
        .transpose()?;
    Ok((url.to_owned(), branch))
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

    proptest! {
        #[test]
        fn splitting_a_joined_url_returns_its_parts(branch in "\\PC{1,30}") {
            let joined = join_branch_url("https://h/x.git", Some(&branch));
            let (url, split) = split_branch_url(&joined).unwrap();
            prop_assert_eq!(url, "https://h/x.git");
            prop_assert_eq!(split, Some(branch));
        }
    }
}
