//! Files to be stored, and the buckets that store them.

use crate::support::servers;
use janitor_runner::{
    adapters::{
        gcs::{GcsBucket, GcsCredentials, GcsSettings},
        s3::{S3Bucket, S3Credentials, S3Settings},
    },
    ports::{
        SpooledFile,
        artifact_store::{Content, FileReader},
    },
};
use std::{fs, path::Path, sync::Arc};
use tokio::io::AsyncReadExt;

pub fn spooled_file(spool: &Path, name: &str, content: &[u8]) -> SpooledFile {
    let path = spool.join(spool_name(name));
    fs::write(&path, content).unwrap();
    SpooledFile {
        name: name.into(),
        content: Content::File(path),
        size: content.len() as u64,
    }
}

/// A name in the spool that does not show the name of the file.
pub fn spool_name(name: &str) -> String {
    format!(
        "{:x}",
        name.bytes()
            .fold(7_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))
    )
}

pub fn memory_file(name: &str, content: &[u8]) -> SpooledFile {
    SpooledFile {
        name: name.into(),
        content: Content::Memory(content.to_vec().into()),
        size: content.len() as u64,
    }
}

pub async fn read(reader: Option<FileReader>) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    reader?.read_to_end(&mut bytes).await.unwrap();
    Some(bytes)
}

pub async fn gcs() -> Arc<GcsBucket> {
    let endpoint = servers::url("gcs");
    let bucket = servers::new_bucket(&endpoint).await;
    Arc::new(
        GcsBucket::open(&GcsSettings {
            bucket,
            endpoint: Some(endpoint),
            credentials: GcsCredentials::Anonymous,
        })
        .await
        .unwrap(),
    )
}

pub async fn s3() -> Arc<S3Bucket> {
    let endpoint = servers::url("s3");
    let bucket = servers::unique("bucket").replace('_', "-");
    let made = crate::support::process::client()
        .put(format!("{endpoint}/{bucket}"))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success());
    let settings = S3Settings {
        bucket,
        endpoint: Some(endpoint),
        region: "us-east-1".into(),
        credentials: S3Credentials::Key {
            id: "key".into(),
            secret: "secret".into(),
        },
        acl: None,
    };
    Arc::new(S3Bucket::open(&settings).unwrap())
}
