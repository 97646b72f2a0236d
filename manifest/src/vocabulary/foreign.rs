//! The words of other systems, and words of ours in the wrong place: what to say of them.

use super::Scope;

impl Scope {
    /// The word of this language for one of another system.
    pub(crate) fn foreign(self, word: &str) -> Option<&'static str> {
        let ours = match (self, word) {
            (Self::Top | Self::Stage, word) => foreign_key(word)?,
            (Self::Service, "variables" | "env") => "environment",
            (Self::Service, "alias") => "name",
            (Self::Cache, "restore-keys") => "restore_keys",
            (Self::Cache, "path") => "paths",
            (Self::Cache, "when" | "policy") => "save",
            (Self::Matrix, "max-parallel") => "max_parallel",
            (Self::Matrix, "fail-fast") => "fail_fast",
            (Self::On, "tags") => "tag",
            (Self::On, "schedule" | "schedules") => "cron",
            (Self::On, "workflow_dispatch" | "web") => "manual",
            (Self::On, "merge_request" | "merge_requests") => "pull_request",
            (Self::When, "ref" | "refs" | "branches") => "branch",
            (Self::When, "changes" | "path") => "paths",
            (Self::When, "variables" | "env" | "variable") => "var",
            (Self::When, "events") => "event",
            (Self::Concurrency, "cancel-in-progress") => "cancel",
            (Self::Artifacts, "path") => "paths",
            (Self::Artifacts, "retention-days" | "expires") => "expire_in",
            (Self::StageRetry | Self::JobRetry, "max") => "times",
            _ => return None,
        };
        (ours != word).then_some(ours)
    }

    /// What to do about a key that is not one here.
    pub(crate) fn hint(self, word: &str) -> Option<String> {
        if let Some(ours) = self.foreign(word) {
            return Some(self.foreign_hint(word, ours));
        }
        let elsewhere = match (self, word) {
            (Self::Top, "script") => "it is a key of a stage: indent it below the stage's name".to_owned(),
            (Self::Top, word) if Self::Stage.known().contains(&word) => "it is a key of a stage".to_owned(),
            (Self::Stage, "stage") => "the place of a stage is its place in the list `stages`".to_owned(),
            (Self::Stage, word) if Self::Top.known().contains(&word) => {
                "it is a key of the manifest: it stands at the top, not in a stage".to_owned()
            }
            (Self::Stage, "extends") => {
                "share parts with YAML: `x-base: &base {...}` and `<<: *base`".to_owned()
            }
            (Self::Stage, "uses" | "with") => {
                "there are no actions: write the commands into `script`".to_owned()
            }
            (Self::Top, "include") => {
                "a manifest is one file; share parts of it with YAML anchors".to_owned()
            }
            (Self::Push, "tags") => "tags are an event of their own: `tag: {tags: [...]}`".to_owned(),
            (Self::Matrix, word) if !word.is_empty() => {
                format!("the name of an axis is written in capitals: `{}`", word.to_uppercase())
            }
            _ => return None,
        };
        Some(elsewhere)
    }

    fn foreign_hint(self, word: &str, ours: &str) -> String {
        match (self, ours) {
            (_, "when") if matches!(word, "after_script" | "post") => {
                "what runs at the end, whatever happened, is a stage with `when: always`".to_owned()
            }
            (Self::Top, "when") => {
                "conditions are written as `when` in a stage, or as `on` for the build".to_owned()
            }
            (Self::Stage, "when") => "conditions are written as `when`: `when: {branch: main}`".to_owned(),
            (_, "prepare") => "what runs before all stages is the stage `prepare`".to_owned(),
            (Self::Top, "script") => "commands stand in the `script` of a stage".to_owned(),
            (_, "stages") => {
                "each stage is a key of its own at the top, and `stages` lists their names in order"
                    .to_owned()
            }
            (Self::Top, "needs" | "allow_failure") => format!("this is `{ours}` in a stage"),
            (_, "timeout") => "this is `timeout`, with a unit: `timeout: 10m`".to_owned(),
            (Self::Stage, "agent" | "matrix" | "concurrency") => {
                format!("this is `{ours}`, at the top of the manifest")
            }
            (_, "restore_keys") if self != Self::Cache => {
                "this is `restore_keys` in an entry of `cache`".to_owned()
            }
            (Self::On, "cron") => {
                "this is `cron`, and each schedule has a name: `cron: [{name: nightly, schedule: \"0 3 * * *\"}]`"
                    .to_owned()
            }
            (Self::Service, "name") => "the name of a service is its key: `db: {image: ...}`".to_owned(),
            (Self::Top, "workdir") => "this is `workdir` in a stage".to_owned(),
            (_, ours) => format!("this is called `{ours}` here"),
        }
    }
}

/// The same for a key of a whole file, or of a job or step.
fn foreign_key(word: &str) -> Option<&'static str> {
    Some(match word {
        "scripts" | "commands" | "command" | "steps" | "run" => "script",
        "depends_on" | "dependsOn" => "needs",
        "rules" | "if" | "only" | "except" => "when",
        "variables" | "env" => "environment",
        "before_script" | "install" | "before_install" => "prepare",
        "after_script" | "post" => "when",
        "continue-on-error" | "failure" => "allow_failure",
        "runs-on" | "tags" | "labels" => "agent",
        "strategy" => "matrix",
        "timeout-minutes" | "timeout_minutes" => "timeout",
        "restore-keys" => "restore_keys",
        "container" => "image",
        "jobs" | "pipeline" => "stages",
        "working-directory" | "directory" => "workdir",
        "resource_group" => "concurrency",
        _ => return None,
    })
}
