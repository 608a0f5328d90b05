//! Finds the key that signs requests, as the usual clients of S3 do: in the environment, then in
//! the shared files. Nothing asks the link-local address that provides keys on some hosts, unless
//! the settings say so.

use crate::ports::Fault;
use async_trait::async_trait;
use object_store::{
    CredentialProvider,
    aws::{AmazonS3Builder, AwsCredential},
};
use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The largest shared file that is read, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// They are not: for public buckets and emulators.
    Anonymous,
    /// With this key.
    Key {
        /// The id of the key.
        id: String,
        /// Its secret.
        secret: String,
    },
    /// With the key that the environment or the shared files have.
    Default,
    /// With the key that the metadata service of the host or container provides.
    Metadata,
}

/// Where the key in the shared files is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SharedFiles {
    /// `~/.aws/credentials`, with sections `[PROFILE]`.
    credentials: PathBuf,
    /// `~/.aws/config`, with sections `[profile PROFILE]`.
    config: PathBuf,
    profile: String,
}

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn shared_files(variable: impl Fn(&str) -> Option<String>) -> SharedFiles {
    let home = PathBuf::from(variable("HOME").unwrap_or_default());
    let path = |name: &str, default: &str| {
        variable(name).map_or_else(|| home.join(default), PathBuf::from)
    };
    SharedFiles {
        credentials: path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        config: path("AWS_CONFIG_FILE", ".aws/config"),
        profile: variable("AWS_PROFILE")
            .or_else(|| variable("AWS_DEFAULT_PROFILE"))
            .unwrap_or_else(|| "default".to_owned()),
    }
}

/// Makes a credential of what `value` has.
fn credential(
    value: impl Fn(&str) -> Option<String>,
    [id, secret, token]: [&str; 3],
) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: value(id)?,
        secret_key: value(secret)?,
        token: value(token),
    })
}

/// Returns the fields of one section of a shared file.
fn section<'a>(text: &'a str, wanted: &str) -> BTreeMap<&'a str, &'a str> {
    let mut fields = BTreeMap::new();
    let mut inside = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.split(']').next()) {
            inside = name.split_whitespace().eq(wanted.split_whitespace());
        } else if inside
            // Indented lines belong to a field with fields of its own.
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((name, value)) = trimmed.split_once('=')
        {
            fields.insert(name.trim_end(), value.trim());
        }
    }
    fields
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
}

impl SharedFiles {
    /// Reads the key; none when no file has it.
    fn credential(&self) -> Option<AwsCredential> {
        let names = [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ];
        let in_config = match self.profile.as_str() {
            "default" => "default".to_owned(),
            profile => format!("profile {profile}"),
        };
        let places = [
            (&self.credentials, self.profile.clone()),
            (&self.config, in_config),
        ];
        places.iter().find_map(|(path, name)| {
            let text = read(path).ok()?;
            let fields = section(&text, name);
            let value = |name: &str| fields.get(name).map(|value| (*value).to_owned());
            credential(value, names)
        })
    }
}

/// Reads the shared files for each request, since programs replace the keys in them while this one
/// runs.
#[async_trait]
impl CredentialProvider for SharedFiles {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let files = self.clone();
        let missing = || object_store::Error::Unauthenticated {
            path: self.credentials.display().to_string(),
            source: format!("there is no key of the profile {} any more", self.profile).into(),
        };
        let read = tokio::task::spawn_blocking(move || files.credential());
        let found = read.await.map_err(|e| object_store::Error::Generic {
            store: "S3",
            source: Box::new(e),
        })?;
        found.map(Arc::new).ok_or_else(missing)
    }
}

/// Sets how a client signs its requests.
///
/// # Errors
///
/// Returns [`Fault::Backend`] when there is no key.
pub(super) fn sign(
    builder: AmazonS3Builder,
    credentials: &S3Credentials,
) -> Result<AmazonS3Builder, Fault> {
    let in_environment = || {
        let names = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ];
        credential(variable, names)
    };
    match credentials {
        S3Credentials::Anonymous => Ok(builder.with_skip_signature(true)),
        S3Credentials::Key { id, secret } => Ok(builder
            .with_access_key_id(id)
            .with_secret_access_key(secret)),
        S3Credentials::Metadata => Ok(builder),
        S3Credentials::Default => {
            if let Some(found) = in_environment() {
                let provider = object_store::StaticCredentialProvider::new(found);
                return Ok(builder.with_credentials(Arc::new(provider)));
            }
            let files = shared_files(variable);
            if files.credential().is_some() {
                return Ok(builder.with_credentials(Arc::new(files)));
            }
            let text = format!(
                "there is no key: neither s3.access_key_id is set, nor AWS_ACCESS_KEY_ID, nor has \
                 {} one of the profile {}; s3.credentials = \"anonymous\" sends requests unsigned",
                files.credentials.display(),
                files.profile
            );
            Err(Fault::backend("prepare the client of S3", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\u{feff}# keys\n[default]\naws_access_key_id=AKIA1\naws_secret_access_key = a/b+c=\n\
        [ other ]\n aws_access_key_id = nested\naws_access_key_id = AKIA2\naws_secret_access_key=s2\naws_session_token=t2\n";

    fn files(home: &Path, profile: Option<&str>) -> SharedFiles {
        let home = home.display().to_string();
        shared_files(|name| match name {
            "HOME" => Some(home.clone()),
            "AWS_PROFILE" => profile.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn key_of_the_profile_is_read_from_the_shared_file() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/credentials"), FILE).unwrap();
        let found = files(home.path(), None).credential().unwrap();
        assert_eq!(found.key_id, "AKIA1");
        assert_eq!(found.secret_key, "a/b+c=");
        assert_eq!(found.token, None);
        let found = files(home.path(), Some("other")).credential().unwrap();
        assert_eq!(found.key_id, "AKIA2");
        assert_eq!(found.token.as_deref(), Some("t2"));
        assert!(files(home.path(), Some("third")).credential().is_none());
    }

    #[test]
    fn key_in_the_configuration_is_found_too() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let text = "[profile third]\naws_access_key_id=AKIA3\naws_secret_access_key=s3\n";
        fs::write(home.path().join(".aws/config"), text).unwrap();
        let found = files(home.path(), Some("third")).credential().unwrap();
        assert_eq!(found.key_id, "AKIA3");
        assert!(files(home.path(), None).credential().is_none());
    }
}
