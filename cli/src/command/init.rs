//! `buildr init`.

mod project;

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use buildr_manifest::FILE_NAMES;

use crate::{Error, Exit, screen::Screen};

/// Write a first manifest for a project
///
/// Looks at what is in the folder (Cargo.toml, package.json, pom.xml, go.mod, pyproject.toml,
/// Makefile, Dockerfile) and writes a `.buildr.yml` that fits. Never overwrites one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr init
  buildr init --print ../app          only show it")]
pub(super) struct Args {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Print the manifest instead of writing it
    #[arg(long)]
    print: bool,
}

/// Writes the manifest, or prints it.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<Exit, Error> {
    if !args.folder.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", args.folder.display())));
    }
    let kind = project::Kind::of(&args.folder);
    let text = project::manifest(&args.folder, kind);
    if args.print {
        screen.print(text.trim_end())?;
        return Ok(Exit::OK);
    }
    let path = write(&args.folder, &text)?;
    screen.say(&format!("wrote {} for {}; `buildr run` builds it", path.display(), kind.words()));
    Ok(Exit::OK)
}

/// Writes a manifest into a folder that has none.
fn write(folder: &Path, text: &str) -> Result<PathBuf, Error> {
    let refuse = |path: &Path| {
        Error::usage_with(
            format!("{} is there already", path.display()),
            "`buildr init --print` shows what would be written",
        )
    };
    // A folder called `.buildr` is no manifest.
    let taken = FILE_NAMES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.symlink_metadata().is_ok_and(|found| !found.is_dir()));
    if let Some(path) = taken {
        return Err(refuse(&path));
    }
    let path = folder.join(FILE_NAMES[0]);
    let failed = |error| Error::io(format!("write {}", path.display()), error);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(refuse(&path)),
        Err(error) => return Err(failed(error)),
    };
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(path.strip_prefix(".").unwrap_or(&path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_overwritten() {
        for name in FILE_NAMES {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), "mine").unwrap();
            assert!(matches!(write(folder.path(), "image: a"), Err(Error::Usage { .. })), "{name}");
            assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), "mine");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join(".buildr.yml")).unwrap();
        assert!(write(folder.path(), "image: a").is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn an_empty_folder_gets_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "image: a\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "image: a\n");
    }
}
