//! Slowness: heads, bodies and readers that never finish, by hand and with slowhttptest.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::crowd::{Crowd, every};
use crate::harness::Server;
use crate::scene::{Scene, seconds, size};

fn connections() -> usize {
    size(200, 1_000)
}

/// Heads that go on byte by byte are given up all the same, 10 s after they began.
#[test]
fn slow_heads() {
    let scene = Scene::new(connections() + 10);
    let (crowd, _) = scene.attack("slow heads", |server| {
        let mut crowd = Crowd::connect(server.address(), connections());
        crowd.send(b"GET /get?id=a HTTP/1.1\r\nHost: x\r\nX: ");
        every(Duration::from_millis(500), seconds(2, 11), |_| crowd.send(b"x"));
        crowd.take(1_024, seconds(1, 2), |crowd| crowd.ended() == connections());
        crowd
    });
    assert_eq!(crowd.answered(408), size(0, connections()));
    assert_eq!(crowd.ended(), size(0, connections()));
}

#[test]
fn slow_bodies() {
    let scene = Scene::new(connections() + 10);
    scene.attack("slow bodies", |server| {
        let mut crowd = Crowd::connect(server.address(), connections());
        crowd.send(b"POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n");
        every(Duration::from_millis(100), seconds(2, 5), |_| crowd.send(b"{\"value\":\"xxxxxxxx"));
    });
}

/// Every connection asks for more than is ever taken in advance, of the largest events there are,
/// and takes a byte now and then.
#[test]
fn slow_readers_of_large_events() {
    let scene = Scene::new(connections() + 10);
    // A control character is six bytes as JSON: the largest event is six times the largest value.
    let value = "\u{1}".repeat(size(1 << 17, 1 << 20));
    for number in 0..4 {
        let body = json!({ "value": format!("{number}{}", &value[1..]) }).to_string();
        assert_eq!(scene.server.connect().post("/set/large", &body).status, 201);
    }
    // A debug build takes long to write these, and a read waits for two pages of them.
    let shared = size(&["cold read"][..], &[]);
    scene.attack_on(shared, "slow readers of large events", |server| {
        let mut crowd = Crowd::connect_narrow(server.address(), connections());
        for (place, member) in crowd.members().iter_mut().enumerate() {
            let accept = if place % 2 == 0 { "text/event-stream" } else { "*/*" };
            let request =
                format!("GET /get?id=large HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
            member.send(request.as_bytes());
        }
        crowd.take(16, seconds(4, 8), |_| false);
    });
}

/// The same of small events, from the hot cache, pipelined: what is not read is not made.
#[test]
fn pipelining_without_reading() {
    let scene = Scene::new(connections() + 10);
    scene.server.set("a", &[&"x".repeat(1_000)]);
    scene.attack("pipelining without reading", |server| {
        let mut crowd = Crowd::connect_narrow(server.address(), connections());
        let requests = "GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
        every(Duration::from_millis(10), seconds(2, 5), |_| crowd.send(requests.as_bytes()));
        crowd
    });
}

/// One who reads what it asked for by pipelining, as fast as it can.
#[test]
fn pipelining_and_reading() {
    let scene = Scene::new(64);
    scene.attack("pipelining and reading", |server| {
        let mut crowd = Crowd::connect(server.address(), size(4, 128));
        let requests = "GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
        every(Duration::from_millis(1), seconds(2, 5), |_| {
            crowd.send(requests.as_bytes());
            crowd.take(1 << 16, Duration::from_millis(1), |_| true);
        });
    });
}

fn slowhttptest(name: &str, character: &str, mode: &[&str], path: &str) {
    let scene = Scene::new(1_010);
    let body = json!({ "value": character.repeat(1 << 20) }).to_string();
    assert_eq!(scene.server.connect().post("/set/large", &body).status, 201);
    scene.attack(name, |server: &Server| {
        let url = format!("http://{}{path}", server.address());
        let log = File::create(server.folder.file("slowhttptest.log")).expect("it can be written");
        let status = Command::new("slowhttptest")
            .args(["-c", "1000", "-r", "500", "-l", "12", "-p", "5", "-u", &url])
            .args(mode)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file has several handles"))
            .stderr(log)
            .status()
            .expect("slowhttptest is installed");
        assert!(status.success(), "slowhttptest: {status}");
    });
}

#[test]
#[ignore = "needs slowhttptest, which scripts/attack installs"]
fn slowhttptest_heads() {
    slowhttptest("slowhttptest -H", "x", &["-H", "-i", "1"], "/get?id=large");
}

#[test]
#[ignore = "needs slowhttptest, which scripts/attack installs"]
fn slowhttptest_bodies() {
    slowhttptest("slowhttptest -B", "x", &["-B", "-i", "1", "-s", "8192"], "/set/a");
}

#[test]
#[ignore = "needs slowhttptest, which scripts/attack installs"]
fn slowhttptest_ranges() {
    slowhttptest("slowhttptest -R", "x", &["-R", "-a", "1", "-b", "3000"], "/get?id=large");
}

#[test]
#[ignore = "needs slowhttptest, which scripts/attack installs"]
fn slowhttptest_reads() {
    let mode = ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"];
    // Six bytes each as JSON: all of these replies are more than may be in memory.
    slowhttptest("slowhttptest -X", "\u{1}", &mode, "/get?id=large");
}
