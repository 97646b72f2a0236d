//! Puts the parts together: data folder, store, logs, hub, gRPC server; and takes them apart again.

mod calls;
mod connections;

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use buildr_proto::{
    DESCRIPTORS,
    limits::MAX_MESSAGE,
    pb::{agent_service_server::AgentServiceServer, build_service_server::BuildServiceServer},
};
use buildr_telemetry::listener::Listener;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::interceptor::InterceptedService, transport::Server};

use self::calls::CountCalls;

use crate::{
    auth::{AgentAuth, ClientAuth, Token},
    config::{Config, TokenPolicy},
    core::Limits,
    error::Error,
    gate::{self, Gate, Patience, Quota},
    hub::{Hub, HubTask, SpaceGuard},
    logs::Logs,
    metrics::Metrics,
    service::{Context, agents::Agents, builds::Builds},
    store::{self, SqliteStore, Store},
};

/// A connection that does not answer pings for this long twice is dead.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How many calls one connection may have at the same time: an agent has a log stream for each of
/// at most 1000 jobs.
const STREAMS: u32 = 1024;

/// The most that the metadata of one call may be, in bytes. Ours is a token and a credential.
const MAX_METADATA: u32 = 16 << 10;

/// How many calls a connection may have begun and given up before they were looked at. Beyond, it
/// is closed: nobody in good faith does that.
const MAX_GIVEN_UP: usize = 20;

/// How long a call may take to begin its answer. Clients and agents give up after 30 s; the longest
/// is a final report, for which logs of gigabytes are read.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// How long open calls may take to end once the orchestrator stops.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// An orchestrator that listens and does not serve yet.
pub struct Orchestrator {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
    hub: Hub,
    hub_task: JoinHandle<()>,
    logs: Arc<Logs>,
    logs_task: JoinHandle<()>,
    store: Arc<dyn Store>,
    gate: gate::Settings,
    metrics: Arc<Metrics>,
    watched: Option<(Listener, SocketAddr)>,
    /// No other orchestrator uses the folder while this is open.
    _lock: File,
}

impl Orchestrator {
    /// Opens the data folder, loads what is not finished and begins to listen.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let lock = lock_folder(&config.data)?;
        let (token, shown) = token(&config)?;
        announce(&config, shown);
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.data.join("buildr.db")).await?);
        let limits = Limits { queue: config.queue_limit, ..Limits::default() };
        let space = SpaceGuard::new(config.data.clone(), config.min_free);
        let metrics = Arc::<Metrics>::default();
        let (task, hub) = HubTask::load(store.clone(), limits, space, metrics.clone()).await?;
        let (logs, logs_task) = Logs::start(config.data.join("logs"));
        let listen_error = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let watched = match config.metrics {
            Some(address) => Some(listen_to_watchers(address).await?),
            None => None,
        };
        Ok(Self {
            listener,
            address,
            token,
            hub,
            hub_task: tokio::spawn(task.run()),
            logs: Arc::new(logs),
            logs_task,
            store,
            gate: config.gate,
            metrics,
            watched,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are, where that was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.watched.as_ref().map(|(_, address)| *address)
    }

    /// Serves until it is told to stop. Everything that was answered is durable when it returns.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { listener, address: _, token, hub, hub_task, logs, logs_task, store, .. } = self;
        let Self { gate: settings, metrics, watched, _lock, .. } = self;
        let tasks = TaskTracker::new();
        let gate = Arc::new(Gate::new(settings, metrics.clone()));
        let context = Context {
            hub,
            logs,
            gate,
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: shutdown.clone(),
        };
        let quota = Quota::new(settings.connections, settings.connections_per_address);
        let server = serve(listener, quota, settings.patience, token, context, shutdown.clone());
        // Ended last, so that whoever watches sees the end.
        let unwatched = CancellationToken::new();
        let _unwatched = unwatched.clone().drop_guard();
        if let Some((listener, _)) = watched {
            tokio::spawn(listener.serve(metrics.clone(), unwatched));
        }
        let served = tokio::select! {
            served = server => served,
            // Clients that hold their connection open are not waited for.
            () = async { shutdown.cancelled().await; tokio::time::sleep(LAST_CALLS).await } => Ok(()),
        };
        shutdown.cancel();
        metrics.stopping();
        tasks.close();
        if timeout(LAST_CALLS, tasks.wait()).await.is_err() {
            tracing::warn!(left = tasks.len(), "streams did not end in time");
        }
        // The handles went with the server and the streams: both tasks have nothing more to wait for.
        for (name, task) in [("hub", hub_task), ("logs", logs_task)] {
            if timeout(LAST_CALLS, task).await.is_err() {
                tracing::warn!(name, "a task did not end in time");
            }
        }
        store.close().await;
        served
    }
}

