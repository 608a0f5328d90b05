//! Codebases: locations in version control that changes can be made to.

use super::{
    Invalid,
    branch_url::{join_branch_url, split_branch_url},
    host::host_of,
    invalid::text,
    name::CodebaseName,
    vcs::VcsType,
};
use serde::{Deserialize, Serialize};

/// A codebase. One without a branch URL is nascent: it is not published anywhere yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codebase {
    /// Its name. A codebase without a name can be listed, but nothing can be queued for it.
    pub name: Option<CodebaseName>,
    /// `URL` or `URL,branch=NAME`.
    pub branch_url: Option<String>,
    /// The URL of the repository.
    pub url: Option<String>,
    /// The branch in the repository; `None` means the default branch.
    pub branch: Option<String>,
    /// The folder in the branch; `None` means its root.
    pub subpath: Option<String>,
    /// Its version control system, if known.
    pub vcs_type: Option<VcsType>,
    /// The revision last seen at the tip of the branch.
    pub vcs_last_revision: Option<String>,
    /// How much this codebase is worth, relative to others.
    pub value: Option<i32>,
    /// The URL of its web page.
    pub web_url: Option<String>,
}

/// A codebase as uploaded, before validation; the fields are those of [`Codebase`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodebaseUpload {
    /// See [`Codebase::name`].
    pub name: Option<String>,
    /// See [`Codebase::branch_url`]. When given, `url` is ignored, and so is `branch` if this has
    /// one.
    pub branch_url: Option<String>,
    /// See [`Codebase::url`].
    pub url: Option<String>,
    /// See [`Codebase::branch`].
    pub branch: Option<String>,
    /// See [`Codebase::subpath`].
    pub subpath: Option<String>,
    /// See [`Codebase::vcs_type`].
    pub vcs_type: Option<String>,
    /// See [`Codebase::vcs_last_revision`].
    pub vcs_last_revision: Option<String>,
    /// See [`Codebase::value`].
    pub value: Option<i64>,
    /// See [`Codebase::web_url`].
    pub web_url: Option<String>,
}

impl Codebase {
    /// Returns the host of the branch URL, by the rule of [`host_of`].
    pub fn host(&self) -> Option<String> {
        self.branch_url.as_deref().and_then(host_of)
    }

    /// Returns whether a change from `earlier` means that the candidates should run again.
    pub fn moved_from(&self, earlier: &Self) -> bool {
        (&self.branch_url, &self.subpath) != (&earlier.branch_url, &earlier.subpath)
    }
}

impl CodebaseUpload {
    /// Validates an upload and fills in the URLs that follow from the others.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the first field that cannot be accepted.
    ///
    /// ```
    /// use janitor_runner::domain::codebase::CodebaseUpload;
    ///
    /// let upload = CodebaseUpload {
    ///     name: Some("hello".into()),
    ///     branch_url: Some("https://host/hello.git,branch=debian%2Fsid".into()),
    ///     ..CodebaseUpload::default()
    /// };
    /// let codebase = upload.validate()?;
    /// assert_eq!(codebase.url.as_deref(), Some("https://host/hello.git"));
    /// assert_eq!(codebase.branch.as_deref(), Some("debian/sid"));
    /// # Ok::<(), janitor_runner::domain::Invalid>(())
    /// ```
    pub fn validate(self) -> Result<Codebase, Invalid> {
        let clean = |field: &str, value: Option<String>| value.map(|v| text(field, v)).transpose();
        let (branch_url, url, branch) = match (
            clean("branch_url", self.branch_url)?,
            clean("url", self.url)?,
        ) {
            (Some(branch_url), _) => {
                let (url, of_url) = split_branch_url(&branch_url)?;
                let branch = clean("branch", self.branch)?;
                (Some(branch_url), Some(url), of_url.or(branch))
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

    #[test]
    fn url_and_branch_follow_from_branch_url_and_back() {
        let split = CodebaseUpload {
            name: Some("cb".into()),
            branch_url: Some("https://h/x.git,branch=a%2Fb".into()),
            ..Default::default()
        };
        let split = split.validate().unwrap();
        assert_eq!(split.url.as_deref(), Some("https://h/x.git"));
        assert_eq!(split.branch.as_deref(), Some("a/b"));
        assert_eq!(
            split.branch_url.as_deref(),
            Some("https://h/x.git,branch=a%2Fb")
        );
        let both = |branch_url: &str| {
            let upload = CodebaseUpload {
                name: Some("cb".into()),
                branch_url: Some(branch_url.into()),
                branch: Some("given".into()),
                ..Default::default()
            };
            upload.validate().unwrap()
        };
        let kept = both("https://h/x.git");
        assert_eq!(kept.branch.as_deref(), Some("given"));
        assert_eq!(kept.branch_url.as_deref(), Some("https://h/x.git"));
        let of_url = both("https://h/x.git,branch=other").branch;
        assert_eq!(of_url.as_deref(), Some("other"));
        let joined = CodebaseUpload {
            url: Some("https://h/X_y.git".into()),
            branch: Some("dev/x y".into()),
            ..Default::default()
        };
        let joined = joined.validate().unwrap();
        assert_eq!(
            joined.branch_url.as_deref(),
            Some("https://h/X_y.git,branch=dev/x%20y")
        );
        assert_eq!(joined.name, None);
    }

    #[test]
    fn unacceptable_value_names_its_field() {
        let field = |upload: CodebaseUpload| upload.validate().unwrap_err().field;
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
}
