//! Build configurations: what a worker must know to build the campaign's target.

use super::{
    campaign::{BuildTarget, Campaign, Campaigns, DebianBuild, Distribution},
    name::CodebaseName,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The settings of the deployment that build configurations depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildSettings {
    /// The URL of the service that resolves missing dependencies to packages.
    pub dep_server_url: Option<String>,
    /// The URL of the archive of built packages.
    pub apt_archive_location: Option<String>,
    /// The key that the archive is signed with.
    pub apt_archive_key: Option<String>,
    /// The vendor that `dpkg-vendor` names on this machine.
    pub host_vendor: Option<String>,
}

/// The build configuration in an assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// The build target: `debian` or `generic`.
    pub target: String,
    /// The environment of the build.
    pub environment: BTreeMap<String, String>,
    /// The configuration of the build target.
    pub config: Map<String, Value>,
}

/// Why a campaign cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The campaign has neither `debian_build` nor `generic_build`.
    #[error("campaign {0} has no build target")]
    NoTarget(String),
    /// The distribution is not configured.
    #[error(
        "campaign {campaign} builds for the distribution {distribution}, which is not configured"
    )]
    UnknownDistribution {
        /// The campaign.
        campaign: String,
        /// The distribution that it builds for.
        distribution: String,
    },
}

/// What the build of a run depends on besides its campaign.
#[derive(Debug, Clone, Copy)]
pub struct BuildRequest<'a> {
    /// The codebase.
    pub codebase: &'a CodebaseName,
    /// The change set, whose earlier packages the build may use.
    pub change_set: Option<&'a str>,
    /// The highest version built so far for this codebase and build distribution.
    pub last_build_version: Option<&'a str>,
}

/// Returns the build configuration for a run of `campaign`.
///
/// # Errors
///
/// [`Unsupported`] when the campaign has no build target, or its distribution is not configured.
pub fn build(
    campaign: &Campaign,
    campaigns: &Campaigns,
    settings: &BuildSettings,
    request: BuildRequest<'_>,
) -> Result<Build, Unsupported> {
    match &campaign.build {
        None => Err(Unsupported::NoTarget(campaign.name.to_string())),
        Some(BuildTarget::Generic { chroot }) => Ok(generic(chroot.as_deref(), settings)),
        Some(BuildTarget::Debian(target)) => {
            let distribution = campaigns
                .distribution(&target.base_distribution)
                .ok_or_else(|| Unsupported::UnknownDistribution {
                    campaign: campaign.name.to_string(),
                    distribution: target.base_distribution.clone(),
                })?;
            Ok(debian(campaign, target, distribution, settings, request))
        }
    }
}

fn generic(chroot: Option<&str>, settings: &BuildSettings) -> Build {
    let mut config = Map::new();
    set(&mut config, "chroot", chroot);
    config.insert("dep_server_url".into(), json!(settings.dep_server_url));
    Build {
        target: "generic".into(),
        environment: BTreeMap::new(),
        config,
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        config.insert(key.to_owned(), value.into());
    }
}

impl Distribution {
    /// Returns `URI NAME COMPONENTS`, if the distribution has a mirror and components.
    fn base_apt_repository(&self) -> Option<String> {
        let mirror = self
            .archive_mirror_uri
            .as_ref()
            .filter(|_| !self.component.is_empty())?;
        Some(format!(
            "{mirror} {} {}",
            self.name,
            self.component.join(" ")
        ))
    }
}

fn extra_repositories(
    target: &DebianBuild,
    settings: &BuildSettings,
    change_set: Option<&str>,
) -> Vec<String> {
    let Some(location) = &settings.apt_archive_location else {
        return vec![];
    };
    let trust = match &settings.apt_archive_key {
        Some(key) => format!("signed-by={key}"),
        None => "trusted=yes".to_owned(),
    };
    let change_set = change_set.map(|id| format!("cs/{id}"));
    let suites = target
        .extra_build_distribution
        .iter()
        .cloned()
        .chain(change_set);
    suites
        .map(|suite| format!("deb [{trust}] {location} {suite} main"))
        .collect()
}

fn debian(
    campaign: &Campaign,
    target: &DebianBuild,
    distribution: &Distribution,
    settings: &BuildSettings,
    request: BuildRequest<'_>,
) -> Build {
    let chroot = target.chroot.as_deref().or(distribution.chroot.as_deref());
    let repository = distribution.base_apt_repository();
    let vendor = distribution
        .vendor
        .as_deref()
        .or(settings.host_vendor.as_deref());
    // A path names a keyring on the worker, which knows it already; only the key itself is sent.
    let key = distribution
        .signed_by
        .as_deref()
        .filter(|key| repository.is_some() && key.trim_start().starts_with("-----BEGIN PGP"));
    let environment = [
        ("DISTRIBUTION", Some(distribution.name.as_str())),
        ("DEB_VENDOR", vendor),
        ("CHROOT", chroot),
        ("APT_REPOSITORY", repository.as_deref()),
        ("APT_REPOSITORY_KEY", key),
    ];
    let environment = environment
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    let mut config = Map::new();
    config.insert("lintian".into(), lintian(distribution));
    set_build(&mut config, campaign, target, distribution, &request);
    config.insert(
        "build-extra-repositories".into(),
        json!(extra_repositories(target, settings, request.change_set)),
    );
    set(&mut config, "chroot", chroot);
    set(&mut config, "base-apt-repository", repository.as_deref());
    if repository.is_some() {
        set(
            &mut config,
            "base-apt-repository-signed-by",
            distribution.signed_by.as_deref(),
        );
    }
    config.insert("dep_server_url".into(), json!(settings.dep_server_url));
    Build {
        target: "debian".into(),
        environment,
        config,
    }
}

