//! Campaigns and distributions, as configured.

use super::name::CampaignName;
use serde::{Deserialize, Serialize};

/// An effort to make one kind of change across codebases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The name.
    pub name: CampaignName,
    /// The command of candidates without one of their own.
    pub command: Option<String>,
    /// The name of the branch that proposals are made from; `None` means the campaign's name.
    pub branch_name: Option<String>,
    /// Whether to build even when the codemod changed nothing.
    pub force_build: bool,
    /// Whether to skip the build of the unchanged codebase.
    pub skip_setup_validation: bool,
    /// Whether a codebase without a branch starts from an empty one.
    pub default_empty: bool,
    /// The build target; without one, runs end as unsupported.
    pub build: Option<BuildTarget>,
    /// How many minutes a run may take; `None` means as long as other runs, 0 for ever.
    pub max_run_duration_minutes: Option<u32>,
}

/// What is built from a changed codebase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildTarget {
    /// Debian packages.
    Debian(DebianBuild),
    /// The codebase's own build.
    Generic {
        /// The chroot to build in.
        chroot: Option<String>,
    },
}

/// How a campaign builds Debian packages: the message `DebianBuild` of `janitor.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianBuild {
    /// The distribution that packages are built against.
    pub base_distribution: String,
    /// More distributions of our archive that the build may use packages of.
    pub extra_build_distribution: Vec<String>,
    /// The chroot to build in; `None` means that of the distribution.
    pub chroot: Option<String>,
    /// The distribution that packages are built for; `None` means the campaign's name.
    pub build_distribution: Option<String>,
    /// The suffix of the versions that are built.
    pub build_suffix: Option<String>,
    /// The build command; `None` means that of the distribution.
    pub build_command: Option<String>,
}

/// A distribution that packages are built against: the message `Distribution` of `janitor.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The name, such as `unstable`.
    pub name: String,
    /// The URL of the archive's mirror.
    pub archive_mirror_uri: Option<String>,
    /// The key of the archive, or the path of its keyring on the worker.
    pub signed_by: Option<String>,
    /// The chroot to build in.
    pub chroot: Option<String>,
    /// The components of the archive, such as `main`.
    pub component: Vec<String>,
    /// The profile that lintian runs with.
    pub lintian_profile: Option<String>,
    /// The lintian tags to suppress.
    pub lintian_suppress_tag: Vec<String>,
    /// The build command.
    pub build_command: Option<String>,
    /// The vendor, as `dpkg-vendor` names it.
    pub vendor: Option<String>,
}

/// The configured campaigns, and the distributions that they build against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Campaigns {
    /// The campaigns.
    pub campaigns: Vec<Campaign>,
    /// The distributions.
    pub distributions: Vec<Distribution>,
}

impl Campaigns {
    /// Returns the campaign of that name.
    pub fn campaign(&self, name: &CampaignName) -> Option<&Campaign> {
        self.campaigns.iter().find(|c| c.name == *name)
    }

    /// Returns the distribution of that name.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|d| d.name == name)
    }
}

impl Campaign {
    /// Returns the distribution that its packages are built for, if it builds any.
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
