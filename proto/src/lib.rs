//! How buildr's parts talk: the generated protocol types, and the domain types that everything
//! but the edges uses instead of them.
//!
//! # Layout
//! - [`pb`]: generated from `proto/buildr/v1`; used only where a message enters or leaves a program
//! - [`id`]: ids of builds, attempts, agents
//! - [`build`]: builds, jobs, stages and their events as domain types
//! - [`plan`]: what a manifest wants of the farm
//! - [`convert`]: `From` into, and `TryFrom` out of, generated types
//! - [`limits`]: how much one message may hold
//! - [`times`]: where a job's time went
//! - [`version`]: which protocol versions are spoken; the metadata of every call

pub mod build;
pub mod convert;
pub mod id;
pub mod limits;
pub mod plan;
pub mod times;
pub mod version;

pub use convert::Invalid;
pub use id::{AgentId, AttemptId, BuildId, InstanceId, JobId};
pub use limits::MAX_CHUNK;
pub use version::{AGENT_CREDENTIAL, AUTHORIZATION, PROTOCOL, ProtocolRange};

/// Generated protocol types. Nothing but the edges of the programs may use them.
#[allow(clippy::all, unused_qualifications, unreachable_pub, clippy::allow_attributes, reason = "generated")]
pub mod pb {
    tonic::include_proto!("buildr.v1");
}

/// The encoded descriptors of all services, for reflection and for the test that pins them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
