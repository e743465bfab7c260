//! A disk that stays bad for a while: one that is full, one that cannot be written or read, one whose
//! syncs fail. What needs the disk is refused, and says why; everything else goes on; and what the
//! disk takes again is taken again, without a restart.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::client::{Answer, Client, Gone};
use crate::harness::{Folder, Server};
use crate::strace::{self, Attached, Fault};
use crate::told;

const STORAGES: [&str; 2] = ["s0", "s1"];
const WRITER: &str = "rill-writer";
const MIB: usize = 1 << 20;

fn for_good(call: &'static str, error: &'static str) -> Fault {
    Fault { call, error, when: "1+".to_owned() }
}

/// What a client does before, during and after.
struct Scene {
    server: Server,
    client: Client,
}

impl Scene {
    fn on(folder: Arc<Folder>) -> Scene {
        let server = Server::start_in(folder, &[]);
        let mut client = Client::new(server.address(), &STORAGES);
        for number in 0..10 {
            let value = format!("before {number}");
            assert_eq!(client.append(STORAGES[number % 2], &[value]), Ok(Answer::Stored));
        }
        Scene { server, client }
    }

    fn fails(&self, fault: &Fault) -> Attached {
        Attached::to(&self.server, WRITER, strace::all_files(), fault)
    }

    /// Appends, which are answered so; reads and streams, old and new, go on.
    fn refuses(&mut self, expected: Answer, round: &str) {
        for number in 0..10 {
            let value = format!("{round} {number}");
            assert_eq!(self.client.append(STORAGES[number % 2], &[value]), Ok(expected));
        }
        self.goes_on();
    }

    fn goes_on(&mut self) {
        assert_eq!(self.client.read_at_last(), Ok(()));
        assert_eq!(self.client.follow_to_the_last(), Ok(()));
        self.client.leave();
        assert_eq!(self.client.follow_to_the_last(), Ok(()));
        assert_eq!(self.server.get("/healthz").status, 200);
    }

    /// Appends until nothing more is taken.
    fn fill(&mut self, what: &str) {
        let mut values = (0..1_000).map(|number| format!("{number} {what}"));
        let full = values.any(|value| self.client.append("beside", &[value]) == Ok(Answer::Full));
        assert!(full, "the disk is small");
    }

    /// The next appends are stored, those refused before among them.
    fn recovers(&mut self, round: &str) {
        for number in 0..20 {
            let value = format!("{round} {number}");
            assert_eq!(self.client.append(STORAGES[number % 2], &[value]), Ok(Answer::Stored));
        }
        self.goes_on();
    }

    /// Stops the server, and holds what is on the disk against what was told.
    fn stops(mut self) {
        self.client.leave();
        let folder = self.server.stop().folder;
        told::check(&folder.file("x.db"), &self.client.told, "after the stop");
    }

    /// Kills it instead.
    fn killed(self) {
        let folder = self.server.kill().folder;
        told::check(&folder.file("x.db"), &self.client.told, "after the kill");
    }
}

#[test]
fn while_the_log_cannot_be_written_appends_are_refused_and_all_else_goes_on() {
    for (error, answer) in [("ENOSPC", Answer::Full), ("EIO", Answer::Failed)] {
        let mut scene = Scene::on(Arc::new(Folder::new()));
        let attached = scene.fails(&for_good("pwrite64", error));
        scene.refuses(answer, "meanwhile");
        assert!(attached.detach(), "no call failed with {error}");
        scene.recovers("meanwhile");
        scene.stops();
    }
}

#[test]
fn what_was_refused_for_a_full_disk_is_not_there_after_a_crash() {
    let mut scene = Scene::on(Arc::new(Folder::new()));
    let attached = scene.fails(&for_good("pwrite64", "ENOSPC"));
    scene.refuses(Answer::Full, "meanwhile");
    assert!(attached.detach(), "no call failed");
    scene.killed();
}

