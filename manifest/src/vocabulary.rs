//! The words of the manifest language, those that are reserved, and (in `foreign`) those of other
//! systems.
//!
//! Owns which key may stand where, and what to say of one that may not.

mod foreign;

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
