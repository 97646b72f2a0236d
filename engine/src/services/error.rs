//! Why a job's services cannot be used.

use std::fmt;

use buildr_manifest::{Outcome, ServiceName};

use crate::{Error, error::chain, image::ImageError};

/// Why a job's services cannot be used. Each says what to do, or what was seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// They cannot reach each other.
    #[error("the job's services need a network of their own")]
    Network(#[source] Error),
    /// An image cannot be had.
    #[error("service {service}")]
    Image {
        service: ServiceName,
        #[source]
        source: ImageError,
    },
    /// A container cannot be made or spoken to.
    #[error("service {service} ({image}) cannot be started")]
    Start {
        service: ServiceName,
        image: String,
        #[source]
        source: Error,
    },
    /// It ended before it was ready, or was not ready in time.
    #[error("service {service} ({image}) {what}")]
    NotReady { service: ServiceName, image: String, what: Unready },
}

/// What was seen of a service that did not get ready.
#[derive(Debug)]
pub(crate) struct Unready {
    /// What happened, to follow the service's name.
    pub(crate) what: String,
    /// What the last check printed.
    pub(crate) check: Vec<String>,
    /// The end of the service's log.
    pub(crate) log: Vec<String>,
}

impl ServiceError {
    /// How the job ends.
    pub(crate) fn outcome(&self) -> Outcome {
        let hint = match self {
            Self::Network(error) | Self::Start { source: error, .. } => error.hint(),
            Self::Image { .. } | Self::NotReady { .. } => None,
        };
        let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let message = format!("{}{hint}", chain(self));
        match self {
            Self::Image { .. } => Outcome::ImageError { message },
            _ => Outcome::ServiceError { message },
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (title, lines) in [("the check said", &self.check), ("the end of its log", &self.log)] {
            if !lines.is_empty() {
                write!(f, "\n{title}:")?;
                lines.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
            }
        }
        if self.log.is_empty() { f.write_str("\nit has printed nothing") } else { Ok(()) }
    }
}
