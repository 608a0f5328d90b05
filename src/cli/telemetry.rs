//! Logs of this process: text for people, JSON lines for machines.
//!
//! Whatever a field has comes from outside, sooner or later: secrets in it are hidden, and control
//! characters escaped, so that no name can write a line of its own.

use super::log_writer::LogWriter;
use crate::{
    domain::{
        printable::{printable, printable_json},
        redact::redact_start,
    },
    ports::ErrorChain,
    settings::LogFormat,
};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::{error::Error, fmt, panic::PanicHookInfo, sync::OnceLock, time::Duration};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// How long the process waits at its end for lines that are not written yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum size of a field, in bytes; the rest of it is cut off.
const MAX_FIELD: usize = 16 << 10;

/// The one event that has a part of a URL as it is: the value of a misspelt parameter, which may be
/// the password.
const UNLOGGED: &str = "sqlx_postgres::options=off";

/// The writer of this process, once logging has started.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Starts logging to standard error. Neither logging nor a panic waits for whoever reads that, or
/// fails when nobody does.
///
/// # Errors
///
/// Returns an error when the filter is invalid, or logging has been started already.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("telemetry.log: {filter:?} is not a filter"))?
        .add_directive(UNLOGGED.parse().context("the filter of secrets")?);
    let writer = LogWriter::start(std::io::stderr()).context("start logging")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The subscriber would print its own failures with a macro that panics.
        .log_internal_errors(false)
        .fmt_fields(TextFields)
        .with_writer(writer.clone());
    let started = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.event_format(JsonLines { gcp: false }).try_init(),
        LogFormat::Gcp => builder.event_format(JsonLines { gcp: true }).try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("start logging: {e}"))?;
    WRITER.get_or_init(|| writer);
    // The usual hook prints to standard error itself, and waits for its reader.
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    tracing::error!(
        at = at.unwrap_or_default(),
        thread = std::thread::current().name().unwrap_or_default(),
        "a defect: {}",
        panic.payload_as_str().unwrap_or("a panic without words")
    );
    // The process ends with its main thread, and nothing else would wait for the line.
    if std::thread::current().name() == Some("main") {
        flush();
    }
}

/// Waits until the log is written, but not for long: nobody may read it.
pub(super) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// Formats the fields of events and spans as text: `message name="text" number=1`.
struct TextFields;

/// Writes fields one after the other.
struct TextVisitor<'a> {
    out: Writer<'a>,
    is_first: bool,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        // The log crate's own fields repeat what the line begins with.
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let separator = if self.is_first { "" } else { " " };
        self.is_first = false;
        let value = redact_start(value, MAX_FIELD);
        let value = printable(&value);
        self.result = if field.name() == "message" {
            write!(self.out, "{separator}{value}")
        } else {
            write!(self.out, "{separator}{}={value}", field.name())
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.write(field, value);
        } else {
            self.write(field, &format!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.write(field, &ErrorChain(value).to_string());
    }
}

impl<'a> FormatFields<'a> for TextFields {
    fn format_fields<R: RecordFields>(&self, out: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor {
            out,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

/// Formats events as one JSON object a line, with the causes of errors.
struct JsonLines {
    /// Whether the fields are those of Google's Cloud Logging.
    gcp: bool,
}

/// The fields of an event.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(
            field.name().to_owned(),
            redact_start(value, MAX_FIELD).into(),
        );
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &ErrorChain(value).to_string());
    }
}

/// Returns a level in Cloud Logging's words.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut line = fields.0;
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        line.insert("time".into(), time.into());
        match self.gcp {
            true => line.insert("severity".into(), severity(level).into()),
            false => line.insert("level".into(), level.to_string().to_lowercase().into()),
        };
        line.insert("target".into(), event.metadata().target().into());
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
            .map(|span| {
                let fields = span
                    .extensions()
                    .get::<FormattedFields<N>>()
                    .map(|fields| fields.fields.clone())
                    .unwrap_or_default();
                json!({ "name": span.name(), "fields": fields })
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".into(), spans.into());
        }
        writeln!(out, "{}", printable_json(&Value::Object(line).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs what an attacker may have named, in the format of the settings.
    fn logged(format: LogFormat) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let builder = tracing_subscriber::fmt()
            .fmt_fields(TextFields)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let log = || {
            let nasty = "x\nforged \x1b[2J\u{9b}m https://u:geheim@h/";
            let error = io::Error::other(nasty);
            let span = tracing::info_span!("span", name = %nasty);
            let _entered = span.enter();
            tracing::warn!(name = nasty, shown = %nasty, error = &error as &dyn Error, "{nasty}");
        };
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), log),
            LogFormat::Json | LogFormat::Gcp => {
                let lines = JsonLines {
                    gcp: format == LogFormat::Gcp,
                };
                tracing::subscriber::with_default(builder.event_format(lines).finish(), log);
            }
        }
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn events_are_one_harmless_line_without_secrets() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Gcp] {
            let text = logged(format);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            assert!(!text.contains("geheim"), "{text}");
            assert!(text.contains("https://h/"), "{text}");
        }
    }
}
