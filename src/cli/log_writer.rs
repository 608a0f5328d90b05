//! Writes lines of the log to standard error without ever failing or waiting for its reader.
//!
//! Whoever logs adds a line to a queue in memory, and a thread writes them. When nobody reads (a
//! pipe is full, its reader has gone, the disk is full), lines are dropped rather than requests.

use crate::metrics::log_lines_dropped;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tracing_subscriber::fmt::MakeWriter;

/// The maximum size of the lines that wait, in bytes.
const MAX_WAITING: usize = 4 << 20;
/// The maximum size of one line, in bytes; the rest of it is cut off.
const MAX_LINE: usize = 256 << 10;
/// The delay after the reader of a non-blocking pipe was too slow.
const RETRY_DELAY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// The size of `lines`, in bytes.
    size: usize,
    /// The number of lines that were dropped since the last one that was written.
    dropped: u64,
    /// Whether the thread is writing a line.
    is_writing: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock, and a log must work even then.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut line = line.to_vec();
        if line.len() > MAX_LINE {
            line.truncate(MAX_LINE);
            line.push(b'\n');
        }
        let mut queue = self.lock();
        if queue.size + line.len() > MAX_WAITING {
            queue.dropped += 1;
            log_lines_dropped(1);
            return;
        }
        queue.size += line.len();
        queue.lines.push_back(line);
        self.changed.notify_all();
    }

    /// Waits for the next line.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        queue.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.size -= line.len();
                queue.is_writing = true;
                return line;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes one line. Says once how many lines were dropped, as soon as one can be written.
    fn write(&self, out: &mut impl Write, line: &[u8]) {
        if write_all(out, line).is_err() {
            self.lock().dropped += 1;
            log_lines_dropped(1);
            return;
        }
        let dropped = std::mem::take(&mut self.lock().dropped);
        if dropped > 0 {
            tracing::warn!(
                lines = dropped,
                "lines of the log were dropped, because nobody read them"
            );
        }
    }
}

/// Writes all of a line, also to a pipe that does not block its writers.
fn write_all(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_DELAY),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

/// The lines of the log on their way to standard error.
#[derive(Clone, Default)]
pub(super) struct LogWriter(Arc<Shared>);

impl LogWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// Returns an error when the thread cannot be started.
    pub(super) fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::default();
        let shared = writer.0.clone();
        thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                loop {
                    let line = shared.next();
                    shared.write(&mut out, &line);
                }
            })?;
        Ok(writer)
    }

    /// Waits until all lines are written, for at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let last = Instant::now() + timeout;
        let mut queue = self.0.lock();
        while queue.is_writing || !queue.lines.is_empty() {
            let left = last.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self
                .0
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A pipe that blocks until `open` says so, and then fails or passes on what is written.
    struct Gate {
        open: mpsc::Receiver<io::Result<()>>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.open.recv().unwrap_or(Ok(()))?;
            drop(self.written.send(line.to_vec()));
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Opener = mpsc::Sender<io::Result<()>>;

    fn gate() -> (LogWriter, Opener, mpsc::Receiver<Vec<u8>>) {
        let (open, is_open) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let gate = Gate {
            open: is_open,
            written,
        };
        (LogWriter::start(gate).unwrap(), open, lines)
    }

    fn dropped(writer: &LogWriter) -> u64 {
        writer.0.lock().dropped
    }

    #[test]
    fn lines_are_written_in_order() {
        let (mut writer, open, lines) = gate();
        drop(open);
        for line in ["a\n", "b\n", "c\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        writer.flush(Duration::from_secs(10));
        assert_eq!(lines.try_iter().collect::<Vec<_>>().concat(), b"a\nb\nc\n");
    }

    #[test]
    fn blocked_reader_makes_lines_drop() {
        let (mut writer, open, lines) = gate();
        let line = vec![b'x'; MAX_LINE];
        for _ in 0..100 {
            writer.write_all(&line).unwrap();
        }
        assert!(dropped(&writer) > 50);
        assert!(writer.0.lock().size <= MAX_WAITING);
        writer.flush(Duration::from_millis(1));
        drop(open);
        writer.flush(Duration::from_secs(10));
        assert_eq!(dropped(&writer), 0);
        assert!(lines.try_iter().count() < 50);
    }

    #[test]
    fn failing_reader_makes_lines_drop() {
        let (mut writer, open, lines) = gate();
        open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        writer.write_all(b"a\n").unwrap();
        writer.write_all(b"b\n").unwrap();
        writer.flush(Duration::from_secs(10));
        assert_eq!(dropped(&writer), 2);
        drop(open);
        writer.write_all(b"c\n").unwrap();
        writer.flush(Duration::from_secs(10));
        assert_eq!(dropped(&writer), 0);
        assert_eq!(lines.try_iter().collect::<Vec<_>>().concat(), b"c\n");
    }

    #[test]
    fn long_line_is_cut() {
        let (mut writer, open, lines) = gate();
        drop(open);
        writer.write_all(&vec![b'x'; 2 * MAX_LINE]).unwrap();
        writer.flush(Duration::from_secs(10));
        assert_eq!(
            lines.try_iter().map(|line| line.len()).sum::<usize>(),
            MAX_LINE + 1
        );
    }
}
