//! A bucket of S3, or of a store with the same API.

use super::objects::{Objects, Progress, PutError};
use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;
use futures::StreamExt;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use std::{io, sync::Arc, time::Duration};
use tokio_util::io::StreamReader;

/// Objects with more bytes are sent in parts of this size.
const PART_SIZE: usize = 8 << 20;
/// How many parts of one object are sent at the same time.
const MAX_CONCURRENT_PARTS: usize = 2;

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after its start a request may still be retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which bucket to use, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The name of the bucket.
    pub bucket: String,
    /// The URL of the service; `None` for Amazon's own.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// The id of the access key. Requests are signed only when both parts of the key are set.
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    pub secret_access_key: Option<String>,
}

/// A bucket of S3.
#[derive(Clone)]
pub struct S3Bucket {
    store: Arc<AmazonS3>,
}

/// Converts an error. What the service refuses, a retry does not cure.
fn fault(action: &'static str, error: Error) -> Fault {
    match error {
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } | Error::NotFound { .. } => {
            Fault::backend(action, error)
        }
        error => Fault::unavailable(action, error),
    }
}

/// Converts a name to a path as it is; nothing in it is escaped, so that other services find the
/// object.
fn path(name: &str) -> Result<Path, Fault> {
    Path::parse(name).map_err(|e| Fault::backend("name an object", e))
}

impl S3Bucket {
    /// Creates a client. It sends no request yet.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when the settings are not usable.
    pub fn open(settings: &S3Settings) -> Result<Self, Fault> {
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig {
            max_retries: 1,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        builder = match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(secret)) => builder
                .with_access_key_id(id)
                .with_secret_access_key(secret),
            _ => builder.with_skip_signature(true),
        };
        Ok(Self {
            store: Arc::new(
                builder
                    .build()
                    .map_err(|e| Fault::backend("prepare the client of S3", e))?,
            ),
        })
    }

    /// Uploads a large object in parts.
    async fn put_parts(
        &self,
        path: &Path,
        progress: &Progress,
        content: &Content,
    ) -> Result<(), Error> {
        let failed = |e: io::Error| Error::Generic {
            store: "S3",
            source: Box::new(e),
        };
        let mut chunks = progress.chunks(content).await.map_err(failed)?;
        let upload = self.store.put_multipart(path).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_SIZE);
        let sent = async {
            while let Some(chunk) = chunks.next().await {
                writer.put(chunk.map_err(failed)?);
                writer.wait_for_capacity(MAX_CONCURRENT_PARTS).await?;
            }
            Ok(())
        };
        match sent.await {
            Ok(()) => writer.finish().await.map(drop),
            Err(error) => {
                // The service would keep the parts that were sent, and charge for them.
                drop(writer.abort().await);
                Err(error)
            }
        }
    }

    /// Uploads a small object in one request.
    async fn put_whole(&self, path: &Path, content: &Content) -> Result<(), Error> {
        let bytes = match content {
            Content::Memory(bytes) => bytes.clone(),
            Content::File(file) => tokio::fs::read(file)
                .await
                .map_err(|e| Error::Generic {
                    store: "S3",
                    source: Box::new(e),
                })?
                .into(),
        };
        self.store
            .put(path, PutPayload::from_bytes(bytes))
            .await
            .map(drop)
    }
}

#[async_trait]
impl Objects for S3Bucket {
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError> {
        let (action, progress) = ("store an object", Progress::default());
        let path = path(name).map_err(PutError::Failed)?;
        let upload = async {
            let done = if size <= PART_SIZE as u64 {
                self.put_whole(&path, content).await
            } else {
                self.put_parts(&path, &progress, content).await
            };
            progress.advance();
            match done {
                Ok(()) => Ok(true),
                Err(Error::PermissionDenied { .. }) => Ok(false),
                Err(error) => Err(fault(action, error)),
            }
        };
        progress.guard_put(action, upload).await
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let action = "open an object";
        let path = path(name)?;
        let open = async {
            match self.store.get(&path).await {
                Ok(found) => Ok(Some(found)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(fault(action, error)),
            }
        };
        let found = Progress::default().guard(action, open).await?;
        Ok(found.map(|found| {
            Box::new(StreamReader::new(
                found
                    .into_stream()
                    .map(|chunk| chunk.map_err(io::Error::other)),
            )) as FileReader
        }))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        let action = "list the bucket";
        let list = async {
            self.store
                .list_with_delimiter(Some(&Path::from("checked/by/janitor-runner")))
                .await
                .map(drop)
                .map_err(|e| fault(action, e))
        };
        Progress::default().guard(action, list).await
    }
}
