//! One look at the host without watching it: what `discover` and `doctor` tell.

use std::{sync::Arc, time::Instant};

use crate::{
    capture::{Control, Features},
    config::Config,
    discovery::{Discovery, Unseen},
    model::{Instance, WireState},
};

/// What there is and what could be seen of it.
pub struct Survey {
    /// What this kernel and these privileges allow.
    pub features: Features,
    /// Servers with how their wire would be captured.
    pub servers: Vec<(Arc<Instance>, WireState)>,
    /// Processes that may be servers but could not be looked at.
    pub unseen: Vec<Unseen>,
}

/// Looks once. Loads the eBPF programs to see whether they load; all are gone again when this returns.
pub fn survey(config: &Config) -> Survey {
    let control = Control::open(&config.capture);
    let mut discovery = Discovery::new(config.discovery.clone());
    discovery.scan(Instant::now());
    let wire = |instance: &Arc<Instance>| match &control {
        Ok((control, _, _)) => control.plan(instance),
        Err(refused) => WireState { state: "hidden", strategy: "none", reason: refused.error.to_string() },
    };
    let mut servers: Vec<_> = discovery.instances().map(|instance| (Arc::clone(instance), wire(instance))).collect();
    servers.sort_by_key(|(instance, _)| (instance.engine, instance.key.pid));
    Survey {
        features: match &control {
            Ok((control, _, _)) => control.features().clone(),
            Err(refused) => refused.features.clone(),
        },
        servers,
        unseen: discovery.unseen().cloned().collect(),
    }
}