/// It grows after a transaction was written and synced, which a crash then makes one that counts.
#[test]
fn while_the_index_of_the_log_cannot_grow_nothing_is_called_not_stored_that_a_crash_may_store() {
    let mut scene = Scene::on(Arc::new(Folder::new()));
    let fault = for_good("pwrite64", "ENOSPC");
    let attached = Attached::to(&scene.server, WRITER, &["x.db-shm"], &fault);
    let answers: Vec<Result<Answer, Gone>> = (0..20)
        .map(|number| scene.client.append("beside", &[format!("{number}.").repeat(MIB / 3)]))
        .collect();
    assert_eq!(answers.last(), Some(&Ok(Answer::Failed)), "the index has to grow at 16 MiB");
    scene.goes_on();
    assert!(attached.detach(), "no call failed");
    scene.killed();
}

#[test]
fn a_writer_that_cannot_read_goes_on_when_it_can() {
    let mut scene = Scene::on(Arc::new(Folder::new()));
    let attached = scene.fails(&for_good("pread64", "EIO"));
    // What it needs may be in its cache.
    for number in 0..10 {
        let value = format!("unread {number}");
        let answer = scene.client.append(STORAGES[number % 2], &[value]);
        assert!([Ok(Answer::Stored), Ok(Answer::Failed)].contains(&answer), "{answer:?}");
    }
    scene.goes_on();
    attached.detach();
    scene.recovers("meanwhile");
    scene.stops();
}

#[test]
fn while_the_log_cannot_be_read_reads_fail_and_appends_go_on() {
    let mut scene = Scene::on(Arc::new(Folder::new()));
    let fault = for_good("pread64", "EIO");
    let attached = Attached::to(&scene.server, "rill-reader", strace::all_files(), &fault);
    scene.client.append_at_last("s0", &["unread".to_owned()]).expect("the server goes on");
    assert_eq!(scene.client.try_read(), Ok(None), "it says so, and the server goes on");
    scene.client.append_at_last("s1", &["unread".to_owned()]).expect("the server goes on");
    assert!(attached.detach(), "no call failed");
    scene.recovers("meanwhile");
    scene.stops();
}

#[test]
fn after_a_sync_that_failed_nothing_is_acknowledged() {
    let mut scene = Scene::on(Arc::new(Folder::new()));
    // Only one: a second try would succeed, and mean nothing.
    let once = Fault { when: "1".to_owned(), ..for_good("fdatasync", "EIO") };
    let attached = Attached::to_each(&scene.server, strace::all_files(), &once);
    assert_eq!(scene.client.append("s0", &["unsynced".to_owned()]), Err(Gone));
    let (code, _, said) = scene.server.process.outcome();
    assert_eq!(code, Some(1));
    assert!(said.contains("can no longer be trusted"), "{said}");
    assert!(attached.detach(), "no call failed");
    told::check(&scene.server.folder.file("x.db"), &scene.client.told, "after the failed sync");
}

/// It may be of what a sync would not report again.
#[test]
fn after_a_write_ahead_of_a_sync_failed_nothing_is_acknowledged() {
    for (file, name) in [("x.db", "database"), ("x.db-wal", "write-ahead log")] {
        let (mut scene, attached) = while_parts_are_written(&[file], "EIO");
        let ended = scene.client.append_until("beside", 1_000_000, "rill_wal_bytes", |_| false);
        assert_eq!(ended, Err(Gone));
        let (code, _, said) = scene.server.process.outcome();
        assert_eq!(code, Some(1));
        assert!(said.contains(&format!("the {name} could not be synced")), "{said}");
        assert!(attached.detach(), "no call failed");
        let db = scene.server.folder.file("x.db");
        told::check(&db, &scene.client.told, "after the failed write");
    }
}

