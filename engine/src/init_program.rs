//! The init program that this engine carries, as a file that containers can mount.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::Error;

/// Static, for this machine's architecture; see `build.rs`.
const PROGRAM: &[u8] = include_bytes!(env!("BUILDR_INIT"));

/// What the names of all versions begin with.
const PREFIX: &str = "init-";

/// A version that was not started for this long belongs to no engine that still starts containers.
/// A container that runs has the file open: it does not miss the name.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How old the sign that a version is in use may grow before it is renewed.
const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// Puts the program into `data_dir`, where it is not there yet, and tells its path. Its name has
/// its hash, so engines of several versions share a folder; it appears as a whole or not at all.
/// Versions that nobody has used for a week are removed. Blocks.
pub(crate) fn install(data_dir: &Path) -> Result<PathBuf, Error> {
    let hash = Sha256::digest(PROGRAM);
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = data_dir.join(format!("{PREFIX}{name}"));
    // It is only ever made by the rename below: where it exists, it is whole.
    if let Ok(there) = path.metadata()
        && there.len() == PROGRAM.len() as u64
    {
        if age(&there) > RENEWED && renew(&path).is_ok() {
            remove_old(data_dir, &path);
        }
        return Ok(path);
    }
    let failed = || Error::files("write", &path);
    let mut file = tempfile::NamedTempFile::new_in(data_dir).map_err(failed())?;
    file.write_all(PROGRAM).map_err(failed())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755)).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(&path).map_err(|error| failed()(error.error))?;
    remove_old(data_dir, &path);
    Ok(path)
}

/// The time of the last change says when a version was last in use.
fn renew(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.set_modified(SystemTime::now())
}

fn age(file: &fs::Metadata) -> Duration {
    file.modified().ok().and_then(|used| used.elapsed().ok()).unwrap_or_default()
}

/// What cannot be removed now is tried again with the next version, or the next day.
fn remove_old(data_dir: &Path, current: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_version = entry.file_name().to_string_lossy().starts_with(PREFIX) && path != current;
        let unused = || entry.metadata().is_ok_and(|file| file.is_file() && age(&file) > KEPT);
        if is_version
            && unused()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::debug!(%error, path = %path.display(), "an old init is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_installed_once_and_can_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let path = install(folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), PROGRAM);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let first = path.metadata().unwrap().modified().unwrap();
        assert_eq!(install(folder.path()).unwrap(), path);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn versions_that_nobody_has_used_for_a_week_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, days: u32| {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - days * RENEWED).unwrap();
        };
        make("init-0000000000000000", 8);
        make("init-1111111111111111", 6);
        make("other", 100);
        fs::create_dir(folder.path().join("init-folder")).unwrap();
        let path = install(folder.path()).unwrap();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.retain(|name| *name != *path.file_name().unwrap());
            names.sort();
            names
        };
        assert_eq!(names(), ["init-1111111111111111", "init-folder", "other"]);
        make("init-1111111111111111", 9);
        install(folder.path()).unwrap();
        assert_eq!(names().len(), 3, "looked at once a day only");
        fs::File::open(&path).unwrap().set_modified(SystemTime::now() - 3 * RENEWED).unwrap();
        install(folder.path()).unwrap();
        assert_eq!(names(), ["init-folder", "other"]);
        assert!(age(&path.metadata().unwrap()) < RENEWED);
    }
}
