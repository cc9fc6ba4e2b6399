//! The breaker's face in the chain.

use serde_json::Value;
use uuid::Uuid;

use super::Gate;
use crate::{
    model::{
        Batch, Signal, Timestamp,
        signal::{Circuit, PlanSource, Reason, Sifted},
    },
    processors::{Effects, Measures, Processor, Stage, StateError, state},
};

/// Marks each record with the state of its server's circuit. What was asked of a server while its circuit was open already is late or partial, and goes;
/// what was seen on the wire stays.
#[derive(Debug)]
pub struct Marker {
    gate: Gate,
}

impl Marker {
    /// The marker of this gate.
    pub fn new(gate: Gate) -> Marker {
        Marker { gate }
    }
}

/// Whether the server was asked for it.
fn was_asked(signal: &Signal) -> bool {
    match signal {
        Signal::Activity(_) | Signal::Blocking(_) | Signal::Fact(_) => true,
        Signal::Plan(plan) => plan.source == PlanSource::Explain,
        Signal::Interval(_) | Signal::Execution(_) | Signal::Finding(_) => false,
    }
}

impl Processor for Marker {
    fn stage(&self) -> Stage {
        Stage::CircuitBreaker
    }

    fn process(&mut self, _now: Timestamp, batch: &mut Batch, _effects: &mut Effects) {
        let breaker = self.gate.lock();
        // Records of a server mostly stand together.
        let mut last: Option<(Uuid, Circuit, Option<Timestamp>)> = None;
        batch.sift(|record| {
            let instance = record.origin.instance.service_instance_id;
            let (circuit, since) = match last {
                Some((known, circuit, since)) if known == instance => (circuit, since),
                _ => breaker.state(instance),
            };
            last = Some((instance, circuit, since));
            record.circuit = circuit;
            let late = since.is_some_and(|since| record.at >= since);
            if late && was_asked(&record.signal) { Sifted::Discard(Reason::CircuitOpen) } else { Sifted::Keep }
        });
    }

    fn measure(&self, measures: &mut Measures) {
        self.gate.lock().measure(measures);
    }

    fn export_state(&self, moment: state::Moment) -> Option<Result<Value, StateError>> {
        self.gate.export(moment)
    }

    fn import_state(&mut self, moment: state::Moment, state: Value) -> Result<(), StateError> {
        let state = state::import(Stage::CircuitBreaker, state)?;
        self.gate.lock().import_state(moment, state);
        Ok(())
    }
}
