//! Who this agent is: its data folder, which one process at a time has, its credential, and the id
//! of this process. It never talks to anybody.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use buildr_proto::{AgentId, InstanceId};
use sha2::{Digest, Sha256};

use crate::config::Secret;

const LOCK: &str = "lock";
const CREDENTIAL: &str = "credential";

/// A process's hold on a data folder. The folder is free again when this is dropped.
#[derive(Debug)]
pub struct Identity {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The agent's secret.
    pub credential: Secret,
    /// The id that the credential stands for.
    pub agent: AgentId,
    /// This process.
    pub instance: InstanceId,
    _lock: File,
}

/// Why a folder cannot be the agent's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "the data folder {folder} belongs to a running agent, {holder}: stop that one, or give this one a --data of its own"
    )]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// The process, as it named itself.
        holder: String,
    },
    /// It is no folder.
    #[error("{0} is not a folder: give --data DIR another one")]
    NotAFolder(PathBuf),
    /// It is another user's.
    #[error(
        "{folder} belongs to the user with uid {owner}, and this program runs as {me}: give --data DIR another folder"
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        me: u32,
    },
    /// The credential is none.
    #[error(
        "{0} does not hold a credential (64 hexadecimal digits): restore it, or remove it to join the farm as a new agent"
    )]
    Credential(PathBuf),
    /// The system refused something.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Identity {
    /// Takes the folder for this process; makes it, and the credential, where they are missing.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let folder = make_folder(folder)?;
        let lock = take_lock(&folder)?;
        let text = credential(&folder)?;
        let agent = AgentId::from_digest(&Sha256::digest(text.as_bytes()).into());
        Ok(Self { folder, credential: Secret::new(text), agent, instance: InstanceId::new(), _lock: lock })
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// Makes the folder, for its owner alone.
fn make_folder(folder: &Path) -> Result<PathBuf, Error> {
    if !folder.exists() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(failed("make the folder", folder))?;
    }
    let folder = folder.canonicalize().map_err(failed("find the folder", folder))?;
    let metadata = fs::metadata(&folder).map_err(failed("look at the folder", &folder))?;
    if !metadata.is_dir() {
        return Err(Error::NotAFolder(folder));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me {
        return Err(Error::Foreign { owner: metadata.uid(), folder, me });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))
            .map_err(failed("close to other users", &folder))?;
    }
    Ok(folder)
}

/// Takes the lock and writes down who has it.
fn take_lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed("open the lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Taken { folder: folder.to_owned(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "process {}", std::process::id()))
        .map_err(failed("write the lock", &path))?;
    Ok(file)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(100).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "a process that did not say who it is".to_owned(),
    }
}

/// Reads the credential, or makes one at the first start. The lock is held.
fn credential(folder: &Path) -> Result<String, Error> {
    let path = folder.join(CREDENTIAL);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim();
            let fits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if fits { Ok(text.to_owned()) } else { Err(Error::Credential(path)) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_credential(folder, &path),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::Credential(path)),
        Err(error) => Err(failed("read the credential", &path)(error)),
    }
}

/// Writes a new credential beside its place and moves it there, so that a crash leaves none or all of it.
fn new_credential(folder: &Path, path: &Path) -> Result<String, Error> {
    let text: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = folder.join("credential.new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(failed("write the credential", path))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn an_agent_stays_itself_and_each_process_is_another_instance() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let first = Identity::open(&folder).unwrap();
        let (agent, instance) = (first.agent.clone(), first.instance);
        drop(first);
        let second = Identity::open(&folder).unwrap();
        assert_eq!(second.agent, agent);
        assert_ne!(second.instance, instance);
    }

    #[test]
    fn folder_and_credential_are_for_their_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("agent");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let identity = Identity::open(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(CREDENTIAL)), 0o600);
        assert_eq!(identity.credential.expose().len(), 64);
        assert!(!format!("{identity:?}").contains(identity.credential.expose()));
    }

    #[test]
    fn a_folder_in_use_names_the_process_that_has_it() {
        let root = tempfile::tempdir().unwrap();
        let _first = Identity::open(root.path()).unwrap();
        let error = Identity::open(root.path()).unwrap_err();
        assert!(matches!(error, Error::Taken { .. }));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_broken_credential_is_not_replaced_in_silence() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "not a credential", &"A".repeat(64)] {
            fs::write(root.path().join(CREDENTIAL), text).unwrap();
            assert!(matches!(Identity::open(root.path()).unwrap_err(), Error::Credential(_)));
        }
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Identity::open(&file).unwrap_err(), Error::NotAFolder(_)));
        assert!(matches!(Identity::open(&file.join("below")).unwrap_err(), Error::Io { .. }));
    }
}
