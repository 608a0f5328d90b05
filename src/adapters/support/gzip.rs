//! Logs at rest are compressed; both ways work piece by piece, whatever their size.

use crate::ports::artifact_store::{Content, FileReader};
use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use std::{
    fs::File,
    io::{self, Read, Write},
};
use tokio::io::AsyncWriteExt;

/// How much of a log is uncompressed at a time.
const CHUNK: usize = 64 << 10;

/// Compresses; the same content and time always give the same bytes.
pub fn compress(content: &Content, finished: u32, out: &mut impl Write) -> io::Result<()> {
    let mut content: Box<dyn Read> = match content {
        Content::Memory(bytes) => Box::new(bytes.as_ref()),
        Content::File(path) => Box::new(File::open(path)?),
    };
    let mut gzip = GzBuilder::new()
        .mtime(finished)
        .write(out, Compression::fast());
    io::copy(&mut content, &mut gzip)?;
    gzip.finish().map(drop)
}

/// Uncompresses on a blocking thread, as fast as the reader takes it.
pub fn uncompressed(compressed: impl Read + Send + 'static) -> FileReader {
    let (reader, mut writer) = tokio::io::duplex(CHUNK);
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut gzip = MultiGzDecoder::new(compressed);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match gzip.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, "a stored log cannot be uncompressed");
                    return;
                }
            };
            let sent = chunk.get(..read).unwrap_or_default();
            if handle.block_on(writer.write_all(sent)).is_err() {
                return; // Nobody reads any more.
            }
        }
    });
    Box::new(reader)
}
