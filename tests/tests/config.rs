//! The configuration as people meet it: shipped files load, broken ones say everything that is wrong, and no message shows a value.
//!
//! `tests/configs/valid/*.yaml` must load. Beside each `tests/configs/invalid/NAME.yaml` stands the whole text of its errors as
//! `NAME.txt`; `UPDATE_EXPECT=1` rewrites them. Does not prove that the agent does what a setting says: each part's own tests do.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use querylens::{
    cli::check,
    config::{self, Config, Lookup, reference},
};

/// An environment and files that are the same everywhere.
struct Fixed;

impl Lookup for Fixed {
    fn env(&self, name: &str) -> Result<String, String> {
        match name {
            "RING_BYTES" => Ok("65536".into()),
            "STRATEGY" => Ok("socket".into()),
            "NOT_A_NUMBER" | "SECRET" => Ok("hunter2-s3cr3t".into()),
            _ => Err("is not set".into()),
        }
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("/run/secrets/interval") => Ok("20ms\n".into()),
            Some("/run/secrets/key") => Ok("hunter2-s3cr3t\n".into()),
            _ => Err("No such file or directory (os error 2)".into()),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn update() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("configs").join(directory)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// Parses under a name without a directory, so that the errors are the same on each machine.
fn parse(name: &str, bytes: &[u8]) -> Result<Config, String> {
    config::parse(Path::new(name), bytes, &Fixed).map_err(|diagnostics| diagnostics.to_string())
}

#[test]
fn valid_files_load() {
    let files = yaml_files("valid");
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let loaded = parse("querylens.yaml", &fs::read(&file).unwrap());
        assert!(loaded.is_ok(), "{}: {}", file.display(), loaded.unwrap_err());
    }
}

#[test]
fn invalid_files_say_everything_that_is_wrong() {
    let files = yaml_files("invalid");
    assert!(files.len() >= 30, "only {} broken files", files.len());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let error = match parse(name, &fs::read(&file).unwrap()) {
            Ok(_) => panic!("{name} loads"),
            Err(error) => error + "\n",
        };
        let expected = file.with_extension("txt");
        if update() {
            fs::write(&expected, &error).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(error, expected, "{name}; if the new text is right, run again with UPDATE_EXPECT=1");
    }
}

#[test]
fn shipped_files_are_the_generated_ones() {
    for (name, generated) in [("querylens.yaml", reference::yaml()), ("querylens.schema.json", reference::schema())] {
        let file = root().join("../config").join(name);
        if update() {
            fs::write(&file, &generated).unwrap();
        }
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert!(shipped == generated, "config/{name} is stale: run `cargo xtask gen`");
    }
}

#[test]
fn the_shipped_file_is_the_defaults() {
    assert_eq!(parse("querylens.yaml", reference::yaml().as_bytes()), Ok(Config::default()));
}

/// The settings without a default stand there commented out; with their comment sign gone they are valid, or lack a value.
#[test]
fn commented_out_settings_are_known() {
    let uncommented = |line: &str| {
        let rest = line.trim_start().strip_prefix("# ")?;
        let key = rest.split_once(':').map_or(rest, |(key, _)| key).trim_start();
        let setting = key == "-" || key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        setting.then(|| line.replacen("# ", "", 1))
    };
    let reference = reference::yaml();
    let lines: Vec<String> = reference.lines().map(|line| uncommented(line).unwrap_or(line.into())).collect();
    let text = lines.join("\n");
    assert!(text.contains("\n  otlp:\n    -\n") && text.contains("\n  console:\n"), "{text}");
    let config = parse("querylens.yaml", text.as_bytes()).unwrap();
    assert_eq!(config.export.otlp, [Default::default()]);
    assert_eq!(config.export.console, Some(Default::default()));
}

#[test]
fn sections_of_comments_alone_are_the_defaults() {
    assert_eq!(parse("a.yaml", b"# nothing set\n"), Ok(Config::default()));
    assert_eq!(parse("a.yaml", b"log:\n  # level: debug\ncapture:\n"), Ok(Config::default()));
}

#[test]
fn references_give_the_value_that_stands_elsewhere() {
    let text = b"capture: { ring_bytes: { env: RING_BYTES }, strategy: { env: STRATEGY }, poll_interval: { file: /run/secrets/interval } }";
    let inline = b"capture: { ring_bytes: 65536, strategy: socket, poll_interval: 20ms }";
    let config = parse("a.yaml", text).unwrap();
    assert_eq!(config, parse("a.yaml", inline).unwrap());
    assert_ne!(config, Config::default());
}

#[test]
fn a_resolved_secret_is_not_shown() {
    let file = fs::read(root().join("configs/valid/otlp_with_secret.yaml")).unwrap();
    let config = parse("a.yaml", &file).unwrap();
    assert_eq!(config.export.otlp[0].headers.values().next().unwrap().expose(), Some("hunter2-s3cr3t"));
    let shown = format!("{config:?} {config:#?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// Scenario: a password or key is put, in every wrong form, at every key there is, as someone does who errs in the line.
/// Guarantees: whether that is an error or not, neither the errors nor the configuration's `Debug` show it.
#[test]
fn no_message_shows_a_value() {
    let secret = "hunter2-s3cr3t";
    let number = "7316950284";
    let forms = [
        secret.to_owned(),
        format!("\"{secret}\""),
        format!("[{secret}]"),
        format!("[[{secret}]]"),
        format!("{{ value: {secret} }}"),
        format!("{{ value: {{ value: {secret} }} }}"),
        format!("{{ env: {secret} }}"),
        format!("{{ file: {secret} }}"),
        "{ env: SECRET }".to_owned(),
        "{ file: /run/secrets/key }".to_owned(),
        format!("[{{ name: {secret}, value: {secret} }}]"),
        format!("!tag {secret}"),
        format!("&anchor {secret}"),
        format!("|\n {secret}"),
        format!("\"{secret}"),
        format!("'{secret}"),
        format!("{secret}: {secret}"),
        number.to_owned(),
        format!("-{number}"),
        format!("{number}.5"),
        format!("[{number}]"),
    ];
    let mut refused = 0;
    let mut keys = keys(&serde_json::from_str(&reference::schema()).unwrap());
    keys.extend([vec!["unknown".into()], vec!["log".into(), "unknown".into()]]);
    assert!(keys.iter().any(|key| key.join(".") == "export.otlp.-.tls.ca_file"), "{keys:?}");
    for key in keys {
        for form in &forms {
            let mut text = String::new();
            for (depth, key) in key.iter().enumerate() {
                let colon = if key == "-" { "" } else { ":" };
                text += &format!("{}{}{key}{colon}", if depth == 0 { "" } else { "\n" }, " ".repeat(depth));
            }
            text += &format!(" {form}\n");
            let shown = match config::parse(Path::new("a.yaml"), text.as_bytes(), &Fixed) {
                // What was set may be shown where it is no secret; a secret's type hides it.
                Ok(_) => continue,
                Err(diagnostics) => format!("{diagnostics}{diagnostics:?}"),
            };
            refused += 1;
            // As a key, a name is shown: without it an unknown key could not be told.
            let shown = shown.replace(&format!("{}.{secret}", key.join(".").replace(".-", "[0]")), "");
            for value in [secret, number, "hunter2", "s3cr3t"] {
                assert!(!shown.contains(value), "{text}\n{shown}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Every key of the schema, as steps from the root; `-` stands for an item of a list.
fn keys(schema: &serde_json::Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        found.push(vec![key.clone()]);
        let alternatives = property["anyOf"].as_array().into_iter().flatten();
        for inner in std::iter::once(property).chain(alternatives).flat_map(keys) {
            found.push(std::iter::once(key.clone()).chain(inner).collect());
        }
        for inner in keys(&property["items"]) {
            found.push([key.clone(), "-".to_owned()].into_iter().chain(inner).collect());
        }
    }
    found
}

#[test]
fn any_bytes_are_safe() {
    let reference = reference::yaml();
    for cut in 0..reference.len() {
        // Whatever comes, it does not panic; where it loads, it is a configuration that passes its own check.
        if let Ok(config) = parse("a.yaml", &reference.as_bytes()[..cut]) {
            assert_eq!(config.check().count(), 0);
        }
    }
    let _ = parse("a.yaml", &[0xff; 100]).unwrap_err();
    let _ = parse("a.yaml", "[".repeat(100_000).as_bytes()).unwrap_err();
    let _ = parse("a.yaml", "- ".repeat(100_000).as_bytes()).unwrap_err();
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let check = |file: &Path| {
        let error = config::load(Some(file), &Fixed).unwrap_err().to_string();
        error.replace(directory.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        check(&directory.path().join("missing.yaml")),
        "DIR/missing.yaml: cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(check(directory.path()), "DIR: cannot be read: Is a directory (os error 21)");
    let large = directory.path().join("large.yaml");
    fs::write(&large, "# comment\n".repeat(1024 * 1024)).unwrap();
    assert_eq!(check(&large), "DIR/large.yaml: is larger than 1048576 bytes: this is no configuration");
    let empty = directory.path().join("empty.yaml");
    fs::write(&empty, "").unwrap();
    assert_eq!(check(&empty), "DIR/empty.yaml: is empty (remove the file, or write `{}` for the defaults)");
}

#[test]
fn check_prints_problems_for_people_and_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let run = |json| {
        let mut out = Vec::new();
        let code = check::run(check::Args { file: Some(file.clone()), json }, &mut out).unwrap();
        // `ExitCode` can only be compared as text.
        (format!("{code:?}"), String::from_utf8(out).unwrap())
    };
    let (fine, unusable) =
        (format!("{:?}", std::process::ExitCode::SUCCESS), format!("{:?}", std::process::ExitCode::from(2)));

    fs::write(&file, "log: { level: debug }\n").unwrap();
    assert_eq!(run(false), (fine.clone(), format!("{}: fine\n", file.display())));
    assert_eq!(run(true), (fine, "[]\n".into()));

    fs::write(&file, "log:\n  levle: debug\n").unwrap();
    let (code, text) = run(false);
    assert_eq!(text, format!("{}:2:3: log.levle: unknown key (did you mean `level`?)\n", file.display()));
    assert_eq!(code, unusable);
    let (code, text) = run(true);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!([{
        "file": file, "line": 2, "column": 3, "key": "log.levle", "reason": "unknown key", "hint": "did you mean `level`?",
    }]);
    assert_eq!(json, expected);
    assert_eq!(code, unusable);
}

/// Guarantees: the largest file that is read is judged soon, whatever is wrong with it.
#[test]
fn the_largest_files_are_judged_soon() {
    let unknown: String = (0..75_000).map(|key| format!("key_{key}: 1\n")).collect();
    let duplicate = "log: {}\n".repeat(120_000);
    let nested = format!("log: {}\n", "[".repeat(30) + &"[],".repeat(300_000) + &"]".repeat(30));
    let items = "export:\n otlp:\n".to_owned() + &" - {x: 1}\n".repeat(90_000);
    for text in [unknown, duplicate, nested, items] {
        assert!(text.len() > 800_000 && text.len() < 1024 * 1024, "{}", text.len());
        let start = std::time::Instant::now();
        let errors = parse("a.yaml", text.as_bytes()).unwrap_err();
        assert!(errors.lines().count() <= 101);
        let elapsed = start.elapsed();
        // Takes a second without optimisation; the bound is for a machine that is busy.
        assert!(elapsed.as_secs() < 20, "{elapsed:?}: {}", errors.lines().next().unwrap_or_default());
    }
}
