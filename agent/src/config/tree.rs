//! YAML text to a tree in which every node knows its place. Small on purpose: no tags, no anchors, one document, keys are text.

use std::{collections::HashMap, fmt};

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span, Tag};

use super::{diagnostic::Finding, lookup::Place};

/// Number of a text that settings come from, in the list of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(pub(super) u16);

/// A place in a text, counted from 1, columns in characters; line 0 is the text as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) source: Source,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Mark {
    /// The text as a whole.
    pub(super) fn whole(source: Source) -> Mark {
        Mark { source, line: 0, column: 0 }
    }
}

/// Tells nodes apart, of one tree and of trees of different sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(Source, usize);

/// A value and its place. No `Debug`: it may be a secret.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) at: Mark,
    /// Reported already; reading passes over it.
    pub(super) left_out: bool,
    pub(super) value: Value,
}

/// What stands there.
pub(super) enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Mark,
    pub(super) node: Node,
}

/// A node and its way from the root.
pub(super) struct Located<'n> {
    pub(super) node: &'n Node,
    /// Place of its key, or of itself in a list.
    pub(super) key_at: Mark,
    pub(super) path: KeyPath,
}

/// Types of the YAML 1.2 core schema (YAML 1.2.2, 10.3), and collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Integer,
    Float,
    String,
    List,
    Map,
}

impl Type {
    /// Type of an unquoted scalar.
    pub(super) fn of_plain(text: &str) -> Type {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Type::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Type::Boolean,
            ".nan" | ".NaN" | ".NAN" => Type::Float,
            _ if digits(unsigned) => Type::Integer,
            _ if matches!(unsigned, ".inf" | ".Inf" | ".INF") => Type::Float,
            _ if unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
                && unsigned.parse::<f64>().is_ok() =>
            {
                Type::Float
            }
            _ => Type::String,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Null => "nothing",
            Type::Boolean => "a boolean",
            Type::Integer => "an integer",
            Type::Float => "a fraction",
            Type::String => "a string",
            Type::List => "a list",
            Type::Map => "a map",
        })
    }
}

/// Keys and indexes from the root to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// The path with one more key.
    pub(super) fn key(mut self, key: &str) -> KeyPath {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// From `a.b[2].c`, as parts write it.
    pub(super) fn parse(text: &str) -> KeyPath {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indexes) = part.split_once('[').unwrap_or((part, ""));
            if !key.is_empty() {
                steps.push(Step::Key(key.into()));
            }
            let indexes = indexes.split(['[', ']']).filter_map(|index| index.parse().ok());
            steps.extend(indexes.map(Step::Index));
        }
        KeyPath(steps)
    }

    /// The keys, if there is at least one and nothing but keys.
    pub(super) fn keys(&self) -> Option<Vec<&str>> {
        let keys = self.0.iter().map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Option<Vec<_>>>().filter(|keys| !keys.is_empty())
    }

    /// The last step, if it is a key.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            Some(Step::Index(_)) | None => None,
        }
    }

    /// Whether `self` is `other` or lies beneath it.
    pub(super) fn starts_with(&self, other: &KeyPath) -> bool {
        self.0.starts_with(&other.0)
    }
}

/// Keys that do not look like a setting's or header's name are not shown: they may be a secret that lost its key.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let named = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                    let shown = !key.is_empty() && key.len() <= 40 && named;
                    f.write_str(if shown { key } else { "<not a plain name>" })?;
                }
            }
        }
        Ok(())
    }
}

impl Node {
    /// A map with this one entry.
    pub(super) fn wrap(self, key: &str) -> Node {
        let id = NodeId(self.id.0, self.id.1 + 1);
        let (at, left_out) = (self.at, false);
        let entry = Entry { key: key.into(), key_at: at, node: self };
        Node { id, at, left_out, value: Value::Map(vec![entry]) }
    }

