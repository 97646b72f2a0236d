//! libgit2 as the network half, where there is no git program. It knows https with git's credential
//! helpers, and ssh with the ssh agent and the usual keys; it does not read `~/.ssh/config`.

use std::{path::Path, sync::Once, time::Instant};

use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, FetchPrune, Remote,
    RemoteCallbacks, Repository,
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, SourceError,
    address::Address,
    error::{Reason, reason},
    fetch::Fetched,
    program::failure,
    wanted::Line,
};

/// The usual names of keys below `~/.ssh`, in ssh's order.
const KEYS: &[&str] = &["id_rsa", "id_ecdsa", "id_ed25519"];

/// libgit2 asks again after each refusal, for ever.
const MAX_ATTEMPTS: usize = 8;

/// One use of libgit2. It blocks: for `spawn_blocking` only.
pub(super) struct Library {
    limits: Limits,
    address: Address,
    cancel: CancellationToken,
}

impl Library {
    /// For calls to one remote.
    pub(super) fn new(limits: Limits, address: Address, cancel: CancellationToken) -> Self {
        static TIMEOUTS: Once = Once::new();
        TIMEOUTS.call_once(|| {
            let silence = i32::try_from(limits.silence.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: the settings are plain integers of libgit2, written once, before the first
            // connection that this module makes.
            let set = unsafe {
                git2::opts::set_server_connect_timeout_in_milliseconds(silence.min(30_000))
                    .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(silence))
            };
            if let Err(error) = set {
                tracing::warn!(%error, "libgit2 takes no time limits");
            }
        });
        Self { limits, address, cancel }
    }

    /// The branch that the remote's HEAD is on, with the commit that it is at.
    pub(super) fn default_branch(&self) -> Result<Option<(String, String)>, SourceError> {
        self.connected(|remote| {
            let Ok(name) = remote.default_branch() else { return Ok(None) };
            let name = String::from_utf8_lossy(&name).into_owned();
            let head =
                remote.list()?.iter().find(|head| head.name() == "HEAD").map(|head| head.oid().to_string());
            Ok(name.strip_prefix("refs/heads/").map(str::to_owned).zip(head))
        })
    }

    /// The short names of all branches or tags of the remote, as `like` is one.
    pub(super) fn names(&self, like: &Line) -> Result<Vec<String>, SourceError> {
        let prefix = match like {
            Line::Branch(_) => "refs/heads/",
            Line::Tag(_) => "refs/tags/",
        };
        self.connected(|remote| {
            let names = remote.list()?.iter().filter_map(|head| head.name().strip_prefix(prefix));
            Ok(names.filter(|name| !name.ends_with("^{}")).map(str::to_owned).collect())
        })
    }

    fn connected<T>(
        &self,
        ask: impl FnOnce(&mut Remote<'_>) -> Result<T, git2::Error>,
    ) -> Result<T, SourceError> {
        let ask = || {
            let mut remote = Remote::create_detached(self.address.expose())?;
            let mut connection = remote.connect_auth(Direction::Fetch, Some(self.callbacks()), None)?;
            ask(connection.remote())
        };
        ask().map_err(|error| self.failure(Path::new("/"), &error))
    }

    /// Fetches one ref, with the tags on its history, into a mirror.
    pub(super) fn fetch(&self, mirror: &Path, refspec: &str) -> Result<Fetched, SourceError> {
        let wanted = refspec.trim_start_matches('+').split(':').next().unwrap_or(refspec);
        let fetch = || -> Result<Fetched, git2::Error> {
            let repository = Repository::open_bare(mirror)?;
            let mut remote = repository.remote_anonymous(self.address.expose())?;
            let connection = remote.connect_auth(Direction::Fetch, Some(self.callbacks()), None)?;
            // libgit2 passes over a ref that the remote does not have.
            let is_ref = wanted.starts_with("refs/");
            let there = !is_ref || connection.list()?.iter().any(|head| head.name() == wanted);
            drop(connection);
            if !there {
                return Ok(Fetched::NotThere);
            }
            let mut options = FetchOptions::new();
            options
                .remote_callbacks(self.callbacks())
                .download_tags(AutotagOption::Auto)
                .prune(FetchPrune::Off)
                .update_fetchhead(false);
            remote.fetch(&[refspec], Some(&mut options), None)?;
            Ok(Fetched::Done)
        };
        match fetch() {
            Err(error) if reason(error.message()) == Reason::NotThere => Ok(Fetched::NotThere),
            result => result.map_err(|error| self.failure(mirror, &error)),
        }
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let end = Instant::now() + self.limits.total;
        let mut attempts = Attempts::default();
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .transfer_progress(move |_| !self.cancel.is_cancelled() && Instant::now() < end)
            .sideband_progress(move |_| !self.cancel.is_cancelled() && Instant::now() < end)
            .credentials(move |url, user, allowed| attempts.next(url, user, allowed));
        callbacks
    }

    fn failure(&self, folder: &Path, error: &git2::Error) -> SourceError {
        let url = self.address.shown().to_owned();
        if self.cancel.is_cancelled() {
            return SourceError::Canceled;
        }
        if error.code() == ErrorCode::User {
            return SourceError::TimedOut { url, limit: self.limits.total, what: "it took too long" };
        }
        let detail = self.address.scrub(error.message());
        match (error.class(), error.code()) {
            (_, ErrorCode::Auth) => SourceError::Authentication { url, detail },
            (_, ErrorCode::Certificate) if self.address.is_ssh() => SourceError::HostKey { url },
            (ErrorClass::Net, ErrorCode::GenericError) if reason(&detail) == Reason::Other => {
                SourceError::Network { url, detail }
            }
            _ => failure(&self.address, folder, &detail),
        }
    }
}

/// Which credentials were tried.
#[derive(Default)]
struct Attempts {
    asked: usize,
    asked_agent: bool,
    next_key: usize,
    asked_helper: bool,
}

impl Attempts {
    fn next(&mut self, url: &str, user: Option<&str>, allowed: CredentialType) -> Result<Cred, git2::Error> {
        self.asked += 1;
        let name = user.unwrap_or("git");
        if self.asked <= MAX_ATTEMPTS {
            if allowed.contains(CredentialType::USERNAME) {
                return Cred::username(name);
            }
            if allowed.contains(CredentialType::SSH_KEY)
                && let Some(credential) = self.next_ssh(name)
            {
                return Ok(credential);
            }
            if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) && !self.asked_helper {
                self.asked_helper = true;
                return Cred::credential_helper(&git2::Config::open_default()?, url, user);
            }
        }
        Err(git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, "no credential was accepted"))
    }

    fn next_ssh(&mut self, user: &str) -> Option<Cred> {
        if !self.asked_agent {
            self.asked_agent = true;
            if let Ok(credential) = Cred::ssh_key_from_agent(user) {
                return Some(credential);
            }
        }
        let folder = std::env::home_dir()?.join(".ssh");
        while let Some(key) = KEYS.get(self.next_key) {
            self.next_key += 1;
            let path = folder.join(key);
            if path.is_file() {
                return Cred::ssh_key(user, None, &path, None).ok();
            }
        }
        None
    }
}
