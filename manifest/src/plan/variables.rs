//! Which variables a stage sees: the sources of variables, and which of them wins.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Context, VarName,
    manifest::{Environment, Inherit, Variable},
};

/// Variables by name.
pub type VarMap = BTreeMap<VarName, String>;

/// Variables of the host's shell and session, which are wrong in a container.
const HOST_NAMES: [&str; 12] =
    ["PATH", "HOME", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "HOSTNAME", "SHLVL", "TERM", "_", "TMPDIR"];

/// The same, by the beginning of the name.
const HOST_PREFIXES: [&str; 3] = ["XDG_", "SSH_", "DOCKER_"];

/// The variables of a stage, by source. The image's come below, buildr's own above them.
///
/// Sources that several stages or jobs have in common are shared, so that a plan costs no more than
/// what differs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// What the stage inherits beyond what the manifest does.
    pub(super) stage_inherited: Arc<VarMap>,
    /// Inherited, `CI=true`, and the manifest's.
    pub(super) manifest: Arc<VarMap>,
    /// Those of the combination.
    pub(super) matrix: Arc<VarMap>,
    /// The stage's own.
    pub(super) own: Arc<VarMap>,
    /// Those given by whoever started the build.
    pub(super) given: Arc<VarMap>,
}

impl Variables {
    /// The value of a variable before any stage ran.
    pub fn get(&self, name: &VarName) -> Option<&str> {
        static NOTHING: VarMap = VarMap::new();
        self.get_with(name, &NOTHING)
    }

    /// The value of a variable after earlier stages have handed over some.
    pub fn get_with<'a>(&'a self, name: &VarName, handed_over: &'a VarMap) -> Option<&'a str> {
        let highest_first =
            [&*self.given, &self.own, &self.matrix, handed_over, &self.manifest, &self.stage_inherited];
        highest_first.into_iter().find_map(|source| source.get(name)).map(String::as_str)
    }

    /// All of them after earlier stages have handed over some, each name once.
    pub fn resolve(&self, handed_over: &VarMap) -> VarMap {
        let lowest_first =
            [&*self.stage_inherited, &self.manifest, handed_over, &self.matrix, &self.own, &self.given];
        let all = lowest_first.into_iter().flatten();
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// The two halves of an environment: what is inherited, and what is set.
pub(super) struct Resolved {
    pub(super) inherited: VarMap,
    pub(super) set: VarMap,
}

/// Resolves an environment against the process that runs the build.
pub(super) fn resolve(environment: &Environment, context: &Context, warnings: &mut Vec<String>) -> Resolved {
    let mut set = VarMap::new();
    for variable in &environment.vars {
        match variable {
            Variable::Set { name, value, .. } => {
                set.insert(name.clone(), value.clone());
            }
            Variable::PassedOn { name, .. } => match context.process_environment.get(&**name) {
                Some(value) => {
                    set.insert(name.clone(), value.clone());
                }
                None => warnings.push(format!(
                    "the variable `{name}` is to be passed on, but it is not set where the build was started, \
                     or its operator does not let it through"
                )),
            },
        }
    }
    Resolved { inherited: inherited(&environment.inherit, context), set }
}

/// What whoever started the build gave.
pub(super) fn given(context: &Context, warnings: &mut Vec<String>) -> VarMap {
    let mut given = VarMap::new();
    for (name, value) in &context.vars {
        if is_reserved(name) {
            warnings.push(format!(
                "the variable `{name}` was given, but it is buildr's own and is left as it is"
            ));
        } else {
            given.insert(name.clone(), value.clone());
        }
    }
    given
}

/// True for the names that buildr itself sets, and that nothing else may set.
pub fn is_reserved(name: &str) -> bool {
    name == "BUILDR" || name.starts_with("BUILDR_") || name == "COMPOSE_PROJECT_NAME"
}

fn inherited(inherit: &Inherit, context: &Context) -> VarMap {
    let is_hosts = |name: &str| {
        HOST_NAMES.contains(&name) || HOST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let passes = |name: &str| match inherit {
        Inherit::Nothing => false,
        Inherit::Everything => !is_hosts(name),
        Inherit::Matching(globs) => globs.iter().any(|glob| glob.matches(name)),
    };
    let process = context.process_environment.iter();
    let passing = process.filter(|(name, _)| !is_reserved(name) && passes(name));
    passing.filter_map(|(name, value)| Some((VarName::new(name.as_str()).ok()?, value.clone()))).collect()
}
