//! Owns the disk's part in how long appends take: what the server's own histogram says of the
//! commits during an attack. A disk that is slow for everybody is not the attack's; how the server
//! makes appends wait beside that is.

use std::time::Duration;

/// Commits, their syncs included: what those of each bucket took at least, in seconds, and how many
/// they were, the slowest last.
#[derive(Clone, Debug)]
pub(crate) struct Commits(Vec<(f64, u64)>);

impl Commits {
    /// All so far, out of the server's metrics.
    pub(crate) fn of(metrics: &str) -> Commits {
        let bucket = |line: &str| {
            let (bound, count) =
                line.strip_prefix("rill_commit_seconds_bucket{le=\"")?.split_once("\"} ")?;
            let count: u64 = count.parse().expect("commits are counted");
            // The last bound is +Inf.
            Some((bound.parse::<f64>().expect("a bound is a number"), count))
        };
        // A bucket counts those before it, too, and its bound is the least of the next.
        let (mut least, mut below) = (0.0, 0);
        let each = |(bound, count)| {
            let own = (least, count - below);
            (least, below) = (bound, count);
            own
        };
        Commits(metrics.lines().filter_map(bucket).map(each).collect())
    }

    /// Those that came after `before`.
    pub(crate) fn since(&self, before: &Commits) -> Commits {
        let pairs = self.0.iter().zip(&before.0);
        Commits(pairs.map(|(now, before)| (now.0, now.1 - before.1)).collect())
    }

    /// What the slowest percent of appends waited for the disk, for certain. One that is due at some
    /// moment meets a commit that takes long as often as such commits are under way: it waits for
    /// the rest of that one, and for its own.
    pub(crate) fn wait(&self, elapsed: Duration) -> Duration {
        let mut under_way = 0.0;
        let slow = self.0.iter().rev().find(|(least, count)| {
            under_way += least * *count as f64;
            100.0 * under_way >= elapsed.as_secs_f64()
        });
        2 * Duration::from_secs_f64(slow.map_or(0.0, |(least, _)| *least))
    }
}

#[test]
fn the_wait_is_that_of_one_moment_in_a_hundred() {
    let metrics = |counts: [u64; 4]| {
        let bounds = ["0.001", "0.01", "0.1", "+Inf"].iter().zip(counts);
        let line = |(le, count)| format!("rill_commit_seconds_bucket{{le=\"{le}\"}} {count}\n");
        Commits::of(&bounds.map(line).collect::<String>())
    };
    let before = metrics([1, 2, 3, 4]);
    // Over ten seconds, a percent of which is 100 ms.
    let cases: [([u64; 4], u64); 6] = [
        ([1, 2, 3, 4], 0),
        ([5_001, 5_002, 5_003, 5_004], 0),
        ([1, 1_002, 1_003, 1_004], 2),
        // One sync of 10 to 100 ms is less than a percent, ten of them are not.
        ([1, 1_002, 1_004, 1_005], 2),
        ([1, 1_002, 1_013, 1_014], 20),
        ([1, 2, 3, 5], 200),
    ];
    for (after, milliseconds) in cases {
        let wait = metrics(after).since(&before).wait(Duration::from_secs(10));
        assert_eq!(wait, Duration::from_millis(milliseconds), "{after:?}");
    }
}