/// Returns the configuration of lintian.
fn lintian(distribution: &Distribution) -> Value {
    let mut lintian = Map::new();
    lintian.insert("profile".into(), json!(distribution.lintian_profile));
    if !distribution.lintian_suppress_tag.is_empty() {
        lintian.insert(
            "suppress-tags".into(),
            json!(distribution.lintian_suppress_tag),
        );
    }
    Value::Object(lintian)
}

/// Sets what is built, and how.
fn set_build(
    config: &mut Map<String, Value>,
    campaign: &Campaign,
    target: &DebianBuild,
    distribution: &Distribution,
    request: &BuildRequest<'_>,
) {
    let command = target
        .build_command
        .as_deref()
        .or(distribution.build_command.as_deref());
    config.insert(
        "build-distribution".into(),
        json!(campaign.build_distribution()),
    );
    config.insert(
        "build-suffix".into(),
        json!(target.build_suffix.as_deref().unwrap_or("")),
    );
    set(config, "build-command", command);
    set(config, "last-build-version", request.last_build_version);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::CampaignName;

    fn campaign(build: Option<BuildTarget>) -> Campaign {
        Campaign {
            name: CampaignName::new("camp").unwrap(),
            command: None,
            branch_name: None,
            force_build: false,
            skip_setup_validation: false,
            default_empty: false,
            build,
            max_run_duration_minutes: None,
        }
    }

    fn configured(
        campaign: &Campaign,
        distributions: Vec<Distribution>,
        settings: &BuildSettings,
    ) -> Result<Build, Unsupported> {
        let codebase = CodebaseName::new("cb").unwrap();
        let request = BuildRequest {
            codebase: &codebase,
            change_set: Some("42"),
            last_build_version: Some("1.0"),
        };
        build(
            campaign,
            &Campaigns {
                campaigns: vec![],
                distributions,
            },
            settings,
            request,
        )
    }

    #[test]
    fn generic_build_has_only_chroot_and_dependency_server() {
        let chroot = campaign(Some(BuildTarget::Generic {
            chroot: Some("c".into()),
        }));
        let build = configured(&chroot, vec![], &BuildSettings::default()).unwrap();
        assert_eq!(
            Value::Object(build.config),
            json!({"chroot": "c", "dep_server_url": null})
        );
        assert!(build.environment.is_empty());
    }

    #[test]
    fn debian_build_uses_the_archive_with_its_key() {
        let debian = DebianBuild {
            base_distribution: "sid".into(),
            extra_build_distribution: vec!["extra".into()],
            ..Default::default()
        };
        let campaign = campaign(Some(BuildTarget::Debian(debian)));
        let distribution = Distribution {
            name: "sid".into(),
            archive_mirror_uri: Some("http://m/debian".into()),
            component: vec!["main".into()],
            signed_by: Some("-----BEGIN PGP PUBLIC KEY BLOCK-----".into()),
            ..Default::default()
        };
        let mut settings = BuildSettings {
            apt_archive_location: Some("http://a".into()),
            host_vendor: Some("debian".into()),
            ..Default::default()
        };
        let build = configured(&campaign, vec![distribution.clone()], &settings).unwrap();
        assert_eq!(
            build.config["build-extra-repositories"],
            json!([
                "deb [trusted=yes] http://a extra main",
                "deb [trusted=yes] http://a cs/42 main"
            ])
        );
        assert_eq!(build.config["build-distribution"], "camp");
        assert_eq!(build.config["last-build-version"], "1.0");
        assert_eq!(
            build.environment["APT_REPOSITORY"],
            "http://m/debian sid main"
        );
        assert_eq!(build.environment["DEB_VENDOR"], "debian");
        assert!(build.environment.contains_key("APT_REPOSITORY_KEY"));
        settings.apt_archive_key = Some("/k.gpg".into());
        let build = configured(&campaign, vec![distribution], &settings).unwrap();
        assert_eq!(
            build.config["build-extra-repositories"][0],
            "deb [signed-by=/k.gpg] http://a extra main"
        );
    }

    #[test]
    fn unsupported_target_is_an_error() {
        assert!(matches!(
            configured(&campaign(None), vec![], &BuildSettings::default()),
            Err(Unsupported::NoTarget(_))
        ));
        let debian = DebianBuild {
            base_distribution: "nosuch".into(),
            ..Default::default()
        };
        let error = configured(
            &campaign(Some(BuildTarget::Debian(debian))),
            vec![],
            &BuildSettings::default(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("nosuch"));
    }
}
