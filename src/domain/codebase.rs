//! Codebases: places in version control that changes can be made to.

use super::{Invalid, host::host_of, invalid::text, name::CodebaseName, vcs::VcsType};
use serde::{Deserialize, Serialize};

/// A codebase. Without a branch URL it is nascent: not published anywhere yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codebase {
    /// Its name. One without can be listed, but nothing can be queued for it.
    pub name: Option<CodebaseName>,
    /// `URL` or `URL,branch=NAME`.
    pub branch_url: Option<String>,
    /// The repository.
    pub url: Option<String>,
    /// The branch in it; none means the repository's default.
    pub branch: Option<String>,
    /// The folder in the branch; none means its root.
    pub subpath: Option<String>,
    /// Its VCS, when known.
    pub vcs_type: Option<VcsType>,
    /// The revision last seen at the branch's tip.
    pub vcs_last_revision: Option<String>,
    /// How much this codebase matters, relative to others.
    pub value: Option<i32>,
    /// Where people look at it.
    pub web_url: Option<String>,
}

/// What an upload says about a codebase, before checking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct CodebaseUpload {
    pub name: Option<String>,
    pub branch_url: Option<String>,
    pub url: Option<String>,
    pub branch: Option<String>,
    pub subpath: Option<String>,
    pub vcs_type: Option<String>,
    pub vcs_last_revision: Option<String>,
    pub value: Option<i64>,
    pub web_url: Option<String>,
}

impl Codebase {
    /// Returns the host of the branch URL, by the rule of [`host_of`].
    pub fn host(&self) -> Option<String> {
        self.branch_url.as_deref().and_then(host_of)
    }

    /// Whether a change from `earlier` means that its candidates should run again.
    pub fn moved_from(&self, earlier: &Self) -> bool {
        (&self.branch_url, &self.subpath) != (&earlier.branch_url, &earlier.subpath)
    }
}

/// Percent-escapes a branch name for `URL,branch=NAME`; slashes stay.
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
        let code = escaped
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).map_err(|_| Invalid::new(field, "the branch name is not UTF-8"))
}

/// Splits `URL,branch=NAME` into the URL and the unescaped branch.
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

/// Joins a URL and a branch to `URL,branch=NAME`.
pub fn join_branch_url(url: &str, branch: Option<&str>) -> String {
    branch.map_or_else(
        || url.to_owned(),
        |branch| format!("{url},branch={}", escape_branch(branch)),
    )
}

impl CodebaseUpload {
    /// Checks an upload; fills in the URLs that follow from the others.
    pub fn check(self) -> Result<Codebase, Invalid> {
        let clean = |field: &str, value: Option<String>| value.map(|v| text(field, v)).transpose();
        let (branch_url, url, branch) = match (
            clean("branch_url", self.branch_url)?,
            clean("url", self.url)?,
        ) {
            (Some(branch_url), _) => {
                let (url, branch) = split_branch_url(&branch_url)?;
                (Some(branch_url), Some(url), branch)
            }
            (None, Some(url)) => {
                let branch = clean("branch", self.branch)?;
                (
                    Some(join_branch_url(&url, branch.as_deref())),
                    Some(url),
                    branch,
                )
            }
            (None, None) => (None, None, clean("branch", self.branch)?),
        };
        let name = self
            .name
            .map(CodebaseName::new)
            .transpose()
            .map_err(|e| Invalid::new("name", e.reason))?;
        if name.is_none() && url.is_none() {
            return Err(Invalid::new("name", "a codebase needs a name or a URL"));
        }
        let value = self.value.map(i32::try_from).transpose();
        Ok(Codebase {
            name,
            branch_url,
            url,
            branch,
            subpath: clean("subpath", self.subpath)?,
            vcs_type: self.vcs_type.as_deref().map(str::parse).transpose()?,
            vcs_last_revision: clean("vcs_last_revision", self.vcs_last_revision)?,
            value: value.map_err(|_| Invalid::new("value", "does not fit 32 bits"))?,
            web_url: clean("web_url", self.web_url)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_follow_from_each_other() {
        let split = CodebaseUpload {
            name: Some("cb".into()),
            branch_url: Some("https://h/x.git,branch=a%2Fb".into()),
            ..Default::default()
        };
        let split = split.check().unwrap();
        assert_eq!(
            (split.url.as_deref(), split.branch.as_deref()),
            (Some("https://h/x.git"), Some("a/b"))
        );
        assert_eq!(
            split.branch_url.as_deref(),
            Some("https://h/x.git,branch=a%2Fb")
        );
        let joined = CodebaseUpload {
            url: Some("https://h/X_y.git".into()),
            branch: Some("dev/x y".into()),
            ..Default::default()
        };
        let joined = joined.check().unwrap();
        assert_eq!(
            joined.branch_url.as_deref(),
            Some("https://h/X_y.git,branch=dev/x%20y")
        );
        assert_eq!(joined.name, None);
    }

    #[test]
    fn what_cannot_be_stored_names_its_field() {
        let field = |upload: CodebaseUpload| upload.check().unwrap_err().field;
        assert_eq!(field(CodebaseUpload::default()), "name");
        assert_eq!(
            field(CodebaseUpload {
                name: Some("X".into()),
                ..Default::default()
            }),
            "name"
        );
        let named = CodebaseUpload {
            name: Some("ab".into()),
            ..Default::default()
        };
        assert_eq!(
            field(CodebaseUpload {
                vcs_type: Some("rcs".into()),
                ..named.clone()
            }),
            "vcs_type"
        );
        assert_eq!(
            field(CodebaseUpload {
                value: Some(1 << 40),
                ..named.clone()
            }),
            "value"
        );
        assert_eq!(
            field(CodebaseUpload {
                subpath: Some("a\0b".into()),
                ..named
            }),
            "subpath"
        );
    }

    proptest! {
        #[test]
        fn branches_survive_joining_and_splitting(branch in "\\PC{1,30}") {
            let joined = join_branch_url("https://h/x.git", Some(&branch));
            prop_assert_eq!(split_branch_url(&joined).unwrap(), ("https://h/x.git".to_owned(), Some(branch)));
        }
    }
}
