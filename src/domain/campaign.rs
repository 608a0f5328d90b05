//! Campaigns and distributions, as configured.

use super::name::CampaignName;
use serde::{Deserialize, Serialize};

/// An effort to make one kind of change across codebases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Its name.
    pub name: CampaignName,
    /// The command of candidates that bring none.
    pub command: Option<String>,
    /// The name of the branch that proposals are made from; the campaign's name when not given.
    pub branch_name: Option<String>,
    /// Build even when the codemod changed nothing.
    pub force_build: bool,
    /// Do not check that the unchanged codebase builds.
    pub skip_setup_validation: bool,
    /// A codebase without a branch starts from an empty one.
    pub default_empty: bool,
    /// What is made of the changed codebase; none configured is unsupported.
    pub build: Option<BuildTarget>,
}

/// What is made of a changed codebase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildTarget {
    /// Debian packages.
    Debian(DebianBuild),
    /// Whatever the codebase's own build makes.
    Generic {
        /// The chroot to build in.
        chroot: Option<String>,
    },
}

/// How a campaign builds Debian packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields of janitor.conf's message DebianBuild"
)]
pub struct DebianBuild {
    pub base_distribution: String,
    pub extra_build_distribution: Vec<String>,
    pub chroot: Option<String>,
    pub build_distribution: Option<String>,
    pub build_suffix: Option<String>,
    pub build_command: Option<String>,
}

/// A distribution that packages are built for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields of janitor.conf's message Distribution"
)]
pub struct Distribution {
    pub name: String,
    pub archive_mirror_uri: Option<String>,
    pub signed_by: Option<String>,
    pub chroot: Option<String>,
    pub component: Vec<String>,
    pub lintian_profile: Option<String>,
    pub lintian_suppress_tag: Vec<String>,
    pub build_command: Option<String>,
    pub vendor: Option<String>,
}

/// Everything that campaigns and their builds are configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Campaigns {
    /// The campaigns.
    pub campaigns: Vec<Campaign>,
    /// The distributions they build for.
    pub distributions: Vec<Distribution>,
}

impl Campaigns {
    /// The campaign of that name.
    pub fn campaign(&self, name: &CampaignName) -> Option<&Campaign> {
        self.campaigns.iter().find(|c| c.name == *name)
    }

    /// The distribution of that name.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|d| d.name == name)
    }
}

impl Campaign {
    /// The distribution that its packages are built for, when it builds any.
    pub fn build_distribution(&self) -> Option<&str> {
        match &self.build {
            Some(BuildTarget::Debian(debian)) => Some(
                debian
                    .build_distribution
                    .as_deref()
                    .unwrap_or(self.name.as_str()),
            ),
            _ => None,
        }
    }
}
