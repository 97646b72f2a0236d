//! The folder that a project is checked out into, with a repository of its own: a build gets copies
//! of a mirror's files and never a link to them, since it may write to all that it has.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use git2::{Oid, Repository, RepositoryInitOptions, build::CheckoutBuilder};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    address::Address,
    error::{Reason, reason},
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

/// Where the files and the repository of a checkout are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The workspace that all of it is in.
    root: PathBuf,
    /// Where the files go.
    pub(super) files: PathBuf,
    /// The repository.
    pub(super) git: PathBuf,
}

impl Place {
    /// A workspace.
    pub(super) fn top(folder: &Path) -> Self {
        Self { root: folder.to_owned(), files: folder.to_owned(), git: folder.join(".git") }
    }

    /// A submodule in it, where git would have it. Name and path are checked.
    pub(super) fn submodule(&self, name: &str, path: &Path) -> Self {
        let git = self.git.join("modules").join(name);
        Self { root: self.root.clone(), files: self.files.join(path), git }
    }

    /// Removes files and repository.
    pub(super) fn clear(&self) -> Result<(), SourceError> {
        remove_all(&self.git)?;
        clear(&self.files)
    }

    /// The way from one folder of the workspace to another, so that both can be mounted anywhere.
    fn way(&self, from: &Path, to: &Path) -> PathBuf {
        let below = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        let up = below(from).components().map(|_| "..").collect::<PathBuf>();
        up.join(below(to))
    }
}

/// Makes the repository of a workspace out of a mirror: its objects, its tags, and a HEAD at the
/// pinned commit. The files come later.
///
/// With a depth, all objects are there all the same, since copying them is the cheapest; what git
/// shows of the history ends there.
pub(super) fn make_repository(
    place: &Place,
    mirror: &Mirror,
    (address, pin): (&Address, &Pin),
    depth: Option<u32>,
    cancel: &CancellationToken,
) -> Result<(), SourceError> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).no_reinit(true).mkpath(true);
    let repository = Repository::init_opts(&place.git, &options).map_err(local(&place.git))?;
    // All that libgit2 puts there is a note.
    remove_all(&place.git.join("hooks"))?;
    // The history is read before the objects are copied: meanwhile others may fetch.
    let History { ends, tags } = history(mirror, pin.commit, depth)?;
    copy_objects(&mirror.path().join("objects"), &place.git.join("objects"), cancel)?;
    write_references(&place.git, tags, pin)?;
    if !ends.is_empty() {
        let text: String = ends.iter().map(|commit| format!("{commit}\n")).collect();
        let path = place.git.join("shallow");
        fs::write(&path, text).map_err(SourceError::io(path))?;
    }
    configure(&repository, place, address, pin).map_err(local(&place.git))?;
    if place.files != place.root {
        let text = format!("gitdir: {}\n", place.way(&place.files, &place.git).display());
        let path = place.files.join(".git");
        fs::write(&path, text).map_err(SourceError::io(path))?;
    }
    let head = match &pin.line {
        Some(branch @ Line::Branch(_)) => repository.set_head(&branch.full_name()),
        _ => repository.set_head_detached(pin.commit),
    };
    head.map_err(local(&place.git))
}

