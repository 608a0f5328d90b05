//! Compression of stored logs. Both directions are streamed, so that the size of a log does not
//! matter.

use crate::ports::artifact_store::{Content, FileReader};
use async_compression::tokio::bufread::GzipDecoder;
use flate2::{Compression, GzBuilder};
use std::{
    fs::File,
    io::{self, Read, Write},
};
use tokio::io::{AsyncRead, BufReader};

/// How many compressed bytes are read at a time.
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

/// Returns a reader of the uncompressed content. It fails where the content is damaged.
pub fn uncompressed(compressed: impl AsyncRead + Send + Unpin + 'static) -> FileReader {
    let mut reader = GzipDecoder::new(BufReader::with_capacity(CHUNK_SIZE, compressed));
    reader.multiple_members(true);
    Box::new(reader)
}
