//! The protocol of git servers: pkt-lines, the advertisement of refs in each version, and the
//! command `ls-refs` of version 2.

use super::{failure::Failure, refs::Refs};
use crate::domain::branch_query::BranchQuery;
use gix_packetline::{
    PacketLineRef,
    decode::{PacketLineOrWantedSize, hex_prefix},
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The value of `GIT_PROTOCOL` and the header `Git-Protocol`.
pub(super) const VERSION_2: &str = "version=2";
/// How many capabilities of a server are looked at.
const MAX_CAPABILITIES: usize = 100;

/// A line of the protocol.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Data(Vec<u8>),
    /// The end of a part of the response.
    Flush,
    /// Anything else that has no data.
    Other,
}

/// The lines of a response.
pub(super) struct Packets<R> {
    reader: R,
}

/// What a server offers.
pub(super) enum Offer {
    /// Version 2, whose refs must be asked for. Carries the format of object ids, if the server
    /// names one.
    Version2(Option<String>),
    /// An older version, which has sent its refs.
    Refs,
}

fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

impl<R: AsyncRead + Unpin + Send> Packets<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader }
    }

    async fn next(&mut self) -> Result<Packet, Failure> {
        let mut prefix = [0; 4];
        self.reader.read_exact(&mut prefix).await?;
        let size = match hex_prefix(&prefix) {
            Ok(PacketLineOrWantedSize::Wanted(size)) => size,
            Ok(PacketLineOrWantedSize::Line(PacketLineRef::Flush)) => return Ok(Packet::Flush),
            Ok(PacketLineOrWantedSize::Line(_)) => return Ok(Packet::Other),
            Err(_) => return Err(Failure::said("no line of git's protocol", &prefix)),
        };
        let mut data = vec![0; size.into()];
        self.reader.read_exact(&mut data).await?;
        match data.strip_prefix(b"ERR ") {
            Some(text) => Err(Failure::said("the server says", text)),
            None => Ok(Packet::Data(data)),
        }
    }

    /// Reads what a server sends first. `refs` gets the refs that older versions send.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] when it is not what a git server sends.
    pub(super) async fn read_offer(&mut self, refs: &mut Refs<'_>) -> Result<Offer, Failure> {
        loop {
            match self.next().await? {
                Packet::Data(line) if line.starts_with(b"# service=") => {
                    // A flush follows, which servers of version 2 may leave out.
                }
                Packet::Data(line) if without_line_end(&line) == b"version 2" => {
                    return self.read_capabilities().await;
                }
                Packet::Data(line) if without_line_end(&line) == b"version 1" => {}
                Packet::Data(line) => {
                    self.read_refs(line, refs).await?;
                    return Ok(Offer::Refs);
                }
                Packet::Flush | Packet::Other => {}
            }
        }
    }

    async fn read_capabilities(&mut self) -> Result<Offer, Failure> {
        let (mut lists_refs, mut format) = (false, None);
        for _ in 0..MAX_CAPABILITIES {
            let Packet::Data(line) = self.next().await? else {
                return match lists_refs {
                    true => Ok(Offer::Version2(format)),
                    false => Err(Failure::other("the server does not list refs")),
                };
            };
            let line = without_line_end(&line);
            lists_refs |= line == b"ls-refs" || line.starts_with(b"ls-refs=");
            if let Some(value) = line.strip_prefix(b"object-format=") {
                format = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
        Err(Failure::other("the server has too many capabilities"))
    }

    /// Reads the refs of versions 0 and 1, the first of which has the capabilities with it.
    async fn read_refs(&mut self, first: Vec<u8>, refs: &mut Refs<'_>) -> Result<(), Failure> {
        let end = first.iter().position(|byte| *byte == 0);
        let (line, capabilities) = first.split_at(end.unwrap_or(first.len()));
        for capability in capabilities.split(|byte| matches!(byte, 0 | b' ' | b'\n')) {
            if let Some(target) = capability.strip_prefix(b"symref=HEAD:") {
                refs.set_head(&String::from_utf8_lossy(target));
            }
        }
        add_line(line, refs);
        while !refs.is_complete()
            && let Packet::Data(line) = self.next().await?
        {
            add_line(&line, refs);
        }
        Ok(())
    }

    /// Reads the response to [`ls_refs`].
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] when it is not complete.
    pub(super) async fn read_listed(&mut self, refs: &mut Refs<'_>) -> Result<(), Failure> {
        while let Packet::Data(line) = self.next().await? {
            let mut words = without_line_end(&line).split(|byte| *byte == b' ');
            let (Some(id), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let mut peeled = None;
            for attribute in words {
                if let Some(target) = attribute.strip_prefix(b"symref-target:")
                    && name == b"HEAD"
                {
                    refs.set_head(&String::from_utf8_lossy(target));
                }
                peeled = attribute.strip_prefix(b"peeled:").or(peeled);
            }
            refs.add(name, peeled.unwrap_or(id));
        }
        Ok(())
    }
}

/// Adds the ref of a line `ID NAME`.
fn add_line(line: &[u8], refs: &mut Refs<'_>) {
    let line = without_line_end(line);
    if let Some(space) = line.iter().position(|byte| *byte == b' ') {
        let (id, name) = line.split_at(space);
        refs.add(name.get(1..).unwrap_or_default(), id);
    }
}

/// Returns a pkt-line of text, which must be shorter than 64 KiB.
pub(super) fn packet(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// Returns the command of version 2 that lists what a query asks for.
pub(super) fn ls_refs(query: &BranchQuery, object_format: Option<&str>) -> Vec<u8> {
    let mut request = packet("command=ls-refs\n");
    request.extend(packet("agent=janitor-runner\n"));
    if let Some(format) = object_format {
        request.extend(packet(&format!("object-format={format}\n")));
    }
    request.extend(b"0001");
    let prefixes = query.prefixes();
    let branches = prefixes.iter().map(|prefix| format!("refs/heads/{prefix}"));
    let tags = query.branch.iter().map(|name| format!("refs/tags/{name}"));
    request.extend(packet("peel\n"));
    request.extend(packet("symrefs\n"));
    request.extend(packet("ref-prefix HEAD\n"));
    for prefix in branches.chain(tags) {
        request.extend(packet(&format!("ref-prefix {prefix}\n")));
    }
    request.extend(b"0000");
    request
}
