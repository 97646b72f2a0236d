//! A small HTTP server of its own for `/metrics`, `/livez` and `/readyz`. It answers nothing else,
//! asks nobody who they are, and takes little: whoever wants it in a network decides that.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many connections there may be: a scraper or two, a probe, somebody with curl. More wait.
const CONNECTIONS: usize = 32;

/// How long a connection may last. Scrapers connect again without being asked.
const CONNECTION: Duration = Duration::from_secs(60);

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);

/// The most that a request's head may be, in bytes. The least that hyper takes.
const MAX_HEAD: usize = 8 << 10;

/// Between two tries to accept where the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The text format that Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";

/// What a program says of itself.
pub trait Subject: Send + Sync + 'static {
    /// Its metrics. Called for each scrape: what is cheaper to measure then is set here.
    fn metrics(&self) -> &Registry;
    /// Why it should be restarted; nothing while it lives.
    fn dead(&self) -> Option<String>;
    /// Why it should get no work; nothing while it is ready.
    fn unready(&self) -> Option<String>;
}

/// A listener that does not serve yet.
pub struct Listener(TcpListener);

impl Listener {
    /// Begins to listen.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until it is stopped.
    pub async fn serve(self, subject: Arc<dyn Subject>, stop: CancellationToken) {
        let (places, tasks) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
        let accept = async {
            loop {
                let place = places.clone().acquire_owned().await;
                match self.0.accept().await {
                    Ok((stream, _)) => {
                        let subject = subject.clone();
                        tasks.spawn(async move {
                            let _place = place;
                            // Whoever connects too long or wrongly is cut; nobody needs to be told.
                            let _cut = timeout(CONNECTION, connection(stream, subject)).await;
                        });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn connection(stream: TcpStream, subject: Arc<dyn Subject>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &*subject);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    // A client that goes away in the middle is no event.
    let _gone = server.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, subject: &dyn Subject) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, subject.metrics()) {
                Ok(()) => response(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            }
        }
        "/livez" => probe(subject.dead()),
        "/readyz" => probe(subject.dead().or_else(|| subject.unready())),
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez and /readyz\n".to_owned()),
    }
}

fn probe(wrong: Option<String>) -> Response<Full<Bytes>> {
    match wrong {
        None => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
