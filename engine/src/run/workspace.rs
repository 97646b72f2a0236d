//! Whose the workspace is while stages run: it is given to the user that a stage runs as, from inside
//! of the container, where root is.

use std::path::Path;

use buildr_init::wire::NewOwner;
use buildr_manifest::Outcome;
use tokio::sync::Mutex;

use super::{Run, boot::Booted};
use crate::{environment::WORKSPACE, run_folder};

/// Who has the workspace.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The user whom it was given to last, as a stage or an image names it, and the image in which the
    /// name means that; none: it is as it came.
    given: Mutex<Option<(String, String)>>,
}

impl Run<'_> {
    /// Gives the workspace to the user that a stage in `booted` is to run as, unless that is root or
    /// has it. Stages of different users that run side by side take it from each other: what they need
    /// of each other's files is theirs to arrange.
    pub(super) async fn give_workspace(&self, booted: &Booted, user: &str) -> Result<(), Outcome> {
        if is_root(user) {
            return Ok(());
        }
        let new = (user.to_owned(), booted.image.id.clone());
        let mut given = self.workspace.given.lock().await;
        if given.as_ref() == Some(&new) || (given.is_none() && self.workspace_is_of(user).await) {
            return Ok(());
        }
        let owned = booted.link.own(WORKSPACE, Vec::new(), NewOwner::Named(user.to_owned()));
        let errors = self.unless_killed(owned).await?.unwrap_or_default();
        if !errors.is_empty() {
            let list = errors.join("\n  ");
            self.feed.warning(format!("the user {user} cannot have all of the project:\n  {list}")).await;
        }
        *given = Some(new);
        Ok(())
    }

    async fn workspace_is_of(&self, user: &str) -> bool {
        let Ok(uid) = user.split(':').next().unwrap_or_default().parse::<u32>() else { return false };
        let workspace = self.prepared.workspace.clone();
        let owner = crate::blocking(move || run_folder::owner_of(Path::new(&workspace))).await;
        owner.is_ok_and(|owner| owner.uid == uid)
    }

    /// Does what may take long, unless everything is to end at once.
    pub(super) async fn unless_killed<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        tokio::select! {
            biased;
            by = self.stop.killed() => Err(Outcome::Canceled { by }),
            done = work => Ok(done),
        }
    }
}

/// As an image's `USER` says it.
pub(super) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next().unwrap_or_default(), "" | "root" | "0")
}
