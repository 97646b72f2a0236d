//! What can keep the engine itself from working. How a job ends is an `Outcome`, never one of these.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A fault of the machine that the engine runs on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens where Docker should.
    #[error("cannot reach docker at {socket}")]
    NoDaemon {
        /// The socket that was tried.
        socket: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The daemon's socket may not be used by this user.
    #[error("no permission to use docker at {socket}")]
    NoPermission {
        /// The socket that was tried.
        socket: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody listens where Docker should, and does not speak as Docker does.
    #[error("what listens at {socket} is not Docker: it did not tell its version as a Docker daemon does")]
    NotDocker {
        /// The socket that was tried.
        socket: String,
        /// What came instead.
        #[source]
        source: bollard::errors::Error,
    },
    /// The daemon is on another machine, or is spoken to in another way than a Unix socket.
    #[error("cannot use docker at {host}: builds mount folders of this machine, so docker must be on it")]
    RemoteDaemon {
        /// As in `DOCKER_HOST`.
        host: String,
    },
    /// The daemon is older than what the engine knows how to use.
    #[error("docker at {socket} is too old: its API is {version}, at least {needed} is needed")]
    DaemonTooOld {
        /// The socket.
        socket: String,
        /// What it offers.
        version: String,
        /// What the engine needs.
        needed: String,
    },
    /// A call to Docker failed.
    #[error("docker could not {doing}")]
    Docker {
        /// What was wanted, as `list containers`.
        doing: String,
        /// Docker's answer.
        #[source]
        source: bollard::errors::Error,
    },
    /// The daemon took a call and does not answer it.
    #[error("docker did not {doing} within {} seconds", limit.as_secs())]
    Silent {
        /// What was wanted.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Every network of Docker's takes a range of addresses, and there is none left.
    #[error("docker has no range of addresses left for another network")]
    NoAddresses {
        /// Docker's answer.
        #[source]
        source: bollard::errors::Error,
    },
    /// A file or folder of the engine's own could not be used.
    #[error("cannot {doing} {}", path.display())]
    Files {
        /// What was wanted, as `create folder`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A container was started and its first process said nothing.
    #[error("the build container started, but its first process does not answer")]
    NoInit,
    /// The daemon took an order, but it did not come true in time.
    #[error("docker does not remove what run {run} has made")]
    StillThere {
        /// The run.
        run: String,
    },
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoDaemon { .. } => {
                Some("install and start docker, or set DOCKER_HOST to the socket on which it listens")
            }
            Self::NoPermission { .. } => {
                Some("add the user to the group `docker` and log in again, or run as root")
            }
            Self::NotDocker { .. } => Some(
                "set DOCKER_HOST to the socket on which the Docker daemon listens, or unset it to use the usual one",
            ),
            Self::RemoteDaemon { .. } => Some("unset DOCKER_HOST, or set it to unix:///path/to/docker.sock"),
            Self::DaemonTooOld { .. } => Some("upgrade docker to 20.10 or newer"),
            Self::NoAddresses { .. } => Some(
                "remove networks that nobody needs (`docker network prune`), or give dockerd more of them: \
                 `default-address-pools` in /etc/docker/daemon.json",
            ),
            Self::Silent { .. } => Some("look at docker's own log, as with `journalctl -u docker`"),
            Self::StillThere { .. } => Some("look at `docker ps -a` and at docker's own log"),
            Self::Docker { .. } | Self::Files { .. } | Self::NoInit => None,
        }
    }

    pub(crate) fn silent(doing: &'static str, limit: Duration) -> Self {
        Self::Silent { doing, limit }
    }

    /// The whole chain of causes as one line.
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }

    pub(crate) fn docker(doing: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Docker { doing, source }
    }

    pub(crate) fn files(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Files { doing, path, source }
    }
}

/// An error with all its causes as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
