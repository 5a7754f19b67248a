//! What the engine has to say goes to the host's log.

use std::fmt::{self, Write as _};
use std::sync::{Arc, RwLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, uniffi::Enum)]
pub enum Severity {
    /// Something failed for good.
    Error,
    /// Something failed, and is tried again.
    Warn,
    /// Something worth knowing.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl From<&Level> for Severity {
    fn from(level: &Level) -> Self {
        match *level {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warn,
            Level::INFO => Severity::Info,
            Level::DEBUG => Severity::Debug,
            _ => Severity::Trace,
        }
    }
}

/// Takes the engine's log lines. Called on any thread; it must return soon.
#[uniffi::export(with_foreign)]
pub trait LogSink: Send + Sync {
    /// One line: how important it is, which part of the engine says it, what it says.
    fn log(&self, severity: Severity, target: String, message: String);
}

type Installed = RwLock<Option<(Severity, Arc<dyn LogSink>)>>;
static SINK: Installed = RwLock::new(None);

/// Sends the engine's log lines, from `severity` up, to `sink` from here on; to nobody with none.
/// False when the process has another log already (a Rust program around this library), which then
/// gets them.
#[uniffi::export]
pub fn set_log_sink(severity: Severity, sink: Option<Arc<dyn LogSink>>) -> bool {
    use std::sync::OnceLock;
    static IS_OURS: OnceLock<bool> = OnceLock::new();
    *SINK.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = sink.map(|sink| (severity, sink));
    *IS_OURS
        .get_or_init(|| tracing::subscriber::set_global_default(Registry::default().with(Forward)).is_ok())
}

struct Forward;

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let severity = Severity::from(event.metadata().level());
        let installed = SINK.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let Some((_, sink)) = installed.filter(|(least, _)| severity <= *least) else { return };
        let mut line = Line::default();
        event.record(&mut line);
        sink.log(severity, event.metadata().target().to_owned(), line.message + &line.fields);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
