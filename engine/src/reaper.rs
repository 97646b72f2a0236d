//! Removes what runs have left behind: their containers by label, their folders by name. What a
//! live run owns is never touched, in whichever process it lives.

use std::{collections::HashSet, path::Path, sync::Arc};

use crate::{
    Error, container,
    engine::Inner,
    janitor,
    job::RunId,
    run_folder::{self, RunFolder},
};

/// What a reaper removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Containers.
    pub containers: u32,
    /// Folders of runs, with the workspaces in them.
    pub folders: u32,
}

/// See [`Engine::reap`](crate::Engine::reap).
pub(crate) async fn reap(engine: &Arc<Inner>, live: &HashSet<RunId>) -> Result<Reaped, Error> {
    let mut reaped = Reaped::default();
    // The folders first: what is claimed here stays claimed until its containers are gone.
    let dead = dead_folders(engine, live).await?;
    for (id, run) in container::list(&engine.daemon, &engine.config.owner, None).await? {
        if !lives(engine, live, &dead, run.as_ref()) {
            container::remove(&engine.daemon, &id).await?;
            reaped.containers += 1;
        }
    }
    for (run, folder) in dead {
        match janitor::remove_folder(engine, &run, &folder).await {
            Ok(()) => reaped.folders += 1,
            Err(error) => tracing::warn!(%run, error = error.chain(), "a run's folder stays"),
        }
    }
    Ok(reaped)
}

/// The folders that no live run claims, claimed by us.
async fn dead_folders(engine: &Inner, live: &HashSet<RunId>) -> Result<Vec<(RunId, RunFolder)>, Error> {
    let (data_dir, live) = (engine.config.data_dir.clone(), live.clone());
    let failed = Error::files("read", &data_dir);
    let claim = move || -> std::io::Result<Vec<_>> {
        let mut dead = Vec::new();
        for (run, path) in run_folder::all(&data_dir)? {
            if !live.contains(&run)
                && let Some(folder) = claim(&path)?
            {
                dead.push((run, folder));
            }
        }
        Ok(dead)
    };
    crate::blocking(claim).await.map_err(failed)
}

/// A folder that went away in the meantime is nobody's.
fn claim(path: &Path) -> std::io::Result<Option<RunFolder>> {
    match RunFolder::claim(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        claimed => claimed,
    }
}

/// A run lives where we were told so, or where its folder is there and was not to be had.
fn lives(engine: &Inner, live: &HashSet<RunId>, dead: &[(RunId, RunFolder)], run: Option<&RunId>) -> bool {
    let Some(run) = run else { return false };
    let claimed = dead.iter().any(|(dead, _)| dead == run);
    live.contains(run) || (!claimed && run_folder::path_of(&engine.config.data_dir, run).exists())
}
