//! The environment of a stage: the image's, the plan's, then buildr's own. Pure.

use std::collections::BTreeMap;

use buildr_manifest::VarMap;

use crate::{
    job::{JobRequest, Prepared, SourceSpec},
    source::without_credentials,
};

/// Where the project is in a build container.
pub(crate) const WORKSPACE: &str = "/workspace";

/// What a build container calls itself.
pub(crate) const HOSTNAME: &str = "buildr";

/// Docker's own default, for images that set none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What all stages that run in one container have in common.
#[derive(Debug)]
pub(crate) struct Environment {
    /// The image's, over what every container has.
    image: BTreeMap<String, String>,
    /// Buildr's own.
    own: BTreeMap<String, String>,
}

impl Environment {
    /// For containers of an image whose variables are `image`, as `NAME=VALUE`.
    pub(crate) fn new(image: &[String], prepared: &Prepared) -> Self {
        let mut below = BTreeMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("HOSTNAME".to_owned(), HOSTNAME.to_owned()),
        ]);
        below.extend(image.iter().filter_map(|entry| entry.split_once('=')).map(owned));
        Self { image: below, own: own(prepared).collect() }
    }

    /// What a stage sees, whose own and earlier stages' variables are `variables`; `more` are buildr's
    /// for this stage alone.
    pub(crate) fn of_stage<'m>(
        &self,
        variables: VarMap,
        more: impl IntoIterator<Item = (&'m str, String)>,
    ) -> BTreeMap<String, String> {
        let mut all = self.image.clone();
        all.extend(variables.into_iter().map(|(name, value)| (name.to_string(), value)));
        // Nothing that the image or the manifest says of these names may be mistaken for ours.
        all.retain(|name, _| name != "BUILDR" && !name.starts_with("BUILDR_"));
        all.extend(self.own.clone());
        all.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        trust_workspace(&mut all);
        all
    }
}

/// The project's repository as builds know it: its URL without credentials, or the folder's path.
pub(crate) fn repository(request: &JobRequest) -> String {
    match &request.source {
        SourceSpec::Folder(path) => path.display().to_string(),
        SourceSpec::Git(git) => without_credentials(&git.url),
    }
}

/// Buildr's own variables; what has no value is left out.
fn own(prepared: &Prepared) -> impl Iterator<Item = (String, String)> {
    let identity = &prepared.request.identity;
    let build = identity.build.map_or_else(|| "local".to_owned(), |number| number.to_string());
    [
        ("BUILDR", Some("true".to_owned())),
        ("BUILDR_BUILD", Some(build)),
        ("BUILDR_JOB", identity.job.clone()),
        ("BUILDR_REPO", Some(repository(&prepared.request))),
        ("BUILDR_BRANCH", prepared.branch.clone()),
        ("BUILDR_TAG", prepared.tag.clone()),
        ("BUILDR_COMMIT", prepared.commit.clone()),
        ("BUILDR_EVENT", Some(prepared.request.trigger.word().to_owned())),
        ("BUILDR_WORKSPACE", Some(WORKSPACE.to_owned())),
        ("BUILDR_HOST_WORKSPACE", Some(prepared.workspace.display().to_string())),
        ("BUILDR_AGENT", identity.agent.clone()),
        ("COMPOSE_PROJECT_NAME", Some(compose_project(prepared.request.run.as_str()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
}

/// Lets git work in a workspace that belongs to somebody else than the user of a stage, without
/// touching any configuration file; after whatever was configured this way before.
fn trust_workspace(environment: &mut BTreeMap<String, String>) {
    let count = environment.get("GIT_CONFIG_COUNT").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    environment.insert("GIT_CONFIG_COUNT".to_owned(), count.saturating_add(1).to_string());
    environment.insert(format!("GIT_CONFIG_KEY_{count}"), "safe.directory".to_owned());
    environment.insert(format!("GIT_CONFIG_VALUE_{count}"), "*".to_owned());
}

/// Compose takes lower case letters, digits, `-` and `_`.
fn compose_project(run: &str) -> String {
    format!("buildr-{}", run.to_ascii_lowercase())
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_configured_for_git_before_is_kept() {
        let mut environment = BTreeMap::from([
            ("GIT_CONFIG_COUNT".to_owned(), "1".to_owned()),
            ("GIT_CONFIG_KEY_0".to_owned(), "user.name".to_owned()),
        ]);
        trust_workspace(&mut environment);
        assert_eq!(environment["GIT_CONFIG_COUNT"], "2");
        assert_eq!(environment["GIT_CONFIG_KEY_0"], "user.name");
        assert_eq!(environment["GIT_CONFIG_KEY_1"], "safe.directory");
        assert_eq!(environment["GIT_CONFIG_VALUE_1"], "*");
    }

    #[test]
    fn a_compose_project_has_no_capitals() {
        assert_eq!(compose_project("01JABC-x_1"), "buildr-01jabc-x_1");
    }
}
