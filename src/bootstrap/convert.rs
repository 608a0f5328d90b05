//! The configuration of each adapter and service, made of the values that the settings own.

use super::machine_names::machine_names;
use crate::{
    adapters::{gcs, http, postgres, s3, support::guarded_http, vcs},
    services::watch::PollConfig,
    settings,
};

impl From<&settings::TlsSettings> for http::TlsFiles {
    fn from(settings: &settings::TlsSettings) -> Self {
        Self {
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
        }
    }
}

impl From<&settings::Settings> for http::AdminAccess {
    fn from(settings: &settings::Settings) -> Self {
        let addresses = [&settings.admin.listen_address, &settings.listen_address];
        let named = addresses.into_iter().filter_map(|address| match address {
            settings::ListenAddress::Host(host) => Some(host.clone()),
            settings::ListenAddress::Unix(_) => None,
        });
        Self {
            hosts: settings
                .admin
                .hosts
                .iter()
                .cloned()
                .chain(named)
                .chain(machine_names())
                .collect(),
            tokens: settings.admin.tokens.clone(),
        }
    }
}

impl From<&settings::PostgresSettings> for postgres::PostgresSettings {
    fn from(settings: &settings::PostgresSettings) -> Self {
        Self {
            url: settings.url.clone(),
            max_connections: settings.max_connections,
            statement_timeout: settings.statement_timeout,
            read_connections: settings.read_connections,
            read_timeout: settings.read_timeout,
        }
    }
}

impl From<&settings::GcsSettings> for gcs::GcsSettings {
    fn from(settings: &settings::GcsSettings) -> Self {
        Self {
            bucket: settings.bucket.clone(),
            endpoint: settings.endpoint.clone(),
            credentials: (&settings.credentials).into(),
        }
    }
}

impl From<&settings::GcsCredentials> for gcs::GcsCredentials {
    fn from(credentials: &settings::GcsCredentials) -> Self {
        match credentials {
            settings::GcsCredentials::Anonymous => Self::Anonymous,
            settings::GcsCredentials::File(path) => Self::File(path.clone()),
            settings::GcsCredentials::Default => Self::Default,
        }
    }
}

impl From<&settings::S3Settings> for s3::S3Settings {
    fn from(settings: &settings::S3Settings) -> Self {
        Self {
            bucket: settings.bucket.clone(),
            endpoint: settings.endpoint.clone(),
            region: settings.region.clone(),
            credentials: (&settings.credentials).into(),
            acl: settings.acl.clone(),
        }
    }
}

impl From<&settings::S3Credentials> for s3::S3Credentials {
    fn from(credentials: &settings::S3Credentials) -> Self {
        match credentials {
            settings::S3Credentials::Anonymous => Self::Anonymous,
            settings::S3Credentials::Key { id, secret } => Self::Key {
                id: id.clone(),
                secret: secret.clone(),
            },
            settings::S3Credentials::Default => Self::Default,
            settings::S3Credentials::Metadata => Self::Metadata,
        }
    }
}

impl From<&settings::GuardedHttpSettings> for guarded_http::GuardedHttpSettings {
    fn from(settings: &settings::GuardedHttpSettings) -> Self {
        Self {
            timeout: settings.timeout,
            stall_timeout: settings.log_stall,
            transfer_timeout: settings.log_total,
            allowed_networks: settings.allowed_networks.clone(),
            user_agent: settings.user_agent.clone(),
        }
    }
}

impl From<&settings::VcsSettings> for guarded_http::GuardedHttpSettings {
    fn from(settings: &settings::VcsSettings) -> Self {
        Self {
            timeout: settings.timeout,
            stall_timeout: settings.timeout,
            transfer_timeout: settings.timeout,
            allowed_networks: settings.allowed_networks.clone(),
            user_agent: settings.user_agent.clone(),
        }
    }
}

impl From<&settings::VcsSettings> for vcs::ProbeSettings {
    fn from(settings: &settings::VcsSettings) -> Self {
        let login = |login: &settings::VcsLogin| vcs::HostLogin {
            host: login.host.clone(),
            username: login.username.clone(),
            password: login.password.clone(),
        };
        Self {
            allowed_hosts: settings.allowed_hosts.clone(),
            logins: settings.logins.iter().map(login).collect(),
            ssh_command: settings.ssh_command.clone(),
        }
    }
}

impl From<settings::RequestLimits> for http::RequestLimits {
    fn from(limits: settings::RequestLimits) -> Self {
        Self {
            json_body: limits.json_body,
            report: limits.report,
            upload_file: limits.upload_file,
            upload: limits.upload,
            uploads: limits.uploads,
            uploads_of_worker: limits.uploads_of_worker,
            upload_files: limits.upload_files,
            upload_idle_seconds: limits.upload_idle_seconds,
            refusal_delay_milliseconds: limits.refusal_delay_milliseconds,
            max_delayed_refusals: limits.max_delayed_refusals,
        }
    }
}

impl From<settings::PollSettings> for PollConfig {
    fn from(settings: settings::PollSettings) -> Self {
        Self {
            interval: settings.interval,
            max_concurrent_pings: settings.max_concurrent_pings,
        }
    }
}
