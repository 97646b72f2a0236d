//! A wire between agent and orchestrator that can be cut.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    _task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
struct State {
    open: bool,
    cuts: u32,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State { open: true, cuts: 0 });
        let task = tokio::spawn(accept(listener, target, state.clone()));
        Self { address, state, _task: task }
    }

    /// Breaks every connection; new ones are let through.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Breaks every connection, and new ones as soon as they are made.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| (state.open, state.cuts) = (false, state.cuts + 1));
    }

    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Sender<State>) {
    let mut wires = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        if state.borrow().open {
            wires.spawn(wire(from, target, state.subscribe()));
        }
    }
}

async fn wire(mut from: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let Ok(mut to) = TcpStream::connect(target).await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}
