//! What is kept of the refs that a git repository lists: what was asked for, and no more, however
//! many there are.

use crate::domain::{
    branch_query::{BranchQuery, FoundBranches},
    branch_url::is_git_branch,
    vcs::VcsType,
};
use std::collections::BTreeMap;

const HEADS: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";
/// The end of the name under which the commit of an annotated tag is listed.
const PEELED: &str = "^{}";
/// The longest name of a ref that is looked at.
const MAX_NAME: usize = 1024;

/// The refs that were asked for.
#[derive(Debug)]
pub(super) struct Refs<'a> {
    query: &'a BranchQuery,
    /// The name of the default branch.
    default: Option<String>,
    /// The revision of `HEAD`.
    head: Option<String>,
    /// The tip of the branch that was asked for.
    tip: Option<String>,
    /// The revision of the tag of that name.
    tag: Option<String>,
    others: BTreeMap<String, String>,
}

/// Returns an object id, which is hexadecimal; zeros stand for none.
fn object_id(bytes: &[u8]) -> Option<String> {
    let is_id = matches!(bytes.len(), 40 | 64) && bytes.iter().all(u8::is_ascii_hexdigit);
    let is_none = bytes.iter().all(|byte| *byte == b'0');
    (is_id && !is_none).then(|| String::from_utf8_lossy(bytes).to_ascii_lowercase())
}

impl<'a> Refs<'a> {
    pub(super) fn new(query: &'a BranchQuery) -> Self {
        Self {
            query,
            default: None,
            head: None,
            tip: None,
            tag: None,
            others: BTreeMap::new(),
        }
    }

    /// Notes what `HEAD` refers to. It must be known before the branches are.
    pub(super) fn set_head(&mut self, target: &str) {
        let branch = target.strip_prefix(HEADS);
        let branch = branch.filter(|name| name.len() <= MAX_NAME && is_git_branch(name));
        self.default = branch.map(str::to_owned);
    }

    /// Looks at a ref.
    pub(super) fn add(&mut self, name: &[u8], id: &[u8]) {
        let (Some(id), Ok(name)) = (object_id(id), std::str::from_utf8(name)) else {
            return;
        };
        if name.len() > MAX_NAME {
            return;
        }
        let wanted = self.query.branch.as_deref();
        if name == "HEAD" {
            self.head = Some(id);
        } else if let Some(branch) = name.strip_prefix(HEADS) {
            if wanted.or(self.default.as_deref()) == Some(branch) {
                self.tip = Some(id.clone());
            }
            if self.query.wants(branch, self.default.as_deref()) && is_git_branch(branch) {
                self.others.insert(branch.to_owned(), id);
            }
        } else if let Some(tag) = name.strip_prefix(TAGS) {
            let (tag, is_peeled) = match tag.strip_suffix(PEELED) {
                Some(tag) => (tag, true),
                None => (tag, false),
            };
            if wanted == Some(tag) && (is_peeled || self.tag.is_none()) {
                self.tag = Some(id);
            }
        }
    }

    /// Returns whether everything that was asked for is here, so that the rest need not be read.
    pub(super) fn is_complete(&self) -> bool {
        let has_tip = match self.query.branch {
            Some(_) => self.tip.is_some(),
            None => self.tip.is_some() || self.head.is_some(),
        };
        let others = &self.query.others;
        // The branches of a package may all be absent.
        has_tip && !self.query.colocated && others.iter().all(|name| self.others.contains_key(name))
    }

    /// Returns what was found, in the repository at a URL.
    pub(super) fn found(self, repository: String) -> FoundBranches {
        let revision = match self.query.branch {
            Some(_) => self.tip.or(self.tag),
            None => self.tip.or(self.head),
        };
        FoundBranches {
            repository,
            vcs_type: VcsType::Git,
            branch: self.query.branch.clone().or(self.default),
            revision,
            others: self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"1111111111111111111111111111111111111111";
    const TWO: &[u8] = b"2222222222222222222222222222222222222222";

    fn query(branch: Option<&str>) -> BranchQuery {
        BranchQuery {
            repository: "https://host/x".into(),
            vcs_type: None,
            branch: branch.map(str::to_owned),
            others: vec!["gen/main".into()],
            colocated: true,
        }
    }

    fn found(query: &BranchQuery, refs: &[(&str, &[u8])]) -> FoundBranches {
        let mut kept = Refs::new(query);
        kept.set_head("refs/heads/main");
        for (name, id) in refs {
            kept.add(name.as_bytes(), id);
        }
        kept.found("https://host/x".into())
    }

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let refs: &[(&str, &[u8])] = &[
            ("HEAD", ONE),
            ("refs/heads/main", ONE),
            ("refs/heads/gen/main", TWO),
            ("refs/heads/pristine-tar", TWO),
            ("refs/heads/patch-queue/main", TWO),
            ("refs/heads/other", TWO),
            ("refs/tags/main", TWO),
            ("refs/merge-requests/1/head", TWO),
        ];
        let found = found(&query(None), refs);
        assert_eq!(found.branch.as_deref(), Some("main"));
        assert_eq!(found.revision.as_deref(), Some("1".repeat(40).as_str()));
        let names: Vec<&String> = found.others.keys().collect();
        assert_eq!(names, ["gen/main", "patch-queue/main", "pristine-tar"]);
    }

    #[test]
    fn tag_counts_when_there_is_no_branch_of_that_name() {
        let refs: &[(&str, &[u8])] = &[("refs/tags/v1", ONE), ("refs/tags/v1^{}", TWO)];
        let revision = found(&query(Some("v1")), refs).revision;
        assert_eq!(revision.as_deref(), Some("2".repeat(40).as_str()));
        let refs: &[(&str, &[u8])] = &[("refs/tags/v1", ONE), ("refs/heads/v1", TWO)];
        let revision = found(&query(Some("v1")), refs).revision;
        assert_eq!(revision.as_deref(), Some("2".repeat(40).as_str()));
        assert_eq!(found(&query(Some("v2")), refs).revision, None);
    }

    #[test]
    fn names_that_git_allows_no_branch_are_left_out() {
        let query = query(None);
        let mut kept = Refs::new(&query);
        kept.set_head("refs/heads/x:refs/heads/y");
        kept.add(b"HEAD", ONE);
        kept.add(b"refs/heads/x:refs/heads/y", ONE);
        kept.add(b"refs/heads/patch-queue/x:refs/heads/y", TWO);
        let found = kept.found("https://host/x".into());
        assert_eq!((found.branch, found.others.len()), (None, 0));
        assert!(found.revision.is_some());
    }

    #[test]
    fn odd_ids_and_names_are_skipped() {
        let long = format!("refs/heads/{}", "x".repeat(2000));
        let refs: &[(&str, &[u8])] = &[
            ("refs/heads/main", b"not an id"),
            (
                "refs/heads/main",
                b"0000000000000000000000000000000000000000",
            ),
            (&long, ONE),
        ];
        assert_eq!(found(&query(None), refs).revision, None);
    }
}
