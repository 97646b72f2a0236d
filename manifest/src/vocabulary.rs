//! The words of the manifest language, those that are planned, and those of other systems.
//!
//! Owns which key may stand where, and what to say of one that may not. A key that works moves
//! from the planned list of its place to the known one, and nowhere else.

/// A kind of mapping, by the keys that may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The manifest itself.
    Top,
    /// A stage.
    Stage,
    /// `environment`.
    Environment,
}

/// The names that no stage can have, whatever `stages` says.
pub(crate) const NEVER_STAGES: [&str; 3] = ["image", "environment", "stages"];

/// The most that two words may differ to be taken for one another, as a part of their length.
const MAX_DIFFERENCE: f64 = 0.34;

/// A longer word is near no other.
const MAX_LENGTH: usize = 100;

/// No more candidates than this are looked at.
const MAX_CANDIDATES: usize = 1000;

impl Place {
    /// The keys that mean something.
    pub(crate) fn known(self) -> &'static [&'static str] {
        match self {
            Self::Top => &["image", "environment", "stages", "timeout", "prepare"],
            Self::Stage => &["script"],
            Self::Environment => &["inherit", "vars"],
        }
    }

    /// The keys that will mean something.
    pub(crate) fn planned(self) -> &'static [&'static str] {
        match self {
            Self::Top => &[
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
                "secrets",
            ],
            Self::Stage => &[
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
                "secrets",
                "approval",
                "per",
                "matrix",
                "cache",
                "services",
                "snapshot",
            ],
            Self::Environment => &[],
        }
    }

    /// The name of the place, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Top => "a manifest",
            Self::Stage => "a stage",
            Self::Environment => "`environment`",
        }
    }

    /// The word of this language for one of another system.
    pub(crate) fn foreign(self, word: &str) -> Option<&'static str> {
        Some(match word {
            "script" | "scripts" | "commands" | "command" | "steps" | "run" => "script",
            "depends_on" | "dependsOn" => "needs",
            "rules" | "if" | "only" | "except" => "when",
            "variables" | "env" => "environment",
            "before_script" | "install" | "before_install" => "prepare",
            "after_script" | "post" => "when",
            "continue-on-error" => "allow_failure",
            "runs-on" | "tags" => "agent",
            "strategy" => "matrix",
            "timeout-minutes" | "timeout_minutes" => "timeout",
            "restore-keys" => "cache",
            "container" => "image",
            "jobs" | "pipeline" => "stages",
            _ => return None,
        })
    }

    /// What to do about a word of another system.
    pub(crate) fn foreign_hint(self, word: &str) -> Option<String> {
        let ours = self.foreign(word)?;
        let advice = match (self, ours) {
            (_, "when") if matches!(word, "after_script" | "post") => {
                "what runs at the end whatever happened will be a stage with `when: always`".to_owned()
            }
            (_, "when") => "conditions will be written as `when` in a stage".to_owned(),
            (_, "prepare") => "what runs before all stages is the stage `prepare`".to_owned(),
            (Self::Top, "script") => "commands stand in the `script` of a stage".to_owned(),
            (Self::Top, "stages") => {
                "each stage is a key of its own at the top, and `stages` lists their names in order"
                    .to_owned()
            }
            (Self::Top, "needs" | "allow_failure") => format!("this will be `{ours}` in a stage"),
            (Self::Top, "timeout") => "this is `timeout`, with a unit: `timeout: 10m`".to_owned(),
            (Self::Stage, "environment") => {
                "variables are set for the whole manifest, in `environment`".to_owned()
            }
            (Self::Environment, _) => return None,
            (place, ours) if place.known().contains(&ours) => format!("this is called `{ours}` here"),
            (_, ours) => format!("this will be called `{ours}`"),
        };
        let is_elsewhere = matches!(ours, "script" | "environment" | "prepare" | "stages");
        let is_planned = !is_elsewhere && !self.known().contains(&ours);
        Some(if is_planned { format!("{advice}; that is not supported yet") } else { advice })
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
    fn no_word_is_known_planned_and_foreign_at_once() {
        for place in [Place::Top, Place::Stage, Place::Environment] {
            for word in place.known().iter().chain(place.planned()) {
                let foreign = place.foreign(word).filter(|ours| ours != word);
                assert_eq!(foreign, None, "{word}");
            }
            assert!(place.known().iter().all(|word| !place.planned().contains(word)));
        }
    }
}
