//! Owns the state of one stream: how far its events were queued, and how far it is known that there
//! are any. Subscribing, catching up, lagging and resuming are this one mechanism. The hub calls
//! it; it does no I/O and knows no connection.
//!
//! A matching event always raises `horizon`. It is queued, and moves `cursor`, only if the feed was
//! live (`cursor == horizon`) and its outbox has room; otherwise the feed is behind, and asks for a
//! page once its outbox has drained. So there is no gap, no repeat, and no code for lagging.

use crate::event::Seq;
use crate::message::From;

#[derive(Debug)]
pub struct Feed {
    /// Every event of the feed up to here was queued.
    cursor: Seq,
    /// No event of the feed past this was noticed.
    horizon: Seq,
    phase: Phase,
    membership: Membership,
    page: Page,
}

/// Where a feed is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No page came yet; where the first starts is the plan's business.
    Unopened {
        to: Seq,
    },
    /// On the way to `synced`, which follows the last event that existed at the start.
    Opening {
        to: Seq,
    },
    Following,
}

/// Whether the published index is known to hold the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Joining,
    Joined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    None,
    /// None, and the last one since `synced` ended before what it was asked for.
    Cut,
    /// On its way, up to here at most.
    InFlight {
        to: Seq,
    },
}

impl Feed {
    /// A feed that opens when `visible` is the newest event.
    pub fn open(visible: Seq) -> Feed {
        Feed {
            cursor: 0,
            horizon: visible,
            phase: Phase::Unopened { to: visible },
            membership: Membership::Joining,
            page: Page::None,
        }
    }

    /// The index holds the feed; every event up to `last` was noticed before that.
    pub fn joined(&mut self, last: Seq) {
        assert_eq!(self.membership, Membership::Joining, "a feed joins once");
        self.membership = Membership::Joined;
        self.horizon = self.horizon.max(last);
    }

    /// A matching event was committed. Returns whether its frame is to be queued now.
    pub fn offer(&mut self, seq: Seq, room: bool) -> bool {
        let live = self.is_live();
        self.horizon = self.horizon.max(seq);
        let queue = live && room;
        if queue {
            assert!(seq > self.cursor, "events are noticed in order");
            self.cursor = seq;
        }
        queue
    }

    pub fn is_live(&self) -> bool {
        self.phase == Phase::Following
            && self.membership == Membership::Joined
            && self.cursor == self.horizon
    }

    /// Whether the feed fell behind after it had been opened.
    pub fn is_lagging(&self) -> bool {
        self.phase == Phase::Following && self.cursor < self.horizon
    }

    /// The page that the feed needs next; `None` while one is on its way, or when it needs none.
    pub fn wants(&self) -> Option<(From, Seq)> {
        let behind = self.cursor < self.horizon;
        match (self.phase, self.page) {
            (_, Page::InFlight { .. }) => None,
            (Phase::Unopened { to }, _) => Some((From::Plan, to)),
            (Phase::Opening { to }, _) => Some((From::Opening(self.cursor), to)),
            (Phase::Following, Page::None) if behind => {
                Some((From::Live(self.cursor), self.horizon))
            }
            (Phase::Following, Page::Cut) => Some((From::Behind(self.cursor), self.horizon)),
            (Phase::Following, Page::None) => None,
        }
    }

    /// The page `wants` named was asked for.
    pub fn asked(&mut self) {
        let (_, to) = self.wants().expect("a feed has one page on its way at most");
        self.page = Page::InFlight { to };
    }

    pub fn page_is_in_flight(&self) -> bool {
        matches!(self.page, Page::InFlight { .. })
    }

    /// The page that was asked for will not come.
    pub fn page_failed(&mut self) {
        assert!(self.page_is_in_flight(), "a page fails when it was asked for");
        self.page = Page::None;
    }

    /// The page came, and is queued: everything up to `cursor`, `synced` included or not.
    pub fn paged(&mut self, cursor: Seq, synced: bool) {
        let Page::InFlight { to } = self.page else {
            panic!("a page comes when it was asked for");
        };
        assert!(cursor >= self.cursor, "a page goes forward");
        assert!(cursor <= to, "a page ends where it was told to");
        let cut = self.phase == Phase::Following && cursor < to;
        self.page = if cut { Page::Cut } else { Page::None };
        self.cursor = cursor;
        self.phase = match self.phase {
            Phase::Unopened { .. } | Phase::Opening { .. } if synced => Phase::Following,
            Phase::Unopened { to } => Phase::Opening { to },
            phase => phase,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live_at(seq: Seq) -> Feed {
        let mut feed = Feed::open(seq);
        feed.asked();
        feed.paged(seq, true);
        feed.joined(seq);
        assert!(feed.is_live());
        feed
    }

    #[test]
    fn opening_pages_lead_to_synced_and_joining_to_live() {
        let mut feed = Feed::open(10);
        assert_eq!(feed.wants(), Some((From::Plan, 10)));
        feed.asked();
        assert_eq!(feed.wants(), None);
        assert!(!feed.offer(11, true), "not live while opening");
        feed.paged(6, false);
        assert_eq!(feed.wants(), Some((From::Opening(6), 10)));
        feed.asked();
        feed.paged(10, true);
        assert_eq!(feed.wants(), Some((From::Live(10), 11)));
        feed.asked();
        feed.paged(11, false);
        assert_eq!(feed.wants(), None);
        assert!(!feed.is_live(), "an event may have been missed before joining");
        feed.joined(12);
        assert_eq!(feed.wants(), Some((From::Live(11), 12)));
        feed.asked();
        feed.paged(12, false);
        assert!(feed.is_live());
    }

    #[test]
    fn an_event_without_room_is_fetched_later_and_later_ones_wait_for_it() {
        let mut feed = live_at(5);
        assert!(feed.offer(6, true));
        assert!(!feed.offer(8, false));
        assert!(feed.is_lagging());
        assert!(!feed.offer(9, true), "8 comes first");
        assert_eq!(feed.wants(), Some((From::Live(6), 9)));
        feed.asked();
        assert!(!feed.offer(12, true));
        feed.paged(9, false);
        assert_eq!(feed.wants(), Some((From::Live(9), 12)), "it had all that it was asked for");
        feed.asked();
        feed.paged(12, false);
        assert!(feed.offer(13, true));
    }

    #[test]
    fn what_does_not_fit_into_the_first_page_is_further_work() {
        let mut feed = live_at(5);
        assert!(!feed.offer(9, false));
        assert_eq!(feed.wants(), Some((From::Live(5), 9)));
        for cursor in [5, 7] {
            feed.asked();
            feed.paged(cursor, false);
            assert_eq!(feed.wants(), Some((From::Behind(cursor), 9)));
        }
        feed.asked();
        feed.paged(9, false);
        assert!(feed.offer(10, true) && !feed.offer(11, false));
        assert_eq!(feed.wants(), Some((From::Live(10), 11)));
    }
}
