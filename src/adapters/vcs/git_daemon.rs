//! The protocol of `git daemon`, `git://`.

use super::{
    failure::Failure,
    packets::{Offer, Packets, VERSION_2, ls_refs, packet},
    refs::Refs,
    site::{Site, decoded, text_of, without_login},
};
use crate::domain::branch_query::{BranchQuery, FoundBranches};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use url::Url;

/// How many bytes of refs are read.
const MAX_SIZE: u64 = 64 << 20;
const PORT: u16 = 9418;

/// Probes a repository.
///
/// # Errors
///
/// Returns [`Failure`] when it does not answer.
pub(super) async fn probe(
    site: &Site,
    query: &BranchQuery,
    end: Instant,
) -> Result<FoundBranches, Failure> {
    let probed = timeout_at(end, exchange(site, query, end)).await;
    probed.unwrap_or(Err(Failure::TimedOut))
}

async fn exchange(
    site: &Site,
    query: &BranchQuery,
    end: Instant,
) -> Result<FoundBranches, Failure> {
    let url = Url::parse(&query.repository).map_err(|e| Failure::other(e.to_string()))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    site.check_host(&host)?;
    let port = url.port().unwrap_or(PORT);
    let path = decoded(url.path());
    if path.contains(char::is_control) {
        return Err(Failure::other("the path has control characters"));
    }
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = site.http.connect(name, port, end).await?;
    let (reader, mut writer) = stream.into_split();
    let request = format!("git-upload-pack {path}\0host={host}:{port}\0\0{VERSION_2}\0");
    writer.write_all(&packet(&request)).await?;
    let mut packets = Packets::new(reader.take(MAX_SIZE));
    let mut refs = Refs::new(query);
    match packets.read_offer(&mut refs).await? {
        Offer::Version2(format) => {
            writer.write_all(&ls_refs(query, format.as_deref())).await?;
            packets.read_listed(&mut refs).await?;
        }
        Offer::Refs => {}
    }
    // The end of the conversation; the daemon may have closed the connection already.
    let _ = writer.write_all(b"0000").await;
    Ok(refs.found(text_of(&without_login(url))))
}
