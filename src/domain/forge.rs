//! Forges on which a deployment has an account that owns the branches of its proposals.

use super::{
    branch_query::BranchQuery, campaign::Campaign, host::host_of, name::CodebaseName, vcs::VcsType,
};

/// An account on a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forge {
    /// The host of the forge.
    pub host: String,
    /// The user to whom the derived repositories belong.
    pub user: String,
}

impl Forge {
    /// Returns the URL of the account's repository that is derived from another one of this forge.
    ///
    /// ```
    /// use janitor_runner::domain::forge::Forge;
    ///
    /// let forge = Forge { host: "salsa.example".into(), user: "bot".into() };
    /// let derived = forge.derived("https://salsa.example/team/hello.git");
    /// assert_eq!(derived.as_deref(), Some("https://salsa.example/bot/hello.git"));
    /// assert_eq!(forge.derived("https://elsewhere.example/team/hello"), None);
    /// ```
    pub fn derived(&self, repository: &str) -> Option<String> {
        if host_of(repository)? != self.host {
            return None;
        }
        let name = repository.trim_end_matches('/').rsplit(['/', ':']).next()?;
        // A port belongs to the host: without it, another server would be asked.
        let url = url::Url::parse(repository).ok();
        let port = url.as_ref().and_then(url::Url::port);
        let scheme = match url.as_ref().map(url::Url::scheme) {
            Some("http") => "http",
            _ => "https",
        };
        let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https");
        let port = port
            .filter(|_| url.as_ref().is_some_and(is_http))
            .map(|port| format!(":{port}"));
        let (host, user) = (&self.host, &self.user);
        Some(format!(
            "{scheme}://{host}{}/{user}/{name}",
            port.unwrap_or_default()
        ))
    }
}

/// Returns the names of the branches that an earlier run of a campaign may have left in a derived
/// repository, the first one first.
pub fn proposal_branches(campaign: &Campaign, codebase: &CodebaseName) -> Vec<String> {
    let name = campaign
        .branch_name
        .clone()
        .unwrap_or_else(|| campaign.name.to_string());
    vec![
        name.clone(),
        format!("{name}/main"),
        format!("{name}/main/{codebase}"),
    ]
}

/// Asks a derived repository for the branches of a campaign.
pub fn proposal_query(repository: String, branches: Vec<String>) -> BranchQuery {
    BranchQuery {
        repository,
        vcs_type: Some(VcsType::Git),
        branch: None,
        others: branches,
        colocated: false,
    }
}
