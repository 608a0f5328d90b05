//! A bucket of S3 or of a store that speaks like it.

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

/// Larger ones are sent in parts of this size, as many at a time.
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;

/// Which bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct S3Settings {
    pub bucket: String,
    /// Another address than Amazon's.
    pub endpoint: Option<String>,
    pub region: String,
    /// Without keys, requests are not signed.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
}

/// A bucket.
#[derive(Clone)]
pub struct S3Bucket {
    store: Arc<AmazonS3>,
}

fn fault(action: &'static str, error: Error) -> Fault {
    match error {
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } | Error::NotFound { .. } => {
            Fault::backend(action, error)
        }
        error => Fault::unavailable(action, error),
    }
}

/// The name as it is: nothing in it is escaped.
fn path(name: &str) -> Result<Path, Fault> {
    Path::parse(name).map_err(|e| Fault::backend("name an object", e))
}

impl S3Bucket {
    /// Prepares a client; nothing is asked of the store yet.
    pub fn open(settings: &S3Settings) -> Result<Self, Fault> {
        let options = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_timeout(Duration::from_secs(20));
        let retry = RetryConfig {
            max_retries: 1,
            retry_timeout: Duration::from_secs(5),
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
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART);
        let sent = async {
            while let Some(chunk) = chunks.next().await {
                writer.put(chunk.map_err(failed)?);
                writer.wait_for_capacity(PARTS_AT_ONCE).await?;
            }
            Ok(())
        };
        match sent.await {
            Ok(()) => writer.finish().await.map(drop),
            Err(error) => {
                // The parts that were sent would be kept, and paid for.
                drop(writer.abort().await);
                Err(error)
            }
        }
    }

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
            let done = if size <= PART as u64 {
                self.put_whole(&path, content).await
            } else {
                self.put_parts(&path, &progress, content).await
            };
            progress.moved();
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

    async fn check(&self) -> Result<(), Fault> {
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
