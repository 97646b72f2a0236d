//! The kinds of problems, for programs.

use std::fmt;

use serde::Serialize;

/// What kind of problem it is. The words are stable: programs may tell problems apart by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The text is no YAML.
    Syntax,
    /// The text is not UTF-8, or has a control character in it.
    BadText,
    /// A limit was passed: size, nesting, aliases, or the number of something.
    TooLarge,
    /// A project has other manifests beside the one that is taken.
    SeveralManifests,
    /// There is nothing in the manifest.
    EmptyManifest,
    /// A key stands twice in a mapping.
    DuplicateKey,
    /// An alias without its anchor, or inside of it.
    BadAlias,
    /// A tag, or text that YAML takes for one.
    UnexpectedTag,
    /// A key that means nothing where it stands.
    UnknownKey,
    /// A list where text is wanted, and the like.
    WrongType,
    /// A word that is none of those that may stand there.
    UnknownWord,
    /// There is no image.
    MissingImage,
    /// A text that is no image's name.
    BadImage,
    /// A stage without a script.
    MissingScript,
    /// A script, or an entry of one, without a command.
    EmptyScript,
    /// A key that must be there is not.
    MissingKey,
    /// No stage has that name.
    UnknownStage,
    /// A stage that is not listed.
    UnlistedStage,
    /// A name that stands twice in a list.
    DuplicateName,
    /// A text that can't be a name there.
    BadName,
    /// No stage is to run.
    NoStages,
    /// Stages that wait for one another.
    Cycle,
    /// A text that is no length of time.
    BadDuration,
    /// A text that is no amount of memory.
    BadSize,
    /// A text that is no number, or one out of bounds.
    BadNumber,
    /// A text that is no glob.
    BadGlob,
    /// A text that is no schedule.
    BadCron,
    /// A template that can't be filled.
    BadTemplate,
    /// A path that leaves the workspace.
    BadPath,
    /// A text that is no variable's name.
    BadVariable,
    /// A variable that buildr alone sets.
    ReservedVariable,
    /// A variable that is set twice.
    VariableSetTwice,
    /// Two shapes of `environment` in one.
    MixedShapes,
    /// A matrix without a job, or whose entries name what it has not.
    BadMatrix,
    /// Something that is part of the language and not built yet.
    NotSupportedYet,
    /// A stage that has the name of a key.
    KeyIsStage,
    /// A text that YAML ends at a `#`.
    CutAtHash,
    /// A block whose lines become one.
    FoldedLines,
    /// A pipe whose first failure is not seen.
    PipeWithoutPipefail,
    /// A `$` that another shell expands than was meant.
    NestedShell,
    /// A secret in plain text.
    PlainCredential,
    /// A condition that always holds.
    AlwaysTrue,
    /// A condition that never holds.
    NeverTrue,
    /// Schedules that turn all other events off.
    CronAlone,
}

impl fmt::Display for Code {
    /// The word: `unknown-key`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
