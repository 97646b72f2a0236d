//! What of this machine keeps builds from running well, for a doctor and for an agent's start. Looks
//! only; what it makes to look at is gone when it has.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType, SystemInfo},
    query_parameters::{CreateContainerOptionsBuilder, ListImagesOptionsBuilder},
};

use crate::{
    Error, docker,
    docker::{Daemon, within},
    engine::Inner,
    labels,
};

/// How long Docker may take to tell of itself.
const ANSWER: Duration = Duration::from_secs(15);

/// Below this much free disk, in bytes, there is little room for images and workspaces.
const ROOM: u64 = 1 << 30;

/// Something that is not as builds need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, as `docker`.
    pub subject: &'static str,
    /// Whether anything works all the same.
    pub weight: Weight,
    /// What is wrong, in one sentence.
    pub problem: String,
    /// What to do about it.
    pub what_to_do: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// No build can run.
    Fatal,
    /// Builds run, and something of them will not be as expected.
    Warning,
}

/// What is known of this machine and its daemon.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The kernel that this program runs on.
    kernel: String,
    /// What Docker says of itself.
    info: SystemInfo,
    /// Whether Docker sees the files in the data folder; none where that could not be tried.
    sees_files: Option<bool>,
    data_dir: PathBuf,
    /// Free disk there, in bytes.
    free: Option<u64>,
}

/// Looks at Docker and at the data folder.
pub(crate) async fn examine(engine: &Inner) -> Vec<Finding> {
    match gather(engine).await {
        Ok(facts) => judge(&facts),
        Err(error) => vec![Finding {
            subject: "docker",
            weight: Weight::Fatal,
            problem: error.chain(),
            what_to_do: error.hint().unwrap_or("look at docker's own log").to_owned(),
        }],
    }
}

async fn gather(engine: &Inner) -> Result<Facts, Error> {
    const DOING: &str = "tell of itself";
    let info = within(DOING, ANSWER, engine.daemon.api.info()).await?.map_err(Error::docker(DOING))?;
    let data_dir = engine.config.data_dir.clone();
    let sees_files =
        within("look at the data folder", ANSWER, sees_files(&engine.daemon, &data_dir)).await??;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let free = rustix::fs::statvfs(&data_dir).ok();
    let free = free.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    Ok(Facts { kernel: kernel.trim().to_owned(), info, sees_files, data_dir, free })
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let checks = [elsewhere, rootless, limits, room];
    checks.iter().filter_map(|check| check(facts)).collect()
}

/// A daemon that does not see the files of this machine is of no use.
fn elsewhere(facts: &Facts) -> Option<Finding> {
    let theirs = facts.info.kernel_version.as_deref().unwrap_or_default();
    let system = facts.info.operating_system.as_deref().unwrap_or_default();
    let problem = if system.contains("Docker Desktop") {
        "docker is Docker Desktop, which runs containers in a virtual machine: builds need this machine's own files \
         and pipes in them"
            .to_owned()
    } else if !theirs.is_empty() && !facts.kernel.is_empty() && theirs != facts.kernel {
        format!(
            "docker runs on another machine or in a virtual one (its kernel is {theirs}, this one is {}): \
             it cannot mount this machine's folders into builds",
            facts.kernel
        )
    } else if facts.sees_files == Some(false) {
        format!(
            "docker does not see the files in {}: it has other mounts than this program, as where this runs in a \
             container",
            facts.data_dir.display()
        )
    } else {
        return None;
    };
    let what_to_do = if facts.sees_files == Some(false) && theirs == facts.kernel {
        "name a data folder that is at the same path for docker (`-v /srv/buildr:/srv/buildr` for a container)"
    } else {
        "run buildr where the Docker daemon runs: inside that virtual machine, or with a Docker Engine of this machine"
    };
    Some(Finding { subject: "docker", weight: Weight::Fatal, problem, what_to_do: what_to_do.to_owned() })
}

fn rootless(facts: &Facts) -> Option<Finding> {
    let options = facts.info.security_options.as_deref().unwrap_or_default();
    options.iter().any(|option| option.contains("name=rootless")).then(|| Finding {
        subject: "docker",
        weight: Weight::Warning,
        problem: "docker runs rootless: its users are not this machine's".to_owned(),
        what_to_do: "use images whose stages run as root, or a Docker daemon that runs as root".to_owned(),
    })
}

fn limits(facts: &Facts) -> Option<Finding> {
    let info = &facts.info;
    let kinds = [("memory", info.memory_limit), ("cpus", info.cpu_cfs_quota), ("pids", info.pids_limit)];
    let missing: Vec<_> =
        kinds.iter().filter(|(_, there)| *there == Some(false)).map(|(name, _)| *name).collect();
    (!missing.is_empty()).then(|| Finding {
        subject: "limits",
        weight: Weight::Warning,
        problem: format!("docker cannot limit {} here", missing.join(", ")),
        what_to_do: "turn on the control groups for it: builds may use all of it that the machine has"
            .to_owned(),
    })
}

