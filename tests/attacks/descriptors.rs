//! Descriptors that run out while the server runs, though it keeps some back for itself: the limit
//! is lowered under it.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::crowd::{Crowd, every};
use crate::harness::Connection;
use crate::scene::{Scene, seconds};

const KEPT: usize = 50;
const KNOCKING: usize = 100;

/// Those that are there are served, and waiting for a descriptor takes no processor.
#[test]
fn no_descriptors_left() {
    let scene = Scene::new(1_000);
    let server = &scene.server;
    let mut kept: Vec<Connection> = (0..KEPT).map(|_| server.connect()).collect();
    kept.iter_mut().for_each(|connection| assert_eq!(connection.get("/get?id=a").status, 200));
    let pid = Pid::from_raw(server.process.id() as i32).expect("a process has a number");
    let limit = |current| {
        let maximum = Some(20_000);
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(current), maximum })
            .expect("a parent may limit its child")
    };
    let ((before, crowd), cost) = scene.measure(|| {
        // Below those that the process has for itself: none that is free is low enough.
        let before = limit(10);
        let mut crowd = Crowd::connect(server.address(), KNOCKING);
        crowd.send(b"GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n");
        every(Duration::from_millis(100), seconds(2, 4), |turn| {
            let connection = &mut kept[turn as usize % KEPT];
            assert_eq!(connection.get("/get?id=a").status, 200, "who is there is served");
        });
        let none = crowd.take(4_096, Duration::from_millis(100), |c| c.answered(200) > 0);
        assert!(!none, "nobody can be accepted");
        (before, crowd)
    });
    println!("no descriptors left: processor {:.1} %", 100.0 * cost.processor);
    assert!(cost.processor < 0.1, "waiting took {:.0} % of a processor", 100.0 * cost.processor);
    limit(before.current.expect("the scene raised it to a number"));
    let mut crowd = crowd;
    let answered = crowd.take(4_096, Duration::from_secs(10), |c| c.answered(200) == KNOCKING);
    assert!(answered, "{} of {KNOCKING} were answered later", crowd.answered(200));
}
