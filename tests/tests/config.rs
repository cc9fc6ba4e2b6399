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
    config::{self, Config, Loaded, Lookup, Profile, Stamp, Wanted, reference},
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
    for (name, generated) in [
        ("config/querylens.yaml", reference::yaml()),
        ("config/querylens.schema.json", reference::schema()),
        ("docs/reference/configuration.md", reference::markdown()),
    ] {
        let file = root().join("..").join(name);
        if update() {
            fs::write(&file, &generated).unwrap();
        }
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert!(shipped == generated, "{name} is stale: run this test again with UPDATE_EXPECT=1");
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
    // Not at each byte: that would take minutes.
    for cut in (0..reference.len()).step_by(17) {
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
        let wanted = Wanted { file: Some(file.into()), settings: Vec::new() };
        let error = config::load(&wanted, &Fixed).unwrap_err().to_string();
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
        let args = check::Args { file: Some(file.clone()), json, ..check::Args::default() };
        let code = check::run(args, &mut out).unwrap();
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

/// A folder with a configuration file and drop-ins.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("querylens.d")).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path(name), text).unwrap());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn wanted(&self, settings: &[&str]) -> Wanted {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Wanted { file: Some(self.path("querylens.yaml")), settings }
    }

    fn load(&self, settings: &[&str]) -> Result<Loaded, String> {
        let hide = |text: String| text.replace(self.0.path().to_str().unwrap(), "DIR");
        config::load(&self.wanted(settings), &Fixed).map_err(|diagnostics| hide(diagnostics.to_string()))
    }

    /// What is in effect at `key`: value and origin.
    fn effective(&self, settings: &[&str], key: &str) -> (String, String) {
        let loaded = self.load(settings).unwrap();
        let all = loaded.origins.settings(&loaded.config).unwrap();
        let found = all.into_iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("{key}"));
        (found.value.to_string(), found.origin.replace(self.0.path().to_str().unwrap(), "DIR"))
    }
}

/// Guarantees: defaults, profiles, the file, drop-ins by name and the command line lie over one another in this order, key by key, and each setting tells
/// where it came from.
#[test]
fn the_stronger_layer_wins_and_says_so() {
    let folder = Folder::new(&[
        ("querylens.yaml", "profiles: [production]\nlog: { level: warn }\naggregate:\n  max_sessions: 7\n"),
        ("querylens.d/20-late.yaml", "log:\n  level: error\n"),
        ("querylens.d/10-early.yaml", "log:\n  level: debug\naggregate: { max_statements: 5 }\n"),
        ("querylens.d/note.txt", "no configuration"),
    ]);
    let at = |settings: &[&str], key| folder.effective(settings, key);
    let told = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(at(&[], "log.level"), told("\"error\"", "DIR/querylens.d/20-late.yaml:2"));
    assert_eq!(at(&["log.level=trace"], "log.level"), told("\"trace\"", "--set"));
    assert_eq!(at(&[], "log.format"), told("\"json\"", "profile production:4"));
    assert_eq!(at(&[], "aggregate.max_sessions"), told("7", "DIR/querylens.yaml:4"));
    assert_eq!(at(&[], "aggregate.max_statements"), told("5", "DIR/querylens.d/10-early.yaml:3"));
    assert_eq!(at(&[], "capture.ring_bytes"), told("8388608", "default"));
    // Profiles that the command line names stand in place of the file's, the stronger last.
    let both = ["profiles=[development, minimal]"];
    assert_eq!(at(&both, "capture.record_one_in"), told("0", "profile minimal:8"));
    assert_eq!(at(&both, "log.format"), told("\"text\"", "profile development:4"));
    assert_eq!(at(&both, "log.level"), told("\"error\"", "DIR/querylens.d/20-late.yaml:2"));
}

#[test]
fn lists_and_references_are_replaced_as_a_whole() {
    let folder = Folder::new(&[
        (
            "querylens.yaml",
            "export:\n  otlp: [{ endpoint: 'http://a:1' }]\ncapture: { ring_bytes: { env: RING_BYTES } }\n",
        ),
        ("querylens.d/a.yaml", "export: { otlp: [] }\ncapture: { poll_interval: { file: /run/secrets/interval } }\n"),
        ("querylens.d/b.yaml", "capture:\nlog:\n  # level: debug\n"),
    ]);
    let config = folder.load(&[]).unwrap().config;
    assert_eq!((config.export.otlp.len(), config.capture.ring_bytes), (0, 65_536));
    assert_eq!(config.capture.poll_interval, "20ms".parse().unwrap());
    assert_eq!(folder.load(&["capture.ring_bytes=131072"]).unwrap().config.capture.ring_bytes, 131_072);
}

