//! Reading of any shape that a part may use, beside those that it uses now.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, num::NonZeroU16, path::Path};

use serde::Deserialize;

use super::{
    Lookup,
    layers::Layer,
    read::read_rest,
    tree::{self, Source},
};
use crate::model::{HumanDuration, Secret};

struct Fixed;

impl Lookup for Fixed {
    fn env(&self, name: &str) -> Result<String, String> {
        match name {
            "KEY" => Ok("hunter2".into()),
            "NUMBER" => Ok("7".into()),
            "TRUE" => Ok("true".into()),
            _ => Err("is not set".into()),
        }
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("/key") => Ok("hunter2\r\n".into()),
            _ => Err("No such file or directory (os error 2)".into()),
        }
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shapes {
    key: Option<Secret>,
    headers: BTreeMap<String, Secret>,
    rules: Vec<Rule>,
    output: Output,
    flag: bool,
    share: f64,
    port: Option<NonZeroU16>,
    wait: HumanDuration,
    name: String,
    pair: (u8, i8),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    #[serde(default)]
    limit: u8,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Output {
    #[default]
    Nothing,
    File(String),
    Server {
        host: String,
    },
}

fn read(text: &str) -> Result<Shapes, Vec<String>> {
    let (mut findings, mut left_out) = (Vec::new(), Vec::new());
    let mut root = tree::read(text, Source(0), &mut findings).unwrap();
    let shapes = read_rest(&mut root, &Fixed, &mut findings, &mut left_out);
    if findings.is_empty() {
        return Ok(shapes.unwrap());
    }
    Err(super::Diagnostics::new(&[Layer::File("f".into())], findings).0.iter().map(ToString::to_string).collect())
}

#[test]
fn every_shape_is_read() {
    let shapes = read(concat!(
        "key: {env: KEY}\nheaders: {a: {file: /key}, b: plain, c: '7'}\n",
        "rules: [{name: one}, {name: two, limit: {env: NUMBER}}]\noutput: {server: {host: h}}\n",
        "flag: {env: TRUE}\nshare: 1\nport: 80\nwait: 1m30s\nname: {env: NUMBER}\npair: [1, -1]\n",
    ))
    .unwrap();
    let secret = |value: &str| Secret::from_value(value);
    let headers = [("a", "hunter2"), ("b", "plain"), ("c", "7")];
    let expected = Shapes {
        key: Some(secret("hunter2")),
        headers: headers.map(|(name, value)| (name.to_owned(), secret(value))).into(),
        rules: vec![Rule { name: "one".into(), limit: 0 }, Rule { name: "two".into(), limit: 7 }],
        output: Output::Server { host: "h".into() },
        flag: true,
        share: 1.0,
        port: NonZeroU16::new(80),
        wait: HumanDuration::from_secs(90),
        name: "7".into(),
        pair: (1, -1),
    };
    assert_eq!(shapes, expected);
    assert!(!format!("{shapes:?}").contains("hunter2"));
}

#[test]
fn alternatives_of_an_enum() {
    assert_eq!(read("output: nothing").unwrap().output, Output::Nothing);
    assert_eq!(
        read("output: {file: /tmp/x}").unwrap_err(),
        ["f:1:9: output: file `/tmp/x`: No such file or directory (os error 2)"]
    );
    assert_eq!(read("output: file").unwrap_err(), ["f:1:9: output: expected a map with the key `file`"]);
    assert_eq!(
        read("output: {servr: {host: h}}").unwrap_err(),
        ["f:1:9: output: expected one name, found a map (allowed: nothing, file, server)"]
    );
    assert_eq!(
        read("output: {server: {hots: h}}").unwrap_err(),
        ["f:1:19: output.server.hots: unknown key (did you mean `host`?)"]
    );
}

#[test]
fn nothing_is_an_empty_list_or_map() {
    assert_eq!(read("rules:\nheaders:\nkey:\nport: ~\n").unwrap(), Shapes::default());
}

#[test]
fn items_of_a_list_keep_their_number() {
    let errors = read("rules:\n- {limit: 300}\n- {nam: x}\n- name: [x]\n- {name: ok, limit: x}\n- 5\n").unwrap_err();
    assert_eq!(
        errors,
        [
            "f:2:3: rules[0]: lacks the key `name`",
            "f:2:11: rules[0].limit: out of range: must be from 0 to 255",
            "f:3:4: rules[1].nam: unknown key (did you mean `name`?)",
            "f:4:9: rules[2].name: expected a string, found a list",
            "f:5:21: rules[3].limit: expected a whole number from 0 to 255, found a string",
            "f:6:3: rules[4]: expected a map, found an integer (keys: name, limit)",
        ]
    );
}

/// Scenario: a secret of the wrong type, at the wrong key, as a key, as a name of what holds it.
/// Guarantees: the error says where and what was expected, and does not show it.
#[test]
fn secrets_are_not_shown() {
    for (text, error) in [
        (
            "key: 4711",
            "f:1:6: key: expected a text, `{ env: NAME }` or `{ file: PATH }`, found number (quote it to make it a text)",
        ),
        ("key: [hunter2]", "f:1:6: key: expected a text, `{ env: NAME }` or `{ file: PATH }`, found a list"),
        ("key: {vault: hunter2}", "f:1:7: key.vault: unknown key (known keys: env, file)"),
        ("key: {env: UNSET}", "f:1:6: key: environment variable `UNSET` is not set"),
        (
            "key: {env: 'hunter2!'}",
            "f:1:6: key: `env` must be the name of an environment variable: letters, digits and `_`",
        ),
        ("key: {env: {hunter2: x}}", "f:1:6: key: expected a name after `env` or `file`, found a map"),
        ("key: {file: hunter2}", "f:1:6: key: `file` must be an absolute path"),
        ("key: ${HUNTER2}", "f:1:6: key: `${...}` is not replaced here (write `{ env: NAME }`)"),
        (
            "wait: hunter2",
            "f:1:7: wait: `…` is not a duration: a number is missing; write a whole number and a unit (ns, us, ms, s, m, h, d), e.g. `10s` or `1m30s`",
        ),
        (
            "wait: {env: KEY}",
            "f:1:7: wait: `…` is not a duration: a number is missing; write a whole number and a unit (ns, us, ms, s, m, h, d), e.g. `10s` or `1m30s`",
        ),
        ("flag: hunter2", "f:1:7: flag: expected true or false, found a string"),
        ("flag: {file: /key}", "f:1:7: flag: expected true or false, found a string"),
        ("share: hunter2", "f:1:8: share: expected a number, found a string"),
        ("share: {env: KEY}", "f:1:8: share: expected a number"),
        ("share: .nan", "f:1:8: share: expected a number"),
        ("port: 0", "f:1:7: port: not allowed: expected a nonzero u16"),
        ("name: 4711", "f:1:7: name: expected a string, found an integer (put it in quotes)"),
        ("pair: [1]", "f:1:7: pair: has 1 items: expected a tuple of size 2"),
        ("output: hunter2", "f:1:9: output: not an allowed value (allowed: nothing, file, server)"),
        (
            "'hunter2 !': 1",
            "f:1:1: <not a plain name>: unknown key (known keys: key, headers, rules, output, flag, share, port, wait, name, pair)",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), [error], "{text}");
    }
}
