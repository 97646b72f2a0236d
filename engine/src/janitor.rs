//! Gives files back that a build has left in the hands of other users, where the build's own
//! container is gone: a container that runs nothing but init does it, since root is in there.

use std::{path::Path, time::Duration};

use buildr_init::wire::{HandBack, Owner, Settings};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    Error,
    container::{self, Container, Input, Spec},
    engine::Inner,
    environment::WORKSPACE,
    init_program,
    job::RunId,
    run_folder,
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
    let data_dir = engine.config.data_dir.clone();
    let init = crate::blocking(move || Ok(init_program::install(&data_dir))).await;
    let init = init.map_err(Error::files("install init in", &engine.config.data_dir))??;
    // A control directory of its own: the build's may be what is to be given back.
    let control = tempfile::tempdir_in(&engine.config.data_dir)
        .map_err(Error::files("create a folder in", &engine.config.data_dir))?;
    std::fs::File::create(control.path().join("init"))
        .map_err(Error::files("create a file in", control.path()))?;
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
        control: control.path().to_owned(),
        workspace: tree,
        socket: None,
        input: Input::Empty,
    };
    let done = timeout(LIMIT, run_to_its_end(engine, &spec)).await;
    container::remove_all(&engine.daemon, &engine.config.owner, run).await?;
    done.unwrap_or_else(|_| Err(Error::StillThere { run: run.to_string() }))
}

/// Gives all below `tree` to the user that this process runs as.
pub(crate) async fn take_back(engine: &Inner, run: &RunId, image: &str, tree: &Path) -> Result<(), Error> {
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
