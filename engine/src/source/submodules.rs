//! The submodules of a checkout: which there are, what may be believed of what `.gitmodules` says of
//! them, and where they go. The file is the repository's own, so everything in it is checked.

use std::{
    fs,
    path::{Component, Path},
};

use git2::{Oid, Repository};
use tokio_util::sync::CancellationToken;

use super::{SourceError, UrlPolicy, address::Address, mirror::local, program::Program, workspace::Place};

/// How deep submodules may be in each other.
pub(super) const MAX_LEVELS: usize = 8;

/// How many there may be in all.
pub(super) const MAX_COUNT: usize = 1000;

const FILE: &str = ".gitmodules";

/// The largest `.gitmodules`, in bytes.
const MAX_FILE: usize = 1 << 20;

const LINK_TO_COMMIT: u32 = 0o160_000;
const REGULAR_FILE: u32 = 0o100_000;

/// A submodule that was checked.
#[derive(Debug)]
pub(super) struct Submodule {
    /// Where it goes.
    pub(super) place: Place,
    pub(super) address: Address,
    pub(super) commit: Oid,
    /// How many repositories it is in.
    pub(super) level: usize,
    /// What git calls it.
    name: String,
    /// Its path in the repository that it is in.
    path: String,
    /// The repository that it is in.
    parent: Place,
    /// The URL of that, without credentials.
    parent_url: String,
}

impl Submodule {
    /// The error for one that is not allowed.
    pub(super) fn refused(&self, why: String) -> SourceError {
        SourceError::RefusedSubmodule { url: self.parent_url.clone(), path: self.path.clone(), why }
    }

    /// The error for one that could not be had.
    pub(super) fn failed(&self, source: SourceError) -> SourceError {
        if matches!(source, SourceError::Canceled) {
            return source;
        }
        let (url, path) = (self.parent_url.clone(), self.path.clone());
        SourceError::Submodule { url, path, source: Box::new(source) }
    }

    /// Tells the repository that it is in that it is there, as git would. Blocks.
    pub(super) fn register(&self) -> Result<(), SourceError> {
        let write = || {
            let mut config = Repository::open(&self.parent.git)?.config()?;
            let key = |variable: &str| format!("submodule.{}.{variable}", self.name);
            config.set_bool(&key("active"), true)?;
            config.set_str(&key("url"), self.address.shown())
        };
        write().map_err(local(&self.parent.git))
    }
}

/// The submodules of a checkout whose files are there and that is `level` repositories deep; without
/// those that `.gitmodules` says are not to be checked out (`update = none`).
pub(super) async fn of(
    program: Option<&Program>,
    (place, level): (&Place, usize),
    parent: &Address,
    policy: UrlPolicy,
    cancel: &CancellationToken,
) -> Result<Vec<Submodule>, SourceError> {
    let Index { links, file } = Index::read(place).map_err(local(&place.git))?;
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let program = program.ok_or(SourceError::NoProgram {
        what: "`clone: {submodules: true}`",
        program: "git",
        package: "git 2.32 or newer",
    })?;
    let settings = match file {
        Some(file) => program.settings_in(&place.git, file, parent, cancel).await?,
        None => Vec::new(),
    };
    let known = Known::from(settings);
    let check = |(path, commit): (Vec<u8>, Oid)| {
        let shown = || String::from_utf8_lossy(&path).escape_debug().to_string();
        let url = || parent.shown().to_owned();
        let refused = |why| SourceError::RefusedSubmodule { url: url(), path: shown(), why };
        let (said, path) = known.check(place, &path).map_err(refused)?;
        if said.update.as_deref() == Some("none") {
            return Ok(None);
        }
        if level >= MAX_LEVELS {
            return Err(refused(format!("it is more than {MAX_LEVELS} submodules deep")));
        }
        let address = address(parent, &said.url, policy).map_err(|source| SourceError::Submodule {
            url: url(),
            path: shown(),
            source: Box::new(source),
        })?;
        Ok(Some(Submodule {
            place: place.submodule(&said.name, Path::new(path)),
            address,
            commit,
            level: level + 1,
            name: said.name.clone(),
            path: path.to_owned(),
            parent: place.clone(),
            parent_url: url(),
        }))
    };
    links.into_iter().filter_map(|link| check(link).transpose()).collect()
}

