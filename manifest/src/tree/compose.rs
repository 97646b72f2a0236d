//! From parser events to the tree.

use std::{borrow::Cow, collections::HashMap, rc::Rc};

use serde_yaml::granit_parser::{
    self as parser, Event, Parser, ScalarStyle, ScanError, Span as ParserSpan, StrInput, StructureStyle, Tag,
};

use super::{Node, Style, Text, Value, merge::MappingBuilder, quoting_hint, syntax};
use crate::{
    diagnostic::{Code, Report, quoted},
    source::Span,
};

/// How deep lists and mappings may be nested.
const MAX_DEPTH: usize = 32;

/// How much aliases may add to a manifest, in the unit of [`Node::weight`].
const MAX_ALIAS_WEIGHT: usize = 4 * 1024 * 1024;

/// What a node weighs beside its text.
const NODE_WEIGHT: usize = 32;

/// Reads the one document of a manifest. None where the text is no YAML at all or has nothing in
/// it; the reason is in the report. Other problems leave [`Value::Invalid`] in their place.
pub(crate) fn compose(report: &mut Report<'_>) -> Option<Rc<Node>> {
    let options = parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let events = Parser::new_from_str_with_options(report.source().text(), options);
    let mut composer = Composer { events, report, anchors: HashMap::new(), alias_weight: 0 };
    match composer.document() {
        Ok(root) => root,
        Err(Stop::Syntax(error)) => {
            let problem = syntax::explain(&error, report);
            report.push(problem);
            None
        }
        Err(Stop::Limit(code, span, message)) => {
            report.push(report.error(code, span, message));
            None
        }
    }
}

/// Why reading can't go on.
enum Stop {
    Syntax(ScanError),
    Limit(Code, Span, String),
}

struct Composer<'s, 'r, 'a> {
    events: Parser<'s, StrInput<'s>>,
    report: &'r mut Report<'a>,
    anchors: HashMap<usize, Rc<Node>>,
    alias_weight: usize,
}