#[test]
fn problems_name_their_layer() {
    let folder = Folder::new(&[
        ("querylens.yaml", "log: { levle: x }\n"),
        ("querylens.d/a.yaml", "capture: { ring_bytes: 5 }\n"),
        ("querylens.d/b.yaml", ""),
    ]);
    let error = folder
        .load(&["aggregate.max_sessions=none", "export.otlp[0].endpoint=x", "log", "log.level: x=3"])
        .unwrap_err();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "DIR/querylens.yaml:1:8: log.levle: unknown key (did you mean `level`?)",
            "DIR/querylens.d/a.yaml:1:24: capture.ring_bytes: out of range: must be from 4096 to 1073741824",
            "DIR/querylens.d/b.yaml: is empty (remove the file, or write `{}` for the defaults)",
            "--set: aggregate.max_sessions: expected a whole number from 1 to 1000000, found a string",
            "--set: expected KEY=VALUE, e.g. `log.level=debug`; a list is set as a whole",
            "--set: expected KEY=VALUE, e.g. `log.level=debug`; a list is set as a whole",
            "--set: log.<not a plain name>: unknown key (did you mean `level`?)",
        ]
    );
    let error = Folder::new(&[("querylens.yaml", "profiles: [prod]\n")]).load(&[]).unwrap_err();
    assert!(error.contains("querylens.yaml:1:12: profiles[0]: not an allowed value"), "{error}");
}

/// Guarantees: each profile loads alone and with each other one, changes something, and only what a profile may.
#[test]
fn shipped_profiles_load() {
    let files = fs::read_dir(root().join("../config/profiles")).unwrap().count();
    assert_eq!(files, Profile::ALL.len());
    let load = |profiles: &[Profile]| {
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name()).collect();
        let text = format!("profiles: [{}]\n", names.join(", "));
        let config = config::parse(Path::new("a.yaml"), text.as_bytes(), &Keyed);
        Config { profiles: Vec::new(), ..config.unwrap_or_else(|error| panic!("{text}{error}")) }
    };
    for first in Profile::ALL {
        // Prometheus is what the defaults are for; its profile pins them.
        assert!(load(&[first]) != Config::default() || first == Profile::Prometheus, "{}", first.name());
        assert!(!first.text().contains("profiles:"), "{}", first.name());
        Profile::ALL.into_iter().for_each(|second| drop(load(&[first, second])));
    }
    let error = config::parse(Path::new("a.yaml"), b"profiles: [newrelic]\n", &Fixed).unwrap_err().to_string();
    assert_eq!(
        error,
        "profile newrelic:9:27: export.otlp[0].headers.api-key: environment variable `NEW_RELIC_LICENSE_KEY` is not set"
    );
}

/// As [`Fixed`], with New Relic's key.
struct Keyed;

impl Lookup for Keyed {
    fn env(&self, name: &str) -> Result<String, String> {
        match name {
            "NEW_RELIC_LICENSE_KEY" => Ok("hunter2-s3cr3t".into()),
            name => Fixed.env(name),
        }
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        Fixed.file(path)
    }
}

/// Guarantees: what `check --print` prints is a configuration with the same effect, and shows no secret.
#[test]
fn the_effective_configuration_can_be_loaded_again() {
    let text =
        "export:\n  otlp:\n    - headers: { api-key: { env: SECRET } }\n      interval: 30s\nlog: { level: debug }\n";
    let folder = Folder::new(&[("querylens.yaml", text)]);
    let loaded = folder.load(&["profiles=[staging]"]).unwrap();
    let printed = loaded.origins.yaml(&loaded.config).unwrap();
    assert!(!printed.contains("hunter2") && printed.contains("# profile staging:"), "{printed}");
    let mut again = parse("printed.yaml", printed.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.export.otlp[0].headers.len(), 1);
    again.export.otlp[0].headers = loaded.config.export.otlp[0].headers.clone();
    assert_eq!(again, loaded.config);
}

#[test]
fn a_change_of_any_file_is_seen() {
    let folder = Folder::new(&[("querylens.yaml", "log: {}\n")]);
    let wanted = folder.wanted(&[]);
    let mut before = Stamp::of(&wanted);
    assert_eq!(before, Stamp::of(&wanted));
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(folder.path("querylens.yaml"), "log: { level: debug }\n").unwrap(),
        &|| fs::write(folder.path("querylens.d/a.yaml"), "log: {}\n").unwrap(),
        &|| {
            fs::write(folder.path("new"), "log: {}\n").unwrap();
            fs::rename(folder.path("new"), folder.path("querylens.d/a.yaml")).unwrap();
        },
        &|| fs::remove_file(folder.path("querylens.yaml")).unwrap(),
    ];
    for (at, change) in changes.iter().enumerate() {
        change();
        let after = Stamp::of(&wanted);
        assert_ne!(after, before, "change {at}");
        before = after;
    }
}