/// What the index says.
struct Index {
    /// Path and commit of every submodule.
    links: Vec<(Vec<u8>, Oid)>,
    /// `.gitmodules`, where it is a regular file of a sane size.
    file: Option<Oid>,
}

impl Index {
    fn read(place: &Place) -> Result<Self, git2::Error> {
        let repository = Repository::open(&place.git)?;
        let (mut links, mut file) = (Vec::new(), None);
        for entry in repository.index()?.iter() {
            match entry.mode & 0o170_000 {
                LINK_TO_COMMIT => links.push((entry.path, entry.id)),
                REGULAR_FILE if entry.path == FILE.as_bytes() => {
                    let (size, _) = repository.odb()?.read_header(entry.id)?;
                    file = (size <= MAX_FILE).then_some(entry.id);
                }
                _ => {}
            }
        }
        Ok(Self { links, file })
    }
}

/// All that `.gitmodules` says, in its order.
#[derive(Debug, Default)]
struct Known(Vec<Said>);

/// What it says of one.
#[derive(Clone, Debug, Default)]
struct Said {
    name: String,
    path: Option<String>,
    url: String,
    update: Option<String>,
}

impl Known {
    /// What is said of the submodule at a path of the index, after all checks.
    fn check<'p>(&self, place: &Place, path: &'p [u8]) -> Result<(&Said, &'p str), String> {
        let path = check_path(path)?;
        let said = self.of(path).ok_or_else(|| format!("{FILE} does not name its URL"))?;
        said.check(self)?;
        check_way(place, path)?;
        Ok((said, path))
    }

    fn of(&self, path: &str) -> Option<&Said> {
        self.0.iter().find(|said| said.path.as_deref() == Some(path) && !said.url.is_empty())
    }
}

