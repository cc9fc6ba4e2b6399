//! The recorded streams below tests/wire.

use std::{fs, path::PathBuf, sync::OnceLock};

use anyhow::{Context, Result, ensure};
use querylens::model::Engine;

use crate::stream::Fixture;

/// A recorded stream, where it is and of which engine.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its file.
    pub path: PathBuf,
    /// The server's engine.
    pub engine: Engine,
    /// What happened and what it must decode to.
    pub fixture: Fixture,
}

/// All of them, in the order of their paths. Panics if one cannot be read: every test that asks needs them.
pub fn recorded() -> &'static [Recorded] {
    static RECORDED: OnceLock<Vec<Recorded>> = OnceLock::new();
    RECORDED.get_or_init(|| load().unwrap_or_else(|error| panic!("{error:#}")))
}

fn load() -> Result<Vec<Recorded>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wire");
    let mut all = Vec::new();
    for (folder, engine) in [("postgres", Engine::Postgresql), ("mysql", Engine::Mysql), ("mariadb", Engine::Mariadb)] {
        let folder = root.join(folder);
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "stream") {
                let text = fs::read_to_string(&path)?;
                let fixture = Fixture::parse(&text).with_context(|| format!("{}", path.display()))?;
                all.push(Recorded { path, engine, fixture });
            }
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    ensure!(!all.is_empty(), "no recorded stream below {}", root.display());
    Ok(all)
}
