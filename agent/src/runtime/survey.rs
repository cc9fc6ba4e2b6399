//! One look at the host without watching it: what `discover` and `doctor` tell.

use std::{collections::HashMap, io, sync::Arc, time::Instant};

use tokio::task::JoinSet;

use crate::{
    capture::{Control, Features},
    collect::{Collector, Open},
    config::Config,
    discovery::{Discovery, Unseen},
    model::{Collected, Instance, ServerKey, WireState},
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

/// Logs in to each server once, and tells what could be asked of it. All connections are closed when this returns.
pub fn explain(
    config: &Config,
    servers: impl IntoIterator<Item = Arc<Instance>>,
) -> io::Result<HashMap<ServerKey, Collected>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let collect = Arc::new(config.collect.clone());
    Ok(runtime.block_on(async {
        let mut looks = JoinSet::new();
        for instance in servers {
            let key = instance.key;
            let proc_root = config.discovery.proc_root.clone();
            let (collector, answers) = Collector::new(instance, Arc::clone(&collect), proc_root, Arc::new(Open));
            looks.spawn(async move {
                let collected = collector.explain().await;
                drop(answers);
                (key, collected)
            });
        }
        looks.join_all().await.into_iter().collect()
    }))
}
