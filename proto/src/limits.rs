//! How much one message may hold. Both ends keep to these numbers: what this crate makes never
//! goes beyond them, and what goes beyond them is refused where it comes in.

/// The most bytes of a log in one chunk.
pub const MAX_CHUNK: usize = 256 << 10;

/// The largest message that either side decodes: the servers' and clients' limit in tonic.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The most events in one `ReportEvents`.
pub const MAX_EVENTS: usize = 1000;

/// The most bytes of events in one `ReportEvents`.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// The longest text for people in a message, in bytes. Longer ones are clipped on their way out.
pub const MAX_TEXT: usize = 64 << 10;

/// The longest name that somebody or something has, in bytes: agents, submitters, images.
pub const MAX_NAME: usize = 1 << 10;

/// The longest URL of a repository, in bytes.
pub const MAX_REPOSITORY: usize = 4 << 10;

/// The longest name of a branch or tag, in bytes.
pub const MAX_REF: usize = 1 << 10;

/// The longest path of a manifest in its project, in bytes.
pub const MAX_PATH: usize = 4 << 10;

/// The most variables of one build.
pub const MAX_VARIABLES: usize = 1000;

/// The longest value of a variable, in bytes.
pub const MAX_VALUE: usize = 64 << 10;

/// The most labels that a build asks for or an agent has.
pub const MAX_LABELS: usize = 100;

/// The longest name or value of a label, in bytes.
pub const MAX_LABEL: usize = 256;

/// The most jobs of one build.
pub const MAX_JOBS: usize = 1000;

/// The most schedules of one manifest.
pub const MAX_SCHEDULES: usize = 100;

/// The most stages of one job.
pub const MAX_STAGES: usize = 1000;

/// The most services of one job.
pub const MAX_SERVICES: usize = 100;

/// The most logs of one job: of its stages and of its services.
pub const MAX_LOGS: usize = MAX_STAGES + MAX_SERVICES;

/// The longest idempotency key of a submit, in bytes; the shortest is 1.
pub const MAX_IDEMPOTENCY_KEY: usize = 128;

/// How many builds a list has where the client names no limit.
pub const DEFAULT_LIST: u32 = 20;

/// How many builds a list has at most.
pub const MAX_LIST: u32 = 500;
