//! Numbers: connections that do nothing, that end half, that come and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rill::config;

use crate::crowd::{Crowd, every};
use crate::harness::{PATIENCE, find};
use crate::scene::{Scene, seconds, size};

#[test]
fn idle_connections() {
    let idle = size(3_000, 15_000);
    let scene = Scene::new(idle + 10);
    let (_, cost) = scene.attack("idle connections", |server| {
        let crowd = Crowd::connect(server.address(), idle);
        every(Duration::from_secs(1), seconds(2, 6), |_| {});
        assert!(server.metric("rill_connections") >= idle as f64, "all of them are kept");
        drop(crowd);
    });
    let own = cost.peak_bytes / (idle as u64);
    assert!(own < config::CONNECTION_BYTES as u64, "each took {own} bytes");
    scene.wait_until("rill_connections", |open| open < 5.0);
}

/// Five thousand a second. More of them at once are no attack of this kind: each is a request, and
/// the loop takes 25 microseconds for one.
#[test]
fn half_closed_connections() {
    let connections = size(100, 500);
    let scene = Scene::new(connections + 10);
    let starts: [(&str, usize); 4] = [
        // A request that is whole is answered, one that is not never will be.
        ("GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n", connections),
        ("GET /get?id=a HT", 0),
        ("", 0),
        ("POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"va", 0),
    ];
    scene.attack("half-closed connections", |server| {
        every(Duration::from_millis(100), seconds(2, 5), |turn| {
            let (start, answered) = starts[turn as usize % starts.len()];
            let mut crowd = Crowd::connect(server.address(), connections);
            crowd.send(start.as_bytes());
            crowd.end_sending();
            let ended = crowd.take(4_096, PATIENCE, |c| c.ended() == connections);
            assert!(ended, "{start:?}: {} of {connections} ended", crowd.ended());
            assert_eq!(crowd.answered(200), answered, "{start:?}");
        });
    });
    scene.wait_until("rill_connections", |open| open < 5.0);
}

/// Streams that begin, read a little, and are cut.
#[test]
fn reconnect_storm() {
    const STORMERS: usize = 8;
    let scene = Scene::new(20 * STORMERS);
    let values: Vec<String> = (0..100).map(|n| format!("value {n}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    scene.server.set("a", &values);
    let streams = AtomicUsize::new(0);
    let time = seconds(2, 10);
    scene.attack("reconnect storm", |server| {
        let (address, begin) = (server.address(), Instant::now());
        thread::scope(|scope| {
            for _ in 0..STORMERS {
                scope.spawn(|| {
                    while begin.elapsed() < time {
                        begin_and_cut(address, b"data: ");
                        streams.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
    });
    println!("reconnect storm: {} streams", streams.into_inner());
    scene.wait_until("rill_subscribers", |streams| streams == 0.0);
    scene.wait_until("rill_streams_leaving", |streams| streams == 0.0);
}

/// Asks for a stream, reads it until these bytes came, and cuts it.
pub(crate) fn begin_and_cut(address: SocketAddr, until: &[u8]) {
    let mut socket = TcpStream::connect(address).expect("the server accepts");
    let request = b"GET /get?items=a&items=b HTTP/1.1\r\nHost: x\r\n\
                    Accept: text/event-stream\r\n\r\n";
    socket.write_all(request).expect("the server reads");
    let mut received = Vec::new();
    let mut buffer = [0; 1_024];
    while find(&received, until).is_none() {
        let length = socket.read(&mut buffer).expect("the stream begins");
        assert!(length > 0, "a stream is not turned away: {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&buffer[..length]);
    }
}