impl From<Vec<(String, String)>> for Known {
    fn from(settings: Vec<(String, String)>) -> Self {
        let mut all: Vec<Said> = Vec::new();
        for (key, value) in settings {
            let Some((name, variable)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.'))
            else {
                continue;
            };
            let index = all.iter().position(|said| said.name == name).unwrap_or_else(|| {
                all.push(Said { name: name.to_owned(), ..Said::default() });
                all.len() - 1
            });
            let said = &mut all[index];
            // Git takes the last of several.
            match variable {
                "path" => said.path = Some(value.trim_end_matches('/').to_owned()),
                "url" => said.url = value,
                "update" => said.update = Some(value),
                _ => {}
            }
        }
        Self(all)
    }
}

impl Said {
    /// Its name becomes a folder below `.git/modules`.
    fn check(&self, all: &Known) -> Result<(), String> {
        let name = self.name.to_lowercase();
        if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_control() || c == '\\') {
            return Err(format!("`{}` is no name for a submodule", self.name.escape_debug()));
        }
        if name.starts_with('-') || name.split('/').any(is_special) {
            return Err(format!("its name `{}` leads out of `.git/modules`", self.name));
        }
        let inside = |other: &&Said| {
            let other = other.name.to_lowercase();
            other != name
                && (other.starts_with(&format!("{name}/")) || name.starts_with(&format!("{other}/")))
        };
        if let Some(other) = all.0.iter().find(inside) {
            return Err(format!("its repository would be in the same folder as that of `{}`", other.name));
        }
        let twin = |other: &&Said| other.name != self.name && other.name.to_lowercase() == name;
        if let Some(other) = all.0.iter().find(twin) {
            return Err(format!("`{}` has the same name but for upper and lower case", other.name));
        }
        match self.update.as_deref() {
            Some(command) if command.starts_with('!') => {
                Err("it wants a command to be run for every update".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Parts of a path that mean something to git or to the file system.
fn is_special(part: &str) -> bool {
    let part = part.trim_end_matches(['.', ' ']).to_ascii_lowercase();
    matches!(part.as_str(), "" | ".git" | "git~1")
}

fn check_path(path: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(path).map_err(|_| "its path is not UTF-8".to_owned())?;
    let fits = !text.starts_with('-')
        && !text.chars().any(|c| c.is_control() || c == '\\')
        && !text.split('/').any(is_special)
        && Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    if fits { Ok(text) } else { Err("its path is none that git allows".to_owned()) }
}

/// The folder of a submodule was made by the checkout, and is empty; nothing on the way to it is a
/// link.
fn check_way(place: &Place, path: &str) -> Result<(), String> {
    let mut folder = place.files.clone();
    for part in Path::new(path) {
        folder.push(part);
        match fs::symlink_metadata(&folder) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err("something else than a folder is on the way to it".to_owned()),
            Err(error) => return Err(format!("its folder cannot be used: {error}")),
        }
    }
    match fs::read_dir(&folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("other files are in its folder".to_owned()),
        Err(error) => Err(format!("its folder cannot be used: {error}")),
    }
}

/// A URL of `.gitmodules`. A repository from elsewhere cannot send this machine to its own disk.
pub(super) fn address(parent: &Address, url: &str, policy: UrlPolicy) -> Result<Address, SourceError> {
    let policy = UrlPolicy { allow_file: policy.allow_file && parent.is_file() };
    if url.starts_with("./") || url.starts_with("../") {
        return parent.relative(url, policy);
    }
    Address::parse(url, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(settings: &[(&str, &str)]) -> Known {
        let owned = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Known::from(owned.collect::<Vec<_>>())
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let check = |name: &str| {
            let known =
                known(&[(&format!("submodule.{name}.path"), "p"), (&format!("submodule.{name}.url"), "u")]);
            known.of("p").expect("it is known").check(&known)
        };
        for good in ["a", "libs/a", "a.b", "..a", "with space", "ümlaut"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "..", "../a", "a/..", "a/../b", ".", "a//b", "/a", "a/", ".git", "a/.GIT/b", "-a", "a\\b",
            "a\nb", "git~1", ".git .",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_inside_each_other_are_refused() {
        for other in ["a/b", "A/b", "a/hooks"] {
            let known = known(&[
                ("submodule.a.path", "p"),
                ("submodule.a.url", "u"),
                (&format!("submodule.{other}.path"), "q"),
            ]);
            let error = known.of("p").unwrap().check(&known).unwrap_err();
            assert!(error.contains(other), "{error}");
        }
        let known = known(&[("submodule.a.path", "p"), ("submodule.a.url", "u"), ("submodule.A.path", "q")]);
        assert!(known.of("p").unwrap().check(&known).is_err());
    }

    #[test]
    fn a_link_on_the_way_is_refused() {
        let workspace = tempfile::tempdir().unwrap();
        let place = Place::top(workspace.path());
        fs::create_dir_all(workspace.path().join("real/empty")).unwrap();
        fs::create_dir(workspace.path().join("full")).unwrap();
        fs::write(workspace.path().join("full/file"), "").unwrap();
        std::os::unix::fs::symlink("real", workspace.path().join("link")).unwrap();
        assert_eq!(check_way(&place, "real/empty"), Ok(()));
        for bad in ["link", "link/empty", "full", "full/file", "none"] {
            assert!(check_way(&place, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_refused() {
        let settings = [("submodule.a.path", "p"), ("submodule.a.url", "u"), ("submodule.a.update", "!sh")];
        let known = known(&settings);
        assert!(known.of("p").unwrap().check(&known).unwrap_err().contains("command"));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for good in ["a", "a/b", "ümlaut/x y", "...x"] {
            assert!(check_path(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in
            ["", "/a", "../a", "a/../b", "a//b", "./a", ".git", "a/.GIT", "-a", "a\nb", "a\\b", "git~1/x"]
        {
            assert!(check_path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_path(b"\xff").is_err());
    }
}
