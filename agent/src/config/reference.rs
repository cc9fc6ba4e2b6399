//! The commented defaults and the JSON Schema, both generated from the structs, so that neither can say what is not so.

use std::{fmt::Write, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Config, tree::Type};

/// Width of the comments in the commented defaults.
const WIDTH: usize = 110;

const HEAD: &str = "\
Querylens: every setting with its default. The agent needs none of them.

In place of any single value may stand where to read it: `{ env: NAME }` for an environment variable, `{ file: /PATH }` for a file.
`querylens check FILE` tells everything that is wrong with a file, with line and column; `querylens check --print` shows what is in effect,
and where each setting came from. Files in a folder beside this one, of the same name with `.d` for `.yaml`, are laid over it in the order of their
names.";

const PAGE_HEAD: &str = "\
# Configuration

Generated from the agent's own types; `config/querylens.yaml` has the same as a file, `config/querylens.schema.json` for editors.

The agent needs no configuration. What is set lies in layers, each stronger than the one before: defaults; the profiles that `profiles` or `--profile`
names (`config/profiles/`); the file, `/etc/querylens/querylens.yaml` unless `--config` names another; the files in the folder beside it of the same name with `.d`
for `.yaml`, by name; `--set KEY=VALUE`. Sections are laid over one another key by key; values and lists are replaced as a whole. In place of any single
value may stand `{ env: NAME }` or `{ file: /PATH }`.

`querylens check` tells everything that is wrong, with file, line and key; `querylens check --print` shows what is in effect, and where each setting came from.
A running agent takes up changes by itself within seconds, at SIGHUP and at `querylens admin reload`; a configuration that is broken or cannot be started leaves
the old one in effect. `discovery`, `capture`, `aggregate`, `state`, `health.admin_socket` and `processors.circuit_breaker` take effect at the next start; the log says so.
";

/// The commented defaults: `config/querylens.yaml`.
pub fn yaml() -> String {
    let mut lines = Vec::new();
    comment(HEAD, &mut lines);
    for (key, property) in properties(generated()).into_iter().flatten() {
        lines.push(String::new());
        setting(key, property, false, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The JSON Schema, for editors: `config/querylens.schema.json`.
pub fn schema() -> String {
    let mut schema = generated().clone();
    accept_references(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.shift_insert(0, "title".into(), "Querylens configuration".into());
        root.insert("$defs".into(), json!({ "reference": reference() }));
    }
    let mut text = format!("{schema:#}");
    text.push('\n');
    text
}

/// The reference page: `docs/reference/configuration.md`.
pub fn markdown() -> String {
    let mut page = String::from(PAGE_HEAD);
    for (key, property) in properties(generated()).into_iter().flatten() {
        let _ = write!(page, "\n## `{key}`\n\n{}\n\n", property["description"].as_str().unwrap_or_default());
        page.push_str("| Key | Default | What it is |\n|---|---|---|\n");
        rows(key, property, &mut page);
    }
    page
}

/// Rows of the table: of a section those of its keys, of a value its own.
fn rows(path: &str, schema: &Value, page: &mut String) {
    let items = properties(&schema["items"]);
    if let Some(properties) = properties(schema).or(items) {
        let path = if items.is_some() { format!("{path}[]") } else { path.to_owned() };
        properties.iter().for_each(|(key, property)| rows(&format!("{path}.{key}"), property, page));
        return;
    }
    let mut lines = Vec::new();
    comment(schema["description"].as_str().unwrap_or_default(), &mut lines);
    allowed(content(schema), &mut lines);
    let text: Vec<&str> = lines.iter().map(|line| line.trim_start_matches('#').trim()).collect();
    let default = match &schema["default"] {
        Value::Null => String::from("none"),
        default => format!("`{}`", flow(default)),
    };
    let cell = |text: &str| text.replace('|', "\\|");
    let _ = writeln!(page, "| `{path}` | {} | {} |", cell(&default), cell(&text.join(" ")));
}

/// Every key that can be set, as a path from the root.
pub(super) fn keys() -> Vec<String> {
    fn walk(schema: &Value, prefix: &str, keys: &mut Vec<String>) {
        for (key, property) in properties(schema).into_iter().flatten() {
            let path = format!("{prefix}{key}");
            walk(property, &format!("{path}."), keys);
            walk(&property["items"], &format!("{path}."), keys);
            keys.push(path);
        }
    }
    let mut keys = Vec::new();
    walk(generated(), "", &mut keys);
    keys
}

/// The range of the whole number at `path`, where its part gives one.
pub(super) fn range(path: &str) -> Option<(i128, i128)> {
    let root = generated();
    let schema = path.split('.').try_fold(root, |schema, step| {
        let (key, index) = step.split_once('[').map_or((step, None), |(key, index)| (key, Some(index)));
        let property = properties(schema)?.get(key)?;
        Some(if index.is_some() { &property["items"] } else { property })
    })?;
    let bound = |name| content(schema)[name].as_i64().map(i128::from);
    Some((bound("minimum")?, bound("maximum")?))
}

/// Made once: errors ask it for the range and the place of keys.
fn generated() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        settings.into_generator().into_root_schema_for::<Config>().to_value()
    });
    &SCHEMA
}