impl<'s> Composer<'s, '_, '_> {
    fn document(&mut self) -> Result<Option<Rc<Node>>, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {}
                Event::DocumentStart(..) => {
                    let problem =
                        self.report.error(Code::Syntax, span_of(&span), "a second YAML document begins here");
                    self.report.push(problem.hint("a manifest is one document; remove the `---` line"));
                    break;
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        let root = root.filter(|root| !matches!(root.value, Value::Null));
        if root.is_none() {
            let problem = self.report.error(Code::EmptyManifest, Span::default(), "the manifest is empty");
            self.report.push(problem.hint("it needs at least an `image` and a stage; see `buildr init`"));
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'s>, ParserSpan)>, Stop> {
        self.events.next().transpose().map_err(Stop::Syntax)
    }

    /// The next event inside of a list or mapping. The parser always closes what it opened.
    fn inner(&mut self) -> Result<(Event<'s>, ParserSpan), Stop> {
        let end = self.report.source().text().len();
        let missing =
            || Stop::Limit(Code::Syntax, Span { start: end, end }, "the manifest ends too early".to_owned());
        self.next()?.ok_or_else(missing)
    }

    fn node(&mut self, event: Event<'s>, at: &ParserSpan, level: usize) -> Result<Rc<Node>, Stop> {
        let span = span_of(at);
        let (anchor, node) = match event {
            Event::Alias(id) => return self.alias(id, span, level),
            Event::UnresolvedAlias(name) => return Ok(self.unknown_alias(&name, span)),
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(text, style, tag.as_deref(), at)),
            Event::SequenceStart(style, anchor, tag) => {
                let list = self.list(span, style, level + 1)?;
                (anchor, self.tagged(list, tag.as_deref(), at))
            }
            Event::MappingStart(style, anchor, tag) => {
                let mapping = self.mapping(span, style, level + 1)?;
                (anchor, self.tagged(mapping, tag.as_deref(), at))
            }
            _ => (0, leaf(span, Value::Invalid)),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn list(&mut self, mut span: Span, style: StructureStyle, level: usize) -> Result<Node, Stop> {
        check_depth(level, span)?;
        let (mut items, mut weight, mut depth) = (Vec::new(), NODE_WEIGHT, 0);
        loop {
            let (event, at) = self.inner()?;
            if matches!(event, Event::SequenceEnd) {
                span.end = end_of(span, style, &at);
                let value = Value::List(items);
                return Ok(Node { span, value, weight, depth: depth + 1 });
            }
            let item = self.node(event, &at, level)?;
            weight += item.weight;
            depth = depth.max(item.depth);
            span.end = span.end.max(span_of(&at).end);
            items.push(item);
        }
    }

    fn mapping(&mut self, mut span: Span, style: StructureStyle, level: usize) -> Result<Node, Stop> {
        check_depth(level, span)?;
        let mut builder = MappingBuilder::new();
        let (mut weight, mut depth) = (NODE_WEIGHT, 0);
        loop {
            let (event, at) = self.inner()?;
            if matches!(event, Event::MappingEnd) {
                span.end = end_of(span, style, &at);
                let value = Value::Mapping(builder.finish());
                return Ok(Node { span, value, weight, depth: depth + 1 });
            }
            let key = self.node(event, &at, level)?;
            let (event, at) = self.inner()?;
            let value = self.node(event, &at, level)?;
            weight += key.weight + value.weight;
            depth = depth.max(value.depth);
            span.end = span.end.max(span_of(&at).end);
            builder.add(&key, value, self.report);
        }
    }

    fn scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, at: &ParserSpan) -> Node {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        let is_null = style == Style::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        let weight = NODE_WEIGHT + text.len();
        let value = if is_null && !is_text {
            Value::Null
        } else {
            Value::Text(Text { text: text.into_owned(), style })
        };
        self.tagged(Node { span: span_of(at), value, weight, depth: 0 }, tag, at)
    }

    /// Lets YAML's own tags pass (all scalars are text here), and reports any other.
    fn tagged(&mut self, node: Node, tag: Option<&Tag>, at: &ParserSpan) -> Node {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else { return node };
        let start = at.tag_start().as_ref().and_then(parser::Marker::byte_offset).unwrap_or(node.span.start);
        let end = at.tag_span().as_ref().map_or(start, |span| span_of(span).end);
        let message = format!("{} is a YAML tag here, not text", quoted(&tag.original()));
        let problem = self.report.error(Code::UnexpectedTag, Span { start, end }, message);
        self.report.push(problem.hint(quoting_hint(self.report.source(), start)));
        leaf(node.span, Value::Invalid)
    }

    fn alias(&mut self, id: usize, span: Span, level: usize) -> Result<Rc<Node>, Stop> {
        let Some(target) = self.anchors.get(&id) else {
            let name = self.report.source().slice(span);
            let problem = self.report.error(
                Code::BadAlias,
                span,
                format!("the alias {} stands inside of its own anchor", quoted(name)),
            );
            self.report.push(problem);
            return Ok(Rc::new(leaf(span, Value::Invalid)));
        };
        self.alias_weight = self.alias_weight.saturating_add(target.weight);
        if self.alias_weight > MAX_ALIAS_WEIGHT {
            return Err(Stop::Limit(
                Code::TooLarge,
                span,
                "the aliases up to here expand to more than 4 MiB".to_owned(),
            ));
        }
        check_depth(level + target.depth, span)?;
        Ok(Rc::clone(target))
    }

    fn unknown_alias(&mut self, name: &str, span: Span) -> Rc<Node> {
        let message =
            format!("{} is a YAML alias here, and no anchor has that name", quoted(&format!("*{name}")));
        let problem = self.report.error(Code::BadAlias, span, message);
        self.report.push(problem.hint(quoting_hint(self.report.source(), span.start)));
        Rc::new(leaf(span, Value::Invalid))
    }
}

fn leaf(span: Span, value: Value) -> Node {
    Node { span, value, weight: NODE_WEIGHT, depth: 0 }
}

fn check_depth(level: usize, span: Span) -> Result<(), Stop> {
    if level <= MAX_DEPTH {
        return Ok(());
    }
    Err(Stop::Limit(
        Code::TooLarge,
        span,
        format!("lists and mappings are nested more than {MAX_DEPTH} deep"),
    ))
}

/// Where a list or mapping ends: at its bracket, or with its last child (`span` has grown so far).
fn end_of(span: Span, style: StructureStyle, at: &ParserSpan) -> usize {
    match style {
        StructureStyle::Flow => span_of(at).end,
        StructureStyle::Block => span.end,
    }
}

fn span_of(span: &ParserSpan) -> Span {
    span.byte_range().map_or_else(Span::default, |range| Span { start: range.start, end: range.end })
}
