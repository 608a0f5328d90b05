//! The HTTP client below `object_store`. It counts the bytes that move, where `object_store` would
//! only limit how long a whole request takes.

use crate::adapters::objects::attempt::Attempt;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use std::time::Duration;

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes [`CountingClient`]s.
#[derive(Debug)]
pub(super) struct Connector;

/// Sends requests, and notes in the current [`Attempt`] how they go.
#[derive(Debug)]
struct CountingClient(reqwest::Client);

/// Converts an error; its kind does not matter, since `object_store` repeats nothing here.
fn failed(error: reqwest::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error.without_url())
}

/// Makes a client without a timeout for whole requests.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = client().map_err(|e| object_store::Error::Generic {
            store: "S3",
            source: Box::new(e),
        })?;
        Ok(HttpClient::new(CountingClient(client)))
    }
}

#[async_trait]
impl HttpService for CountingClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let attempt = Attempt::current();
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(if let Some(bytes) = body.as_bytes() {
            bytes.clone().into()
        } else {
            let sent = attempt.clone();
            reqwest::Body::wrap(body.map_frame(move |frame| {
                sent.sent(frame.data_ref().map_or(0, Bytes::len));
                frame
            }))
        });
        let response = self.0.execute(request).await;
        if response.as_ref().is_err_and(reqwest::Error::is_connect) {
            attempt.unreached();
        }
        let response: http::Response<reqwest::Body> = response.map_err(failed)?.into();
        let (parts, body) = response.into_parts();
        let retry_after = parts
            .headers
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        attempt.responded(parts.status.as_u16(), retry_after);
        let body = body
            .map_frame(move |frame| {
                attempt.received();
                frame
            })
            .map_err(failed);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
