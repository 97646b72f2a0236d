//! After what silence of the orchestrator an attempt is not this agent's any more, kept beside its
//! journal: a process that comes back must not start counting anew.

use std::{fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

/// In an attempt's folder.
const NAME: &str = "fence";

/// When an attempt ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// After a silence this long.
    pub after: Duration,
    /// When what the orchestrator answered last was sent, since the machine was started.
    pub answered: Duration,
    /// Which start of the machine that was.
    pub boot: String,
}

impl Fence {
    /// Writes it beside its place and moves it there, so that a crash leaves the old one or this one.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let draft = folder.join("fence.new");
        fs::write(&draft, serde_json::to_vec(self)?)?;
        fs::rename(draft, folder.join(NAME))
    }

    /// None where the attempt has none.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(NAME)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