    /// The value of `key`, in a map.
    pub(super) fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// What stands behind `{ env: NAME }` or `{ file: PATH }`, in place of a value.
    pub(super) fn reference(&self) -> Option<(Place, &Node)> {
        match &self.value {
            Value::Map(entries) => match entries.as_slice() {
                [Entry { key, node, .. }] => Some((Place::named(key)?, node)),
                _ => None,
            },
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// Lays `upper` over this node. Maps become one, key by key; anything else is replaced. A section of which `upper` says nothing stays.
    pub(super) fn overlay(&mut self, upper: Node) {
        let sections = |node: &Node| matches!(node.value, Value::Map(_)) && node.reference().is_none();
        if sections(self) && upper.kind() == Type::Null {
            return;
        }
        if !(sections(self) && sections(&upper)) {
            *self = upper;
            return;
        }
        self.at = upper.at;
        if let (Value::Map(lower), Value::Map(entries)) = (&mut self.value, upper.value) {
            let places: HashMap<String, usize> =
                lower.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
            for entry in entries {
                match places.get(&entry.key) {
                    Some(place) => {
                        lower[*place].key_at = entry.key_at;
                        lower[*place].node.overlay(entry.node);
                    }
                    None => lower.push(entry),
                }
            }
        }
    }

    /// Type of the value.
    pub(super) fn kind(&self) -> Type {
        match &self.value {
            Value::Scalar { text, plain: true } => Type::of_plain(text),
            Value::Scalar { plain: false, .. } => Type::String,
            Value::List(_) => Type::List,
            Value::Map(_) => Type::Map,
        }
    }

    /// Whether something in this collection was left out.
    pub(super) fn is_incomplete(&self) -> bool {
        match &self.value {
            Value::Scalar { .. } => false,
            Value::List(items) => items.iter().any(|item| item.left_out),
            Value::Map(entries) => entries.iter().any(|entry| entry.node.left_out),
        }
    }

    /// Keys of the entries that were left out.
    pub(super) fn left_out_keys(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Scalar { .. } | Value::List(_) => &[],
        };
        entries.iter().filter(|entry| entry.node.left_out).map(|entry| entry.key.as_str())
    }

    /// Where the node `id` is.
    pub(super) fn locate(&self, id: NodeId) -> Option<Located<'_>> {
        fn walk<'n>(node: &'n Node, key_at: Mark, id: NodeId, path: &mut Vec<Step>) -> Option<(Mark, &'n Node)> {
            let mut enter = |child: &'n Node, key_at: Mark, step: Step| {
                path.push(step);
                let found = walk(child, key_at, id, path);
                if found.is_none() {
                    path.pop();
                }
                found
            };
            match &node.value {
                _ if node.id == id => Some((key_at, node)),
                Value::Scalar { .. } => None,
                Value::List(items) => {
                    items.iter().enumerate().find_map(|(index, item)| enter(item, item.at, Step::Index(index)))
                }
                Value::Map(entries) => {
                    entries.iter().find_map(|entry| enter(&entry.node, entry.key_at, Step::Key(entry.key.clone())))
                }
            }
        }
        let mut path = Vec::new();
        let (key_at, node) = walk(self, self.at, id, &mut path)?;
        Some(Located { node, key_at, path: KeyPath(path) })
    }

    /// Place of the value at `path`, or of its nearest ancestor that is there.
    pub(super) fn nearest(&self, path: &KeyPath) -> Mark {
        let mut node = self;
        let mut at = self.at;
        for step in &path.0 {
            let next = match (&node.value, step) {
                (Value::Map(entries), Step::Key(key)) => entries.iter().find(|entry| entry.key == *key).map(|entry| {
                    let collection = matches!(entry.node.value, Value::List(_) | Value::Map(_));
                    (&entry.node, if collection { entry.key_at } else { entry.node.at })
                }),
                (Value::List(items), Step::Index(index)) => items.get(*index).map(|item| (item, item.at)),
                _ => None,
            };
            match next {
                Some(next) => (node, at) = next,
                None => break,
            }
        }
        at
    }

    /// Marks the node `id` as reported: reading goes on as if it were not there, and its siblings keep their place. False if it was
    /// marked before, or is not there.
    pub(super) fn leave_out(&mut self, id: NodeId) -> bool {
        if self.id == id {
            return !std::mem::replace(&mut self.left_out, true);
        }
        match &mut self.value {
            Value::Scalar { .. } => false,
            Value::List(items) => items.iter_mut().any(|item| item.leave_out(id)),
            Value::Map(entries) => entries.iter_mut().any(|entry| entry.node.leave_out(id)),
        }
    }
}

/// The deepest nesting that is read; the configuration itself has five levels.
const MAX_DEPTH: usize = 32;

/// Reads one document; one of comments alone is nothing at all. What cannot stand (duplicate keys, anchors, tags, further documents) becomes a finding and is left out;
/// after a syntax error there is no tree.
pub(super) fn read(text: &str, source: Source, findings: &mut Vec<Finding>) -> Option<Node> {
    let mut options = Options::default();
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder { findings, source, frames: Vec::new(), root: None, ids: 0, documents: 0 };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let at = Mark { source, line: error.marker().line(), column: error.marker().col() + 1 };
                let finding = Finding::at(at, KeyPath::default(), format!("not valid YAML: {}", error.info()));
                builder.findings.push(Finding { hint: mend(error.kind()).map(Into::into), ..finding });
                return None;
            }
        }
    }
    let nothing = || Node {
        id: NodeId(source, 0),
        at: Mark { source, line: 1, column: 1 },
        left_out: false,
        value: Value::Scalar { text: String::new(), plain: true },
    };
    Some(builder.root.unwrap_or_else(nothing))
}

