//! Git over HTTP: the smart protocol in each version, and plain files ("dumb HTTP").

use super::{
    failure::Failure,
    packets::{Offer, Packets, VERSION_2, ls_refs},
    refs::Refs,
    site::{Answer, Session, Site, above, below, text_of},
};
use crate::{
    domain::branch_query::{BranchQuery, FoundBranches},
    ports::artifact_store::FileReader,
};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    time::Instant,
};
use url::Url;

/// How many bytes of refs are read.
const MAX_SIZE: u64 = 64 << 20;
/// How long a line of a file of refs may be.
const MAX_LINE: u64 = 4 << 10;
const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const RESULT: &str = "application/x-git-upload-pack-result";
const REQUEST: &str = "application/x-git-upload-pack-request";

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(GIT_PROTOCOL, HeaderValue::from_static(VERSION_2))])
}

/// Probes a repository, by its URL as given and with `.git` after it.
///
/// # Errors
///
/// Returns [`Failure`]; `NotThere` when there is no git repository.
pub(super) async fn probe(
    site: &Site,
    query: &BranchQuery,
    end: Instant,
) -> Result<FoundBranches, Failure> {
    let given = Url::parse(&query.repository).map_err(|e| Failure::other(e.to_string()))?;
    let session = site.session(&given, end);
    let not_there = match probe_at(&session, &given, query).await {
        Err(Failure::NotThere(why)) => Failure::NotThere(why),
        outcome => return outcome,
    };
    let path = given.path().trim_end_matches('/').to_owned();
    // As git itself does: another case is another name.
    #[expect(clippy::case_sensitive_file_extension_comparisons)]
    if path.is_empty() || path.ends_with(".git") {
        return Err(not_there);
    }
    let mut with_suffix = given;
    with_suffix.set_path(&format!("{path}.git"));
    match probe_at(&session, &with_suffix, query).await {
        Err(Failure::NotThere(_)) => Err(not_there),
        outcome => outcome,
    }
}

async fn probe_at(
    session: &Session<'_>,
    repository: &Url,
    query: &BranchQuery,
) -> Result<FoundBranches, Failure> {
    let mut url = below(repository, &["info", "refs"])?;
    url.set_query(Some("service=git-upload-pack"));
    let Answer {
        url,
        content_type,
        body,
    } = session.get(url, headers()).await?;
    let repository = above(&url, "/info/refs")?;
    let mut refs = Refs::new(query);
    if content_type == ADVERTISEMENT {
        let mut packets = Packets::new(body.take(MAX_SIZE));
        if let Offer::Version2(format) = packets.read_offer(&mut refs).await? {
            let request = ls_refs(query, format.as_deref());
            list(session, &repository, request, &mut refs).await?;
        }
    } else {
        read_files(session, &repository, body, &mut refs).await?;
    }
    Ok(refs.found(text_of(&repository)))
}

/// Asks a server of version 2 for refs.
async fn list(
    session: &Session<'_>,
    repository: &Url,
    request: Vec<u8>,
    refs: &mut Refs<'_>,
) -> Result<(), Failure> {
    let mut headers = headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(REQUEST));
    let url = below(repository, &["git-upload-pack"])?;
    let answer = session
        .send(Method::POST, url, headers, request.into())
        .await?;
    if answer.content_type != RESULT {
        let kind = answer.content_type;
        return Err(Failure::said("refs with the content type", kind.as_bytes()));
    }
    Packets::new(answer.body.take(MAX_SIZE))
        .read_listed(refs)
        .await
}

/// Reads the file `info/refs`, and `HEAD` before it, since the default branch must be known.
async fn read_files(
    session: &Session<'_>,
    repository: &Url,
    body: FileReader,
    refs: &mut Refs<'_>,
) -> Result<(), Failure> {
    let head = session.get(below(repository, &["HEAD"])?, HeaderMap::new());
    let mut line = String::new();
    let mut reader = BufReader::new(head.await?.body.take(MAX_LINE));
    reader
        .read_line(&mut line)
        .await
        .map_err(|_| not_a_repository())?;
    let line = line.trim_end();
    match line.strip_prefix("ref: ") {
        Some(target) => refs.set_head(target.trim()),
        None => refs.add(b"HEAD", line.as_bytes()),
    }
    let mut reader = BufReader::new(body.take(MAX_SIZE));
    while !refs.is_complete() {
        let mut line = vec![];
        let read = (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Ok(());
        }
        let mut parts = line.trim_ascii_end().splitn(2, |byte| *byte == b'\t');
        let (Some(id), Some(name)) = (parts.next(), parts.next()) else {
            return Err(not_a_repository());
        };
        refs.add(name, id);
    }
    Ok(())
}

fn not_a_repository() -> Failure {
    Failure::NotThere("what is there is no git repository".to_owned())
}
