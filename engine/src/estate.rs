//! What is left of a run whose engine's process is no more, opened to go on with it.

use std::sync::Arc;

use crate::{
    Error, NotAdopted,
    engine::Inner,
    feed::Keeper,
    job::RunId,
    journal::Journal,
    past::Past,
    run_folder::{self, RunFolder},
};

/// What there is of it. While it lives, no reaper of any process touches the run.
#[derive(Debug)]
pub struct Estate {
    pub(crate) folder: RunFolder,
    pub(crate) journal: Arc<Keeper>,
    pub(crate) past: Past,
}

/// Takes hold of a run.
pub(crate) async fn open(engine: &Inner, run: &RunId) -> Result<Estate, NotAdopted> {
    let path = run_folder::path_of(&engine.config.data_dir, run);
    let opened = crate::blocking(move || {
        let Some(folder) = RunFolder::claim(&path)? else { return Ok(Err(NotAdopted::NotHere)) };
        let (journal, records) = match Journal::reopen(&path) {
            Ok(journal) => journal,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Err(NotAdopted::NotBegun));
            }
            Err(error) => return Err(error),
        };
        let past = Past::read(records).map_err(std::io::Error::other)?;
        let Some(past) = past else { return Ok(Err(NotAdopted::NotBegun)) };
        Ok(Ok(Estate { folder, journal: Arc::new(Keeper::new(journal)), past }))
    });
    match opened.await {
        Ok(estate) => estate,
        Err(error) => {
            let error = Error::files("take over the run in", &engine.config.data_dir)(error);
            tracing::warn!(%run, error = error.chain(), "a run cannot be taken over");
            Err(NotAdopted::NotHere)
        }
    }
}
