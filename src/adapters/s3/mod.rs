//! A bucket of S3, or of a store with the same API.

mod credentials;
mod lost_uploads;
mod parts;
mod transport;

pub use credentials::S3Credentials;

use super::objects::{
    Objects, PutError,
    attempt::{self, Rejection, once, split, with_retries},
};
use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;
use object_store::{
    ClientOptions, Error, HeaderMap, HeaderValue, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use std::sync::Arc;

/// Says who may read an object.
const ACL_HEADER: &str = "x-amz-acl";

/// Which bucket to use, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The name of the bucket.
    pub bucket: String,
    /// The URL of the service; `None` for Amazon's own.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// How requests are signed.
    pub credentials: S3Credentials,
    /// The canned ACL of objects, such as `public-read`; `None` for the bucket's own rules.
    pub acl: Option<String>,
}

/// A bucket of S3.
#[derive(Clone)]
pub struct S3Bucket {
    /// `creator` sends the ACL, which requests that create no object may not have.
    clients: parts::Clients,
}

/// Converts an error of a request.
fn rejection(error: Error) -> Rejection {
    let status = match &error {
        Error::NotFound { .. } => Some(404),
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        Error::AlreadyExists { .. } => Some(409),
        Error::Precondition { .. } => Some(412),
        _ => None,
    };
    Rejection {
        status,
        source: Box::new(error),
    }
}

/// Converts a name to a path as it is; nothing in it is escaped, so that other services find the
/// object.
fn path(name: &str) -> Result<Path, Fault> {
    Path::parse(name).map_err(|e| Fault::backend("name an object", e))
}

fn client(settings: &S3Settings, headers: HeaderMap) -> Result<AmazonS3, Fault> {
    let action = "prepare the client of S3";
    // Attempts are made, bounded and repeated here, by the bytes that move.
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_default_headers(headers);
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_client_options(options)
        .with_http_connector(transport::Connector)
        .with_retry(retry);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    credentials::sign(builder, &settings.credentials)?
        .build()
        .map_err(|e| Fault::backend(action, e))
}

impl S3Bucket {
    /// Creates a client. It sends no request yet.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when the settings are not usable.
    pub fn open(settings: &S3Settings) -> Result<Self, Fault> {
        let store = Arc::new(client(settings, HeaderMap::new())?);
        let creator = match &settings.acl {
            None => store.clone(),
            Some(acl) => {
                let value = HeaderValue::from_str(acl)
                    .map_err(|e| Fault::backend("read the ACL of S3", e))?;
                // A header of the client is part of what it signs.
                Arc::new(client(
                    settings,
                    HeaderMap::from_iter([(http::HeaderName::from_static(ACL_HEADER), value)]),
                )?)
            }
        };
        let list = match settings.credentials {
            S3Credentials::Anonymous => None,
            _ => Some(transport::client().map_err(|e| Fault::backend("prepare a client", e))?),
        };
        let clients = parts::Clients {
            creator,
            store,
            list,
        };
        Ok(Self { clients })
    }

    /// Uploads a small object in one request.
    async fn put_whole(&self, path: &Path, content: &Content) -> Result<(), PutError> {
        let bytes = match content {
            Content::Memory(bytes) => bytes.clone(),
            Content::File(file) => tokio::fs::read(file)
                .await
                .map_err(|e| PutError::Failed(Fault::unavailable("read a file", e)))?
                .into(),
        };
        let payload: PutPayload = split(bytes).collect();
        let put = with_retries("store an object", || async {
            self.clients
                .creator
                .put(path, payload.clone())
                .await
                .map(drop)
                .map_err(rejection)
        });
        Ok(put.await?)
    }
}

#[async_trait]
impl Objects for S3Bucket {
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError> {
        let path = path(name).map_err(PutError::Failed)?;
        if size <= parts::PART_SIZE as u64 {
            self.put_whole(&path, content).await
        } else {
            self.clients.put(&path, content).await
        }
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let path = path(name)?;
        let opened = with_retries("open an object", || async {
            self.clients.store.get(&path).await.map_err(rejection)
        });
        match opened.await {
            Ok(found) => Ok(Some(attempt::reader(found.into_stream()))),
            Err(failure) if failure.status == Some(404) => Ok(None),
            Err(failure) => Err(failure.fault),
        }
    }

    async fn health_check(&self) -> Result<(), Fault> {
        let list = async {
            self.clients
                .store
                .list_with_delimiter(Some(&Path::from("checked/by/janitor-runner")))
                .await
                .map(drop)
                .map_err(rejection)
        };
        once("list the bucket", list)
            .await
            .map_err(|failure| failure.fault)
    }
}