async fn serve(
    listener: TcpListener,
    quota: Quota,
    patience: Patience,
    token: Token,
    context: Context,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let metrics = context.metrics.clone();
    let descriptors = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let calls = CountCalls::new(metrics.clone(), &descriptors)?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let agents = AgentServiceServer::new(Agents(context.clone())).max_decoding_message_size(MAX_MESSAGE);
    let builds = BuildServiceServer::new(Builds(context)).max_decoding_message_size(MAX_MESSAGE);
    health.set_serving::<AgentServiceServer<Agents>>().await;
    health.set_serving::<BuildServiceServer<Builds>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|_| Error::Internal("the protocol's descriptors cannot be read"))?;
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(MAX_METADATA)
        .http2_max_pending_accept_reset_streams(Some(MAX_GIVEN_UP))
        .timeout(ANSWER_WITHIN)
        .trace_fn(|request| tracing::info_span!("call", method = request.uri().path()))
        .layer(calls)
        .add_service(InterceptedService::new(agents, AgentAuth(token.clone())))
        .add_service(InterceptedService::new(builds, ClientAuth(token.clone())))
        .add_service(InterceptedService::new(reflection, ClientAuth(token)))
        .add_service(health_service)
        .serve_with_incoming_shutdown(
            connections::accept(listener, quota, patience, metrics),
            shutdown.cancelled_owned(),
        )
        .await
        .map_err(Error::Server)
}

async fn listen_to_watchers(address: SocketAddr) -> Result<(Listener, SocketAddr), Error> {
    let failed = |source| Error::Metrics { address, source };
    let listener = Listener::bind(address).await.map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    Ok((listener, address))
}

/// Makes the data folder, for its owner alone, and locks it.
fn lock_folder(data: &Path) -> Result<File, Error> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(unusable(data))?;
    let path = data.join("lock");
    let file =
        File::options().write(true).create(true).truncate(false).open(&path).map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(store::Error::InUse(data.to_owned()).into()),
        Err(fs::TryLockError::Error(source)) => Err(Error::File { path, source }),
    }
}

fn token(config: &Config) -> Result<(Token, Option<String>), Error> {
    match &config.token {
        TokenPolicy::Open => Ok((Token::none(), None)),
        TokenPolicy::OfFile(file) => Ok((Token::from_file(file)?, None)),
        TokenPolicy::OfFolder => Token::of_folder(&config.data),
    }
}

/// Says what the operator has to know of tokens and encryption.
#[expect(clippy::print_stderr, reason = "a secret that is shown once does not belong into a log")]
fn announce(config: &Config, shown: Option<String>) {
    if let Some(token) = shown {
        eprintln!(
            "\nThe token of this orchestrator, shown this once:\n\n    {token}\n\n\
             Give it to agents and clients as BUILDR_TOKEN. Lost it? Remove {} and start again.\n",
            config.data.join("token.sha256").display()
        );
    }
    if config.is_exposed() {
        tracing::warn!(
            listen = %config.listen,
            "traffic is not encrypted: use a private network, a VPN or a TLS proxy in front"
        );
    }
}
