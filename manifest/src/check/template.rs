//! Templates, and the two kinds of text in which they are bounded by more rules: images and working
//! directories.

use std::collections::HashSet;

use super::value;
use crate::{
    Code, Environment, Matrix, Template,
    diagnostic::{Report, Severity, quoted},
    place::Place,
    template::{FACTS, InvalidTemplate},
    tree::Node,
    vocabulary::nearest,
};

/// The variables that a template may name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Those of the manifest and of its matrix.
    pub(super) fn new(environment: &Environment, matrix: Option<&Matrix>) -> Self {
        let mut names = Self::default();
        names.0.extend(matrix.into_iter().flat_map(Matrix::names).map(|name| name.to_string()));
        names.with(environment)
    }

    /// These and those of a stage.
    pub(super) fn with(mut self, environment: &Environment) -> Self {
        self.0.extend(environment.vars.iter().map(|variable| variable.name().to_string()));
        self
    }
}

/// A text that may be a template.
pub(super) fn check(node: &Node, key: &str, names: &Names, report: &mut Report<'_>) -> Option<Template> {
    let text = value::text(node, key, report)?;
    if text.is_empty() {
        report.push(report.error(Code::BadTemplate, node.span, format!("`{key}` is empty")));
        return None;
    }
    if text.contains('\0') {
        report.push(report.error(Code::BadTemplate, node.span, format!("`{key}` has a NUL character in it")));
        return None;
    }
    match Template::new(text, Place(node.span), |name| names.0.contains(name)) {
        Ok(template) => Some(template),
        Err(problem) => {
            explain(node, key, text, problem, names, report);
            None
        }
    }
}

fn explain(
    node: &Node,
    key: &str,
    text: &str,
    problem: InvalidTemplate,
    names: &Names,
    report: &mut Report<'_>,
) {
    let (code, message, near, hint) = match problem {
        InvalidTemplate::TooLong => (Code::TooLarge, format!("`{key}` is longer than 512 bytes"), None, None),
        InvalidTemplate::NotClosed => {
            let hint = "write `${NAME}`; a literal `${` is `$${`".to_owned();
            (Code::BadTemplate, format!("a `${{` in {} is not closed", quoted(text)), None, Some(hint))
        }
        InvalidTemplate::Glob(glob, why) => {
            (Code::BadGlob, format!("the glob {} {why}", quoted(&glob)), None, None)
        }
        InvalidTemplate::Unknown(name) => {
            let known = names.0.iter().map(String::as_str).chain(FACTS);
            let near = if report.is_full(Severity::Error) {
                None
            } else {
                nearest(&name, known.filter(|known| *known != name))
            };
            let hint = match name.as_str() {
                "checksum" => "name the files: `${checksum:Cargo.lock}`".to_owned(),
                _ => "a template knows the variables of the manifest, the axes of its matrix, `branch`, `tag`, \
                      `commit`, `job`, `os`, `arch` and `checksum:GLOB`"
                    .to_owned(),
            };
            let fact = name.strip_prefix("BUILDR_").map(str::to_lowercase);
            let fact = fact.and_then(|fact| FACTS.into_iter().find(|known| **known == *fact));
            let near = fact.or(near);
            let message = format!("nothing has the name {} that `{key}` uses", quoted(&name));
            (Code::BadTemplate, message, near.map(str::to_owned), Some(hint))
        }
    };
    report.push(report.error(code, node.span, message).suggest(near.as_deref()).maybe_hint(hint));
}

/// The name of an image.
pub(super) fn image(node: &Node, names: &Names, report: &mut Report<'_>) -> Option<Template> {
    let text = value::text(node, "image", report)?;
    let problem = if text.contains("${") { None } else { image_problem(text) };
    if let Some(why) = problem {
        let message = format!("{} is not the name of an image: {why}", quoted(text));
        let hint = text.contains('$').then(|| "a variable is written with braces: `${NAME}`".to_owned());
        report.push(report.error(Code::BadImage, node.span, message).maybe_hint(hint));
        return None;
    }
    check(node, "image", names, report)
}

/// What is wrong with an image's name, as far as that can be told without asking a registry.
pub(crate) fn image_problem(text: &str) -> Option<&'static str> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if text.is_empty() {
        Some("it is empty")
    } else if text.chars().any(char::is_whitespace) {
        Some("there is white space in it")
    } else if !text.chars().all(is_allowed) {
        Some("only letters, digits and `._-/:@` may stand in it")
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || text.ends_with(['/', ':', '@', '.', '-'])
    {
        Some("it must begin with a letter or digit, and a `:` or `@` needs a tag or digest after it")
    } else {
        None
    }
}

/// A working directory below the workspace.
pub(super) fn workdir(node: &Node, names: &Names, report: &mut Report<'_>) -> Option<Template> {
    let template = check(node, "workdir", names, report)?;
    if let Some(why) = template.literal().and_then(workdir_problem) {
        let problem = report.error(
            Code::BadPath,
            node.span,
            format!("the workdir {} {why}", quoted(&template.to_string())),
        );
        report.push(problem.hint("it is a path below the workspace: `sub/dir`"));
        return None;
    }
    Some(template)
}

/// Why a text is no path below the workspace, to follow the text itself.
pub(crate) fn workdir_problem(text: &str) -> Option<&'static str> {
    if text.starts_with('/') {
        Some("begins at the root of the container")
    } else if text.split('/').any(|part| part == "..") {
        Some("leaves the workspace")
    } else {
        None
    }
}