fn configure(
    repository: &Repository,
    place: &Place,
    address: &Address,
    pin: &Pin,
) -> Result<(), git2::Error> {
    let mut config = repository.config()?;
    config.set_bool("core.bare", false)?;
    config.set_bool("core.logallrefupdates", true)?;
    if place.files != place.root {
        config.set_str("core.worktree", &place.way(&place.git, &place.files).to_string_lossy())?;
    }
    config.set_str("remote.origin.url", address.shown())?;
    config.set_str("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
    if let Some(branch @ Line::Branch(name)) = &pin.line {
        config.set_str(&format!("branch.{name}.remote"), "origin")?;
        config.set_str(&format!("branch.{name}.merge"), &branch.full_name())?;
    }
    Ok(())
}

/// What a workspace shows of the past.
struct History {
    /// The commits whose parents are left out, sorted.
    ends: BTreeSet<Oid>,
    /// Full name and object, sorted.
    tags: Vec<(String, Oid)>,
}

/// Without a depth, all of it.
fn history(mirror: &Mirror, commit: Oid, depth: Option<u32>) -> Result<History, SourceError> {
    let mut tags = mirror.tags()?;
    let Some(depth) = depth else { return Ok(History { ends: BTreeSet::new(), tags }) };
    let repository = mirror.open()?;
    let mut seen = HashSet::from([commit]);
    let mut generation = vec![commit];
    for _ in 1..depth {
        let mut next = Vec::new();
        for commit in generation {
            let commit = repository.find_commit(commit).map_err(local(mirror.path()))?;
            next.extend(commit.parent_ids().filter(|parent| seen.insert(*parent)));
        }
        generation = next;
        if generation.is_empty() {
            break;
        }
    }
    let mut ends = BTreeSet::new();
    for id in generation {
        let commit = repository.find_commit(id).map_err(local(mirror.path()))?;
        if commit.parent_ids().any(|parent| !seen.contains(&parent)) {
            ends.insert(id);
        }
    }
    let commit_of = |tag: &Oid| repository.find_object(*tag, None).ok()?.peel_to_commit().ok();
    tags.retain(|(_, tag)| commit_of(tag).is_some_and(|commit| seen.contains(&commit.id())));
    Ok(History { ends, tags })
}

/// All refs in one file, in the order that its header promises.
fn write_references(git: &Path, tags: Vec<(String, Oid)>, pin: &Pin) -> Result<(), SourceError> {
    let mut references = tags;
    if let Some(branch @ Line::Branch(name)) = &pin.line {
        references.push((branch.full_name(), pin.commit));
        references.push((format!("refs/remotes/origin/{name}"), pin.commit));
    }
    references.sort();
    let mut text = String::from("# pack-refs with: sorted \n");
    for (name, target) in references {
        let _ = writeln!(text, "{target} {name}");
    }
    let path = git.join("packed-refs");
    fs::write(&path, text).map_err(SourceError::io(path))
}

/// Copies packs and loose objects. Where the file system can share blocks, it does.
fn copy_objects(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<(), SourceError> {
    for folder in entries(from)?.into_iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap_or_default();
        if name == "info" {
            continue;
        }
        let target = to.join(name);
        fs::create_dir_all(&target).map_err(SourceError::io(&target))?;
        let mut files = entries(&folder)?;
        if name == "pack" {
            files = packs(&files);
        }
        for path in files {
            if cancel.is_cancelled() {
                return Err(SourceError::Canceled);
            }
            if let Some(file) = path.file_name() {
                fs::copy(&path, target.join(file)).map_err(SourceError::io(&path))?;
            }
        }
    }
    Ok(())
}

/// Of what is in a folder of packs, those that are whole: others may be fetching, and the index of a
/// pack is written last.
fn packs(files: &[PathBuf]) -> Vec<PathBuf> {
    let indexes = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "idx"));
    let parts = indexes.flat_map(|index| ["pack", "rev", "idx"].map(|kind| index.with_extension(kind)));
    parts.filter(|path| path.extension().is_some_and(|kind| kind != "rev") || path.exists()).collect()
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let entries: io::Result<Vec<_>> = fs::read_dir(path).and_then(Iterator::collect);
    Ok(entries.map_err(SourceError::io(path))?.into_iter().map(|entry| entry.path()).collect())
}

/// Makes the files of a workspace what its HEAD says, by libgit2. Blocks.
pub(super) fn fill(place: &Place, commit: Oid, cancel: &CancellationToken) -> Result<(), SourceError> {
    let folder = place.files.as_path();
    let repository = Repository::open(&place.git).map_err(local(folder))?;
    let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(local(folder))?;
    let mut options = CheckoutBuilder::new();
    // A checkout stops only where a notification says so.
    options.force().recreate_missing(true);
    options.notify_on(git2::CheckoutNotificationType::all());
    options.notify(|_, _, _, _, _| !cancel.is_cancelled());
    match repository.checkout_tree(tree.as_object(), Some(&mut options)) {
        Err(_) if cancel.is_cancelled() => Err(SourceError::Canceled),
        Err(error) if reason(error.message()) == Reason::BadTree => {
            let detail = error.message().chars().filter(|c| !c.is_control()).collect();
            Err(SourceError::BadTree { detail })
        }
        result => result.map_err(local(folder)),
    }
}
