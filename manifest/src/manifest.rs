//! A manifest that was checked: what it says, whatever machine and event it will run for.

mod environment;
mod matrix;
mod settings;
mod stage;
mod triggers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    Order, Template, check,
    diagnostic::{Diagnostic, Diagnostics, Report},
    place::{Keys, Origin},
    source::Source,
    tree,
};

pub use environment::{Environment, Inherit, Variable};
pub(crate) use matrix::agrees;
pub use matrix::{Axis, Combination, MAX_JOBS, Matrix, Values};
pub use settings::{
    Cache, CancelOlder, CloneOptions, Concurrency, Fault, JobRetry, Keep, Resources, Service, Shell,
};
pub use stage::{AllowFailure, Artifacts, Failure, Reports, Stage, StageRetry};
pub use triggers::{Cron, OnPullRequest, OnPush, OnTag, Triggers};

/// The names under which a manifest is looked for in the project's root, the first found is taken.
pub const FILE_NAMES: [&str; 3] = [".buildr.yml", ".buildr.yaml", ".buildr"];

/// A valid manifest. Made by [`Manifest::parse`] alone. Two of them are equal where they say the
/// same, wherever they say it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The image of the build container.
    pub image: Template,
    /// The variables.
    pub environment: Environment,
    /// The limit on a whole job.
    pub timeout: Duration,
    /// What reads the scripts.
    pub shell: Shell,
    /// How the project is brought here.
    pub clone: CloneOptions,
    /// Labels that an agent must have, and their values.
    pub agent: BTreeMap<String, Template>,
    /// The jobs, where there are several.
    pub matrix: Option<Matrix>,
    /// Containers that run beside the build's.
    pub services: Vec<Service>,
    /// Files that one build leaves for the next.
    pub cache: Vec<Cache>,
    /// The events that start a build; none: all.
    pub on: Option<Triggers>,
    /// Which builds don't run at the same time.
    pub concurrency: Option<Concurrency>,
    /// How often a job is tried again.
    pub retry: Option<JobRetry>,
    /// A stage that fails ends those that run beside it.
    pub fail_fast: bool,
    /// False: no Docker socket in the containers.
    pub docker: bool,
    /// What the build container may use.
    pub resources: Resources,
    /// The stages in the order in which they are listed, `prepare` first. Never empty, no name twice.
    pub stages: Vec<Arc<Stage>>,
    /// Which stage waits for which.
    pub order: Order,
    /// Which keys it has, and where.
    pub keys: Keys,
    pub(crate) origin: Origin,
}

impl Manifest {
    /// The limit on a job whose manifest names none.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

    /// Reads a manifest; `file` is its name in messages. Beside the manifest there may be warnings;
    /// otherwise all its problems are told at once, as far as the text is YAML.
    ///
    /// ```
    /// use buildr_manifest::Manifest;
    ///
    /// let (manifest, warnings) = Manifest::parse(b"image: alpine\nprepare: {script: [make]}", ".buildr.yml")?;
    /// assert_eq!(manifest.stages[0].script, ["make"]);
    /// assert!(warnings.is_empty());
    /// # Ok::<(), buildr_manifest::Diagnostics>(())
    /// ```
    pub fn parse(text: &[u8], file: &str) -> Result<(Self, Vec<Diagnostic>), Diagnostics> {
        let source = Source::new(text, file).map_err(|problem| Diagnostics::from(vec![*problem]))?;
        let mut report = Report::new(&source);
        let manifest = tree::compose(&mut report).and_then(|root| check::manifest(&root, &mut report));
        let failed = report.has_failed();
        let problems = report.finish();
        match manifest {
            Some(manifest) if !failed => Ok((manifest, problems.items)),
            _ => Err(problems),
        }
    }
}
