//! `services`: containers beside the build's.

use std::collections::HashSet;

use super::{
    environment,
    fields::{Fields, is_too_long, wrong_type},
    settings::MAX_ENTRIES,
    template::{self, Names},
    value,
};
use crate::{
    Code, Environment, Service, ServiceName, Template,
    diagnostic::{Report, quoted},
    source::Span,
    tree::{Entry, Node, Value},
    vocabulary::Scope,
};

/// Reads a mapping of names to services, or a list of images.
pub(super) fn check(node: &Node, names: &Names, report: &mut Report<'_>) -> Vec<Service> {
    match &node.value {
        _ if is_too_long(node, "services", MAX_ENTRIES, report) => Vec::new(),
        Value::Mapping(entries) => entries.iter().filter_map(|entry| named(entry, names, report)).collect(),
        Value::List(items) => {
            let mut taken = HashSet::new();
            items.iter().filter_map(|item| from_image(item, names, &mut taken, report)).collect()
        }
        _ => {
            let wanted = "a mapping of names to services, or a list of images";
            wrong_type(node, "`services`", wanted, "services: [\"redis:7\"]", report);
            Vec::new()
        }
    }
}

/// `db: {image: ...}`, or `db: image` for short.
fn named(entry: &Entry, names: &Names, report: &mut Report<'_>) -> Option<Service> {
    let name = service_name(&entry.key.text, entry.key.span, report);
    if let Value::Text(_) = entry.value.value {
        let image = template::image(&entry.value, names, report);
        return Some(plain(name?, image?));
    }
    let fields = Fields::open(&entry.value, Scope::Service, report)?;
    let image = fields.require("image", Scope::Service, report);
    let image = image.and_then(|node| template::image(node, names, report));
    let environment = fields.get("environment").map(|node| environment::check(node, report));
    let command = fields.get("command").map(|node| command(node, report));
    let ready = fields.get("ready").and_then(|node| value::text(node, "ready", report)).map(str::to_owned);
    let timeout = fields.get("timeout").and_then(|node| value::duration(node, "timeout", report));
    Some(Service {
        name: name?,
        image: image?,
        environment: environment.unwrap_or_default(),
        command,
        ready,
        timeout: timeout.unwrap_or(Service::DEFAULT_TIMEOUT),
    })
}

fn plain(name: ServiceName, image: Template) -> Service {
    Service {
        name,
        image,
        environment: Environment::default(),
        command: None,
        ready: None,
        timeout: Service::DEFAULT_TIMEOUT,
    }
}

/// `- redis:7`: the service has the last part of the image's name.
fn from_image(
    node: &Node,
    names: &Names,
    taken: &mut HashSet<ServiceName>,
    report: &mut Report<'_>,
) -> Option<Service> {
    if let Value::Mapping(_) = node.value {
        let message = "an entry of a list of services is an image, and this is a mapping";
        let problem = report.error(Code::WrongType, node.span, message);
        report
            .push(problem.hint("services with settings stand in a mapping: `services: {db: {image: ...}}`"));
        return None;
    }
    let image = template::image(node, names, report)?;
    let beginning = image.beginning();
    let repository = beginning.split('@').next().unwrap_or_default();
    let last = repository.rsplit('/').next().unwrap_or_default();
    let name = last.split(':').next().unwrap_or_default();
    let is_whole = image.literal().is_some() || last.contains(':');
    let Some(name) = ServiceName::new(name).ok().filter(|_| is_whole) else {
        let problem = report.error(
            Code::BadName,
            node.span,
            format!("{} gives no name for the service", quoted(&image.to_string())),
        );
        report.push(problem.hint("name it: `services: {db: {image: ...}}`"));
        return None;
    };
    if !taken.insert(name.clone()) {
        let problem = report.error(
            Code::DuplicateName,
            node.span,
            format!("two services have the name {}", quoted(&name)),
        );
        report.push(problem.hint("name them: `services: {db: {image: ...}, other: {image: ...}}`"));
        return None;
    }
    Some(plain(name, image))
}

fn service_name(text: &str, span: Span, report: &mut Report<'_>) -> Option<ServiceName> {
    if let Ok(name) = ServiceName::new(text) {
        return Some(name);
    }
    let problem = report.error(
        Code::BadName,
        span,
        format!("{} is not a name that a service can be reached by", quoted(text)),
    );
    report.push(problem.hint("1 to 63 lower-case letters, digits, `-` and `_`, the first a letter"));
    None
}

fn command(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    if let Value::List(_) = node.value {
        return value::texts(node, "command", report).into_iter().map(|(text, _)| text.to_owned()).collect();
    }
    wrong_type(node, "`command`", "a list of words", "command: [postgres, -c, fsync=off]", report);
    Vec::new()
}
