//! Removes what runs have left behind: what they have in Docker by label, their folders by name. What a
//! live run owns is never touched, in whichever process it lives.

use std::{collections::HashSet, path::Path, sync::Arc};

use crate::{
    Error,
    engine::Inner,
    janitor,
    job::RunId,
    labels, network,
    run_folder::{self, RunFolder},
};

/// What a reaper removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Containers.
    pub containers: u32,
    /// Networks.
    pub networks: u32,
    /// Volumes.
    pub volumes: u32,
    /// Folders of runs, with the workspaces in them.
    pub folders: u32,
}

/// See [`Engine::reap`](crate::Engine::reap).
pub(crate) async fn reap(engine: &Arc<Inner>, live: &HashSet<RunId>) -> Result<Reaped, Error> {
    engine.daemon.awake().await?;
    let mut reaped = Reaped::default();
    // The folders first: what is claimed here stays claimed until its containers are gone.
    let mut dead = dead_folders(engine, live).await?;
    let there = labels::containers(&engine.daemon, &engine.config.owner, None).await?;
    // What is kept stays until its user has removed the container.
    dead.retain(|(run, folder)| {
        let is_there = there.iter().any(|container| container.run.as_ref() == Some(run));
        folder.kept().is_none() || !is_there
    });
    let is_dead = |run: Option<&RunId>| !lives(engine, live, &dead, run);
    remove_from_docker(engine, is_dead, &mut reaped).await?;
    for (run, folder) in dead {
        match janitor::remove_folder(engine, &run, &folder).await {
            Ok(()) => reaped.folders += 1,
            Err(error) => tracing::warn!(%run, error = error.chain(), "a run's folder stays"),
        }
    }
    Ok(reaped)
}

/// See [`Engine::discard`](crate::Engine::discard).
pub(crate) async fn discard(engine: &Arc<Inner>, run: &RunId) -> Result<(), Error> {
    labels::remove_all(&engine.daemon, &engine.config.owner, run).await?;
    let path = run_folder::path_of(&engine.config.data_dir, run);
    let failed = Error::files("remove", &path);
    let theirs = path.clone();
    let folder = crate::blocking(move || claim(&theirs)).await.map_err(failed)?;
    match folder {
        Some(folder) => janitor::remove_folder(engine, run, &folder).await,
        None => Ok(()),
    }
}

/// Removes what dead runs have in Docker: containers first, then what they were in or had mounted.
async fn remove_from_docker(
    engine: &Inner,
    is_dead: impl Fn(Option<&RunId>) -> bool,
    reaped: &mut Reaped,
) -> Result<(), Error> {
    let (daemon, owner) = (&engine.daemon, &engine.config.owner);
    for container in labels::containers(daemon, owner, None).await? {
        if is_dead(container.run.as_ref()) {
            count(&mut reaped.containers, labels::remove_container(daemon, &container.id).await);
        }
    }
    for (id, run) in network::list(daemon, owner, None).await? {
        if is_dead(run.as_ref()) {
            count(&mut reaped.networks, network::remove(daemon, &id).await);
        }
    }
    for (name, run) in labels::volumes(daemon, owner, None).await? {
        if is_dead(run.as_ref()) {
            count(&mut reaped.volumes, labels::remove_volume(daemon, &name).await);
        }
    }
    Ok(())
}

/// What cannot be removed must not keep the rest from being.
fn count(removed: &mut u32, result: Result<(), Error>) {
    match result {
        Ok(()) => *removed += 1,
        Err(error) => tracing::warn!(error = error.chain(), "it is tried again with the next reaping"),
    }
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
