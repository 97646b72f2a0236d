//! `matrix`: the axes, and the entries that add and take away.

use std::collections::HashSet;

use super::{
    environment,
    fields::{Fields, is_too_long, wrong_type},
    settings, value,
};
use crate::{
    Axis, Code, MAX_JOBS, Matrix, Place, Values, VarName,
    diagnostic::{Report, quoted},
    manifest::agrees,
    source::Span,
    tree::{Entry, Node, Value},
    vocabulary::{Scope, nearest},
};

/// How many names a matrix may set, and how many entries a list of it may have.
const MAX_NAMES: usize = 32;

/// How long a value may be: it is part of the names of jobs.
const MAX_VALUE: usize = 256;

/// Reads the value of `matrix`. None only where an error was reported.
pub(super) fn check(node: &Node, key: Span, report: &mut Report<'_>) -> Option<Matrix> {
    let errors = report.errors();
    let fields = Fields::open_some(node, Scope::Matrix, is_axis, report)?;
    let entries = node.as_mapping().unwrap_or_default();
    let axes: Vec<Axis> =
        entries.iter().filter(|entry| is_axis(entry)).filter_map(|entry| axis(entry, report)).collect();
    let max_parallel =
        fields.get("max_parallel").and_then(|n| value::number(n, "max_parallel", 1..=256, report));
    let mut matrix = Matrix {
        axes,
        fail_fast: settings::switch(fields, "fail_fast", false, report),
        max_parallel,
        ..Matrix::default()
    };
    matrix.include = lists(fields, "include", |_| true, report);
    let axes: HashSet<String> = matrix.axes.iter().map(|axis| axis.name.to_string()).collect();
    let all: HashSet<String> = matrix.names().map(|name| name.to_string()).collect();
    matrix.exclude = lists(fields, "exclude", |name| axes.contains(name), report);
    matrix.allow_failure = lists(fields, "allow_failure", |name| all.contains(name), report);
    if all.len() > MAX_NAMES {
        let message = format!("the matrix sets {} variables, and {MAX_NAMES} are the most", all.len());
        report.push(report.error(Code::TooLarge, key, message));
        return None;
    }
    if report.errors() > errors {
        return Some(matrix);
    }
    count(&matrix, key, fields, report)?;
    Some(matrix)
}

/// A key in capitals is an axis, whatever its value.
fn is_axis(entry: &Entry) -> bool {
    let key = entry.key.text.as_str();
    key.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && !key.contains(|c: char| c.is_ascii_lowercase())
}

fn axis(entry: &Entry, report: &mut Report<'_>) -> Option<Axis> {
    let name = environment::name_of(&entry.key.text, Place(entry.key.span), report);
    let Value::List(items) = &entry.value.value else {
        let what = format!("the axis {}", quoted(&entry.key.text));
        wrong_type(&entry.value, &what, "a list of values", Scope::Matrix.example(), report);
        return None;
    };
    if items.is_empty() {
        let message = format!("the axis {} has no value", quoted(&entry.key.text));
        report.push(
            report.error(Code::BadMatrix, entry.value.span, message).hint("add a value, or remove the axis"),
        );
        return None;
    }
    let mut seen = HashSet::new();
    let mut values = Vec::new();
    for item in items {
        let Some(value) = axis_value(item, &entry.key.text, report) else { continue };
        if !seen.insert(value.clone()) {
            let message =
                format!("the axis {} has the value {} twice", quoted(&entry.key.text), quoted(&value));
            report.push(report.error(Code::DuplicateName, item.span, message));
        }
        values.push(value);
    }
    (!values.is_empty()).then_some(Axis { name: name?, values })
}

fn axis_value(node: &Node, key: &str, report: &mut Report<'_>) -> Option<String> {
    let text = value::text(node, key, report)?;
    if text.len() > MAX_VALUE || text.contains('\0') {
        let message = format!("a value of `{key}` has 256 bytes at most, and no NUL character");
        report.push(report.error(Code::TooLarge, node.span, message));
        return None;
    }
    Some(text.to_owned())
}

/// The entries of `include`, `exclude` or `allow_failure`.
fn lists(
    fields: Fields<'_>,
    key: &str,
    is_known: impl Fn(&str) -> bool,
    report: &mut Report<'_>,
) -> Vec<Values> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    let items = match &node.value {
        Value::List(_) if is_too_long(node, key, MAX_JOBS, report) => return Vec::new(),
        Value::List(items) => items,
        _ => {
            let example = format!("{key}: [{{RUST: stable}}]");
            wrong_type(node, &format!("`{key}`"), "a list of mappings", &example, report);
            return Vec::new();
        }
    };
    items.iter().filter_map(|item| values(item, key, &is_known, report)).collect()
}

