//! Branches of Bazaar and Breezy, over HTTP and on this machine: two small files say what they are.

use super::{
    failure::Failure,
    site::{Site, above, below, text_of},
};
use crate::domain::{
    branch_query::{BranchQuery, FoundBranches},
    vcs::VcsType,
};
use reqwest::header::HeaderMap;
use rustix::fs::OFlags;
use std::{collections::BTreeMap, io, path::Path};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};
use url::Url;

/// How much of each file is read.
const MAX_SIZE: u64 = 4 << 10;

async fn text(body: impl AsyncRead + Unpin) -> Result<String, Failure> {
    let mut bytes = vec![];
    body.take(MAX_SIZE).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check_format(format: &str) -> Result<(), Failure> {
    match format.starts_with("Bazaar") {
        true => Ok(()),
        false => Err(Failure::NotThere("what is there is no branch".to_owned())),
    }
}

/// Returns the branch whose last revision a file describes: a number and an id.
fn found(repository: String, last_revision: &str) -> FoundBranches {
    let revision = last_revision.split_whitespace().nth(1);
    FoundBranches {
        repository,
        vcs_type: VcsType::Bzr,
        branch: None,
        // A branch without revisions has this one.
        revision: revision.filter(|id| *id != "null:").map(str::to_owned),
        others: BTreeMap::new(),
    }
}

/// Probes a branch over HTTP.
///
/// # Errors
///
/// Returns [`Failure`]; `NotThere` when there is no branch of this kind.
pub(super) async fn probe(
    site: &Site,
    query: &BranchQuery,
    end: Instant,
) -> Result<FoundBranches, Failure> {
    let url = Url::parse(&query.repository).map_err(|e| Failure::other(e.to_string()))?;
    let session = site.session(&url, end);
    let format = below(&url, &[".bzr", "branch-format"])?;
    let answer = session.get(format, HeaderMap::new()).await?;
    check_format(&text(answer.body).await?)?;
    let branch = above(&answer.url, "/.bzr/branch-format")?;
    let last = below(&branch, &[".bzr", "branch", "last-revision"])?;
    let answer = session.get(last, HeaderMap::new()).await?;
    Ok(found(text_of(&branch), &text(answer.body).await?))
}

/// Opens a regular file, and no pipe: that would wait for somebody who writes to it, for ever.
async fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .await?;
    match file.metadata().await?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Probes a branch on this machine.
///
/// # Errors
///
/// Returns [`Failure`]; `NotThere` when there is no branch of this kind.
pub(super) async fn probe_folder(
    folder: &Path,
    repository: &str,
) -> Result<FoundBranches, Failure> {
    let read = async |path: &str| match open_file(&folder.join(path)).await {
        Ok(file) => text(file).await,
        Err(error) => Err(Failure::NotThere(format!("{path}: {error}"))),
    };
    check_format(&read(".bzr/branch-format").await?)?;
    let last = read(".bzr/branch/last-revision").await?;
    Ok(found(repository.trim_end_matches('/').to_owned(), &last))
}
