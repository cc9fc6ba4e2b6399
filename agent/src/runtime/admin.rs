//! What the admin socket shows and does.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::mpsc};

use super::{Snapshots, clock};
use crate::{
    health::{
        Status,
        admin::{Admin, Asker, Circuit},
        audit::{Act, Audit},
    },
    processors::breaker::Gate,
};

/// The agent, as its admin sees it.
pub(super) struct Desk {
    pub(super) snapshots: Snapshots,
    pub(super) gate: Gate,
    pub(super) audit: Arc<Audit>,
    /// The effective configuration as YAML.
    pub(super) config: Arc<Mutex<String>>,
    pub(super) reload: mpsc::Sender<()>,
    /// The threads that answer wait for snapshots on this runtime.
    pub(super) handle: Handle,
}

impl Admin for Desk {
    fn status(&self) -> Option<Value> {
        let snapshot = self.handle.block_on(self.snapshots.take()).ok()?;
        serde_json::to_value(Status::new(&snapshot, None)).ok()
    }

    fn breakers(&self) -> Value {
        let now = clock::now();
        let circuits = self.gate.lock().status();
        let shown = circuits.into_iter().map(|circuit| {
            let open = circuit.open.map(
                |(failure, until)| json!({ "failure": failure.name(), "seconds_left": until.since(now).as_secs_f64() }),
            );
            json!({
                "instance": circuit.instance,
                "question": circuit.question,
                "state": circuit.state.name(),
                "open": open,
                "failures": circuit.failures,
                "timeout_seconds": circuit.timeout.as_secs_f64(),
            })
        });
        shown.collect()
    }

    fn processors(&self) -> Value {
        let measured = self.snapshots.board.read();
        let shown = measured.iter().map(|point| {
            let attributes: serde_json::Map<String, Value> =
                point.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.as_ref().into())).collect();
            json!({ "metric": point.metric.name, "attributes": attributes, "value": point.value })
        });
        shown.collect()
    }

    fn config(&self, asker: Asker) -> String {
        self.audit.note(Act::ConfigShown, "done", Some(asker.uid), "");
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn force(&self, circuit: &Circuit, open: bool, asker: Asker) {
        self.gate.lock().force(clock::now(), circuit.instance, circuit.question.as_deref(), open);
        let act = if open { Act::BreakerOpened } else { Act::BreakerClosed };
        self.audit.note(act, "done", Some(asker.uid), &circuit.instance.to_string());
    }

    fn reload(&self, asker: Asker) -> bool {
        let asked = self.reload.try_send(()).is_ok();
        self.audit.note(Act::Reload, if asked { "asked" } else { "asked already" }, Some(asker.uid), "admin socket");
        asked
    }
}
