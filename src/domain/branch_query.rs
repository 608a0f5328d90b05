//! What is asked of a repository without cloning it, and what it answers.

use super::{
    Invalid,
    branch_url::{join_branch_url, split_branch_url},
    vcs::VcsType,
};
use std::collections::BTreeMap;

/// The branches that belong to a Debian package, whatever the packaging branch is called.
const PACKAGE_BRANCHES: [&str; 3] = ["pristine-lfs", "pristine-tar", "upstream"];

/// Questions about the branches of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BranchQuery {
    /// The URL of the repository, without the name of a branch.
    pub repository: String,
    /// Its version control system, if known.
    pub vcs_type: Option<VcsType>,
    /// The branch whose tip is asked for; `None` means the default branch.
    pub branch: Option<String>,
    /// Other branches whose tips are asked for.
    pub others: Vec<String>,
    /// Whether the branches that belong to a Debian package are asked for, too.
    pub colocated: bool,
}

/// What a repository answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBranches {
    /// The URL of the repository after redirects, without a user, a password or a final slash.
    pub repository: String,
    /// Its version control system.
    pub vcs_type: VcsType,
    /// The name of the branch that was asked for, or of the default branch, if it has a name.
    pub branch: Option<String>,
    /// The revision at the tip of that branch; `None` when there is no such branch.
    pub revision: Option<String>,
    /// The tips of the other branches that were asked for and exist, by name.
    pub others: BTreeMap<String, String>,
}

/// The role of a branch beside the packaging branch of a Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColocatedRole {
    /// The deltas that original tarballs are made from.
    PristineTar,
    /// The same in Git LFS.
    PristineLfs,
    /// The upstream source.
    Upstream,
    /// The patches as commits.
    PatchQueue,
}

impl ColocatedRole {
    /// Returns the name that workers know it by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PristineTar => "pristine-tar",
            Self::PristineLfs => "pristine-lfs",
            Self::Upstream => "upstream",
            Self::PatchQueue => "patch-queue",
        }
    }

    /// Returns the role of the branch `name` beside the packaging branch `branch`, if it has one.
    ///
    /// ```
    /// use janitor_runner::domain::branch_query::ColocatedRole;
    ///
    /// let role = |name| ColocatedRole::beside("debian/sid", name);
    /// assert_eq!(role("upstream/sid"), Some(ColocatedRole::Upstream));
    /// assert_eq!(role("patch-queue/debian/sid"), Some(ColocatedRole::PatchQueue));
    /// assert_eq!(role("upstream/bookworm"), None);
    /// ```
    pub fn beside(branch: &str, name: &str) -> Option<Self> {
        let is_upstream = branch
            .strip_prefix("debian/")
            .is_some_and(|rest| name.strip_prefix("upstream/") == Some(rest));
        match name {
            "pristine-tar" => Some(Self::PristineTar),
            "pristine-lfs" => Some(Self::PristineLfs),
            "upstream" => Some(Self::Upstream),
            _ if is_upstream => Some(Self::Upstream),
            _ if name.strip_prefix("patch-queue/") == Some(branch) => Some(Self::PatchQueue),
            _ => None,
        }
    }
}

impl BranchQuery {
    /// Asks for the branch that a branch URL names.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the branch is not UTF-8.
    pub fn of_branch(branch_url: &str, vcs_type: Option<VcsType>) -> Result<Self, Invalid> {
        let (repository, branch) = split_branch_url(branch_url)?;
        Ok(Self {
            repository,
            vcs_type,
            branch,
            others: vec![],
            colocated: false,
        })
    }

    /// Returns whether the branch `name` is one of the others that are asked for, in a repository
    /// whose default branch is `default`.
    pub fn wants(&self, name: &str, default: Option<&str>) -> bool {
        let branch = self.branch.as_deref().or(default);
        let is_colocated = || branch.and_then(|branch| ColocatedRole::beside(branch, name));
        self.others.iter().any(|other| other == name)
            || (self.colocated && is_colocated().is_some())
    }

    /// Returns what the names of the branches begin with that are asked for: a server that gets
    /// them leaves the others out.
    pub fn prefixes(&self) -> Vec<String> {
        let mut prefixes: Vec<String> = self.branch.iter().chain(&self.others).cloned().collect();
        if self.colocated {
            prefixes.extend(PACKAGE_BRANCHES.map(str::to_owned));
            match &self.branch {
                Some(branch) => prefixes.push(format!("patch-queue/{branch}")),
                None => prefixes.push("patch-queue/".to_owned()),
            }
        }
        prefixes
    }
}

impl FoundBranches {
    /// Returns the URL of the branch that `query` asked for, with its name only where the query had
    /// one.
    pub fn branch_url(&self, query: &BranchQuery) -> String {
        join_branch_url(&self.repository, query.branch.as_deref())
    }

    /// Returns the branches beside the packaging branch, with their roles, by name.
    pub fn colocated(&self) -> Vec<(String, ColocatedRole)> {
        let Some(branch) = &self.branch else {
            return vec![];
        };
        let role = |name: &String| Some((name.clone(), ColocatedRole::beside(branch, name)?));
        self.others.keys().filter_map(role).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(branch: Option<&str>) -> BranchQuery {
        BranchQuery {
            repository: "https://host/x".into(),
            vcs_type: None,
            branch: branch.map(str::to_owned),
            others: vec!["gen/main".into()],
            colocated: true,
        }
    }

    #[test]
    fn branches_of_a_package_depend_on_the_packaging_branch() {
        let named = query(Some("debian/sid"));
        for (name, wanted) in [
            ("gen/main", true),
            ("pristine-tar", true),
            ("upstream", true),
            ("upstream/sid", true),
            ("patch-queue/debian/sid", true),
            ("upstream/bookworm", false),
            ("patch-queue/main", false),
            ("debian/bookworm", false),
        ] {
            assert_eq!(named.wants(name, Some("main")), wanted, "{name}");
        }
        let default = query(None);
        assert!(default.wants("patch-queue/main", Some("main")));
        assert!(!default.wants("patch-queue/main", None));
        let generic = BranchQuery {
            colocated: false,
            ..query(None)
        };
        assert!(!generic.wants("pristine-tar", Some("main")));
    }

    #[test]
    fn whatever_is_wanted_begins_with_a_prefix() {
        for query in [query(None), query(Some("debian/sid"))] {
            let prefixes = query.prefixes();
            for name in [
                "gen/main",
                "pristine-tar",
                "upstream/sid",
                "patch-queue/debian/sid",
            ] {
                let begins = prefixes.iter().any(|prefix| name.starts_with(prefix));
                assert!(begins, "{name}: {prefixes:?}");
            }
        }
    }

    #[test]
    fn only_a_branch_that_was_named_is_in_the_url() {
        let found = FoundBranches {
            repository: "https://host/moved".into(),
            vcs_type: VcsType::Git,
            branch: Some("two words".into()),
            revision: Some("1".into()),
            others: BTreeMap::new(),
        };
        assert_eq!(found.branch_url(&query(None)), "https://host/moved");
        let named = query(Some("two words"));
        assert_eq!(
            found.branch_url(&named),
            "https://host/moved,branch=two%20words"
        );
    }
}
