//! Why a project could not be brought here, in words that say what to do. Makes sense of what git
//! says; no message ever holds a credential.

use std::{io, path::PathBuf, time::Duration};

/// Why a project could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The URL is none that buildr hands to git.
    #[error("repository URL `{url}` is refused: {why}")]
    RefusedUrl {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file URL or path, and this machine's operator does not allow them.
    #[error(
        "repository `{url}` is on this machine's own disk, which is not allowed here: start the agent with `--allow-file-urls`, or give an https or ssh URL"
    )]
    FileNotAllowed {
        /// The URL.
        url: String,
    },
    /// The name of a branch or tag is none.
    #[error("`{name}` is not a name that git allows for a {kind}")]
    BadName {
        /// The name.
        name: String,
        /// `branch` or `tag`.
        kind: &'static str,
    },
    /// The commit is not given in full.
    #[error(
        "`{text}` is not a full commit id: give all 40 hexadecimal digits (SHA-256 repositories, whose ids have 64, are not supported)"
    )]
    BadCommit {
        /// What was given.
        text: String,
    },
    /// There is no repository at the URL.
    #[error(
        "no git repository at {url}: check the URL, and that the machine that runs the build may see it ({detail})"
    )]
    NoRepository {
        /// The URL, without credentials.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The repository has no commit, or no default branch.
    #[error("{url} has no default branch: push a commit first, or name a branch")]
    Empty {
        /// The URL, without credentials.
        url: String,
    },
    /// There is no such branch or tag.
    #[error("no {kind} `{name}` in {url}{}", near_names(.near))]
    NoReference {
        /// The URL, without credentials.
        url: String,
        /// `branch` or `tag`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Names that look like it, the nearest first.
        near: Vec<String>,
    },
    /// There is no such commit, or the server does not give it away.
    #[error(
        "no commit {commit} in {url}: was it pushed? a commit that no branch has any more may be gone for good"
    )]
    NoCommit {
        /// The URL, without credentials.
        url: String,
        /// The commit.
        commit: String,
    },
    /// The server did not let this machine in.
    #[error(
        "authentication failed for {url}: the keys and credentials live on the machine that runs the build (`~/.ssh`, the ssh agent, git's credential helpers); `git ls-remote` there, as the same user, must work without a question ({detail})"
    )]
    Authentication {
        /// The URL, without credentials.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The ssh server is not the one that is known, or not known at all.
    #[error(
        "the ssh host key of {url} is not known, or has changed: check it and put it into `~/.ssh/known_hosts` on the machine that runs the build, for example by connecting once with ssh"
    )]
    HostKey {
        /// The URL, without credentials.
        url: String,
    },
    /// The server could not be reached.
    #[error("cannot reach {url} from the machine that runs the build: {detail}")]
    Network {
        /// The URL, without credentials.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The server was silent for too long, or the whole took too long.
    #[error("gave up on {url} after {limit:?}: {what}")]
    TimedOut {
        /// The URL, without credentials.
        url: String,
        /// The limit that was passed.
        limit: Duration,
        /// What the limit is on.
        what: &'static str,
    },
    /// The disk is full.
    #[error("no space left on the disk of the machine that runs the build, below {}", .path.display())]
    DiskFull {
        /// The folder that was written to.
        path: PathBuf,
    },
    /// The caller's token was canceled.
    #[error("canceled while the source was being fetched")]
    Canceled,
    /// The folder that the project should go to has something in it.
    #[error("cannot check out into {}: it is not an empty folder", .path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A submodule could not be brought here.
    #[error("cannot bring the submodule `{path}` of {url} here")]
    Submodule {
        /// The URL of the repository that it is in, without credentials.
        url: String,
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: Box<SourceError>,
    },
    /// A submodule is not what git allows.
    #[error("the submodule `{path}` of {url} is refused: {why}")]
    RefusedSubmodule {
        /// The URL of the repository that it is in, without credentials.
        url: String,
        /// Its path, or its name.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// What was asked for needs a program that is not on this machine.
    #[error("{what} needs {program}, which the machine that runs the build does not have: install {package}")]
    NoProgram {
        /// What was asked for.
        what: &'static str,
        /// The program.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// A file that git LFS keeps elsewhere could not be had.
    #[error("a large file (LFS) of {url} cannot be had: was it pushed with `git lfs push --all`? ({detail})")]
    LargeFile {
        /// The URL, without credentials.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The repository is one of SHA-256.
    #[error(
        "{url} is a SHA-256 repository, and buildr knows those of SHA-1 only: make one with `git init --object-format=sha1`, or build its checked out folder with `buildr run`"
    )]
    OtherFormat {
        /// The URL, without credentials.
        url: String,
    },
    /// A file of the commit cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// Its path in the project.
        path: String,
        /// Why.
        why: String,
    },
    /// The commit has files that no git checks out.
    #[error("the commit has a path that git does not allow, such as `.git` in it: {detail}")]
    BadTree {
        /// What git said.
        detail: String,
    },
    /// Git failed in a way that has no name here.
    #[error("git failed on {url}: {detail}")]
    Git {
        /// The URL, without credentials.
        url: String,
        /// What git said.
        detail: String,
    },
    /// A file or folder of buildr's own could not be used.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    /// For `map_err` on file operations.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    /// True where a broken mirror may be the reason, so that it is worth to try with a new one.
    pub(super) fn may_be_the_mirror(&self) -> bool {
        matches!(self, Self::Git { .. } | Self::Io { .. })
    }
}

