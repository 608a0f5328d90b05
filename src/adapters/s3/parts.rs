//! Uploads in parts. The bucket keeps the parts of one that is never completed, and charges for
//! them, so each that does not complete is aborted.

use super::{
    lost_uploads::{abort, abort_lost},
    rejection,
};
use crate::{
    adapters::objects::{
        PutError,
        attempt::{CHUNK_SIZE, Chunks, Failure, chunks, with_retries},
    },
    ports::{Fault, artifact_store::Content},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::FuturesOrdered};
use object_store::{
    MultipartId, PutPayload,
    aws::AmazonS3,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use std::{io, sync::Arc};

/// Objects with more bytes are sent in parts of this size.
pub(super) const PART_SIZE: usize = 8 << 20;
/// How many parts of one object are sent at the same time.
const MAX_CONCURRENT_PARTS: usize = 2;

/// An upload that is aborted when it is dropped: because it failed or stalled, or because nobody
/// waits for it any more.
struct OpenUpload {
    store: Arc<AmazonS3>,
    path: Path,
    id: MultipartId,
    completed: bool,
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.completed {
            return;
        }
        let (store, path, id) = (self.store.clone(), self.path.clone(), self.id.clone());
        // A task of its own, since the caller is gone or goes on; its attempts are bounded.
        runtime.spawn(async move { abort(&store, &path, &id).await });
    }
}

/// Reads the next part; none at the end.
async fn next_part(content: &mut Chunks) -> io::Result<Option<Vec<Bytes>>> {
    let (mut part, mut size) = (vec![], 0);
    // A chunk has at most CHUNK_SIZE bytes, so that no part is larger than PART_SIZE.
    while size + CHUNK_SIZE <= PART_SIZE {
        let Some(chunk) = content.next().await.transpose()? else {
            break;
        };
        size += chunk.len();
        part.push(chunk);
    }
    Ok((!part.is_empty()).then_some(part))
}

impl OpenUpload {
    async fn put_part(&self, index: usize, part: PutPayload) -> Result<PartId, PutError> {
        let put = with_retries("store a part of an object", || async {
            self.store
                .put_part(&self.path, &self.id, index, part.clone())
                .await
                .map_err(rejection)
        });
        Ok(put.await?)
    }

    async fn put_parts(&self, mut content: Chunks) -> Result<Vec<PartId>, PutError> {
        let read = |error: io::Error| PutError::Failed(Fault::unavailable("read a file", error));
        let (mut running, mut done) = (FuturesOrdered::new(), vec![]);
        for index in 0.. {
            if running.len() == MAX_CONCURRENT_PARTS {
                done.extend(running.next().await.transpose()?);
            }
            match next_part(&mut content).await.map_err(read)? {
                Some(part) => running.push_back(self.put_part(index, part.into_iter().collect())),
                None => break,
            }
        }
        done.extend(running.try_collect::<Vec<_>>().await?);
        Ok(done)
    }

    async fn complete(&mut self, parts: Vec<PartId>) -> Result<(), PutError> {
        let completed = with_retries("complete an object", || async {
            self.store
                .complete_multipart(&self.path, &self.id, parts.clone())
                .await
                .map_err(rejection)
        });
        match completed.await {
            Ok(_) => {
                self.completed = true;
                Ok(())
            }
            // An attempt whose response was lost may have completed it: a look will show.
            Err(Failure {
                status: Some(404),
                fault,
                ..
            }) => Err(PutError::Refused(fault)),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// The clients of uploads in parts.
#[derive(Clone)]
pub(super) struct Clients {
    /// Begins uploads.
    pub(super) creator: Arc<AmazonS3>,
    /// Sends parts, completes and aborts.
    pub(super) store: Arc<AmazonS3>,
    /// Lists open uploads; none when requests are not signed.
    pub(super) list: Option<reqwest::Client>,
}

impl Clients {
    /// Begins an upload.
    async fn begin(&self, path: &Path) -> Result<OpenUpload, PutError> {
        let mut attempts = 0;
        let begun = with_retries("begin an upload", || {
            attempts += 1;
            async { self.creator.create_multipart(path).await.map_err(rejection) }
        });
        let begun = begun.await;
        // A response that was lost may have had the id of an upload that is now open.
        let lost = attempts > 1 || matches!(&begun, Err(failure) if failure.status.is_none());
        if lost && let Some(http) = &self.list {
            let known = begun.as_ref().ok().cloned();
            abort_lost(http.clone(), self.store.clone(), path.clone(), known);
        }
        Ok(OpenUpload {
            store: self.store.clone(),
            path: path.clone(),
            id: begun?,
            completed: false,
        })
    }

    /// Stores an object in parts.
    pub(super) async fn put(&self, path: &Path, content: &Content) -> Result<(), PutError> {
        let read = |error: io::Error| PutError::Failed(Fault::unavailable("read a file", error));
        let content = chunks(content).await.map_err(read)?;
        let mut upload = self.begin(path).await?;
        let parts = upload.put_parts(content).await?;
        upload.complete(parts).await
    }
}
