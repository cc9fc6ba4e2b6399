//! Keeps what the processors have learnt over a restart, off the way of the data.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::signals::States;
use crate::{
    processors::Stage,
    store::{Config, Store},
};

/// Where states are kept; nowhere if the directory cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    store: Option<Arc<Store>>,
    interval: Duration,
    last: Instant,
}

impl Keeping {
    /// Opens the store. That it cannot be opened costs memory of the past, not the agent.
    pub(super) fn open(config: &Config) -> Keeping {
        let store = match Store::open(&config.directory) {
            Ok((store, note)) => {
                note.iter().for_each(|note| warn!("{note}"));
                Some(Arc::new(store))
            }
            Err(error) => {
                warn!("nothing is kept over a restart: {error}");
                None
            }
        };
        Keeping { store, interval: config.save_interval.0, last: Instant::now() }
    }

    /// What was kept. A state that cannot be read is left out, and told.
    pub(super) fn load(&self) -> States {
        let Some(store) = &self.store else { return States::new() };
        let kept = store.load().unwrap_or_else(|error| {
            warn!("what was kept cannot be read: {error}");
            BTreeMap::new()
        });
        let states = Stage::ORDER.into_iter().filter_map(|stage| {
            let bytes = kept.get(stage.name())?;
            match serde_json::from_slice(bytes) {
                Ok(state) => Some((stage, state)),
                Err(error) => {
                    warn!(stage = stage.name(), %error, "what was kept cannot be read");
                    None
                }
            }
        });
        let states: States = states.collect();
        if !states.is_empty() {
            info!(stages = states.len(), "taken up what was learnt before the restart");
        }
        states
    }

    /// Whether it is time to save.
    pub(super) fn due(&self) -> bool {
        self.store.is_some() && self.last.elapsed() >= self.interval
    }

    /// Keeps `states`. Takes some milliseconds for the disk, once in a while.
    pub(super) fn save(&mut self, states: &States) {
        self.last = Instant::now();
        let Some(store) = &self.store else { return };
        let bytes = states.iter().filter_map(|(stage, state)| match serde_json::to_vec(state) {
            Ok(bytes) => Some((stage.name().to_owned(), bytes)),
            Err(error) => {
                error!(stage = stage.name(), %error, "what was learnt cannot be kept");
                None
            }
        });
        let bytes: BTreeMap<String, Vec<u8>> = bytes.collect();
        if let Err(error) = tokio::task::block_in_place(|| store.save(&bytes)) {
            error!("what was learnt cannot be kept: {error}");
        }
    }
}
