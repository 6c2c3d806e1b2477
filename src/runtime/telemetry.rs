//! Structured logs. A line that belongs to a request stands within a span with its `trace_id`:
//! `info_span!("send_message", trace_id = %context.trace_id())`. Content, tokens and keys have no
//! `Display`, so that no line can hold them.

use super::config::{LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log lines are written already: {0}")]
    Twice(#[from] SetGlobalDefaultError),
    #[error("the log level cannot be read: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
}

/// Writes this process's log lines to its standard error, from now on.
///
/// # Errors
/// Called twice.
pub fn start(format: LogFormat, level: &LogLevel) -> Result<(), TelemetryError> {
    let on_terminal = std::io::stderr().is_terminal();
    let subscriber = subscriber(format, level, on_terminal, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(())
}

/// Log lines as `format` wants them, to `writer`.
///
/// # Errors
/// The level cannot be read; one from the configuration can.
pub fn subscriber<W>(
    format: LogFormat,
    level: &LogLevel,
    on_terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(level.directives())?;
    let pretty = match format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if pretty {
        Box::new(lines.with_ansi(on_terminal).with_target(false).with_filter(filter))
    } else {
        // One flat object a line; the innermost span carries the trace.
        let json = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
        Box::new(json.with_filter(filter))
    };
    Ok(Registry::default().with(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::Value;
    use crate::runtime::trace_context::TraceContext;
    use parking_lot::Mutex;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, on_terminal: bool, trace: &TraceContext) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let level = LogLevel::parse(level).unwrap();
        let subscriber = subscriber(format, &level, on_terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("send_message", trace_id = %trace.trace_id());
            span.in_scope(|| tracing::info!(shard = 7, "appended"));
            tracing::debug!("too fine");
        });
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn a_json_line_is_an_object_with_the_trace() {
        let trace = TraceContext::start();
        for format in [LogFormat::Json, LogFormat::Auto] {
            let text = logged(format, "info", false, &trace);
            assert_eq!(text.lines().count(), 1, "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["message"], "appended");
            assert_eq!(line["shard"], 7);
            assert_eq!(line["span"]["trace_id"], trace.trace_id().to_string());
        }
    }

    #[test]
    fn a_terminal_gets_text_and_levels_hold() {
        let trace = TraceContext::start();
        let text = logged(LogFormat::Auto, "debug", true, &trace);
        assert!(text.contains("appended") && text.contains("too fine"), "{text}");
        assert!(text.contains(&trace.trace_id().to_string()), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).is_err());
        assert_eq!(logged(LogFormat::Pretty, "warn", false, &trace), "");
    }
}
