//! A bucket of Google Cloud Storage, through its JSON API; streamed both ways.

use super::objects::{Objects, Progress, PutError};
use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;
use futures::StreamExt;
use gcloud_storage::{
    client::{Client, ClientConfig, google_cloud_auth::credentials::CredentialsFile},
    http::{
        Error,
        objects::{
            download::Range,
            get::GetObjectRequest,
            list::ListObjectsRequest,
            upload::{Media, UploadObjectRequest, UploadType},
        },
    },
};
use std::{path::PathBuf, time::Duration};
use tokio::{io::AsyncWriteExt, sync::oneshot};

const CONNECT: Duration = Duration::from_secs(3);
/// How much of a download waits for its reader.
const CHUNK: usize = 64 << 10;

/// How the store proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// Not at all: emulators, and public buckets.
    Anonymous,
    /// A service account's key file.
    File(PathBuf),
    /// As the environment says; asks the link-local metadata address when it says nothing.
    Default,
}

/// Which bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct GcsSettings {
    pub bucket: String,
    /// Another address than Google's, for emulators.
    pub endpoint: Option<String>,
    pub credentials: GcsCredentials,
}

/// A bucket.
#[derive(Clone)]
pub struct GcsBucket {
    client: Client,
    bucket: String,
}

fn fault(action: &'static str, error: Error) -> Fault {
    match status(&error) {
        Some(code) if code == 429 || code >= 500 => Fault::unavailable(action, error),
        Some(_) => Fault::backend(action, error),
        None => Fault::unavailable(action, error),
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Response(answer) => Some(answer.code),
        Error::HttpClient(error) | Error::RawResponse(error, _) => {
            error.status().map(|status| status.as_u16())
        }
        _ => None,
    }
}

impl GcsBucket {
    /// Prepares a client; nothing is asked of the store yet, except for credentials.
    pub async fn open(settings: &GcsSettings) -> Result<Self, Fault> {
        let action = "prepare the client of Google Cloud Storage";
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .build()
            .map_err(|e| Fault::backend(action, e))?;
        let mut config = ClientConfig {
            http: Some(http.into()),
            ..ClientConfig::default()
        };
        if let Some(endpoint) = &settings.endpoint {
            endpoint.clone_into(&mut config.storage_endpoint);
        }
        let config = match &settings.credentials {
            GcsCredentials::Anonymous => config.anonymous(),
            GcsCredentials::Default => config
                .with_auth()
                .await
                .map_err(|e| Fault::backend(action, e))?,
            GcsCredentials::File(path) => {
                let file = CredentialsFile::new_from_file(path.display().to_string())
                    .await
                    .map_err(|e| Fault::backend(action, e))?;
                config
                    .with_credentials(file)
                    .await
                    .map_err(|e| Fault::backend(action, e))?
            }
        };
        Ok(Self {
            client: Client::new(config),
            bucket: settings.bucket.clone(),
        })
    }

    fn object(&self, name: &str) -> GetObjectRequest {
        GetObjectRequest {
            bucket: self.bucket.clone(),
            object: name.to_owned(),
            ..GetObjectRequest::default()
        }
    }
}

#[async_trait]
impl Objects for GcsBucket {
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError> {
        let action = "store an object";
        let request = UploadObjectRequest {
            bucket: self.bucket.clone(),
            ..UploadObjectRequest::default()
        };
        let media = UploadType::Simple(Media {
            content_length: Some(size),
            ..Media::new(name.to_owned())
        });
        let progress = Progress::default();
        let chunks = progress
            .chunks(content)
            .await
            .map_err(|e| PutError::Failed(Fault::unavailable(action, e)))?;
        let upload = async {
            match self
                .client
                .upload_streamed_object(&request, chunks, &media)
                .await
            {
                Ok(_) => Ok(true),
                Err(error) if status(&error) == Some(403) => Ok(false),
                Err(error) => Err(fault(action, error)),
            }
        };
        progress.guard_put(action, upload).await
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let action = "open an object";
        let (this, request) = (self.clone(), self.object(name));
        let (reader, mut writer) = tokio::io::duplex(CHUNK);
        let (opened, opening) = oneshot::channel();
        // The download borrows client and request, so it lives in a task of its own, which ends with its reader.
        tokio::spawn(async move {
            let progress = Progress::default();
            let whole = Range::default();
            let open = async {
                this.client
                    .download_streamed_object(&request, &whole)
                    .await
                    .map_err(|e| fault(action, e))
            };
            let mut chunks = match progress.guard(action, open).await {
                Ok(chunks) => Box::pin(chunks),
                Err(fault) => return drop(opened.send(Err(fault))),
            };
            drop(opened.send(Ok(())));
            let next = async |chunks: &mut std::pin::Pin<Box<_>>| {
                progress
                    .guard(action, async { Ok(StreamExt::next(chunks).await) })
                    .await
            };
            loop {
                match next(&mut chunks).await {
                    Ok(Some(Ok(chunk))) => {
                        if writer.write_all(&chunk).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Ok(Some(Err(error))) => return tracing::warn!(%error, "a download broke off"),
                    Err(error) => return tracing::warn!(%error, "a download broke off"),
                }
            }
        });
        match opening.await.map_err(|e| Fault::unavailable(action, e))? {
            Ok(()) => Ok(Some(Box::new(reader))),
            Err(fault) if is_absent(&fault) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn check(&self) -> Result<(), Fault> {
        let action = "list the bucket";
        let request = ListObjectsRequest {
            bucket: self.bucket.clone(),
            max_results: Some(1),
            ..ListObjectsRequest::default()
        };
        let list = async {
            self.client
                .list_objects(&request)
                .await
                .map(drop)
                .map_err(|e| fault(action, e))
        };
        Progress::default().guard(action, list).await
    }
}

fn is_absent(fault: &Fault) -> bool {
    let source = std::error::Error::source(fault).and_then(|source| source.downcast_ref::<Error>());
    source.and_then(status) == Some(404)
}
