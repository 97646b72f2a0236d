//! The texts of a plan that depend on the machine and on the project's files: `${os}`, `${arch}` and
//! `${checksum:GLOB}`.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use buildr_manifest::{Glob, JobPlan, Open, Text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The texts of a job in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Texts {
    /// The image of the build container.
    pub(crate) image: String,
    /// The images of the services, in the plan's order.
    pub(crate) services: Vec<String>,
    /// One for each stage, in the plan's order.
    pub(crate) stages: Vec<StageTexts>,
}

/// The texts of a stage in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageTexts {
    /// The image of its own container, where it has one.
    pub(crate) image: Option<String>,
    /// Its folder below the workspace, where it has one.
    pub(crate) workdir: Option<String>,
}

/// What a machine's containers run on, in the words of Docker: `linux`, `amd64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) arch: String,
}

/// What the texts of a plan wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The platform of the daemon.
    pub(crate) platform: bool,
    /// The files of the project.
    pub(crate) files: bool,
}

/// What has to be known before [`resolve`].
pub(crate) fn waits(plan: &JobPlan) -> Waits {
    let mut waits = Waits::default();
    let look = |open: &Open| -> Result<String, ()> {
        match open {
            Open::Os | Open::Arch => waits.platform = true,
            Open::Checksum(_) => waits.files = true,
        }
        Ok(String::new())
    };
    // It fails never: each text is only looked at.
    let _ = fill(plan, look);
    waits
}

/// Fills them. An error is a sentence for people. Blocks where files are read.
pub(crate) fn resolve(plan: &JobPlan, platform: &Platform, workspace: &Path) -> Result<Texts, String> {
    fill(plan, |open| match open {
        Open::Os => Ok(platform.os.clone()),
        Open::Arch => Ok(platform.arch.clone()),
        Open::Checksum(globs) => checksum(workspace, globs),
    })
}

fn fill<E>(plan: &JobPlan, mut with: impl FnMut(&Open) -> Result<String, E>) -> Result<Texts, E> {
    let job = &plan.job;
    let mut text = |text: &Text| text.resolve(&mut with);
    let image = text(&job.image)?;
    let services = job.services.iter().map(|service| text(&service.image)).collect::<Result<_, _>>()?;
    let mut stages = Vec::with_capacity(job.stages.len());
    for stage in &job.stages {
        stages.push(StageTexts {
            image: stage.image.as_ref().map(&mut text).transpose()?,
            workdir: stage.workdir.as_ref().map(&mut text).transpose()?,
        });
    }
    Ok(Texts { image, services, stages })
}

/// Of the contents of all files below `root` that a glob matches, in the order of their paths. Links
/// are not followed, git's own folder is left out.
fn checksum(root: &Path, globs: &[Glob]) -> Result<String, String> {
    let mut files = Vec::new();
    let failed = |error: io::Error| format!("cannot read the project for a checksum: {error}");
    find(root, &mut PathBuf::new(), globs, &mut files).map_err(failed)?;
    if files.is_empty() {
        let list: Vec<String> = globs.iter().map(|glob| format!("`{glob}`")).collect();
        return Err(format!("`checksum`: no file of the project matches {}", list.join(" or ")));
    }
    files.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    let mut hash = Sha256::new();
    for file in files {
        let mut content = open(&root.join(&file)).map_err(failed)?;
        io::copy(&mut content, &mut hash).map_err(failed)?;
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn open(path: &Path) -> io::Result<fs::File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?.into())
}

fn find(root: &Path, below: &mut PathBuf, globs: &[Glob], found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(&below))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if below.as_os_str().is_empty() && name == ".git" {
            continue;
        }
        below.push(&name);
        if kind.is_dir() {
            find(root, below, globs, found)?;
        } else if kind.is_file()
            && let Some(path) = below.to_str()
            && globs.iter().any(|glob| glob.matches(path))
        {
            found.push(below.clone());
        }
        below.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use buildr_manifest::{Context, Manifest};

    use super::*;

    fn plan(text: &str) -> JobPlan {
        let (manifest, _) = Manifest::parse(text.as_bytes(), ".buildr.yml").unwrap();
        manifest.plan(&Context::default()).unwrap().supported().unwrap()
    }

    fn platform() -> Platform {
        Platform { os: "linux".into(), arch: "amd64".into() }
    }

    #[test]
    fn what_is_known_waits_for_nothing() {
        let plan = plan("image: alpine\nprepare: {script: [a]}");
        assert_eq!(waits(&plan), Waits::default());
        let texts = resolve(&plan, &Platform::default(), Path::new("/nowhere")).unwrap();
        assert_eq!(texts.image, "alpine:latest");
    }

    #[test]
    fn the_machine_and_the_files_fill_what_is_open() {
        let plan = plan(
            "image: 'x/${os}-${arch}:${checksum:*.lock,a/*.lock}'\nstages: [s]\n\
             s: {image: 'y:${arch}', workdir: sub, script: [a]}",
        );
        assert_eq!(waits(&plan), Waits { platform: true, files: true });
        let folder = tempfile::tempdir().unwrap();
        let error = resolve(&plan, &platform(), folder.path()).unwrap_err();
        assert_eq!(error, "`checksum`: no file of the project matches `*.lock` or `a/*.lock`");
        fs::create_dir(folder.path().join("a")).unwrap();
        for (name, text) in [("b.lock", "2"), ("a/a.lock", "1"), ("other", "3")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("z.lock")).unwrap();
        let texts = resolve(&plan, &platform(), folder.path()).unwrap();
        let of_both = format!("{:x}", Sha256::digest("12"));
        assert_eq!(texts.image, format!("x/linux-amd64:{of_both}"));
        assert_eq!(texts.stages[0].image.as_deref(), Some("y:amd64"));
        assert_eq!(texts.stages[0].workdir.as_deref(), Some("sub"));
    }
}