/// The schema without the alternative "or nothing" of an optional value.
fn content(schema: &Value) -> &Value {
    let is_null = |schema: &Value| schema["type"] == "null";
    match schema["anyOf"].as_array().map(Vec::as_slice) {
        Some([one, other]) if is_null(other) => one,
        Some([other, one]) if is_null(other) => one,
        _ => schema,
    }
}

/// The keys of a section; `None` for a single value, a list or a map with free keys.
fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    content(schema)["properties"].as_object()
}

/// A setting with its comment; commented out where the default is nothing, or a list of sections, of which one is shown. What such a section must have is
/// shown with an example.
fn setting(key: &str, schema: &Value, required: bool, lines: &mut Vec<String>) {
    comment(schema["description"].as_str().unwrap_or_default(), lines);
    allowed(content(schema), lines);
    let default = &schema["default"];
    let items = properties(&schema["items"]);
    let off = if !required && default.is_null() || items.is_some() { "# " } else { "" };
    let Some(properties) = properties(schema).or(items) else {
        let value = match (default, schema["examples"].get(0)) {
            (Value::Null, Some(example)) => format!(" {}", flow(example)),
            (Value::Null, None) => String::new(),
            (default, _) => format!(" {}", flow(default)),
        };
        lines.push(format!("{off}{key}:{value}"));
        return;
    };
    lines.push(format!("{off}{key}:"));
    let of = if items.is_some() { &schema["items"] } else { content(schema) };
    let is_required = |key: &str| of["required"].as_array().is_some_and(|keys| keys.iter().any(|name| name == key));
    let mut inner = Vec::new();
    for (key, property) in properties {
        setting(key, property, is_required(key), &mut inner);
    }
    let mut indent = "  ";
    if items.is_some() {
        lines.push(format!("{off}  -"));
        indent = "    ";
    }
    lines.extend(inner.into_iter().map(|line| format!("{off}{indent}{line}")));
}

/// Allowed values and range.
fn allowed(schema: &Value, lines: &mut Vec<String>) {
    for value in schema["oneOf"].as_array().into_iter().flatten() {
        let description = value["description"].as_str().unwrap_or_default();
        comment(&format!("- {}: {description}", flow(&value["const"])), lines);
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().filter(|value| !value.is_null()).map(flow).collect();
        comment(&format!("Allowed: {}", values.join(", ")), lines);
    }
    if let (Some(min), Some(max)) = (schema.get("minimum"), schema.get("maximum")) {
        comment(&format!("From {min} to {max}."), lines);
    }
}

/// `text` as comment lines, filled up to [`WIDTH`]; what stands in backticks is not broken.
fn comment(text: &str, lines: &mut Vec<String>) {
    if text.is_empty() {
        return;
    }
    for paragraph in text.split("\n\n") {
        if paragraph.as_ptr() != text.as_ptr() {
            lines.push("#".into());
        }
        let mut line = String::from("#");
        let mut code = false;
        let words = paragraph.split(|character: char| {
            code ^= character == '`';
            character.is_whitespace() && !code
        });
        for word in words.filter(|word| !word.is_empty()) {
            if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
                lines.push(std::mem::replace(&mut line, "#".into()));
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push(line);
    }
}

/// A value on one line of YAML.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "~".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let first = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
            let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte));
            let plain = first && rest && !text.ends_with(':') && Type::of_plain(text) == Type::String;
            if plain { text.clone() } else { value.to_string() }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".into(),
        Value::Object(entries) => {
            let mut text = String::from("{");
            for (at, (key, value)) in entries.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma} {}: {}", flow(&Value::String(key.clone())), flow(value));
            }
            text + " }"
        }
    }
}

/// `{ env: NAME }` or `{ file: PATH }`.
fn reference() -> Value {
    let place = |key: &str, description: &str| {
        json!({
            "type": "object",
            "description": description,
            "properties": { key: { "type": "string" } },
            "required": [key],
            "additionalProperties": false,
        })
    };
    json!({
        "description": "Where to read the value.",
        "oneOf": [place("env", "An environment variable."), place("file", "A file; a line break at its end is left out.")],
    })
}

/// Lets a reference stand in place of each single value beneath `schema`, and nothing in place of each section.
fn accept_references(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(accept_references),
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                if key == "properties" {
                    inner.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(accept_references);
                } else if matches!(key.as_str(), "items" | "additionalProperties" | "anyOf") {
                    accept_references(inner);
                }
            }
            let of_type = |wanted: &[&str]| match object.get("type") {
                Some(Value::String(own)) => wanted.contains(&own.as_str()),
                Some(Value::Array(own)) => own.iter().any(|own| wanted.iter().any(|wanted| own == wanted)),
                _ => false,
            };
            if of_type(&["string", "integer", "number", "boolean"]) || object.contains_key("oneOf") {
                let annotations = ["description", "default", "examples"];
                let mut outer = Map::new();
                for annotation in annotations {
                    if let Some(value) = object.remove(annotation) {
                        outer.insert(annotation.into(), value);
                    }
                }
                let inner = Value::Object(std::mem::take(object));
                outer.insert("anyOf".into(), json!([inner, { "$ref": "#/$defs/reference" }]));
                *object = outer;
            } else if object.contains_key("properties") && object.get("type") == Some(&json!("object")) {
                object.insert("type".into(), json!(["object", "null"]));
            }
        }
        _ => {}
    }
}
