//! The words of the manifest language, those that are reserved, and those of other systems.
//!
//! Owns which key may stand where, and what to say of one that may not.

/// A kind of mapping, by the keys that may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The manifest itself.
    Top,
    /// A stage.
    Stage,
    /// `environment`.
    Environment,
    /// `clone`.
    Clone,
    /// `retry` at the top.
    JobRetry,
    /// `retry` in a stage.
    StageRetry,
    /// `resources`.
    Resources,
    /// `matrix`, its axes aside.
    Matrix,
    /// A service.
    Service,
    /// An entry of `cache`.
    Cache,
    /// `on`.
    On,
    /// `on.push`.
    Push,
    /// `on.tag`.
    Tag,
    /// `on.pull_request`.
    PullRequest,
    /// An entry of `on.cron`.
    Cron,
    /// `concurrency`.
    Concurrency,
    /// `when`.
    When,
    /// `allow_failure`.
    AllowFailure,
    /// `artifacts`.
    Artifacts,
    /// `reports`.
    Reports,
}

/// The names that no stage can have, whatever `stages` says.
pub(crate) const NEVER_STAGES: [&str; 3] = ["image", "environment", "stages"];

/// The most that two words may differ to be taken for one another, as a part of their length.
const MAX_DIFFERENCE: f64 = 0.34;

/// A longer word is near no other.
const MAX_LENGTH: usize = 100;

/// No more candidates than this are looked at.
const MAX_CANDIDATES: usize = 1000;

impl Scope {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 20] = [
        Self::Top,
        Self::Stage,
        Self::Environment,
        Self::Clone,
        Self::JobRetry,
        Self::StageRetry,
        Self::Resources,
        Self::Matrix,
        Self::Service,
        Self::Cache,
        Self::On,
        Self::Push,
        Self::Tag,
        Self::PullRequest,
        Self::Cron,
        Self::Concurrency,
        Self::When,
        Self::AllowFailure,
        Self::Artifacts,
        Self::Reports,
    ];

    /// The keys that mean something.
    pub(crate) fn known(self) -> &'static [&'static str] {
        match self {
            Self::Top => &[
                "image",
                "environment",
                "stages",
                "prepare",
                "timeout",
                "shell",
                "clone",
                "agent",
                "matrix",
                "services",
                "cache",
                "on",
                "concurrency",
                "retry",
                "fail_fast",
                "docker",
                "resources",
            ],
            Self::Stage => &[
                "script",
                "needs",
                "when",
                "timeout",
                "retry",
                "allow_failure",
                "artifacts",
                "reports",
                "image",
                "workdir",
                "user",
                "shell",
                "docker",
                "resources",
                "environment",
            ],
            Self::Environment => &["inherit", "vars"],
            Self::Clone => &["depth", "submodules", "lfs"],
            Self::JobRetry => &["times", "when"],
            Self::StageRetry => &["times", "when", "exit_codes", "backoff"],
            Self::Resources => &["cpus", "memory", "pids"],
            Self::Matrix => &["exclude", "include", "allow_failure", "fail_fast", "max_parallel"],
            Self::Service => &["image", "environment", "command", "ready", "timeout"],
            Self::Cache => &["key", "restore_keys", "paths", "save"],
            Self::On => &["push", "tag", "pull_request", "cron", "manual", "local"],
            Self::Push | Self::PullRequest => &["branches", "paths"],
            Self::Tag => &["tags"],
            Self::Cron => &["name", "schedule", "branch"],
            Self::Concurrency => &["group", "cancel"],
            Self::When => &["branch", "tag", "target", "event", "cron", "paths", "var", "status"],
            Self::AllowFailure => &["exit_codes"],
            Self::Artifacts => &["paths", "name", "when", "expire_in", "required"],
            Self::Reports => &["junit"],
        }
    }

    /// The keys that will mean something.
    pub(crate) fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Top => &["secrets"],
            Self::Stage => &["secrets", "approval", "per", "matrix", "snapshot"],
            _ => &[],
        }
    }

    /// The name of the place, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Top => "a manifest",
            Self::Stage => "a stage",
            Self::Environment => "`environment`",
            Self::Clone => "`clone`",
            Self::JobRetry => "`retry` at the top of a manifest",
            Self::StageRetry => "`retry`",
            Self::Resources => "`resources`",
            Self::Matrix => "`matrix`",
            Self::Service => "a service",
            Self::Cache => "a cache",
            Self::On => "`on`",
            Self::Push => "`on.push`",
            Self::Tag => "`on.tag`",
            Self::PullRequest => "`on.pull_request`",
            Self::Cron => "a schedule",
            Self::Concurrency => "`concurrency`",
            Self::When => "`when`",
            Self::AllowFailure => "`allow_failure`",
            Self::Artifacts => "`artifacts`",
            Self::Reports => "`reports`",
        }
    }

    /// How a value of this kind may look, for hints.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Top => "image: alpine:3.20",
            Self::Stage => "{script: [make]}",
            Self::Environment => "environment: {NAME: value}",
            Self::Clone => "clone: {depth: 1}",
            Self::JobRetry => "retry: {times: 1, when: [agent_lost]}",
            Self::StageRetry => "retry: 2",
            Self::Resources => "resources: {cpus: 2, memory: 4GiB}",
            Self::Matrix => "matrix: {RUST: [\"1.80\", stable]}",
            Self::Service => "db: {image: \"postgres:16\"}",
            Self::Cache => "- {key: cargo, paths: [target]}",
            Self::On => "on: [push, tag]",
            Self::Push => "push: {branches: [main]}",
            Self::Tag => "tag: {tags: [\"v*\"]}",
            Self::PullRequest => "pull_request: {branches: [main]}",
            Self::Cron => "- {name: nightly, schedule: \"0 3 * * *\"}",
            Self::Concurrency => "concurrency: {group: deploy}",
            Self::When => "when: {branch: main}",
            Self::AllowFailure => "allow_failure: true",
            Self::Artifacts => "artifacts: [dist/]",
            Self::Reports => "reports: {junit: [\"**/junit*.xml\"]}",
        }
    }

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
            (Self::Service, "name") => "the name of a service is its key: `db: {image: ...}`".to_owned(),
            (Self::Top, "workdir") => "this is `workdir` in a stage".to_owned(),
            (_, ours) => format!("this is called `{ours}` here"),
        }
    }
}

