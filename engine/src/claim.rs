//! What a run holds from the beginning of its preparation to its end.

use std::{sync::Arc, time::Instant};

use crate::{feed::Keeper, journal::Begun, run_folder::RunFolder, source::Pinned};

/// A run's claim on its folder. While it lives, no reaper of any process touches the run.
#[derive(Debug)]
pub struct Claim {
    pub(crate) folder: RunFolder,
    /// When the job was taken up.
    pub(crate) since: Instant,
    /// The journal, where the job can be taken over.
    pub(crate) journal: Option<Arc<Keeper>>,
    /// What the job is made from.
    pub(crate) begun: Box<Begun>,
    /// The commit whose files are still to be brought.
    pub(crate) pinned: Option<Pinned>,
}
