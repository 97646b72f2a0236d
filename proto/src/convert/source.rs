//! What is to be built: sources and specs, as submitters hand them in.

use std::path::{Component, Path};

use buildr_manifest::{Trigger, VarName};

use super::{Field, Invalid, Message};
use crate::{
    build::{BuildSpec, Reference, Source},
    limits::{MAX_NAME, MAX_PATH, MAX_REF, MAX_REPOSITORY, MAX_VALUE, MAX_VARIABLES},
    pb::{self, source::Ref},
};

impl From<Trigger> for pb::Trigger {
    fn from(trigger: Trigger) -> Self {
        match trigger {
            Trigger::Local => Self::Local,
            Trigger::Manual => Self::Manual,
            Trigger::Push => Self::Push,
            Trigger::Tag => Self::Tag,
            Trigger::PullRequest => Self::PullRequest,
            Trigger::Cron => Self::Cron,
        }
    }
}

impl TryFrom<pb::Trigger> for Trigger {
    type Error = Invalid;
    fn try_from(trigger: pb::Trigger) -> Result<Self, Invalid> {
        Ok(match trigger {
            pb::Trigger::Unspecified => return Err(Message("BuildSpec").field("trigger").missing()),
            pb::Trigger::Local => Self::Local,
            pb::Trigger::Manual => Self::Manual,
            pb::Trigger::Push => Self::Push,
            pb::Trigger::Tag => Self::Tag,
            pb::Trigger::PullRequest => Self::PullRequest,
            pb::Trigger::Cron => Self::Cron,
        })
    }
}

impl From<Source> for pb::Source {
    fn from(source: Source) -> Self {
        let Source { repository, reference, commit } = source;
        let reference = match reference {
            Reference::Default => None,
            Reference::Branch(name) => Some(Ref::Branch(name)),
            Reference::Tag(name) => Some(Ref::Tag(name)),
        };
        Self { repository, commit: commit.unwrap_or_default(), r#ref: reference }
    }
}

impl TryFrom<pb::Source> for Source {
    type Error = Invalid;
    fn try_from(source: pb::Source) -> Result<Self, Invalid> {
        const SOURCE: Message = Message("Source");
        let pb::Source { repository, commit, r#ref: reference } = source;
        let reference = match reference {
            None => Reference::Default,
            Some(Ref::Branch(name)) => Reference::Branch(SOURCE.field("branch").line(name, MAX_REF)?),
            Some(Ref::Tag(name)) => Reference::Tag(SOURCE.field("tag").line(name, MAX_REF)?),
        };
        Ok(Self {
            repository: SOURCE.field("repository").line(repository, MAX_REPOSITORY)?,
            reference,
            commit: SOURCE.field("commit").commit(commit)?,
        })
    }
}

impl From<BuildSpec> for pb::BuildSpec {
    fn from(spec: BuildSpec) -> Self {
        let BuildSpec { source, trigger, manifest_path, variables, labels, priority, cron } = spec;
        let variable = |(name, value): (VarName, String)| pb::Variable { name: name.into(), value };
        Self {
            source: Some(source.into()),
            trigger: pb::Trigger::from(trigger).into(),
            manifest_path: manifest_path.unwrap_or_default(),
            variables: variables.into_iter().map(variable).collect(),
            labels: labels.into_iter().collect(),
            priority,
            cron: cron.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::BuildSpec> for BuildSpec {
    type Error = Invalid;
    fn try_from(spec: pb::BuildSpec) -> Result<Self, Invalid> {
        const SPEC: Message = Message("BuildSpec");
        let pb::BuildSpec { source, trigger, manifest_path, variables, labels, priority, cron } = spec;
        let trigger = SPEC.field("trigger").enumeration::<pb::Trigger>(trigger)?.try_into()?;
        if trigger == Trigger::Local {
            return Err(SPEC.field("trigger").wrong("a local build is never submitted"));
        }
        SPEC.field("variables").at_most(variables.len(), MAX_VARIABLES)?;
        Ok(Self {
            source: SPEC.field("source").require(source)?.try_into()?,
            trigger,
            manifest_path: path(SPEC.field("manifest_path"), manifest_path)?,
            variables: variables.into_iter().map(variable).collect::<Result<_, _>>()?,
            labels: SPEC.field("labels").labels(labels)?,
            priority,
            cron: SPEC.field("cron").optional_line(cron, MAX_NAME)?,
        })
    }
}

/// A path that cannot leave the project, at least by itself; links are the reader's business.
fn path(field: Field, path: String) -> Result<Option<String>, Invalid> {
    let path = field.optional_line(path, MAX_PATH)?;
    let inside = |path: &String| {
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    };
    match path {
        Some(path) if !inside(&path) => {
            Err(field.wrong(format!("`{path}` is not a path in the project: give it relative, without `..`")))
        }
        path => Ok(path),
    }
}

fn variable(variable: pb::Variable) -> Result<(VarName, String), Invalid> {
    const VARIABLE: Message = Message("Variable");
    let pb::Variable { name, value } = variable;
    let name = VarName::new(name).map_err(|error| VARIABLE.field("name").wrong(error))?;
    if &*name == "BUILDR" || name.starts_with("BUILDR_") {
        return Err(VARIABLE.field("name").wrong(format!("`{name}`: names from BUILDR on are buildr's own")));
    }
    let value = VARIABLE.field("value").text(value, MAX_VALUE)?;
    if value.contains('\0') {
        return Err(VARIABLE.field("value").wrong(format!("the value of `{name}` has a NUL")));
    }
    Ok((name, value))
}
