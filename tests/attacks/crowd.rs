//! Owns many connections at once, without a thread each: plain sockets that are written to and read
//! from in turns, and what an attack says about how they ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

pub(crate) struct Crowd(Vec<Member>);

pub(crate) struct Member {
    socket: TcpStream,
    pub(crate) received: usize,
    /// The first bytes that came, up to a status line's worth.
    first: Vec<u8>,
    pub(crate) ended: bool,
}

impl Crowd {
    pub(crate) fn connect(address: SocketAddr, connections: usize) -> Crowd {
        let open = || TcpStream::connect(address).expect("the server accepts");
        Crowd((0..connections).map(|_| Member::over(open())).collect())
    }

    /// Connections whose kernel takes little in advance.
    pub(crate) fn connect_narrow(address: SocketAddr, connections: usize) -> Crowd {
        let open = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
            let socket = socket.expect("the system has sockets");
            socket.set_recv_buffer_size(2_048).expect("a receive buffer can be set");
            socket.connect(&address.into()).expect("the server accepts");
            Member::over(socket.into())
        };
        Crowd((0..connections).map(|_| open()).collect())
    }

    pub(crate) fn members(&mut self) -> &mut [Member] {
        &mut self.0
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for member in &mut self.0 {
            member.send(bytes);
        }
    }

    pub(crate) fn end_sending(&mut self) {
        for member in &mut self.0 {
            let _ = member.socket.shutdown(Shutdown::Write);
        }
    }

    /// How many got a reply of that status first.
    pub(crate) fn answered(&self, status: u16) -> usize {
        let start = format!("HTTP/1.1 {status} ");
        self.0.iter().filter(|member| member.first.starts_with(start.as_bytes())).count()
    }

    pub(crate) fn received_by_all(&self) -> usize {
        self.0.iter().map(|member| member.received).min().unwrap_or(0)
    }

    pub(crate) fn ended(&self) -> usize {
        self.0.iter().filter(|member| member.ended).count()
    }

    /// Takes up to so many bytes of each that has any, again and again, until `enough` or the time
    /// is over. Returns whether it was enough.
    pub(crate) fn take(
        &mut self,
        most: usize,
        time: Duration,
        enough: impl Fn(&Crowd) -> bool,
    ) -> bool {
        let begin = Instant::now();
        let mut buffer = vec![0; most];
        while begin.elapsed() < time {
            let mut taken = 0;
            for member in &mut self.0 {
                taken += member.receive(&mut buffer);
            }
            if enough(self) {
                return true;
            }
            if taken == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        false
    }
}

impl Member {
    fn over(socket: TcpStream) -> Member {
        socket.set_nonblocking(true).expect("sockets can be nonblocking");
        socket.set_nodelay(true).expect("TCP has TCP_NODELAY");
        Member { socket, received: 0, first: Vec::new(), ended: false }
    }

    /// As much as the kernel takes at once; what it does not take is lost.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        match self.socket.write(bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.ended = true;
                0
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        if self.ended {
            return 0;
        }
        match self.socket.read(buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => {
                self.received += length;
                let wanted = 16_usize.saturating_sub(self.first.len()).min(length);
                self.first.extend_from_slice(&buffer[..wanted]);
                return length;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.ended = true,
        }
        0
    }
}

/// Repeats something every so often for a time.
pub(crate) fn every(interval: Duration, time: Duration, mut step: impl FnMut(u32)) {
    let begin = Instant::now();
    for number in 0.. {
        let due = interval * number;
        if due >= time {
            return;
        }
        thread::sleep(due.saturating_sub(begin.elapsed()));
        step(number);
    }
}