/// How to mend the syntax errors that people make most.
fn mend(error: &ErrorKind) -> Option<&'static str> {
    match error {
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInPlainScalar => Some("indent with spaces"),
        ErrorKind::ExpectedDocumentStart => Some("is this YAML, and is the line indented as its neighbours are?"),
        ErrorKind::ExpectedBlockMappingKey => Some("indent the keys of one section alike"),
        ErrorKind::MappingValueNotAllowed => {
            Some("the key before lacks its `:`, or a value with `: ` in it lacks its quotes")
        }
        _ => None,
    }
}

struct Builder<'f> {
    findings: &'f mut Vec<Finding>,
    source: Source,
    frames: Vec<Frame>,
    root: Option<Node>,
    ids: usize,
    documents: usize,
}

/// A collection that is not complete yet.
struct Frame {
    at: Mark,
    collection: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Key },
}

/// What the next node of a map is.
enum Key {
    /// A key.
    Next,
    /// The value of this key.
    Read(String, Mark),
    /// The value of a key that was reported.
    LeftOut,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) {
        let at = Mark { source: self.source, line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.find(at, "a second YAML document: the configuration is one document");
                }
            }
            _ if self.documents > 1 => {}
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.find(at, "YAML aliases are not supported: write the value itself");
                self.leave_out();
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.no_properties(at, anchor, tag.as_deref());
                if tag.is_some() {
                    self.leave_out();
                } else {
                    self.node(at, Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain });
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_properties(at, anchor, tag.as_deref());
                self.frames.push(Frame { at, collection: Collection::List(Vec::new()) });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_properties(at, anchor, tag.as_deref());
                let collection = Collection::Map { entries: Vec::new(), lines: HashMap::new(), key: Key::Next };
                self.frames.push(Frame { at, collection });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame { at, collection: Collection::List(items) }) => self.node(at, Value::List(items)),
                Some(Frame { at, collection: Collection::Map { entries, .. } }) => self.node(at, Value::Map(entries)),
                None => {}
            },
            _ => {}
        }
    }

    fn no_properties(&mut self, at: Mark, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.find(at, "YAML anchors are not supported: write the value where it is needed");
        }
        if tag.is_some() {
            self.find(at, "YAML tags are not supported: write the value alone");
        }
    }

    fn node(&mut self, at: Mark, value: Value) {
        self.ids += 1;
        let node = Node { id: NodeId(self.source, self.ids), at, left_out: false, value };
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut frame.collection {
            Collection::List(items) => items.push(node),
            Collection::Map { entries, lines, key } => match std::mem::replace(key, Key::Next) {
                Key::Read(key, key_at) => entries.push(Entry { key, key_at, node }),
                Key::LeftOut => {}
                Key::Next => match node.value {
                    Value::Scalar { text, .. } => match lines.get(&text) {
                        Some(first) => {
                            let reason = format!("duplicate key, first on line {first}");
                            *key = Key::LeftOut;
                            let path = self.path().key(&text);
                            self.findings.push(Finding::at(at, path, reason));
                        }
                        None => {
                            lines.insert(text.clone(), at.line);
                            *key = Key::Read(text, at);
                        }
                    },
                    _ => {
                        *key = Key::LeftOut;
                        self.find(at, "a key must be a name, not a list or a map");
                    }
                },
            },
        }
    }

    /// The node that would come now is not there.
    fn leave_out(&mut self) {
        if let Some(Frame { collection: Collection::Map { key, .. }, .. }) = self.frames.last_mut() {
            *key = match key {
                Key::Next => Key::LeftOut,
                Key::Read(..) | Key::LeftOut => Key::Next,
            };
        }
    }

    fn find(&mut self, at: Mark, reason: &str) {
        let finding = Finding::at(at, self.path(), reason.into());
        self.findings.push(finding);
    }

    fn path(&self) -> KeyPath {
        KeyPath(
            self.frames
                .iter()
                .filter_map(|frame| match &frame.collection {
                    Collection::List(items) => Some(Step::Index(items.len())),
                    Collection::Map { key: Key::Read(key, _), .. } => Some(Step::Key(key.clone())),
                    Collection::Map { .. } => None,
                })
                .collect(),
        )
    }
}
