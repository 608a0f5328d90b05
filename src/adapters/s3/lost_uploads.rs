//! Aborts uploads, also those whose ids are not known, since the response that had them was lost.

use crate::adapters::objects::attempt::{Failure, Rejection, with_retries};
use futures::StreamExt;
use object_store::{
    MultipartId,
    aws::AmazonS3,
    multipart::MultipartStore,
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use reqwest::Method;
use std::{io, sync::Arc, time::Duration};
use tokio::time::sleep;

/// The delays between the rounds of attempts to abort an upload, before it is left open.
const ROUND_DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// How long the request may be under way.
const VALID: Duration = Duration::from_secs(60);
/// The most bytes of the list that are read; it has 1000 uploads at most.
const MAX_LIST_SIZE: usize = 2 << 20;

/// Makes a request again after growing delays, whatever its failure: nobody waits for it, and a
/// bucket that refuses for a while would charge for the parts without end.
async fn in_rounds<T, F>(action: &'static str, mut request: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Rejection>>,
{
    for delay in ROUND_DELAYS {
        if let Ok(done) = with_retries(action, &mut request).await {
            return Ok(done);
        }
        sleep(delay).await;
    }
    with_retries(action, &mut request).await
}

fn rejection(error: impl std::error::Error + Send + Sync + 'static) -> Rejection {
    Rejection {
        status: None,
        source: Box::new(error),
    }
}

/// Aborts an upload; a failure is logged.
pub(super) async fn abort(store: &AmazonS3, path: &Path, id: &MultipartId) {
    let aborted = in_rounds("abort an upload", || async {
        match store.abort_multipart(path, id).await {
            // It is gone, which is what we want.
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            aborted => aborted.map_err(super::rejection),
        }
    });
    match aborted.await {
        Ok(()) => {}
        Err(failure) => tracing::warn!(
            object = %path,
            upload = id,
            error = &failure.fault as &dyn std::error::Error,
            "an upload stays open in the bucket"
        ),
    }
}

/// Lists the uploads of an object that are neither completed nor aborted. `object_store` has no
/// such request.
async fn open_uploads(
    http: &reqwest::Client,
    store: &AmazonS3,
    path: &Path,
) -> Result<Vec<MultipartId>, Rejection> {
    let query = [("uploads", ""), ("prefix", path.as_ref())];
    let options = SignedUrlOptions::default().with_query(query);
    let url = store
        .signed_url_opts(Method::GET, &Path::default(), VALID, &options)
        .await
        .map_err(rejection)?;
    let response = http.get(url).send().await.map_err(rejection)?;
    let status = response.status();
    if !status.is_success() {
        return Err(Rejection {
            status: Some(status.as_u16()),
            source: format!("the bucket responds {status}").into(),
        });
    }
    let (mut list, mut chunks) = (vec![], response.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        list.extend_from_slice(&chunk.map_err(rejection)?);
        if list.len() > MAX_LIST_SIZE {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
    }
    Ok(ids(&String::from_utf8_lossy(&list), path))
}

/// Returns the text of an element.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// Returns the ids in a list of uploads; those of other objects begin with the same name only.
fn ids(list: &str, path: &Path) -> Vec<MultipartId> {
    let escaped = path
        .as_ref()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    list.split("<Upload>")
        .skip(1)
        .filter(|upload| element(upload, "Key") == Some(&escaped))
        .filter_map(|upload| element(upload, "UploadId").map(str::to_owned))
        .collect()
}

/// Aborts, in a task of its own, the open uploads of an object, but for `known`. The attempts are
/// bounded; what they do not reach stays until a rule of the bucket removes it.
///
/// Another upload of the same object at this moment would be aborted, too: it fails, and its file
/// waits in the backup directory.
pub(super) fn abort_lost(
    http: reqwest::Client,
    store: Arc<AmazonS3>,
    path: Path,
    known: Option<MultipartId>,
) {
    tokio::spawn(async move {
        let listed = in_rounds("list open uploads", || open_uploads(&http, &store, &path));
        match listed.await {
            Ok(ids) => {
                for id in ids.iter().filter(|id| known.as_ref() != Some(*id)) {
                    abort(&store, &path, id).await;
                }
            }
            Err(failure) => tracing::warn!(
                object = %path,
                error = &failure.fault as &dyn std::error::Error,
                "an upload may stay open in the bucket"
            ),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uploads_of_the_object_are_listed() {
        let list = "<R><Upload><Key>a/b&amp;c</Key><UploadId>1</UploadId></Upload>\
            <Upload><Key>a/b&amp;cd</Key><UploadId>2</UploadId></Upload></R>";
        let path = Path::parse("a/b&c").unwrap();
        assert_eq!(ids(list, &path), ["1"]);
        assert!(ids("<Upload><Key>a", &path).is_empty());
    }
}