/// The word of this language for a key of another system's files.
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

/// The candidate that a mistyped word is nearest to, if it is near enough to any.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |text: &str| text.to_lowercase().replace('-', "_");
    let word = normal(word);
    if word.len() > MAX_LENGTH {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_LENGTH)
        .take(MAX_CANDIDATES)
        .map(|candidate| (difference(&word, &normal(candidate)), candidate))
        .filter(|(difference, _)| *difference <= MAX_DIFFERENCE)
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn difference(a: &str, b: &str) -> f64 {
    1.0 - strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_no_far_one() {
        let known = ["image", "environment", "stages", "timeout", "allow_failure"];
        for (word, expected) in [
            ("imgae", Some("image")),
            ("Image", Some("image")),
            ("stage", Some("stages")),
            ("environments", Some("environment")),
            ("time-out", Some("timeout")),
            ("allow-failure", Some("allow_failure")),
            ("tests", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"image".repeat(100), known), None);
    }

    #[test]
    fn no_word_is_known_reserved_and_foreign_at_once() {
        for scope in Scope::ALL {
            for word in scope.known().iter().chain(scope.reserved()) {
                assert_eq!(scope.foreign(word), None, "{word}");
            }
            assert!(scope.known().iter().all(|word| !scope.reserved().contains(word)));
        }
    }

    #[test]
    fn what_foreign_words_become_is_ours() {
        let ours: Vec<&str> = Scope::ALL.iter().flat_map(|scope| scope.known()).copied().collect();
        for word in [
            "commands",
            "depends_on",
            "rules",
            "env",
            "install",
            "runs-on",
            "strategy",
            "restore-keys",
            "jobs",
        ] {
            let found = Scope::Stage.foreign(word).expect(word);
            assert!(ours.contains(&found), "{word}");
        }
    }
}
