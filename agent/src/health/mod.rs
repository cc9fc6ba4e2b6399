//! The agent's own state: its status, its HTTP end points, and what it costs.

pub mod admin;
pub mod audit;
pub mod collected;
pub mod cost;
pub mod http;
pub mod known;
pub mod status;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use collected::Collect;
pub use known::Known;
pub use status::Status;

/// The agent's HTTP end points: `/metrics`, `/status`, `/health/live`, `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Serve them. Default: true.
    pub enabled: bool,
    /// IP address and port. They are not protected: beyond the loopback address, whoever reaches them can read the normalised
    /// statements. Default: 127.0.0.1:9464.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Unix socket for `querylens admin`, which only the agent's user and root can open; none if `~`. Default: /run/querylens/admin.sock.
    pub admin_socket: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        // 9464 is the port that the OpenTelemetry specification gives to Prometheus exporters.
        Config {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 9464).into(),
            admin_socket: Some("/run/querylens/admin.sock".into()),
        }
    }
}