fn near_names(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; there is {}", names.join(", ")),
    }
}

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    DiskFull,
    HostKey,
    Authentication,
    /// The remote has no such ref, or does not give that commit away.
    NotThere,
    NoRepository,
    Network,
    /// A file of git LFS was not to be had.
    LargeFile,
    /// The objects have ids of another kind.
    OtherFormat,
    /// The files have names that lead elsewhere.
    BadTree,
    Other,
}

/// What git says (with `LC_ALL=C`, over any transport) and what it is about; the first that is
/// found counts. Lower case.
const PHRASES: &[(Reason, &[&str])] = &[
    (Reason::DiskFull, &["no space left on device", "disk quota exceeded"]),
    (Reason::OtherFormat, &["mismatched algorithms", "object format", "object-format", "objectformat"]),
    (Reason::BadTree, &["invalid path", "malformed mode", "empty filename in tree"]),
    (Reason::HostKey, &["host key verification failed", "host identification has changed", "ssh hostkey"]),
    (
        Reason::Authentication,
        &[
            "permission denied (",
            "too many authentication failures",
            "authentication failed",
            "authentication required",
            "could not read username",
            "could not read password",
            "terminal prompts disabled",
            "access denied:",
            "invalid username or",
            "returned error: 401",
            "returned error: 403",
            "status code: 401",
            "status code: 403",
        ],
    ),
    (Reason::LargeFile, &["does not exist on the server", "smudge filter lfs", "git-lfs filter-process"]),
    (
        Reason::NotThere,
        &[
            "couldn't find remote ref",
            "not our ref",
            "unadvertised object",
            "target oid for the reference doesn't exist",
        ],
    ),
    (
        Reason::NoRepository,
        &[
            "does not appear to be a git repository",
            "repository not found",
            "' not found",
            "access denied or repository not exported",
            "does not exist",
            "could not find repository",
            "failed to resolve path",
            "returned error: 404",
            "status code: 404",
        ],
    ),
    (
        Reason::Network,
        &[
            "could not resolve host",
            "could not resolve proxy",
            "name or service not known",
            "failed to resolve address",
            "temporary failure in name resolution",
            "connection refused",
            "connection timed out",
            "connection reset",
            "connection closed",
            "couldn't connect",
            "failed to connect",
            "unable to connect",
            "network is unreachable",
            "no route to host",
            "operation timed out",
            "operation too slow",
            "timed out",
            "early eof",
            "unexpected disconnect",
            "the remote end hung up",
            "returned error: 5",
            "ssl",
            "tls",
            "certificate",
        ],
    ),
];

/// Makes out what a failure is about.
pub(super) fn reason(said: &str) -> Reason {
    let said = said.to_lowercase();
    let of = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| of(phrases)).map_or(Reason::Other, |(reason, _)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_understood() {
        for (said, expected) in [
            ("fatal: couldn't find remote ref refs/heads/x", Reason::NotThere),
            ("fatal: remote error: upload-pack: not our ref 0123", Reason::NotThere),
            (
                "fatal: '/x' does not appear to be a git repository\nfatal: Could not read from remote repository.",
                Reason::NoRepository,
            ),
            ("fatal: repository 'https://example.org/x/' not found", Reason::NoRepository),
            (
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
                Reason::NoRepository,
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Reason::Authentication,
            ),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                Reason::Authentication,
            ),
            ("Host key verification failed.\nfatal: Could not read from remote repository.", Reason::HostKey),
            ("invalid or unknown remote ssh hostkey; class=Ssh", Reason::HostKey),
            ("fatal: unable to access 'https://h/': Could not resolve host: h", Reason::Network),
            (
                "ssh: connect to host h port 22: Connection refused\r\nfatal: Could not read from remote repository.",
                Reason::Network,
            ),
            ("fatal: write error: No space left on device\nfatal: the remote end hung up", Reason::DiskFull),
            ("fatal: bad object refs/heads/main", Reason::Other),
            ("fatal: protocol error: bad line length 7", Reason::Other),
        ] {
            assert_eq!(reason(said), expected, "{said}");
        }
    }

    #[test]
    fn near_names_are_in_the_message() {
        let near = vec!["main".to_owned(), "maint".to_owned()];
        let error = SourceError::NoReference { url: "u".into(), kind: "branch", name: "mian".into(), near };
        assert_eq!(error.to_string(), "no branch `mian` in u; there is main, maint");
    }
}
