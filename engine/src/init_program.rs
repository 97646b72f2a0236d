//! The init program that this engine carries, as a file that containers can mount.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::Error;

/// Static, for this machine's architecture; see `build.rs`.
const PROGRAM: &[u8] = include_bytes!(env!("BUILDR_INIT"));

/// Puts the program into `data_dir`, where it is not there yet, and tells its path. Its name has
/// its hash, so engines of several versions share a folder; it appears as a whole or not at all.
/// Blocks.
pub(crate) fn install(data_dir: &Path) -> Result<PathBuf, Error> {
    let hash = Sha256::digest(PROGRAM);
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = data_dir.join(format!("init-{name}"));
    // It is only ever made by the rename below: where it exists, it is whole.
    if path.metadata().is_ok_and(|there| there.len() == PROGRAM.len() as u64) {
        return Ok(path);
    }
    let failed = || Error::files("write", &path);
    let mut file = tempfile::NamedTempFile::new_in(data_dir).map_err(failed())?;
    file.write_all(PROGRAM).map_err(failed())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755)).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(&path).map_err(|error| failed()(error.error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_installed_once_and_can_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let path = install(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let first = path.metadata().unwrap().modified().unwrap();
        assert_eq!(install(folder.path()).unwrap(), path);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
