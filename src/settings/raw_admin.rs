//! The settings of the admin API as they are written.

use super::{layered::layered, values::TlsSettings};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Who may use the admin API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(transform = layered)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Lists the names by which the admin API is reached, besides addresses, `localhost`, names of
    /// one label and those of the machine; `*.` at the start stands for any names below. Requests
    /// for other names are refused. Default: `[]`. Example: `["janitor.example.com"]`.
    pub(super) hosts: Vec<String>,
    /// Allows an admin API without tokens at an address that others can reach. Default: `false`.
    pub(super) open: bool,
    /// Lists the tokens; with one, each request to the admin API needs a token. Default: `[]`.
    #[serde(default)]
    pub(super) token: Vec<RawToken>,
    /// Sets the certificate of the admin API. Default: none, it has no TLS. Example:
    /// `{ certificate = "/etc/janitor-runner/admin.pem", key = "/etc/janitor-runner/admin.key" }`.
    pub(super) tls: Option<RawTls>,
}

/// A certificate, whose files are read again when they change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// Names the file of the certificate and of those that lead to the authority, in PEM. Example:
    /// `"/etc/janitor-runner/public.pem"`.
    pub(super) certificate: PathBuf,
    /// Names the file of the private key, in PEM. Example: `"/etc/janitor-runner/public.key"`.
    pub(super) key: PathBuf,
}

impl From<RawTls> for TlsSettings {
    fn from(raw: RawTls) -> Self {
        Self {
            certificate: raw.certificate,
            key: raw.key,
        }
    }
}

/// A token of the admin API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    /// Names who has the token, for the audit log. Example: `"anna"`.
    pub(super) name: String,
    /// Sets what the token is good for: `viewer` reads, `operator` also changes the queue and runs,
    /// `admin` also manages workers. Example: `"operator"`.
    pub(super) role: String,
    /// Sets the hash of the token, as `janitor-runner token add` prints it. Example:
    /// `"{file:/etc/janitor-runner/anna.hash}"`.
    pub(super) secret: String,
}
