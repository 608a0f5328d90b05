//! A bucket of Google Cloud Storage, through its JSON API. Uploads and downloads are streamed.

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

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How many bytes of a download wait for their reader at most.
const BUFFER_SIZE: usize = 64 << 10;

/// How the client authenticates itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// No credentials, for emulators and public buckets.
    Anonymous,
    /// The key file of a service account.
    File(PathBuf),
    /// The credentials that the environment names, or else those of the metadata server, at a
    /// link-local address.
    Default,
}

/// Which bucket to use, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcsSettings {
    /// The name of the bucket.
    pub bucket: String,
    /// The URL of the service; `None` for Google's own. Emulators have another one.
    pub endpoint: Option<String>,
    /// How the client authenticates itself.
    pub credentials: GcsCredentials,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone)]
pub struct GcsBucket {
    client: Client,
    bucket: String,
}

/// Converts an error. Without a status nothing was received, so a retry may help.
fn fault(action: &'static str, error: Error) -> Fault {
    match status(&error) {
        Some(code) if code == 429 || code >= 500 => Fault::unavailable(action, error),
        Some(_) => Fault::backend(action, error),
        None => Fault::unavailable(action, error),
    }
}

/// Returns the HTTP status that an error is about.
fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Response(response) => Some(response.code),
        Error::HttpClient(error) | Error::RawResponse(error, _) => {
            error.status().map(|status| status.as_u16())
        }
        _ => None,
    }
}

impl GcsBucket {
    /// Creates a client. It sends no request yet, except for credentials.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when the credentials cannot be read or fetched.
    pub async fn open(settings: &GcsSettings) -> Result<Self, Fault> {
        let action = "prepare the client of Google Cloud Storage";
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
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
                // The account may create objects, but not overwrite them.
                Err(error) if status(&error) == Some(403) => Ok(false),
                Err(error) => Err(fault(action, error)),
            }
        };
        progress.guard_put(action, upload).await
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let action = "open an object";
        let (this, request) = (self.clone(), self.object(name));
        let (reader, mut writer) = tokio::io::duplex(BUFFER_SIZE);
        let (opened, open_result) = oneshot::channel();
        // The stream of a download borrows client and request, so a task of its own has to own
        // them. The task ends when its reader is dropped.
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
                    Ok(Some(Err(error))) => {
                        return tracing::warn!(%error, "a download failed half-way");
                    }
                    Err(error) => return tracing::warn!(%error, "a download failed half-way"),
                }
            }
        });
        match open_result
            .await
            .map_err(|e| Fault::unavailable(action, e))?
        {
            Ok(()) => Ok(Some(Box::new(reader))),
            Err(fault) if is_absent(&fault) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn health_check(&self) -> Result<(), Fault> {
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

/// Returns whether a failure means that there is no such object.
fn is_absent(fault: &Fault) -> bool {
    let source = std::error::Error::source(fault).and_then(|source| source.downcast_ref::<Error>());
    source.and_then(status) == Some(404)
}
