//! The folder that a project is checked out into, with a repository of its own: a build gets copies
//! of a mirror's files and never a link to them, since it may write to all that it has.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use git2::{Oid, Repository, RepositoryInitOptions, build::CheckoutBuilder};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    address::Address,
    fetch::Pin,
    mirror::{Mirror, local, remove_all},
    wanted::Line,
};

/// Makes the folder where it is not there; what is there must be empty.
pub(super) fn vacant(folder: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(folder).map_err(SourceError::io(folder))?;
    let mut entries = fs::read_dir(folder).map_err(SourceError::io(folder))?;
    if entries.next().is_some() {
        return Err(SourceError::Occupied { path: folder.to_owned() });
    }
    Ok(())
}

/// Removes what is in the folder.
pub(super) fn clear(folder: &Path) -> Result<(), SourceError> {
    for entry in fs::read_dir(folder).map_err(SourceError::io(folder))? {
        let entry = entry.map_err(SourceError::io(folder))?;
        let kind = entry.file_type().map_err(SourceError::io(entry.path()))?;
        let removed =
            if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(SourceError::io(entry.path()))?;
    }
    Ok(())
}

/// Makes the repository of a workspace out of a mirror: its objects, its tags, and a HEAD at the
/// pinned commit. The files come later.
pub(super) fn make_repository(
    folder: &Path,
    mirror: &Mirror,
    address: &Address,
    pin: &Pin,
    cancel: &CancellationToken,
) -> Result<(), SourceError> {
    let mut options = RepositoryInitOptions::new();
    options.external_template(false).no_reinit(true);
    let repository = Repository::init_opts(folder, &options).map_err(local(folder))?;
    let own = folder.join(".git");
    // All that libgit2 puts there is a note.
    remove_all(&own.join("hooks"))?;
    copy_objects(&mirror.path().join("objects"), &own.join("objects"), cancel)?;
    write_references(&own, mirror, pin)?;
    configure(&repository, address, pin).map_err(local(folder))?;
    let head = match &pin.line {
        Some(branch @ Line::Branch(_)) => repository.set_head(&branch.full_name()),
        _ => repository.set_head_detached(pin.commit),
    };
    head.map_err(local(folder))
}

fn configure(repository: &Repository, address: &Address, pin: &Pin) -> Result<(), git2::Error> {
    let mut config = repository.config()?;
    config.set_str("remote.origin.url", address.shown())?;
    config.set_str("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
    if let Some(branch @ Line::Branch(name)) = &pin.line {
        config.set_str(&format!("branch.{name}.remote"), "origin")?;
        config.set_str(&format!("branch.{name}.merge"), &branch.full_name())?;
    }
    Ok(())
}

/// All refs in one file, in the order that its header promises.
fn write_references(own: &Path, mirror: &Mirror, pin: &Pin) -> Result<(), SourceError> {
    let mut references = mirror.tags()?;
    if let Some(branch @ Line::Branch(name)) = &pin.line {
        references.push((branch.full_name(), pin.commit));
        references.push((format!("refs/remotes/origin/{name}"), pin.commit));
    }
    references.sort();
    let mut text = String::from("# pack-refs with: sorted \n");
    for (name, target) in references {
        let _ = writeln!(text, "{target} {name}");
    }
    let path = own.join("packed-refs");
    fs::write(&path, text).map_err(SourceError::io(path))
}

/// Copies packs and loose objects. Where the file system can share blocks, it does.
fn copy_objects(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<(), SourceError> {
    for folder in folders(from)? {
        let name = folder.file_name().unwrap_or_default();
        if name == "info" {
            continue;
        }
        let target = to.join(name);
        fs::create_dir_all(&target).map_err(SourceError::io(&target))?;
        for entry in fs::read_dir(&folder).map_err(SourceError::io(&folder))? {
            if cancel.is_cancelled() {
                return Err(SourceError::Canceled);
            }
            let path = entry.map_err(SourceError::io(&folder))?.path();
            let wanted = name != "pack"
                || path.extension().is_some_and(|kind| kind == "pack" || kind == "idx" || kind == "rev");
            if wanted && let Some(file) = path.file_name() {
                fs::copy(&path, target.join(file)).map_err(SourceError::io(&path))?;
            }
        }
    }
    Ok(())
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let entries: io::Result<Vec<_>> = fs::read_dir(path).and_then(Iterator::collect);
    let entries = entries.map_err(SourceError::io(path))?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Makes the files of a workspace what its HEAD says, by libgit2. Blocks.
pub(super) fn fill(folder: &Path, commit: Oid, cancel: &CancellationToken) -> Result<(), SourceError> {
    let repository = Repository::open(folder).map_err(local(folder))?;
    let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(local(folder))?;
    let mut options = CheckoutBuilder::new();
    // A checkout stops only where a notification says so.
    options.force().recreate_missing(true);
    options.notify_on(git2::CheckoutNotificationType::all());
    options.notify(|_, _, _, _, _| !cancel.is_cancelled());
    match repository.checkout_tree(tree.as_object(), Some(&mut options)) {
        Err(_) if cancel.is_cancelled() => Err(SourceError::Canceled),
        result => result.map_err(local(folder)),
    }
}
