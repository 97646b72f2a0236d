//! What standard output and standard error are, and the only place that prints.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    Error,
    render::{Headline, Json, Layout, Palette, Plain, Renderer, Terminal},
};

/// A terminal that does not tell its width has this one.
const DEFAULT_COLUMNS: usize = 80;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE asks for them everywhere.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How a build is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum View {
    /// As fits the place: a picture on a terminal, plain lines elsewhere.
    #[default]
    Fitting,
    /// Plain lines with the time of each.
    Timed,
    /// The bytes of the logs alone.
    Raw,
    /// One JSON object per line.
    Json,
}

/// This process's standard output and error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Standard output shows colours.
    colour: bool,
    /// Standard error shows colours.
    chatter_colour: bool,
    /// Standard output is a terminal that can move its cursor.
    terminal: bool,
}

impl Screen {
    /// Looks at what there is.
    pub(crate) fn new(choice: ColorChoice) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let forced =
            std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let decide = |is_terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto => forced || (is_terminal && !dumb),
        };
        let terminal = io::stdout().is_terminal();
        Self {
            colour: decide(terminal),
            chatter_colour: decide(io::stderr().is_terminal()),
            terminal: terminal && !dumb,
        }
    }

    /// True where a person reads standard output.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// True where standard output shows colours.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// The colours of standard output.
    pub(crate) fn palette(&self) -> Palette {
        Palette::new(self.colour)
    }

    /// How many columns there are; none where standard output is no terminal.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.terminal.then(columns)
    }

    /// A renderer on this screen.
    pub(crate) fn renderer(&self, view: View, headline: Headline) -> Result<Box<dyn Renderer>, Error> {
        let out = self.out()?;
        let plain = |layout, out| {
            Box::new(Plain::new(out, io::stderr(), layout, self.colour, TimeZone::system(), headline.clone()))
        };
        Ok(match view {
            View::Json => Box::new(Json::new(BufWriter::with_capacity(256 << 10, out), io::stderr())),
            View::Raw => plain(Layout::Raw, out),
            View::Timed => plain(Layout::Timed, out),
            View::Fitting if self.terminal => {
                Box::new(Terminal::new(out, Box::new(columns), Timestamp::now, self.colour, headline))
            }
            View::Fitting => plain(Layout::Staged, out),
        })
    }

    /// Prints a result.
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        writeln!(self.out()?, "{text}").map_err(|error| Error::io("write to standard output", error))
    }

    /// Prints a result for programs.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::io("write to standard output", error.into()))?;
        self.print(&text)
    }

    /// Says something beside the result. Where nobody can hear it, nothing is lost.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Says what went wrong and what to do; gives the exit code.
    pub(crate) fn fail(&self, error: &Error) -> ExitCode {
        if !error.is_reader_gone() {
            let Palette { bad, strong, .. } = Palette::new(self.chatter_colour);
            self.say(&format!("{bad}error:{bad:#} {error}"));
            if let Some(hint) = error.hint() {
                self.say(&format!(" {strong}hint:{strong:#} {hint}"));
            }
        }
        ExitCode::from(error.exit_code())
    }

    /// Standard output without the buffer that the standard library puts before it.
    fn out(&self) -> Result<File, Error> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        Ok(File::from(descriptor.map_err(|error| Error::io("open standard output", error))?))
    }
}

fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(DEFAULT_COLUMNS)
}
