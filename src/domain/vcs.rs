//! Version control systems, and the URLs of branches in the VCS store.

use super::{Invalid, branch_url::join_branch_url, name::CodebaseName};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A version control system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VcsType {
    /// Bazaar or Breezy.
    Bzr,
    /// Git.
    Git,
    /// Subversion.
    Svn,
    /// Monotone.
    Mtn,
    /// Mercurial.
    Hg,
    /// GNU Arch.
    Arch,
    /// CVS.
    Cvs,
    /// Darcs.
    Darcs,
}

impl VcsType {
    const ALL: [(&'static str, Self); 8] = [
        ("bzr", Self::Bzr),
        ("git", Self::Git),
        ("svn", Self::Svn),
        ("mtn", Self::Mtn),
        ("hg", Self::Hg),
        ("arch", Self::Arch),
        ("cvs", Self::Cvs),
        ("darcs", Self::Darcs),
    ];

    /// Returns its name in lower case.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("git", |(name, _)| name)
    }
}

impl FromStr for VcsType {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            Invalid::new(
                "vcs_type",
                format!(
                    "{text:?} is none of {}",
                    Self::ALL.map(|(name, _)| name).join(", ")
                ),
            )
        })
    }
}

impl fmt::Display for VcsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The locations of the VCS store, by VCS type: `BASE/git` and `BASE/bzr` of one base, or a URL for
/// each.
///
/// ```
/// use janitor_runner::domain::{name::CodebaseName, vcs::VcsStore};
///
/// let store = VcsStore::parse("https://vcs.example/")?;
/// let codebase = CodebaseName::new("hello")?;
/// let branch = store.branch(None, &codebase, "main");
/// assert_eq!(branch.as_deref(), Some("https://vcs.example/git/hello,branch=main"));
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcsStore {
    locations: BTreeMap<VcsType, String>,
}

impl VcsStore {
    /// Parses a base URL, or `git=URL,bzr=URL`. The path of a base is kept, with or without a final
    /// slash.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a location is not a URL.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let kind_of = |part: &str| {
            part.split_once('=')
                .and_then(|(kind, url)| Some((kind.parse::<VcsType>().ok()?, url.to_owned())))
        };
        let parts: Vec<_> = text.split(',').map(kind_of).collect();
        let locations: BTreeMap<_, _> = if parts.iter().all(Option::is_some) {
            parts.into_iter().flatten().collect()
        } else {
            let base = text.trim_end_matches('/');
            [VcsType::Git, VcsType::Bzr]
                .map(|kind| (kind, format!("{base}/{kind}")))
                .into()
        };
        for location in locations.values() {
            url::Url::parse(location)
                .map_err(|e| Invalid::new("public_vcs_location", format!("names no URL: {e}")))?;
        }
        Ok(Self { locations })
    }

    /// Returns the URL of the codebase's repository in the store; `None` when there is no store for
    /// that VCS. An unknown VCS counts as git.
    pub fn repository(&self, vcs: Option<VcsType>, codebase: &CodebaseName) -> Option<String> {
        let base = self.locations.get(&vcs.unwrap_or(VcsType::Git))?;
        Some(format!("{}/{codebase}", base.trim_end_matches('/')))
    }

    /// Returns the URL of a branch in that repository: for git `REPO,branch=NAME` (escaped), for
    /// others `REPO/NAME`.
    pub fn branch(
        &self,
        vcs: Option<VcsType>,
        codebase: &CodebaseName,
        branch: &str,
    ) -> Option<String> {
        let repository = self.repository(vcs, codebase)?;
        Some(match vcs.unwrap_or(VcsType::Git) {
            VcsType::Git => join_branch_url(&repository, Some(branch)),
            _ => format!("{repository}/{branch}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> CodebaseName {
        CodebaseName::new("g-one").unwrap()
    }

    #[test]
    fn base_url_keeps_its_path() {
        for base in ["http://h/vcs/", "http://h/vcs"] {
            let store = VcsStore::parse(base).unwrap();
            assert_eq!(
                store.repository(Some(VcsType::Bzr), &name()).unwrap(),
                "http://h/vcs/bzr/g-one"
            );
            assert_eq!(
                store.branch(None, &name(), "debian/latest").unwrap(),
                "http://h/vcs/git/g-one,branch=debian/latest"
            );
        }
    }

    #[test]
    fn each_vcs_type_may_have_its_own_url() {
        let store = VcsStore::parse("git=http://h/git/,bzr=http://h/b").unwrap();
        assert_eq!(
            store.repository(None, &name()).unwrap(),
            "http://h/git/g-one"
        );
        assert_eq!(
            store.branch(Some(VcsType::Bzr), &name(), "main").unwrap(),
            "http://h/b/g-one/main"
        );
        assert_eq!(store.repository(Some(VcsType::Hg), &name()), None);
        assert!(VcsStore::parse("nonsense").is_err());
    }
}
