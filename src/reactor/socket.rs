//! Owns how sockets are set up: the listeners, the poll and the signals that exist before the hub
//! does, and what every connection gets. `main` and the reactor call it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{SIGNALS, WAKER};
use crate::config;

/// What a reactor needs before the hub exists: the poll, its waker, and the bound addresses.
pub struct Foundation {
    pub(super) poll: Poll,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) signals: Signals,
    pub addresses: Vec<SocketAddr>,
}

impl Foundation {
    pub fn new(listen: &[SocketAddr]) -> io::Result<Foundation> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in listen {
            let listener = bind(*address).map_err(|e| {
                io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"))
            })?;
            addresses.push(listener.local_addr()?);
            listeners.push(listener);
        }
        Ok(Foundation { poll, listeners, signals, addresses })
    }

    /// Wakes the loop from other threads.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] may be given together.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(config::LISTEN_BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream)
        .set_tcp_user_timeout(Some(Duration::from_millis(config::WRITE_STALL_TIMEOUT)))?;
    Ok(())
}

/// Whether accepting failed for the peer's reasons only.
pub(super) fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
