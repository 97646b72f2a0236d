//! The log of a daemon: on standard error, for people or for machines.

use std::{
    io::{self, IsTerminal},
    panic::PanicHookInfo,
};

use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Human,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, the event's own fields,
    /// and `spans`, outermost first, with what they are about.
    Json,
}

/// What of the log is written: a level, or levels by part of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl std::str::FromStr for Filter {
    type Err = String;

    /// Takes `info`, or `warn,buildr_agent=debug`.
    fn from_str(text: &str) -> Result<Self, String> {
        match EnvFilter::builder().parse(text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err("give a level, as in `info`".to_owned()),
            Err(error) => {
                Err(format!("{error}; give a level, as in `info`, or levels by part, as in `warn,h2=debug`"))
            }
        }
    }
}

/// Begins to write the log; from here on panics are in it too. Once per process.
pub fn start(format: Format, filter: &Filter) {
    let filter = EnvFilter::new(&filter.0);
    let layer = match format {
        Format::Human => {
            let lines = fmt::layer().with_writer(io::stderr).with_target(false);
            lines.with_ansi(io::stderr().is_terminal()).boxed()
        }
        Format::Json => {
            let json = fmt::layer().json().with_writer(io::stderr);
            json.flatten_event(true).with_current_span(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    std::panic::set_hook(Box::new(log_panic));
}

/// A panic ends one task and not the program: without this nobody would see it in a JSON log.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(
        reason = panic.payload_as_str().unwrap_or("no text"),
        location = panic.location().map(tracing::field::display),
        thread = thread.name(),
        // Empty but for who asks with RUST_BACKTRACE=1.
        backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
            .then(|| tracing::field::display(&backtrace)),
        "panic: this is a bug of buildr"
    );
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn a_filter_that_is_none_is_named() {
        for good in ["info", "off", "warn,h2=debug", "buildr_agent=trace"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for wrong in ["", " ", "warn,h2=loud", "a=b=c"] {
            let error = wrong.parse::<Filter>().unwrap_err();
            assert!(error.contains("`info`"), "{wrong}: {error}");
        }
    }
}
