//! A bucket of Google Cloud Storage, through its JSON API. Uploads and downloads are streamed.

use super::objects::{
    Objects, PutError,
    attempt::{self, Attempt, Rejection, once, with_retries},
};
use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;
use bytes::Bytes;
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
use reqwest_middleware::{Middleware, Next};
use std::{path::PathBuf, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How many chunks of a download wait for their reader at most.
const MAX_BUFFERED_CHUNKS: usize = 2;

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

/// Notes in the current [`Attempt`] what the bucket responds.
struct Observer;

#[async_trait]
impl Middleware for Observer {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let response = next.run(request, extensions).await;
        if response
            .as_ref()
            .is_err_and(reqwest_middleware::Error::is_connect)
        {
            Attempt::current().unreached();
        }
        let response = response?;
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        Attempt::current().responded(response.status().as_u16(), retry_after);
        Ok(response)
    }
}

/// Converts an error of a request.
fn rejection(error: Error) -> Rejection {
    Rejection {
        status: status(&error),
        source: Box::new(error),
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
        let http = reqwest_middleware::ClientBuilder::new(http).with(Observer);
        let mut config = ClientConfig {
            http: Some(http.build()),
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
        let upload = with_retries(action, || async {
            let body = attempt::body(content).await?;
            self.client
                .upload_streamed_object(&request, body, &media)
                .await
                .map(drop)
                .map_err(rejection)
        });
        Ok(upload.await?)
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let action = "open an object";
        let (this, request) = (self.clone(), self.object(name));
        let (chunks, received) = mpsc::channel::<Result<Bytes, Error>>(MAX_BUFFERED_CHUNKS);
        let (opened, open_result) = oneshot::channel();
        // The stream of a download borrows client and request, so a task of its own has to own
        // them. The task ends when its reader is dropped.
        tokio::spawn(async move {
            let whole = Range::default();
            let open = with_retries(action, || async {
                this.client
                    .download_streamed_object(&request, &whole)
                    .await
                    .map_err(rejection)
            });
            let mut download = match open.await {
                Ok(download) => Box::pin(download),
                Err(failure) => return drop(opened.send(Err(failure))),
            };
            drop(opened.send(Ok(())));
            loop {
                let next = tokio::select! {
                    next = download.next() => next,
                    () = chunks.closed() => return,
                };
                let Some(chunk) = next else { return };
                if chunks.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        let opened = open_result
            .await
            .map_err(|e| Fault::unavailable(action, e))?;
        match opened {
            Ok(()) => Ok(Some(attempt::reader(Box::pin(futures::stream::unfold(
                received,
                |mut received| async move { Some((received.recv().await?, received)) },
            ))))),
            Err(failure) if failure.status == Some(404) => Ok(None),
            Err(failure) => Err(failure.fault),
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
                .map_err(rejection)
        };
        once(action, list).await.map_err(|failure| failure.fault)
    }
}
