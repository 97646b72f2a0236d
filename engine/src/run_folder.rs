//! The folder of one run: its control directories, its workspace where it has one of its own, and the
//! journal of what was done for it. A lock in it tells every other process on this machine that the
//! run is alive.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use buildr_init::wire::Owner;

use crate::{
    Error,
    job::{Kept, RunId},
    removal,
};

/// Where in the data folder the runs are.
const RUNS: &str = "runs";

/// In a run's folder, where its project is checked out to.
const WORKSPACE: &str = "workspace";

/// In a run's folder, the id of an image that is on this machine.
const IMAGE: &str = "image";

/// In a run's folder, what its user keeps of it.
const KEPT: &str = "kept";

/// Folders under this prefix are being made.
const UNFINISHED: &str = ".new-";

/// After this time nobody is still making a folder.
const UNFINISHED_FOR: Duration = Duration::from_secs(3600);

/// An open folder of a live run. Dropping it ends the claim, the files stay.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder. A leftover of the same name is an error: names of runs are never reused.
    /// Blocks.
    pub(crate) fn create(data_dir: &Path, run: &RunId) -> Result<Self, Error> {
        let runs = data_dir.join(RUNS);
        let path = runs.join(run.as_str());
        let begun = runs.join(format!("{UNFINISHED}{run}"));
        let failed = || Error::files("create folder", &path);
        make_folder(&runs, 0o755).map_err(failed())?;
        make_folder(&begun, 0o700).map_err(failed())?;
        let lock = File::create(begun.join("lock")).map_err(failed())?;
        lock.try_lock().map_err(|error| failed()(error.into()))?;
        make_control(&crate::control::control_path(&begun)).map_err(failed())?;
        if path.exists() {
            let _left_to_the_reaper = fs::remove_dir_all(&begun);
            return Err(failed()(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        fs::rename(&begun, &path).map_err(failed())?;
        Ok(Self { path, _lock: lock })
    }

    /// Takes over the folder of a run that nobody claims; none where somebody does.
    pub(crate) fn claim(path: &Path) -> io::Result<Option<Self>> {
        let lock = match File::open(path.join("lock")) {
            Ok(lock) => lock,
            // Its removal was begun and not finished.
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(path)?,
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a project is checked out to.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.path.join(WORKSPACE)
    }

    /// Makes the folder that a project is checked out to.
    pub(crate) fn make_workspace(&self) -> Result<(), Error> {
        let path = self.workspace();
        make_folder(&path, 0o755).map_err(Error::files("create folder", &path))
    }

    /// The control directory of the build container, or of a stage's own. That of a stage is made anew:
    /// nothing of an earlier container of that stage is in it.
    pub(crate) fn control(&self, stage: Option<usize>) -> Result<PathBuf, Error> {
        let Some(stage) = stage else { return Ok(crate::control::control_path(&self.path)) };
        let path = self.path.join(format!("control-{stage}"));
        make_control(&path).map_err(Error::files("create folder", &path))?;
        Ok(path)
    }

    /// Writes down an image that is on this machine, before a container is made of it: with its help
    /// what the container leaves can be removed.
    pub(crate) fn note_image(&self, image: &str) -> Result<(), Error> {
        let path = self.path.join(IMAGE);
        fs::write(&path, image).map_err(Error::files("write", &path))
    }

    /// The image that was noted last, where one was.
    pub(crate) fn noted_image(&self) -> Option<String> {
        fs::read_to_string(self.path.join(IMAGE)).ok().filter(|image| !image.is_empty())
    }

    /// Writes down what is kept of the run; it needs the folder as long as it is there.
    pub(crate) fn keep(&self, kept: &Kept) -> Result<(), Error> {
        let path = self.path.join(KEPT);
        let text = serde_json::to_string(kept).expect("names and variables are text");
        fs::write(&path, text).map_err(Error::files("write", &path))
    }

    /// See [`kept`].
    pub(crate) fn kept(&self) -> Option<Kept> {
        kept(&self.path)
    }

    /// As [`remove`].
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// What is kept of the run with this folder, where something is.
pub(crate) fn kept(path: &Path) -> Option<Kept> {
    fs::read(path.join(KEPT)).ok().and_then(|text| serde_json::from_slice(&text).ok())
}

/// Removes a run's folder with all that is in it; never follows a link out of it. What a build could
/// write goes first, since that may fail, and the journal is still needed then. Blocks.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for path in [&crate::control::control_path(path), &path.join(WORKSPACE), path] {
        removal::remove_tree(path)?;
    }
    Ok(())
}

/// Makes a control directory beside that of the build, which may hold anything by now.
pub(crate) fn janitor_control(data_dir: &Path, run: &RunId) -> Result<PathBuf, Error> {
    let path = path_of(data_dir, run).join("janitor");
    make_control(&path).map_err(Error::files("create folder", &path))?;
    Ok(path)
}

/// Makes a control directory, empty but for what init is mounted over.
pub(crate) fn make_control(path: &Path) -> io::Result<()> {
    make_folder(path, 0o700)?;
    // Init is mounted over this one.
    File::create(path.join("init")).map(drop)
}

/// The path of a run's folder.
pub(crate) fn path_of(data_dir: &Path, run: &RunId) -> PathBuf {
    data_dir.join(RUNS).join(run.as_str())
}

/// The folders of all runs, alive or not. What is no run's, or is just being made, is passed over.
pub(crate) fn all(data_dir: &Path) -> io::Result<Vec<(RunId, PathBuf)>> {
    let entries = match fs::read_dir(data_dir.join(RUNS)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match name.strip_prefix(UNFINISHED) {
            Some(_) if is_stale(&entry) => {
                let _tried_again_next_time = fs::remove_dir_all(entry.path());
            }
            Some(_) => {}
            None => runs.extend(RunId::new(name).map(|run| (run, entry.path()))),
        }
    }
    Ok(runs)
}

/// Whom a file belongs to.
pub(crate) fn owner_of(path: &Path) -> io::Result<Owner> {
    fs::metadata(path).map(|there| Owner { uid: there.uid(), gid: there.gid() })
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn is_stale(entry: &fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|there| there.modified());
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > UNFINISHED_FOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::new("run-1").unwrap()
    }

    #[test]
    fn a_live_run_cannot_be_claimed_and_a_dead_one_can() {
        let data = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(data.path(), &run()).unwrap();
        let path = path_of(data.path(), &run());
        assert!(RunFolder::claim(&path).unwrap().is_none());
        drop(folder);
        let claimed = RunFolder::claim(&path).unwrap().unwrap();
        claimed.remove().unwrap();
        assert!(all(data.path()).unwrap().is_empty());
    }

    #[test]
    fn a_run_has_its_folder_for_itself() {
        let data = tempfile::tempdir().unwrap();
        let _folder = RunFolder::create(data.path(), &run()).unwrap();
        let error = RunFolder::create(data.path(), &run()).unwrap_err();
        assert!(error.to_string().starts_with("cannot create folder"), "{error}");
        assert_eq!(all(data.path()).unwrap().len(), 1);
    }

    #[test]
    fn the_image_stays_noted_while_what_a_build_wrote_cannot_be_removed() {
        let data = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(data.path(), &run()).unwrap();
        assert_eq!(folder.noted_image(), None);
        folder.note_image("sha256:ab").unwrap();
        // Something that is no folder cannot be removed as one, not even by root.
        fs::write(folder.workspace(), "").unwrap();
        folder.remove().unwrap_err();
        assert_eq!(folder.noted_image().as_deref(), Some("sha256:ab"));
        fs::remove_file(folder.workspace()).unwrap();
        folder.remove().unwrap();
        assert!(!folder.path().exists());
    }
}
