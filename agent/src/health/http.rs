//! HTTP end points: `/metrics`, `/status`, `/health/live`, `/health/ready`.
//!
//! The server knows nothing of what it shows: a [`Source`] renders it. It is bounded in connections, header size and time, so that no client
//! can hold the agent up; each connection carries one request.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time,
};

use super::{Config, Status};

/// Connections served at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16;
/// Largest announced request body.
const MAX_REQUEST: u64 = 1 << 20;
/// Largest request head.
const MAX_HEAD: usize = 16 << 10;
/// Time for a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection, however slowly its client reads.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that open connections get at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after `accept` failed, e.g. for want of file descriptors: it would fail again at once.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A rendered page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

/// What the end points show. The methods may take their time to compute (they run on a thread for that), but wait for nothing.
pub trait Source: Send + Sync + 'static {
    /// The metrics in the format that the `Accept` header prefers; `None` where they are switched off.
    fn metrics(&self, accept: &str) -> Option<Page>;
    /// The status with the `top` heaviest statements of each server; `None` before there is one.
    fn status(&self, top: Option<usize>) -> Option<Status>;
    /// Why the agent should be restarted; empty if it should not.
    fn dead(&self) -> Vec<String>;
    /// Why the agent does not do its work (yet); empty if it does.
    fn unready(&self) -> Vec<String>;
}

/// The address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {listen} (config key `health.listen`): {error}; choose another address, or set `health.enabled: false`"
)]
pub struct BindError {
    listen: SocketAddr,
    #[source]
    error: io::Error,
}

/// A bound server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Takes the configured address; whether it should at all is for the caller to ask.
    pub async fn bind(config: &Config) -> Result<Server, BindError> {
        let listen = config.listen;
        match TcpListener::bind(listen).await {
            Ok(listener) => Ok(Server { listener }),
            Err(error) => Err(BindError { listen, error }),
        }
    }

    /// The address, with the port that the kernel chose where the configured one was 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, then ends what is open.
    pub async fn run(self, source: Arc<dyn Source>, shutdown: impl Future<Output = ()>) {
        let service = router(source);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = async {
                // The semaphore is never closed, so the only outcome is a slot.
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accepted => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let service = service.clone();
                    connections.spawn(async move {
                        serve(stream, service).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let ended = time::timeout(SHUTDOWN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if ended.await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// Serves one connection, within the bounds of size and time.
pub(super) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: Router) {
    let service = TowerToHyperService::new(service);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        hyper::service::Service::call(&service, request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection took longer than {CONNECTION_TIMEOUT:?}"),
    }
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .layer(middleware::from_fn(limit_body))
        .with_state(source)
}

/// Refuses bodies beyond [`MAX_REQUEST`]. No end point reads one; what is sent nevertheless is dropped with the connection.
async fn limit_body(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_REQUEST {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than 1 MiB\n").into_response();
    }
    next.run(request).await
}

type Shared = State<Arc<dyn Source>>;

/// Renders on a thread that may compute for as long as it takes.
async fn render<T: Send + 'static>(
    source: Arc<dyn Source>,
    what: impl FnOnce(&dyn Source) -> T + Send + 'static,
) -> Result<T, Response> {
    tokio::task::spawn_blocking(move || what(&*source)).await.map_err(|error| {
        tracing::error!(%error, "a page could not be rendered");
        (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be rendered; see the agent's log\n").into_response()
    })
}

async fn metrics(State(source): Shared, headers: HeaderMap) -> Result<Response, Response> {
    // Several header lines of one name are one list (RFC 9110 §5.2).
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    match render(source, move |source| source.metrics(&accept)).await? {
        Some(Page { content_type, body }) => Ok(([(header::CONTENT_TYPE, content_type)], body).into_response()),
        None => Err((StatusCode::NOT_FOUND, "metrics are switched off (config key `export.prometheus.enabled`)\n")
            .into_response()),
    }
}

/// The one parameter of `/status`.
fn top(query: &str) -> Result<Option<usize>, String> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(None),
        Some(("top", number)) => number
            .parse()
            .map(Some)
            .map_err(|error| format!("`top` is not a whole number: {error}; try /status?top=20\n")),
        _ => Err("the only parameter is `top`; try /status?top=20\n".to_owned()),
    }
}

async fn status(State(source): Shared, RawQuery(query): RawQuery) -> Result<Response, Response> {
    let top = top(query.as_deref().unwrap_or_default());
    let top = top.map_err(|reason| (StatusCode::BAD_REQUEST, reason).into_response())?;
    let rendered = render(source, move |source| source.status(top).map(|status| serde_json::to_string(&status)));
    match rendered.await? {
        Some(Ok(json)) => Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response()),
        Some(Err(error)) => {
            tracing::error!(%error, "the status could not be written as JSON");
            Err((StatusCode::INTERNAL_SERVER_ERROR, "the status could not be written as JSON\n").into_response())
        }
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "the agent has no status yet\n").into_response()),
    }
}

