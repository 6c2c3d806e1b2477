//! Every log line of this process, kept for tests to look through.

use parking_lot::Mutex;
use reedi::runtime::config::{LogFormat, LogLevel, Value as _};
use reedi::runtime::telemetry;
use std::io::Write;
use std::sync::Once;

/// Ours to the finest; of the libraries what an operator who looks for a fault would turn on.
const LEVEL: &str = "debug,reedi=trace,reedi_client=trace";

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Kept;

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps all lines from now on.
pub fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let level = LogLevel::parse(LEVEL).expect("a level");
        let subscriber = telemetry::subscriber(LogFormat::Json, &level, false, || Kept).expect("a format");
        tracing::subscriber::set_global_default(subscriber).expect("nobody else takes the lines");
    });
}

/// What was written so far.
pub fn so_far() -> Vec<u8> {
    LINES.lock().clone()
}
