//! Compression of stored logs. Both directions are streamed, so that the size of a log does not
//! matter.

use crate::ports::artifact_store::{Content, FileReader};
use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use std::{
    fs::File,
    io::{self, Read, Write},
};
use tokio::io::AsyncWriteExt;

/// How many bytes are uncompressed at a time.
const CHUNK_SIZE: usize = 64 << 10;

/// Compresses content; `finished` is the time in the header, in seconds since 1970.
///
/// The same content and time always give the same bytes, so that storing a log again is harmless.
///
/// # Errors
///
/// Returns the error of reading the content or of writing to `out`.
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

/// Returns a reader of the uncompressed content. A blocking thread uncompresses as fast as it is
/// read.
pub fn uncompressed(compressed: impl Read + Send + 'static) -> FileReader {
    let (reader, mut writer) = tokio::io::duplex(CHUNK_SIZE);
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut gzip = MultiGzDecoder::new(compressed);
        let mut chunk = vec![0; CHUNK_SIZE];
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
                return; // The reader was dropped.
            }
        }
    });
    Box::new(reader)
}
