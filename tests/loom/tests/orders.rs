//! Runs the double buffer and the counter of what is held under every order of two threads that the
//! memory model allows.

use std::sync::Arc;

use loom::sync::mpsc;
use loom::thread;
use rill_loom::held::Counter;
use rill_loom::id::Id;
use rill_loom::index::{Published, Shadow};
use rill_loom::message::Slot;

fn ids(names: &[&str]) -> Arc<[Id]> {
    names.iter().map(|name| Id::new(name).expect("a name")).collect()
}

fn subscribers(published: &Published, name: &str) -> Vec<Slot> {
    let id = Id::new(name).expect("a name");
    let index = published.load();
    index.subscribers(&id).map_or(Vec::new(), Iterator::collect)
}

/// As the writer does: what could not be published is tried again with the next change.
fn publish(shadow: &mut Shadow) {
    while shadow.publish() == 0 {
        thread::yield_now();
    }
}

/// The reader sees the index before a change or after it, and after it once it was told; a copy
/// that it looks at is not touched, and what changed while it looked is on both copies.
#[test]
fn a_snapshot_is_whole_and_not_older_than_what_was_said() {
    loom::model(|| {
        let mut shadow = Shadow::default();
        let published = shadow.published();
        let (said, notices) = mpsc::channel();
        let writer = thread::spawn(move || {
            shadow.subscribe(1, ids(&["a", "b"]));
            publish(&mut shadow);
            said.send(()).expect("the reader is there");
            shadow.subscribe(2, ids(&["a"]));
            publish(&mut shadow);
            shadow.unsubscribe(1);
            publish(&mut shadow);
            shadow
        });
        let seen = subscribers(&published, "a");
        assert!(matches!(seen[..], [] | [1] | [1, 2] | [2]), "{seen:?}");
        notices.recv().expect("the writer says so");
        let later = subscribers(&published, "a");
        assert!(matches!(later[..], [1] | [1, 2] | [2]), "it was told: {later:?}");
        assert!(later.len() >= seen.len() || seen == [1, 2], "{seen:?}, then {later:?}");

        let mut shadow = writer.join().expect("the writer ends");
        for copy in 0..2 {
            assert_eq!(subscribers(&published, "a"), [2], "copy {copy}");
            assert_eq!(subscribers(&published, "b"), [] as [Slot; 0], "copy {copy}");
            // Nothing is left to be said; the copies change places.
            shadow.publish();
        }
    });
}

/// A snapshot that is held over a turn is what it was, to its end, and holds nothing but the spare:
/// one publish goes through meanwhile, and the one after that when it is let go.
#[test]
fn a_snapshot_that_is_held_stays_as_it_was() {
    loom::model(|| {
        let mut shadow = Shadow::default();
        let published = shadow.published();
        let writer = thread::spawn(move || {
            let mut done = 0;
            for slot in 1..=3 {
                shadow.subscribe(slot, ids(&["a"]));
                done += u32::from(shadow.publish() > 0);
            }
            (shadow, done)
        });
        let a = Id::new("a").expect("a name");
        let snapshot = published.load();
        let count = || snapshot.subscribers(&a).map_or(0, Iterator::count);
        let before = count();
        thread::yield_now();
        assert_eq!(count(), before);
        drop(snapshot);
        let (mut shadow, done) = writer.join().expect("the writer ends");
        assert!(done >= 1, "the spare is nobody's at first");
        if shadow.is_behind() {
            assert!(shadow.publish() > 0, "nobody holds anything any more");
        }
        assert_eq!(subscribers(&published, "a"), [1, 2, 3]);
    });
}

/// Only the hub adds, so that it may limit by what it has read; what others drop comes back whole.
#[test]
fn what_is_held_stays_below_its_limit_and_comes_back() {
    const MOST: usize = 3;
    loom::model(|| {
        let counter = Counter::default();
        let (given, taken) = mpsc::channel();
        let reader = thread::spawn(move || while let Ok(Some(_)) = taken.recv() {});
        for amount in [2, 1, 2] {
            if counter.get() + amount <= MOST {
                given.send(Some(counter.hold(amount))).expect("the reader is there");
            }
            assert!(counter.get() <= MOST);
        }
        given.send(None).expect("the reader is there");
        reader.join().expect("the reader ends");
        assert_eq!(counter.get(), 0);
    });
}