async fn live(State(source): Shared) -> Result<Response, Response> {
    render(source, |source| verdict("live", &source.dead())).await
}

async fn ready(State(source): Shared) -> Result<Response, Response> {
    render(source, |source| verdict("ready", &source.unready())).await
}

/// 200, or 503 with one reason a line.
fn verdict(good: &str, reasons: &[String]) -> Response {
    if reasons.is_empty() {
        return format!("{good}\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not {good}\n{}\n", reasons.join("\n"))).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::model::testing;

    #[derive(Default)]
    struct Shown {
        metrics: bool,
        status: bool,
        dead: Vec<String>,
        unready: Mutex<Vec<String>>,
    }

    impl Source for Shown {
        fn metrics(&self, accept: &str) -> Option<Page> {
            let body = format!("accept={accept}");
            self.metrics.then_some(Page { content_type: "text/plain; version=0.0.4; charset=utf-8", body })
        }

        fn status(&self, top: Option<usize>) -> Option<Status> {
            self.status.then(|| Status::new(&testing::busy(), top))
        }

        fn dead(&self) -> Vec<String> {
            self.dead.clone()
        }

        fn unready(&self) -> Vec<String> {
            self.unready.lock().unwrap().clone()
        }
    }

    fn anywhere() -> Config {
        Config { enabled: true, listen: ([127, 0, 0, 1], 0).into(), admin_socket: None }
    }

    /// Serves `shown` until the sender is dropped.
    async fn start(shown: Shown) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let server = Server::bind(&anywhere()).await.unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(Arc::new(shown), async {
            let _ = stopped.await;
        }));
        (address, stop, running)
    }

    async fn send(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
        let answer =
            send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nAccept: c/d;q=0.5\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn pages_are_what_their_source_renders() {
        let (address, _stop, _) = start(Shown { metrics: true, status: true, ..Shown::default() }).await;
        let (code, head, body) = get(address, "/metrics").await;
        assert_eq!((code, body.as_str()), (200, "accept=a/b,c/d;q=0.5"));
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        let (code, head, body) = get(address, "/status?top=1").await;
        let read: Status = serde_json::from_str(&body).unwrap();
        assert_eq!((code, read), (200, Status::new(&testing::busy(), Some(1))));
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        let all: Status = serde_json::from_str(&get(address, "/status").await.2).unwrap();
        assert_eq!(all.instances[0].statements.len(), 2);
        assert_eq!(get(address, "/health/live").await.0, 200);
        assert_eq!(get(address, "/health/ready").await.0, 200);
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_well_says_so() {
        let unready = Mutex::new(vec!["no server found".to_owned(), "ring buffer: denied".to_owned()]);
        let (address, _stop, _) =
            start(Shown { unready, dead: vec!["reader stalled".into()], ..Shown::default() }).await;
        assert_eq!(get(address, "/health/ready").await.0, 503);
        assert_eq!(get(address, "/health/ready").await.2, "not ready\nno server found\nring buffer: denied\n");
        let (code, _, body) = get(address, "/health/live").await;
        assert_eq!((code, body.as_str()), (503, "not live\nreader stalled\n"));
        assert_eq!(get(address, "/metrics").await.0, 404);
        assert_eq!(get(address, "/status").await.0, 503);
        assert_eq!(get(address, "/status?top=many").await.0, 400);
        assert_eq!(get(address, "/status?pot=1").await.0, 400);
        assert_eq!(get(address, "/").await.0, 404);
        let answer = send(address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test]
    async fn requests_are_bounded() {
        let (address, _stop, _) = start(Shown { metrics: true, ..Shown::default() }).await;
        let announced = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", MAX_REQUEST + 1);
        assert!(send(address, &announced).await.starts_with("HTTP/1.1 413"));
        let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert!(send(address, &head).await.starts_with("HTTP/1.1 431"));
    }

    /// Scenario: clients that say nothing hold all slots. Guarantees: the next one waits, and is served when their time is over.
    #[tokio::test]
    async fn silent_clients_lose_their_slot() {
        let (address, _stop, _) = start(Shown { metrics: true, ..Shown::default() }).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let start = time::Instant::now();
        let patient = get(address, "/metrics");
        let (code, ..) = time::timeout(HEAD_TIMEOUT * 3, patient).await.unwrap();
        assert_eq!(code, 200);
        assert!(start.elapsed() > HEAD_TIMEOUT / 2, "served beside {MAX_CONNECTIONS} others");
    }

    #[tokio::test]
    async fn shutdown_ends_it() {
        let (address, stop, running) = start(Shown::default()).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        drop(stop);
        time::timeout(SHUTDOWN_TIMEOUT * 3, running).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_key() {
        let first = Server::bind(&anywhere()).await.unwrap();
        let config = Config { listen: first.address().unwrap(), ..anywhere() };
        let error = Server::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains(&config.listen.to_string()) && error.contains("health.listen"), "{error}");
    }
}
