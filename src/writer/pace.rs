//! Owns how many small appends one transaction takes and waits for. Called by the writer's loop;
//! counts, and looks at no clock.
//!
//! Whoever was answered appends again a moment later. If every transaction took all that wait, all
//! would be answered at once, and while they come back the writer would have nothing to do, and the
//! event loop nothing while they are committed. So a transaction takes half of those that are on
//! their way round, and one half comes back while the other is committed. Each pays for a sync then:
//! where that takes longer than a half's way back, all go together. Where it takes much longer, a
//! transaction waits a moment for those who come back: whoever is late has every other sync only.

use std::time::Duration;

use crate::config;

#[derive(Debug)]
pub(super) struct Pace {
    /// Appends on their way round: the most that a transaction took and left, slowly forgotten.
    circulating: usize,
    /// What a commit takes, most of it the sync: as many take longer as do not. One that waits for a
    /// checkpoint says nothing of the others.
    commit: Duration,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { circulating: 2 * config::COMMIT_APPENDS_MAX, commit: Duration::from_millis(1) }
    }

    /// A transaction took so many appends, its commit so long, and so many messages wait now, nearly
    /// all of them appends.
    pub(super) fn committed(&mut self, appends: usize, commit: Duration, waiting: usize) {
        let forgotten = self.circulating.div_ceil(config::PACE_COMMITS as usize);
        self.circulating = (appends + waiting).max(self.circulating - forgotten);
        let step = self.commit / config::PACE_COMMITS + Duration::from_nanos(1);
        if commit > self.commit {
            self.commit += step;
        } else {
            self.commit = self.commit.saturating_sub(step);
        }
    }

    /// How many small appends a transaction waits for before its commit, and for how long.
    pub(super) fn awaited(&self) -> (usize, Duration) {
        let is_long = self.commit >= Duration::from_millis(config::COMMIT_LONG);
        let awaited = if is_long { self.circulating.min(self.appends_max()) } else { 0 };
        (awaited, self.commit / config::COMMIT_PATIENCE_PART)
    }

    /// How many small appends a transaction takes.
    pub(super) fn appends_max(&self) -> usize {
        let half = self.circulating.div_ceil(2);
        let come_back = self.commit.as_nanos() / u128::from(config::APPEND_WAY_BACK_NANOSECONDS);
        let come_back = usize::try_from(come_back).unwrap_or(usize::MAX);
        if come_back > half {
            return config::COMMIT_APPENDS_MAX;
        }
        half.clamp(1, config::COMMIT_APPENDS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_many(appends: usize, microseconds: u64, waiting: usize) -> Pace {
        let mut pace = Pace::new();
        for _ in 0..200 {
            pace.committed(appends, Duration::from_micros(microseconds), waiting);
        }
        pace
    }

    #[test]
    fn a_half_goes_where_a_sync_takes_less_than_its_way_back() {
        assert_eq!(Pace::new().appends_max(), config::COMMIT_APPENDS_MAX, "nothing is known");
        // Appends, the commit's microseconds, who waits, and how many go.
        for (appends, microseconds, waiting, expected) in [
            (64, 150, 0, 32),
            (32, 150, 32, 32),
            (200, 150, 56, 128),
            (2_000, 150, 2_000, config::COMMIT_APPENDS_MAX),
            (64, 8_000, 0, config::COMMIT_APPENDS_MAX),
            (1, 0, 0, 1),
        ] {
            let found = after_many(appends, microseconds, waiting).appends_max();
            assert_eq!(found, expected, "{appends} {microseconds} {waiting}");
        }
        assert!(after_many(64, 600, 0).appends_max() > 64, "a slow sync is paid for once");
    }

    #[test]
    fn others_are_waited_for_where_a_sync_is_long() {
        for (appends, microseconds, waiting, expected) in [
            (32, 5_000, 32, 64),
            (32, 900, 32, 0),
            (1, 5_000, 0, 1),
            (2_000, 5_000, 2_000, config::COMMIT_APPENDS_MAX),
            (400, 1_050, 0, 200),
        ] {
            let (awaited, patience) = after_many(appends, microseconds, waiting).awaited();
            assert_eq!(awaited, expected, "{appends} {microseconds} {waiting}");
            assert!(patience <= Duration::from_micros(microseconds / 15));
        }
    }

    #[test]
    fn more_are_noticed_at_once_and_fewer_soon() {
        let mut pace = Pace::new();
        let mut commit = |appends| {
            pace.committed(appends, Duration::from_micros(10), 0);
            pace.appends_max()
        };
        for _ in 0..200 {
            commit(10);
        }
        assert_eq!(commit(300), 150);
        let commits = (0..).find(|_| commit(10) == 5).unwrap();
        assert!((10..100).contains(&commits), "{commits} commits");
    }
}