fn room(facts: &Facts) -> Option<Finding> {
    let free = facts.free.filter(|free| *free < ROOM)?;
    Some(Finding {
        subject: "disk",
        weight: Weight::Warning,
        problem: format!("{} MiB are free at {}", free >> 20, facts.data_dir.display()),
        what_to_do: "free some, as with `docker image prune`, or name a folder on another disk".to_owned(),
    })
}

/// Has Docker mount a file that was made just now into a container that is never started. Needs any image.
async fn sees_files(daemon: &Daemon, data_dir: &Path) -> Result<Option<bool>, Error> {
    let images = daemon.api.list_images(Some(ListImagesOptionsBuilder::new().build())).await;
    let images = images.map_err(Error::docker("list the images"))?;
    let Some(image) = images.into_iter().next() else { return Ok(None) };
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let name = format!("buildr-probe-{}-{nanos}", std::process::id());
    let probe = data_dir.join(format!(".{name}"));
    File::create_new(&probe).map_err(Error::files("make", &probe))?;
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(probe.display().to_string()),
        target: Some("/probe".to_owned()),
        ..Mount::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.id),
        entrypoint: Some(vec!["/probe".to_owned()]),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let created = daemon.api.create_container(Some(options), body).await;
    std::fs::remove_file(&probe).map_err(Error::files("remove", &probe))?;
    match created {
        Ok(created) => labels::remove_container(daemon, &created.id).await.map(|()| Some(true)),
        Err(error) if docker::refusal(&error).is_some_and(|(_, text)| text.contains("does not exist")) => {
            Ok(Some(false))
        }
        Err(error) => Err(Error::docker("make a container that is not started")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Config, testing::Fixture};

    fn well() -> Facts {
        Facts {
            kernel: "6.1.0".to_owned(),
            info: SystemInfo {
                kernel_version: Some("6.1.0".to_owned()),
                operating_system: Some("Debian GNU/Linux 12".to_owned()),
                memory_limit: Some(true),
                cpu_cfs_quota: Some(true),
                pids_limit: Some(true),
                ..SystemInfo::default()
            },
            sees_files: Some(true),
            data_dir: "/data".into(),
            free: Some(1 << 40),
        }
    }

    fn check(change: impl Fn(&mut Facts), expected: &[(Weight, &str)]) {
        let mut facts = well();
        change(&mut facts);
        let found = judge(&facts);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, (weight, words)) in found.iter().zip(expected) {
            assert_eq!(finding.weight, *weight, "{finding:?}");
            assert!(finding.problem.contains(words), "{finding:?}");
            assert!(!finding.what_to_do.is_empty());
        }
    }

    #[test]
    fn a_machine_that_is_well_has_no_findings() {
        check(|_| {}, &[]);
        check(|facts| (facts.sees_files, facts.free) = (None, None), &[]);
    }

    #[test]
    fn a_daemon_that_is_elsewhere_is_fatal() {
        let desktop = |facts: &mut Facts| {
            facts.info.operating_system = Some("Docker Desktop".to_owned());
            facts.info.kernel_version = Some("6.6.12-linuxkit".to_owned());
        };
        check(desktop, &[(Weight::Fatal, "Docker Desktop, which runs containers in a virtual machine")]);
        let kernel = |facts: &mut Facts| facts.info.kernel_version = Some("5.15".to_owned());
        check(kernel, &[(Weight::Fatal, "its kernel is 5.15, this one is 6.1.0")]);
        check(|facts| facts.sees_files = Some(false), &[(Weight::Fatal, "does not see the files in /data")]);
    }

    #[test]
    fn what_is_missing_is_told_as_a_warning() {
        let rootless =
            |facts: &mut Facts| facts.info.security_options = Some(vec!["name=rootless".to_owned()]);
        check(rootless, &[(Weight::Warning, "rootless")]);
        let limits = |facts: &mut Facts| {
            (facts.info.memory_limit, facts.info.pids_limit) = (Some(false), Some(false));
        };
        check(limits, &[(Weight::Warning, "cannot limit memory, pids here")]);
        check(|facts| facts.free = Some(5 << 20), &[(Weight::Warning, "5 MiB are free at /data")]);
    }

    #[tokio::test]
    async fn the_daemon_here_sees_what_is_there_and_not_what_is_not() {
        let fixture = Fixture::new().await;
        let engine = crate::Engine::connect(Config::new(fixture.folder.path(), "doctor")).await.unwrap();
        assert_eq!(engine.examine().await, []);
        assert!(fixture.folder.path().read_dir().unwrap().next().is_none(), "nothing is left of the look");
    }
}
