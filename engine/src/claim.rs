//! What a run holds from the beginning of its preparation to its end.

use std::time::Instant;

use crate::run_folder::RunFolder;

/// A run's claim on its folder. While it lives, no reaper of any process touches the run.
#[derive(Debug, Default)]
pub struct Claim {
    held: Option<Held>,
}

/// What a claim holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) folder: RunFolder,
    /// When the job was taken up.
    pub(crate) since: Instant,
}

impl Claim {
    pub(crate) fn new(folder: RunFolder, since: Instant) -> Self {
        Self { held: Some(Held { folder, since }) }
    }

    pub(crate) fn take(&mut self) -> Option<Held> {
        self.held.take()
    }
}
