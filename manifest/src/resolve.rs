//! From a manifest and a context to what a job does.
//!
//! Owns what is inherited from the process that runs the build, and in which order variables win.

use crate::{
    Context, JobPlan, Manifest, StagePlan, VarName,
    manifest::{Inherit, Variable},
};

/// Variables of the host's shell and session, which are wrong in a container.
const HOST_NAMES: [&str; 12] =
    ["PATH", "HOME", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "HOSTNAME", "SHLVL", "TERM", "_", "TMPDIR"];

/// The same, by the beginning of the name.
const HOST_PREFIXES: [&str; 3] = ["XDG_", "SSH_", "DOCKER_"];

impl Manifest {
    /// What one job does for this context, with warnings as plain sentences.
    pub fn plan(&self, context: &Context) -> (JobPlan, Vec<String>) {
        let mut warnings = Vec::new();
        let plan = JobPlan {
            image: with_tag(&self.image),
            timeout: self.timeout,
            environment: self.resolve_environment(context, &mut warnings),
            stages: self
                .stages
                .iter()
                .map(|stage| StagePlan { name: stage.name.clone(), script: stage.script.clone() })
                .collect(),
        };
        (plan, warnings)
    }

    fn resolve_environment(&self, context: &Context, warnings: &mut Vec<String>) -> Vec<(VarName, String)> {
        let mut resolved = match self.environment.inherit {
            Inherit::Nothing => Vec::new(),
            Inherit::Everything => inherited(context),
        };
        resolved.extend(VarName::new("CI").ok().map(|name| (name, "true".to_owned())));
        for variable in &self.environment.vars {
            match variable {
                Variable::Set { name, value } => resolved.push((name.clone(), value.clone())),
                Variable::PassedOn { name } => match context.process_environment.get(&**name) {
                    Some(value) => resolved.push((name.clone(), value.clone())),
                    None => warnings.push(format!(
                        "the variable `{name}` is to be passed on, but it is not set where the build was started, \
                         or its operator does not let it through"
                    )),
                },
            }
        }
        for (name, value) in &context.vars {
            if is_reserved(name) {
                warnings.push(format!(
                    "the variable `{name}` was given, but it is buildr's own and is left as it is"
                ));
            } else {
                resolved.push((name.clone(), value.clone()));
            }
        }
        resolved
    }
}

/// True for the names that buildr itself sets, and that nothing else may set.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == "BUILDR" || name.starts_with("BUILDR_")
}

fn inherited(context: &Context) -> Vec<(VarName, String)> {
    let stays = |name: &str| {
        is_reserved(name)
            || HOST_NAMES.contains(&name)
            || HOST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let passes = context.process_environment.iter().filter(|(name, _)| !stays(name));
    passes.filter_map(|(name, value)| Some((VarName::new(name.as_str()).ok()?, value.clone()))).collect()
}

/// The image with `:latest` where it has neither tag nor digest. A `:` before the last `/` is the
/// port of a registry.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}
