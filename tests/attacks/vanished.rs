//! Peers that vanish: their machine lost its power or its network, so that nothing they get is
//! acknowledged, and nothing says that they are gone. Whatever they were in the middle of, the
//! server frees their connections by itself, each kind in the time that `config` says.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rill::config;
use serde_json::json;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::harness::find;
use crate::scene::Scene;

const EACH: usize = 50;
/// Between two looks at who is still there, and what the loop and the kernel may be late by.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_millis(2_500);

/// What a peer was in the middle of.
struct Kind {
    name: &'static str,
    sends: &'static str,
    /// What it still takes before it vanishes.
    until: &'static str,
    /// From then until nobody holds its connection, in milliseconds.
    freed_after: u64,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "nothing",
        sends: "",
        until: "",
        freed_after: config::KEEP_ALIVE_TIMEOUT + config::LINGER_TIMEOUT,
    },
    Kind {
        name: "a head",
        sends: "GET /get?id=a HTTP/1.1\r\nHo",
        until: "",
        freed_after: config::HEAD_TIMEOUT + config::LINGER_TIMEOUT,
    },
    Kind {
        name: "a body",
        sends: "POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{\"val",
        until: "",
        freed_after: config::BODY_STALL_TIMEOUT + config::LINGER_TIMEOUT,
    },
    Kind {
        name: "between requests",
        sends: "GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n",
        until: "\"more\":false}",
        freed_after: config::KEEP_ALIVE_TIMEOUT + config::LINGER_TIMEOUT,
    },
    Kind {
        name: "a large reply",
        sends: "GET /get?id=large HTTP/1.1\r\nHost: x\r\n\r\n",
        until: "HTTP/1.1 200 OK",
        freed_after: config::WRITE_STALL_TIMEOUT,
    },
    // Nothing is sent to it, and so missed, before the first comment.
    Kind {
        name: "a silent stream",
        sends: "GET /get?id=silent HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
        until: "event: synced",
        freed_after: config::COMMENT_INTERVAL + config::WRITE_STALL_TIMEOUT,
    },
    Kind {
        name: "a stream that is behind",
        sends: "GET /get?id=large HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
        until: "HTTP/1.1 200 OK",
        freed_after: config::WRITE_STALL_TIMEOUT,
    },
];

struct Vanished {
    kind: &'static Kind,
    since: Instant,
    socket: TcpStream,
}

/// A peer in the middle of something, whose kernel then drops all that it gets, unacknowledged.
fn vanish(address: SocketAddr, kind: &'static Kind) -> Vanished {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
    let socket = socket.expect("the system has sockets");
    socket.set_recv_buffer_size(4_096).expect("a receive buffer can be set");
    socket.connect(&address.into()).expect("the server accepts");
    let mut socket: TcpStream = socket.into();
    socket.write_all(kind.sends.as_bytes()).expect("the server reads");
    let (mut received, mut buffer) = (Vec::new(), [0; 512]);
    while !kind.until.is_empty() && find(&received, kind.until.as_bytes()).is_none() {
        let length = socket.read(&mut buffer).expect("the server answers");
        assert!(length > 0, "{}: {}", kind.name, String::from_utf8_lossy(&received));
        received.extend_from_slice(&buffer[..length]);
    }
    // One instruction, "return 0": no byte of any packet is let through.
    let nothing = [SockFilter::new(0x06, 0, 0, 0)];
    SockRef::from(&socket).attach_filter(&nothing).expect("Linux filters packets");
    Vanished { kind, since: Instant::now(), socket }
}

/// The ports of the peers whose connections a process on this side still holds: one that nobody
/// holds, the kernel lists without an inode until it gives up sending its end.
fn held(server: SocketAddr) -> HashSet<u16> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux lists its connections");
    let port = |address: &str| {
        let (_, port) = address.split_once(':').expect("an address has a port");
        u16::from_str_radix(port, 16).expect("ports are hexadecimal")
    };
    let peer = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (port(fields[1]) == server.port() && fields[9] != "0").then(|| port(fields[2]))
    };
    table.lines().skip(1).filter_map(peer).collect()
}

#[test]
#[ignore = "takes 80 seconds"]
fn vanished_peers() {
    let scene = Scene::new(KINDS.len() * EACH + 10);
    for number in 0..8 {
        let value = number.to_string().repeat(config::VALUE_BYTES_MAX);
        let body = json!({ "value": value }).to_string();
        assert_eq!(scene.server.connect().post("/set/large", &body).status, 201);
    }
    scene.attack("vanished peers", |server| {
        let mut left: Vec<Vanished> = KINDS
            .iter()
            .flat_map(|kind| (0..EACH).map(move |_| vanish(server.address(), kind)))
            .collect();
        scene.wait_until("rill_connections", |open| open >= left.len() as f64);
        while !left.is_empty() {
            thread::sleep(LOOK_INTERVAL);
            let held = held(server.address());
            left.retain(|vanished| {
                let (kind, passed) = (vanished.kind, vanished.since.elapsed());
                let due = Duration::from_millis(kind.freed_after);
                let port = vanished.socket.local_addr().expect("it is connected").port();
                if held.contains(&port) {
                    assert!(passed < due + LATE, "{}: still there after {passed:?}", kind.name);
                    return true;
                }
                assert!(passed + LATE > due, "{}: gone after {passed:?} already", kind.name);
                false
            });
        }
    });
    scene.wait_until("rill_connections", |open| open < 5.0);
    scene.wait_until("rill_subscribers", |streams| streams == 0.0);
}
