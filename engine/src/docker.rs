//! The connection to the Docker daemon of this machine. Never to that of another one: builds mount
//! folders of this machine into their containers.

use std::{io, path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;

use crate::{Error, texts::Platform};

/// Where Docker listens where nothing else is said.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Docker 19.03: the oldest whose API has all that the engine uses.
const OLDEST_API: (usize, usize) = (1, 40);

/// How long a call may take until its answer begins, in seconds. A start on a machine under load
/// takes seconds; a pull answers at once and goes on for as long as it likes.
const CALL_SECONDS: u64 = 120;

/// A daemon that does not even tell its version within this time hangs.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// A daemon that is well answers a ping within this time, whatever it has to do.
const AWAKE: Duration = Duration::from_secs(10);

/// A daemon that answered.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Speaks the newest API that both sides know.
    pub(crate) api: Docker,
    /// Its socket on this machine.
    pub(crate) socket: PathBuf,
}

impl Daemon {
    /// Finds the daemon, where `host` is the value of `DOCKER_HOST`.
    pub(crate) async fn connect(host: Option<&str>) -> Result<Self, Error> {
        let socket = socket_of(host)?;
        let name = socket.display().to_string();
        UnixStream::connect(&socket).await.map_err(|error| unreachable(&name, error))?;
        let api = Docker::connect_with_unix(&name, CALL_SECONDS, API_DEFAULT_VERSION)
            .map_err(Error::docker(format!("open its socket {name}")))?
            .negotiate_version();
        let api = tokio::time::timeout(FIRST_ANSWER, api)
            .await
            .map_err(|_| unreachable(&name, io::ErrorKind::TimedOut.into()))?
            .map_err(|error| no_version(&name, error))?;
        let version = api.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(Error::DaemonTooOld {
                socket: name,
                version: format!("{}.{}", version.major_version, version.minor_version),
                needed: format!("{}.{}", OLDEST_API.0, OLDEST_API.1),
            });
        }
        Ok(Self { api, socket })
    }

    /// Makes sure that the daemon answers, before much is asked of it.
    pub(crate) async fn awake(&self) -> Result<(), Error> {
        within("answer", AWAKE, self.api.ping()).await?.map(drop).map_err(Error::docker("answer"))
    }

    /// What its containers run on.
    pub(crate) async fn platform(&self) -> Result<Platform, Error> {
        let version = self.api.version().await.map_err(Error::docker("tell its version"))?;
        Ok(Platform { os: version.os.unwrap_or_default(), arch: version.arch.unwrap_or_default() })
    }
}

/// Waits for an answer, but not for ever: a daemon may hang with a call taken.
pub(crate) async fn within<T>(
    doing: &'static str,
    limit: Duration,
    answer: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, answer).await.map_err(|_| Error::silent(doing, limit))
}

/// The path of the socket that `DOCKER_HOST` names.
fn socket_of(host: Option<&str>) -> Result<PathBuf, Error> {
    match host.filter(|host| !host.is_empty()) {
        None => Ok(PathBuf::from(DEFAULT_SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err(Error::RemoteDaemon { host: host.to_owned() }),
        },
    }
}

fn unreachable(socket: &str, source: io::Error) -> Error {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NoPermission { socket, source },
        _ => Error::NoDaemon { socket, source },
    }
}

/// A daemon that says no is told apart from what is no daemon.
fn no_version(socket: &str, source: bollard::errors::Error) -> Error {
    match refusal(&source) {
        Some(_) => Error::docker("tell its version")(source),
        None => Error::NotDocker { socket: socket.to_owned(), source },
    }
}

/// The status and the message of an answer that says no; none where there was no answer.
pub(crate) fn refusal(error: &bollard::errors::Error) -> Option<(u16, &str)> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            Some((*status_code, message))
        }
        _ => None,
    }
}

/// True where Docker says that there is no such thing.
pub(crate) fn is_absent(error: &bollard::errors::Error) -> bool {
    refusal(error).is_some_and(|(status, _)| status == 404)
}

/// True for 409: it does not run, its removal is under way, or its name is taken.
pub(crate) fn is_conflict(error: &bollard::errors::Error) -> bool {
    refusal(error).is_some_and(|(status, _)| status == 409)
}

/// What was to go and is gone is as good as removed.
pub(crate) fn unless_absent(
    removed: Result<(), bollard::errors::Error>,
) -> Result<(), bollard::errors::Error> {
    match removed {
        Err(error) if is_absent(&error) => Ok(()),
        removed => removed,
    }
}

/// The same, also where the removal is under way already.
pub(crate) fn unless_gone(removed: Result<(), bollard::errors::Error>) -> Result<(), bollard::errors::Error> {
    match removed {
        Err(error) if is_conflict(&error) => Ok(()),
        removed => unless_absent(removed),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn only_a_socket_of_this_machine_is_taken() {
        assert_eq!(socket_of(None).unwrap(), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(socket_of(Some("")).unwrap(), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(
            socket_of(Some("unix:///run/user/1/docker.sock")).unwrap(),
            PathBuf::from("/run/user/1/docker.sock")
        );
        for host in ["tcp://10.0.0.1:2375", "ssh://me@there", "https://x", "unix://docker.sock"] {
            assert!(matches!(socket_of(Some(host)), Err(Error::RemoteDaemon { .. })), "{host}");
        }
    }

    #[tokio::test]
    async fn a_missing_daemon_is_named_with_its_socket() {
        let error = Daemon::connect(Some("unix:///nowhere/docker.sock")).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot reach docker at /nowhere/docker.sock");
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_no_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = Daemon::connect(Some(&format!("unix://{}", socket.display()))).await.unwrap_err();
        assert!(matches!(error, Error::NoDaemon { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_socket_where_something_else_answers_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("odd.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _gone = stream.write_all(b"this is not HTTP\r\n\r\n").await;
            }
        });
        let error = Daemon::connect(Some(&format!("unix://{}", socket.display()))).await.unwrap_err();
        assert!(matches!(error, Error::NotDocker { .. }), "{error}");
        assert!(error.to_string().contains(&socket.display().to_string()), "{error}");
        assert!(error.hint().is_some());
    }
}
