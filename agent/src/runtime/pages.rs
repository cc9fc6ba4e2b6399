//! What the HTTP end points show.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;

use super::{Error, Snapshots};
use crate::{
    config::Config,
    export::{self, prometheus},
    health::{
        Status,
        http::{Page, Source},
    },
    model::Snapshot,
};

/// What the HTTP end points show.
pub(super) struct Pages {
    snapshots: Snapshots,
    /// The threads that render pages wait for snapshots on this runtime.
    handle: Handle,
    prometheus: Option<Mutex<prometheus::Exporter>>,
}

impl Pages {
    pub(super) fn new(config: &Config, host: export::Host, snapshots: Snapshots) -> Pages {
        let exporter = config.export.prometheus.enabled.then(|| {
            let duration = config.export.operation_duration_name;
            Mutex::new(prometheus::Exporter::new(config.export.prometheus.clone(), duration, host))
        });
        Pages { snapshots, handle: Handle::current(), prometheus: exporter }
    }

    fn take(&self) -> Result<Snapshot, Error> {
        self.handle.block_on(self.snapshots.take())
    }
}

impl Source for Pages {
    fn metrics(&self, accept: &str) -> Option<Page> {
        let exporter = self.prometheus.as_ref()?;
        let snapshot = self.take().ok()?;
        let format = prometheus::Format::negotiate(accept);
        let body = exporter.lock().unwrap_or_else(PoisonError::into_inner).render(&snapshot, format);
        Some(Page { content_type: format.content_type(), body })
    }

    fn status(&self, top: Option<usize>) -> Option<Status> {
        self.take().ok().map(|snapshot| Status::new(&snapshot, top))
    }

    fn dead(&self) -> Vec<String> {
        self.take().err().map(|error| error.to_string()).into_iter().collect()
    }

    fn unready(&self) -> Vec<String> {
        self.dead()
    }
}
