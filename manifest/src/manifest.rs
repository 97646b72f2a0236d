//! A manifest that was checked: what it says, whatever machine and event it will run for.

use std::time::Duration;

use crate::{
    StageName, VarName, check,
    diagnostic::{Diagnostic, Diagnostics, Report},
    source::Source,
    tree,
};

/// The names under which a manifest is looked for in the project's root, the first found is taken.
pub const FILE_NAMES: [&str; 3] = [".buildr.yml", ".buildr.yaml", ".buildr"];

/// A valid manifest. Made by [`Manifest::parse`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The image of the build container, as written.
    pub image: String,
    /// The variables.
    pub environment: Environment,
    /// The limit on a whole job.
    pub timeout: Duration,
    /// The stages in the order in which they run, `prepare` first. Never empty, no name twice.
    pub stages: Vec<Stage>,
}

/// Where the variables of a build come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// What is taken over from the process that runs the build.
    pub inherit: Inherit,
    /// The variables in order; of one name the last wins.
    pub vars: Vec<Variable>,
}

/// What is taken over from the environment of the process that runs the build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inherit {
    /// Nothing.
    #[default]
    Nothing,
    /// Everything but buildr's own variables and those of the host's shell.
    Everything,
}

/// One entry of `vars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `NAME=VALUE`: the value is literal.
    Set {
        /// Its name.
        name: VarName,
        /// Its value.
        value: String,
    },
    /// `NAME`: the value is that of the process that runs the build.
    PassedOn {
        /// Its name.
        name: VarName,
    },
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// The entries of its script. Never empty.
    pub script: Vec<String>,
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

impl Variable {
    /// The variable's name.
    pub fn name(&self) -> &VarName {
        match self {
            Self::Set { name, .. } | Self::PassedOn { name } => name,
        }
    }
}
