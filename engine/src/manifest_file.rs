//! Finds and reads the manifest of a project, which may be a stranger's.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use buildr_manifest::{FILE_NAMES, Outcome};
use rustix::fs::OFlags;

use crate::{
    error::chain,
    source::{Pinned, SourceError},
};

/// The largest manifest, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// A manifest's text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ManifestFile {
    /// Its path in the project, for messages.
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
    /// Names one that was passed over, where there is one.
    pub(crate) warning: Option<String>,
}

/// Reads the manifest of a folder: the file `wanted`, or the first of the usual names. An error is a
/// message for people. Blocks.
pub(crate) fn read(project: &Path, wanted: Option<&Path>) -> Result<ManifestFile, String> {
    // A folder of that name is no manifest: `.buildr` may be anything.
    let is_file = |name: &&str| fs::metadata(project.join(name)).is_ok_and(|file| file.is_file());
    let (name, warning) = match wanted {
        Some(path) => (path.to_owned(), None),
        None => choose(&FILE_NAMES.into_iter().filter(is_file).collect::<Vec<_>>())?,
    };
    let shown = name.display().to_string();
    let text = contents(project, &name).map_err(|why| unreadable(&shown, &why))?;
    Ok(ManifestFile { name: shown, text, warning })
}

/// As [`read`], of a commit that is not checked out. An error is how the build ends.
pub(crate) async fn read_pinned(pinned: &Pinned, wanted: Option<&Path>) -> Result<ManifestFile, Outcome> {
    let (name, warning) = match wanted {
        Some(path) => (path.to_owned(), None),
        None => {
            let mut found = Vec::new();
            for name in FILE_NAMES {
                if pinned.has_file(Path::new(name)).await.map_err(source_error)? {
                    found.push(name);
                }
            }
            choose(&found).map_err(manifest_error)?
        }
    };
    let shown = name.display().to_string();
    match pinned.read_file(&name, MAX_SIZE).await {
        Ok(Some(text)) => Ok(ManifestFile { name: shown, text, warning }),
        Ok(None) => Err(manifest_error(unreadable(&shown, "there is no such file"))),
        Err(SourceError::File { why, .. }) => Err(manifest_error(unreadable(&shown, &why))),
        Err(error) => Err(source_error(error)),
    }
}

/// Which of the usual names is taken, of those that are there in their order; and what to say of
/// the others.
fn choose(found: &[&str]) -> Result<(PathBuf, Option<String>), String> {
    let Some((first, others)) = found.split_first() else {
        let names = FILE_NAMES.join(", ");
        return Err(format!("the project has no manifest: none of {names} is in its root"));
    };
    let warning = (!others.is_empty()).then(|| {
        format!("the project has more than one manifest: {first} is taken, not {}", others.join(", "))
    });
    Ok((PathBuf::from(first), warning))
}

fn unreadable(name: &str, why: &str) -> String {
    format!("cannot read the manifest {name}: {why}")
}

fn manifest_error(message: String) -> Outcome {
    Outcome::ManifestError { message }
}

fn source_error(error: SourceError) -> Outcome {
    Outcome::SourceError { message: chain(&error) }
}

fn contents(project: &Path, name: &Path) -> Result<Vec<u8>, String> {
    let text_of = |error: std::io::Error| error.to_string();
    let project = project.canonicalize().map_err(text_of)?;
    let path = project.join(name).canonicalize().map_err(text_of)?;
    if !path.starts_with(&project) {
        return Err("it is outside the project".to_owned());
    }
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW).bits();
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags.cast_signed()).open(path).map_err(text_of)?;
    if !file.metadata().map_err(text_of)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut text = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut text).map_err(text_of)?;
    if text.len() > MAX_SIZE {
        return Err(format!("it is larger than {} KiB", MAX_SIZE >> 10));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn project(files: &[&str]) -> TempDir {
        let project = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(project.path().join(file), file).unwrap();
        }
        project
    }

    #[test]
    fn the_first_of_the_usual_names_is_taken_and_the_other_is_named() {
        let found = read(project(&[".buildr.yml", ".buildr"]).path(), None).unwrap();
        assert_eq!(found.name, ".buildr.yml");
        let warning = found.warning.unwrap();
        assert_eq!(warning, "the project has more than one manifest: .buildr.yml is taken, not .buildr");
        assert_eq!(read(project(&[".buildr"]).path(), None).unwrap().warning, None);
    }

    #[test]
    fn a_project_without_a_manifest_is_told_what_was_looked_for() {
        let folder = project(&[]);
        fs::create_dir(folder.path().join(".buildr")).unwrap();
        let error = read(folder.path(), None).unwrap_err();
        assert!(error.contains(".buildr.yml, .buildr.yaml, .buildr"), "{error}");
    }

    #[test]
    fn a_manifest_outside_the_project_is_refused() {
        let outside = project(&["secret"]);
        let folder = project(&["inside.yml"]);
        symlink(outside.path().join("secret"), folder.path().join(".buildr.yml")).unwrap();
        symlink("inside.yml", folder.path().join("link.yml")).unwrap();
        for wanted in [".buildr.yml", "../../etc/passwd", "/etc/passwd"] {
            let error = read(folder.path(), Some(Path::new(wanted))).unwrap_err();
            assert!(error.contains("outside") || error.contains("No such file"), "{error}");
        }
        assert_eq!(read(folder.path(), Some(Path::new("link.yml"))).unwrap().text, b"inside.yml");
        let absolute = folder.path().join("inside.yml");
        assert_eq!(read(folder.path(), Some(&absolute)).unwrap().text, b"inside.yml");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = project(&[]);
        fs::write(folder.path().join("large"), vec![b'#'; MAX_SIZE + 1]).unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (name, why) in
            [("large", "larger than 1024 KiB"), ("pipe", "not a regular file"), (".", "not a regular")]
        {
            let error = read(folder.path(), Some(Path::new(name))).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
