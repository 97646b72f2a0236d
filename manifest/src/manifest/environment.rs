//! The variables that a manifest, a stage or a service asks for.

use crate::{Glob, Place, VarName};

/// Where the variables come from. The three shapes of the language are one thing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// What is taken over from the process that runs the build.
    pub inherit: Inherit,
    /// The variables in order; of one name the last wins.
    pub vars: Vec<Variable>,
}

/// What is taken over from the environment of the process that runs the build. Buildr's own
/// variables never are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inherit {
    /// Nothing.
    #[default]
    Nothing,
    /// Everything but those of the host's shell.
    Everything,
    /// The names that a glob of these matches.
    Matching(Vec<Glob>),
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `NAME=VALUE`: the value is literal.
    Set {
        /// Its name.
        name: VarName,
        /// Its value.
        value: String,
        /// Where it stands.
        place: Place,
    },
    /// `NAME`: the value is that of the process that runs the build.
    PassedOn {
        /// Its name.
        name: VarName,
        /// Where it stands.
        place: Place,
    },
}

impl Variable {
    /// The variable's name.
    pub fn name(&self) -> &VarName {
        match self {
            Self::Set { name, .. } | Self::PassedOn { name, .. } => name,
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        match self {
            Self::Set { place, .. } | Self::PassedOn { place, .. } => *place,
        }
    }
}
