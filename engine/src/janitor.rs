//! Removes what a build has left in the hands of other users, or gives it back, where the build's
//! own container is gone: a container that runs nothing but init does it, since root is in there.

use std::{path::Path, time::Duration};

use buildr_init::wire::{HandBack, Owner, Settings};
use buildr_manifest::Resources;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    Error,
    container::{Container, Input, Network, Spec},
    engine::Inner,
    environment::WORKSPACE,
    init_program,
    job::RunId,
    labels,
    run_folder::{self, RunFolder},
};

/// For the largest of trees on a slow disk.
const LIMIT: Duration = Duration::from_secs(300);

/// Gives all below `tree` to `to`, by a container of `image` that belongs to `run`.
pub(crate) async fn hand_back(
    engine: &Inner,
    run: &RunId,
    image: &str,
    tree: &Path,
    to: Owner,
) -> Result<(), Error> {
    engine.daemon.awake().await?;
    let data_dir = engine.config.data_dir.clone();
    let init = crate::blocking(move || Ok(init_program::install(&data_dir))).await;
    let init = init.map_err(Error::files("install init in", &engine.config.data_dir))??;
    let control = run_folder::janitor_control(&engine.config.data_dir, run)?;
    let settings = Settings {
        exit_on_eof: true,
        dead_man: None,
        hand_back: Some(HandBack { path: WORKSPACE.to_owned(), to }),
    };
    let spec = Spec {
        run,
        owner: &engine.config.owner,
        name: &format!("buildr-{run}-janitor"),
        image,
        init: &init,
        settings: &settings,
        control,
        workspace: Some(tree),
        socket: None,
        resources: &Resources::default(),
        pids_limit: engine.config.pids_limit,
        network: Network::Default,
        input: Input::Empty,
    };
    let done = timeout(LIMIT, run_to_its_end(engine, &spec)).await;
    labels::remove_all(&engine.daemon, &engine.config.owner, run).await?;
    done.unwrap_or_else(|_| Err(Error::StillThere { run: run.to_string() }))
}

/// Removes a run's folder, whomever the files in it belong to.
pub(crate) async fn remove_folder(engine: &Inner, run: &RunId, folder: &RunFolder) -> Result<(), Error> {
    let remove = || {
        let path = folder.path().to_owned();
        let failed = Error::files("remove", &path);
        async move { crate::blocking(move || run_folder::remove(&path)).await.map_err(failed) }
    };
    match remove().await {
        Ok(()) => Ok(()),
        // Files of other users are in it: from inside a container root can give them to us.
        Err(error) => {
            let Some(image) = folder.noted_image() else { return Err(error) };
            take_back(engine, run, &image, folder.path()).await?;
            remove().await
        }
    }
}

/// Gives all below `tree` to the user that this process runs as.
async fn take_back(engine: &Inner, run: &RunId, image: &str, tree: &Path) -> Result<(), Error> {
    let us = run_folder::owner_of(&engine.config.data_dir)
        .map_err(Error::files("look at", &engine.config.data_dir))?;
    hand_back(engine, run, image, tree, us).await
}

async fn run_to_its_end(engine: &Inner, spec: &Spec<'_>) -> Result<(), Error> {
    let container = Container::create(&engine.daemon, spec).await?;
    let mut connection = container.attach().await?;
    container.start().await?;
    while connection.output.next().await.is_some() {}
    Ok(())
}
