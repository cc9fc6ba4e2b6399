//! The admin socket: HTTP over a Unix socket that only the agent's user can open, for what the open end points must not do.
//!
//! `GET /status`, `/breakers`, `/processors`, `/config`; `POST /breakers/open`, `/breakers/close`, `/reload`. The server knows nothing of what it shows or does: an
//! [`Admin`] answers. Who asked is told by the kernel, and is passed on for the audit log.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Extension, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::http;

/// Connections served at a time.
const MAX_CONNECTIONS: usize = 4;

/// Which circuits a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Circuit {
    /// `service.instance.id` of the server.
    pub instance: uuid::Uuid,
    /// The question; none for the server as a whole.
    pub question: Option<String>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// User.
    pub uid: u32,
}

/// Answers. The methods may take their time to compute, but wait for nothing.
pub trait Admin: Send + Sync + 'static {
    /// The status with all statements; `None` before there is one.
    fn status(&self) -> Option<Value>;
    /// All circuits.
    fn breakers(&self) -> Value;
    /// The processors' numbers.
    fn processors(&self) -> Value;
    /// The effective configuration as YAML with origins; secrets masked.
    fn config(&self, asker: Asker) -> String;
    /// Opens or closes a circuit by hand.
    fn force(&self, circuit: &Circuit, open: bool, asker: Asker);
    /// Asks to load the configuration anew; false if that is asked for already.
    fn reload(&self, asker: Asker) -> bool;
}

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Takes the path. A socket that a killed agent has left is replaced; one that answers is another agent's.
    pub fn bind(path: &Path) -> io::Result<Socket> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Socket { listener, path: path.into() })
    }

    /// Serves until `stopped`.
    pub async fn run(self, admin: Arc<dyn Admin>, mut stopped: watch::Receiver<()>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                // Nothing is ever sent: the sender's end is the signal.
                _ = stopped.changed() => break,
                accepted = accepted => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let admin = Arc::clone(&admin);
                    connections.spawn(async move {
                        serve(stream, admin).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(http::ACCEPT_PAUSE).await;
                }
            }
        }
        connections.shutdown().await;
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, admin: Arc<dyn Admin>) {
    let Ok(peer) = stream.peer_cred() else { return };
    http::serve(stream, router(admin).layer(Extension(Asker { uid: peer.uid() }))).await;
}

fn router(admin: Arc<dyn Admin>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/breakers", get(|State(admin): Shared| async move { json(&admin.breakers()) }))
        .route("/processors", get(|State(admin): Shared| async move { json(&admin.processors()) }))
        .route("/config", get(config))
        .route("/breakers/open", post(|admin, asker, circuit| force(admin, asker, circuit, true)))
        .route("/breakers/close", post(|admin, asker, circuit| force(admin, asker, circuit, false)))
        .route("/reload", post(reload))
        .with_state(admin)
}

type Shared = State<Arc<dyn Admin>>;

async fn status(State(admin): Shared) -> Response {
    // Taking a snapshot waits for the pipeline's thread.
    match tokio::task::spawn_blocking(move || admin.status()).await {
        Ok(Some(status)) => json(&status),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the agent has no status yet\n").into_response(),
    }
}

async fn config(State(admin): Shared, Extension(asker): Extension<Asker>) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], admin.config(asker)).into_response()
}

async fn force(
    State(admin): Shared,
    Extension(asker): Extension<Asker>,
    Query(circuit): Query<Circuit>,
    open: bool,
) -> Response {
    admin.force(&circuit, open, asker);
    json(&admin.breakers())
}

async fn reload(State(admin): Shared, Extension(asker): Extension<Asker>) -> Response {
    match admin.reload(asker) {
        true => (StatusCode::ACCEPTED, "the configuration is loaded anew; the agent's log says how that ends\n"),
        false => (StatusCode::ACCEPTED, "the configuration is being loaded already\n"),
    }
    .into_response()
}

fn json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Noted {
        fn note(&self, act: String) {
            self.0.lock().unwrap().push(act);
        }
    }

    impl Admin for Noted {
        fn status(&self) -> Option<Value> {
            None
        }

        fn breakers(&self) -> Value {
            json!([{ "state": "open" }])
        }

        fn processors(&self) -> Value {
            json!([])
        }

        fn config(&self, _: Asker) -> String {
            "log:\n".to_owned()
        }

        fn force(&self, circuit: &Circuit, open: bool, asker: Asker) {
            self.note(format!("{circuit:?} {open} {}", asker.uid));
        }

        fn reload(&self, _: Asker) -> bool {
            true
        }
    }

    async fn ask(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_is_asked_is_answered_and_who_asked_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let admin = Arc::new(Noted::default());
        let (stop, stopped) = watch::channel(());
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let running = tokio::spawn(socket.run(admin.clone(), stopped));
        assert!(ask(&path, "GET /breakers").await.contains("\"open\""));
        assert!(ask(&path, "GET /config").await.ends_with("log:\n"));
        assert!(ask(&path, "GET /status").await.starts_with("HTTP/1.1 503"));
        assert!(ask(&path, "POST /reload").await.starts_with("HTTP/1.1 202"));
        assert!(ask(&path, "GET /reload").await.starts_with("HTTP/1.1 405"), "what changes something is a POST");
        let id = uuid::Uuid::from_u128(7);
        assert!(
            ask(&path, &format!("POST /breakers/open?instance={id}&question=plans")).await.starts_with("HTTP/1.1 200")
        );
        assert!(ask(&path, &format!("POST /breakers/close?instance={id}")).await.starts_with("HTTP/1.1 200"));
        assert!(ask(&path, "POST /breakers/open?instance=x").await.starts_with("HTTP/1.1 400"));
        let uid = owner(&path);
        let noted = admin.0.lock().unwrap().clone();
        assert_eq!(noted.len(), 2);
        assert!(noted[0].contains("plans") && noted[0].ends_with(&format!("true {uid}")), "{noted:?}");
        let error = Socket::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(stop);
        running.await.unwrap();
        assert!(!path.exists());
    }

    /// Owner of the socket: the user of this process.
    fn owner(path: &Path) -> u32 {
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap())
    }

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind(&path).unwrap();
    }
}