#[test]
fn where_a_write_ahead_of_a_sync_is_refused_the_sync_does_it() {
    let (mut scene, attached) = while_parts_are_written(strace::all_files(), "ENOSYS");
    for is_large in [true, false] {
        let is = |bytes: f64| (bytes > 60e6) == is_large;
        assert_eq!(scene.client.append_until("beside", 1_000_000, "rill_wal_bytes", is), Ok(true));
    }
    assert!(attached.detach(), "no call failed");
    scene.goes_on();
    scene.stops();
}

/// Of the database after it was copied to, and of the log ahead of commits.
fn while_parts_are_written(files: &[&str], error: &'static str) -> (Scene, Attached) {
    let scene = Scene::on(Arc::new(Folder::new()));
    let fault = for_good("sync_file_range", error);
    let attached = Attached::to(&scene.server, "rill-checkpointer", files, &fault);
    (scene, attached)
}

/// A file system of 20 MiB in a folder, for as long as this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn on(folder: &Folder) -> Option<SmallDisk> {
        let path = folder.file("");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=20m", "rill-test"]).arg(&path);
        mount.output().ok()?.status.success().then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Fills the disk to its last byte.
fn fill(rest: &Path) {
    let mut file = File::create(rest).expect("a name takes no room");
    while file.write_all(&[0; 4_096]).is_ok() {}
    while file.write_all(&[0; 64]).is_ok() {}
}

#[test]
fn a_start_on_a_full_disk_is_refused_and_loses_nothing() {
    for crashed in [false, true] {
        let folder = Arc::new(Folder::new());
        let Some(_disk) = SmallDisk::on(&folder) else {
            println!("nothing may be mounted here");
            return;
        };
        let Scene { server, mut client } = Scene::on(folder.clone());
        let large = (0..3).map(|number| format!("{number}.").repeat(MIB / 3));
        assert_eq!(client.append("s0", &large.collect::<Vec<_>>()), Ok(Answer::Stored));
        if crashed {
            server.kill()
        } else {
            server.stop()
        };
        let rest = folder.file("rest");
        fill(&rest);
        let Err(process) = Server::start_under(&[], folder.clone(), &[]) else {
            panic!("it started without room");
        };
        let (code, _, said) = process.outcome();
        assert_eq!(code, Some(1), "{said}");
        // After a stop it is the log's index that finds no room, or the log itself: the kernel
        // gives back the last process' map of the index late where somebody looks at that.
        let expected: &[&str] =
            if crashed { &["needs room"] } else { &["is the disk full?", "needs room"] };
        assert!(expected.iter().any(|expected| said.contains(expected)), "{said}");
        fs::remove_file(&rest).expect("it was made");
        let server = Server::start_in(folder, &[]);
        let told = std::mem::take(&mut client.told);
        let mut scene = Scene { client: Client::new(server.address(), &STORAGES), server };
        scene.client.told = told;
        scene.recovers("with room");
        scene.stops();
    }
}

/// Where nothing may be mounted, the calls that fail with ENOSPC (above) are all there is.
#[test]
fn a_disk_that_is_full_refuses_appends_and_takes_them_again_when_there_is_room() {
    let folder = Arc::new(Folder::new());
    let Some(_disk) = SmallDisk::on(&folder) else {
        println!("nothing may be mounted here");
        return;
    };
    let (ballast, rest) = (folder.file("ballast"), folder.file("rest"));
    let mut scene = Scene::on(folder);
    for (round, mib) in [("first", 16), ("second", 14)] {
        fs::write(&ballast, vec![0; mib * MIB]).expect("there is room for it");
        scene.fill(&format!("{round}, large").repeat(1_000));
        fill(&rest);
        // The log grew by part of what it could not take, which smaller ones fill.
        scene.fill(round);
        scene.refuses(Answer::Full, round);
        fs::remove_file(&rest).expect("it was made");
        fs::remove_file(&ballast).expect("it was made");
        if round == "first" {
            scene.recovers(round);
        }
    }
    scene.killed();
}
