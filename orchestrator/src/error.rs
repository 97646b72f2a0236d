//! What can go wrong in the orchestrator, and the gRPC status of each.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use buildr_proto::Invalid;
use bytesize::ByteSize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{core::input::Refusal, logs, store};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A log failed.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// The state machine said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A message is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// The input was not committed, and changed nothing.
    #[error("it could not be stored: {0}; nothing was changed, try again")]
    NotCommitted(String),
    /// The disk is nearly full.
    #[error("the orchestrator's disk has less than {0} free (--min-free): no new builds until there is more")]
    LowSpace(ByteSize),
    /// Too many inputs wait.
    #[error("the orchestrator is busy: try again in a few seconds")]
    Busy,
    /// One caller wants more than its share.
    #[error("too many {what} from this address: try again in {:.1} s, or have the operator raise {flag}", after.as_secs_f64())]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// What the operator can set.
        flag: &'static str,
        /// When to try again.
        after: Duration,
    },
    /// The orchestrator ends.
    #[error("the orchestrator is stopping: try again in a moment")]
    Stopping,
    /// A reply of the wrong kind: a fault of this program.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The address for metrics cannot be listened on.
    #[error("cannot listen on {address} (--metrics)")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder of the orchestrator cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token is none.
    #[error("the token in {} is too short: at least {least} characters, as from `openssl rand -hex 32`", path.display())]
    ShortToken {
        /// The file.
        path: PathBuf,
        /// How many it must have.
        least: usize,
    },
    /// The settings do not fit together.
    #[error("{0}")]
    Config(String),
    /// The gRPC server failed.
    #[error("the server failed")]
    Server(#[source] tonic::transport::Error),
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => match refusal {
                Refusal::NotCurrent(_) | Refusal::OtherInstance { .. } => Code::FailedPrecondition,
                Refusal::NotYours(_) => Code::PermissionDenied,
                Refusal::Gap { .. } => Code::OutOfRange,
                Refusal::AlreadyConnected { .. } => Code::AlreadyExists,
                Refusal::Replaced => Code::Aborted,
                Refusal::QueueFull(_) => Code::ResourceExhausted,
                Refusal::NoSuchBuild(_) => Code::NotFound,
                Refusal::Connected(_) => Code::FailedPrecondition,
            },
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::LowSpace(_) | Self::Busy | Self::TooMuch { .. } | Self::Logs(logs::Error::TooLong(_)) => {
                Code::ResourceExhausted
            }
            Self::NotCommitted(_) | Self::Stopping | Self::Logs(_) => Code::Unavailable,
            Self::Store(store::Error::Full(_)) => Code::ResourceExhausted,
            Self::Store(_)
            | Self::Metrics { .. }
            | Self::Internal(_)
            | Self::Listen { .. }
            | Self::File { .. }
            | Self::ShortToken { .. }
            | Self::Config(_)
            | Self::Server(_) => Code::Internal,
        }
    }
}

/// How long to wait where what is missing comes back by itself: the queue gets shorter.
const QUEUE_MOVES: Duration = Duration::from_secs(10);

/// The same where somebody has to do something: free some disk.
const SOMEBODY_ACTS: Duration = Duration::from_secs(60);

impl Error {
    /// When to try again, where the same may work then.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMuch { after, .. } => Some(*after),
            Self::Busy => Some(Duration::from_secs(2)),
            Self::Refused(Refusal::QueueFull(_)) => Some(QUEUE_MOVES),
            Self::LowSpace(_) | Self::Store(store::Error::Full(_)) => Some(SOMEBODY_ACTS),
            _ => None,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        if code == Code::Internal {
            tracing::error!(error = %chain(&error), "call failed");
        }
        match error.retry_after() {
            Some(after) => {
                let details = ErrorDetails::with_retry_info(Some(after));
                Self::with_error_details(code, chain(&error), details)
            }
            None => Self::new(code, chain(&error)),
        }
    }
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