fn values(
    node: &Node,
    key: &str,
    is_known: &impl Fn(&str) -> bool,
    report: &mut Report<'_>,
) -> Option<Values> {
    let Some(entries) = node.as_mapping().filter(|entries| !entries.is_empty()) else {
        let what = format!("an entry of `{key}`");
        wrong_type(node, &what, "a mapping of axes to values", "{RUST: stable}", report);
        return None;
    };
    let mut values = Values::new();
    for entry in entries {
        let name = entry.key.text.as_str();
        if !is_known(name) {
            unknown_axis(entry, key, report);
            continue;
        }
        let value = axis_value(&entry.value, name, report);
        if let (Some(name), Some(value)) = (environment::name_of(name, Place(entry.key.span), report), value)
        {
            values.insert(name, value);
        }
    }
    Some(values)
}

fn unknown_axis(entry: &Entry, key: &str, report: &mut Report<'_>) {
    let name = &entry.key.text;
    let problem = report.error(
        Code::BadMatrix,
        entry.key.span,
        format!("{} in `{key}` is no axis of the matrix", quoted(name)),
    );
    report.push(problem.hint("an entry names axes of the matrix and values of them"));
}

/// Counts the jobs, and looks for entries that mean nothing. None only where an error was reported.
fn count(matrix: &Matrix, key: Span, fields: Fields<'_>, report: &mut Report<'_>) -> Option<()> {
    let jobs = matrix.product().map(|_| matrix.combinations());
    let (code, message) = match jobs.as_ref().map(Vec::len) {
        None => (Code::TooLarge, "the matrix has more than 4096 combinations".to_owned()),
        Some(0) => (Code::BadMatrix, "the matrix has no job".to_owned()),
        Some(number) if number > MAX_JOBS => {
            (Code::TooLarge, format!("the matrix has {number} jobs, and {MAX_JOBS} are the most"))
        }
        Some(_) => {
            doubt(matrix, fields, report);
            return Some(());
        }
    };
    let hint = match code {
        Code::BadMatrix => "add an axis with values, or an entry of `include`",
        _ => "use fewer values, or list the combinations under `include`",
    };
    report.push(report.error(code, key, message).hint(hint));
    None
}

/// Warns of entries that match no combination, and of jobs that lack an axis.
fn doubt(matrix: &Matrix, fields: Fields<'_>, report: &mut Report<'_>) {
    let without = Matrix { exclude: Vec::new(), include: Vec::new(), ..matrix.clone() };
    let all: Vec<Values> =
        without.combinations().into_iter().map(|job| job.values.into_iter().collect()).collect();
    let kept: Vec<Values> =
        matrix.combinations().into_iter().map(|job| job.values.into_iter().collect()).collect();
    for (key, entries, jobs) in
        [("exclude", &matrix.exclude, &all), ("allow_failure", &matrix.allow_failure, &kept)]
    {
        for (entry, node) in entries.iter().zip(fields.get(key).map(value_nodes).unwrap_or_default()) {
            if !jobs.iter().any(|job| agrees(entry, job)) {
                let near = misspelt(entry, matrix);
                let problem =
                    report.warning(Code::NeverTrue, node, format!("this entry of `{key}` matches no job"));
                report.push(
                    problem
                        .suggest(near.as_deref())
                        .hint("each value must be one of its axis, as it is written there"),
                );
            }
        }
    }
    for (entry, node) in matrix.include.iter().zip(fields.get("include").map(value_nodes).unwrap_or_default())
    {
        let lacking = matrix.axes.iter().find(|axis| !entry.contains_key(&axis.name));
        let is_job = kept
            .iter()
            .any(|job| lacking.is_some_and(|axis| !job.contains_key(&axis.name)) && agrees(entry, job));
        if let (Some(axis), true) = (lacking, is_job) {
            let message =
                format!("this entry of `include` makes a job in which {} is not set", quoted(&axis.name));
            report.push(report.warning(Code::BadMatrix, node, message).hint("name a value for each axis"));
        }
    }
}

fn value_nodes(node: &Node) -> Vec<Span> {
    value::nodes(node).into_iter().map(|node| node.span).collect()
}

/// The value of an axis that a mistyped one is near to.
fn misspelt(entry: &Values, matrix: &Matrix) -> Option<String> {
    let (name, value): (&VarName, &String) = entry
        .iter()
        .find(|(name, value)| !matrix.axes.iter().any(|a| a.name == **name && a.values.contains(value)))?;
    let axis = matrix.axes.iter().find(|axis| axis.name == *name)?;
    nearest(value, axis.values.iter().map(String::as_str)).map(str::to_owned)
}
