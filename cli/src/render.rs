//! Shows a build, local or remote, as one stream of [`Entry`]s. What is shown where: the log and
//! the stages on standard output, everything about them on standard error; on a terminal they are
//! one picture. Renderers never decide what happens, and know no network.

pub mod account;
mod ended;
pub mod escape;
mod json;
mod plain;
mod pulls;
mod story;
mod terminal;
pub mod text;

use std::io;

use buildr_proto::BuildId;

use crate::client::follow::Entry;
pub use ended::Ended;
pub use json::Json;
pub use plain::{Layout, Plain};
pub use terminal::{Clock, Size, Terminal};

/// Shows the entries of one build.
pub trait Renderer {
    /// Takes the next entry. It may stay in a buffer until [`Renderer::settle`].
    fn entry(&mut self, entry: &Entry) -> io::Result<()>;

    /// Nothing more comes right now: everything taken becomes visible.
    fn settle(&mut self) -> io::Result<()>;

    /// A moment passed: what moves on the screen, moves.
    fn tick(&mut self) -> io::Result<()>;

    /// Says something to the person in front of it, which is no part of the build.
    fn notice(&mut self, text: &str) -> io::Result<()>;
}

/// What a renderer knows of a build beforehand.
#[derive(Clone, Debug, Default)]
pub struct Headline {
    /// Its number; none for a local run.
    pub build: Option<BuildId>,
    /// The command that does the same on the reader's machine, once the commit of a farm's build is
    /// checked out; for the end of a failed build.
    pub reproduce: Option<String>,
}

/// The colours of what buildr itself says.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// For what matters less.
    pub dim: anstyle::Style,
    /// For names.
    pub strong: anstyle::Style,
    /// For what went well.
    pub good: anstyle::Style,
    /// For what failed.
    pub bad: anstyle::Style,
    /// For what to look at.
    pub warn: anstyle::Style,
    /// For the names of stages that run side by side, each its own.
    stages: [anstyle::Style; 6],
}

impl Palette {
    /// With colours, or with none.
    pub fn new(colour: bool) -> Self {
        use anstyle::{AnsiColor, Style};
        if !colour {
            let none = Style::new();
            return Self { dim: none, strong: none, good: none, bad: none, warn: none, stages: [none; 6] };
        }
        Self {
            dim: Style::new().dimmed(),
            strong: Style::new().bold(),
            good: AnsiColor::Green.on_default().bold(),
            bad: AnsiColor::Red.on_default().bold(),
            warn: AnsiColor::Yellow.on_default().bold(),
            stages: [
                AnsiColor::Cyan,
                AnsiColor::Magenta,
                AnsiColor::Blue,
                AnsiColor::Green,
                AnsiColor::BrightCyan,
                AnsiColor::BrightMagenta,
            ]
            .map(|colour| colour.on_default()),
        }
    }

    /// That of the name of the stage with this place in the plan.
    fn stage(&self, place: usize) -> anstyle::Style {
        self.stages[place % self.stages.len()]
    }
}

#[cfg(test)]
mod tests;
