//! Owns what is asked of the readers: what is with them, what waits, and whose turn it is. First
//! pages go at once, as far as there is room. Of everything that may take long few requests are with
//! the readers at any time, whatever else is, and its lanes take turns: so a first page waits for
//! few of them, and none of them for ever. The hub asks; what is asked is not its business.

use std::collections::VecDeque;

use crate::config;
use crate::message::{Lane, ToReader};

/// What may take long.
const FURTHER: [Lane; 4] = [Lane::Page, Lane::Scan, Lane::Large, Lane::Parse];

#[derive(Debug)]
pub(super) struct Reads {
    waiting: [VecDeque<ToReader>; Lane::COUNT],
    /// With the readers.
    first: usize,
    further: usize,
    further_max: usize,
    /// Whose turn it is among `FURTHER`.
    turn: usize,
}

impl Reads {
    pub(super) fn new(readers: usize) -> Reads {
        let further_max = readers * config::FURTHER_READS_IN_FLIGHT_MAX;
        Reads { waiting: Default::default(), first: 0, further: 0, further_max, turn: 0 }
    }

    /// Whether nobody else should wait in the lane.
    pub(super) fn is_full(&self, lane: Lane) -> bool {
        self.waiting[lane as usize].len() >= config::READS_WAITING_MAX
    }

    pub(super) fn ask(&mut self, request: ToReader) {
        let lane = request.lane();
        let waiting = &mut self.waiting[lane as usize];
        if lane == Lane::Large && request.is_begun() {
            waiting.push_front(request);
        } else {
            waiting.push_back(request);
        }
    }

    /// A request of this lane was answered.
    pub(super) fn answered(&mut self, lane: Lane) {
        *self.in_flight_of(lane) -= 1;
    }

    /// What is to be sent to the readers now.
    pub(super) fn next(&mut self) -> Option<ToReader> {
        let lane = self.whose_turn()?;
        *self.in_flight_of(lane) += 1;
        self.waiting[lane as usize].pop_front()
    }

    fn whose_turn(&mut self) -> Option<Lane> {
        let waits = |lane: Lane| !self.waiting[lane as usize].is_empty();
        if waits(Lane::First) && self.first < config::READS_IN_FLIGHT_MAX {
            return Some(Lane::First);
        }
        if self.further >= self.further_max {
            return None;
        }
        let places = (self.turn..self.turn + FURTHER.len()).map(|place| place % FURTHER.len());
        let place = places.into_iter().find(|place| waits(FURTHER[*place]))?;
        self.turn = place + 1;
        Some(FURTHER[place])
    }

    fn in_flight_of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::First => &mut self.first,
            Lane::Page | Lane::Scan | Lane::Large | Lane::Parse => &mut self.further,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.first + self.further
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gather::Gathering;
    use crate::id::Id;
    use crate::message::{From, Reading, Token};
    use crate::plan::{ReadItem, ReadPlan};
    use crate::route::Route;
    use crate::selection::Window;
    use crate::store::Direction;

    const TOKEN: Token = Token { connection: 0, exchange: 0 };

    fn id() -> Id {
        Id::new("a").expect("a short name")
    }

    fn plan(storages: usize) -> Arc<ReadPlan> {
        let items = vec![ReadItem { id: id(), after: 0, filter: None }; storages];
        let (window, reset, after) = (Window::All, false, 0);
        let (last, held, selection_held) = (None, None, None);
        Arc::new(ReadPlan { items, window, reset, after, last, held, selection_held })
    }

    /// The first page of so many storages.
    fn open(storages: usize) -> ToReader {
        let plan = plan(storages);
        ToReader::Open { token: TOKEN, plan, to: 0, unless: Vec::new(), end: None }
    }

    fn request(kind: char) -> ToReader {
        let follow = |from| {
            let reading = Reading::Following(Arc::new([id()]));
            ToReader::Follow { slot: 0, reading, from, to: 1, gathering: None }
        };
        match kind {
            'f' => ToReader::Fill { token: TOKEN, plan: plan(1), to: 0, unless: Vec::new() },
            'o' => open(config::PAGE_ITEMS_MAX),
            'l' => follow(From::Live(0)),
            'b' => follow(From::Behind(0)),
            's' => open(config::PAGE_ITEMS_MAX + 1),
            'p' => {
                let (route, query, body) = (Route::Get, String::new(), Vec::new());
                ToReader::Parse { token: TOKEN, route, query, body }
            }
            kind => panic!("{kind} is none"),
        }
    }

    fn kind(request: &ToReader) -> char {
        let kinds = ['f', 'o', 'l', 'b', 's', 'p'];
        let text = format!("{request:?}");
        let same = kinds.into_iter().find(|kind| format!("{:?}", self::request(*kind)) == text);
        same.expect("it was asked for")
    }

    /// What goes to the readers: letters are asked for, and a digit answers that many of what went,
    /// oldest first. A space stands before what goes after each.
    fn play(readers: usize, script: &str) -> String {
        let mut reads = Reads::new(readers);
        let mut with_readers = VecDeque::new();
        let mut sent = String::new();
        for step in script.chars() {
            match step.to_digit(10) {
                Some(answers) => (0..answers).for_each(|_| {
                    let lane = with_readers.pop_front().expect("a request is with the readers");
                    reads.answered(lane);
                    sent.push(' ');
                    while let Some(request) = reads.next() {
                        with_readers.push_back(request.lane());
                        sent.push(kind(&request));
                    }
                }),
                None => {
                    reads.ask(request(step));
                    while let Some(request) = reads.next() {
                        with_readers.push_back(request.lane());
                        sent.push(kind(&request));
                    }
                }
            }
        }
        assert_eq!(with_readers.len(), reads.in_flight());
        sent
    }

    #[test]
    fn first_pages_go_ahead_and_the_others_take_turns() {
        for (readers, script, expected) in [
            (1, "bbbbb", "bb"),
            (2, "bbbbb", "bbbb"),
            (1, "bbbb111", "bb b b "),
            // Whatever waits, a first page goes at once.
            (1, "bbbbbfol", "bbfol"),
            (1, "bbbbbf1l", "bbf bl"),
            // No kind waits for another's queue.
            (1, "bbbbbpps111111", "bb s p b p b b"),
            (1, "ppppb111", "pp b p p"),
            // What may take long has its share whatever comes first.
            (1, "bbbbffffff2ffff2", "bbffffff b bffff  "),
        ] {
            assert_eq!(play(readers, script), expected, "{readers} readers, {script}");
        }
    }

    #[test]
    fn of_large_selections_one_that_was_begun_is_done_before_the_next() {
        let large = |slot, begun: bool| {
            let ids: Arc<[Id]> = vec![id(); config::PAGE_ITEMS_MAX + 1].into();
            let gathering = Gathering::new(Direction::OldestFirst, 1, 1);
            let gathering = begun.then(|| Box::new(gathering));
            let reading = Reading::Following(ids);
            ToReader::Follow { slot, reading, from: From::Live(0), to: 1, gathering }
        };
        let mut reads = Reads::new(1);
        (0..5).for_each(|slot| reads.ask(large(slot, false)));
        let next = |reads: &mut Reads| match reads.next() {
            Some(ToReader::Follow { slot, .. }) => Some(slot),
            _ => None,
        };
        assert_eq!(
            [next(&mut reads), next(&mut reads), next(&mut reads)],
            [Some(0), Some(1), None]
        );
        for (slot, goes_on, expected) in [(0, true, 0), (1, true, 1), (0, false, 2), (1, true, 1)] {
            reads.answered(Lane::Large);
            if goes_on {
                reads.ask(large(slot, true));
            }
            assert_eq!(next(&mut reads), Some(expected));
        }
    }

    #[test]
    fn every_lane_has_its_limit() {
        let mut reads = Reads::new(1);
        for _ in 0..config::READS_IN_FLIGHT_MAX {
            reads.ask(request('f'));
            assert!(reads.next().is_some());
        }
        for _ in 0..config::READS_WAITING_MAX {
            assert!(!reads.is_full(Lane::First));
            reads.ask(request('f'));
            assert!(reads.next().is_none());
        }
        assert!(reads.is_full(Lane::First) && !reads.is_full(Lane::Parse));
        assert_eq!(reads.waiting(), config::READS_WAITING_MAX);
        reads.answered(Lane::First);
        assert!(reads.next().is_some() && !reads.is_full(Lane::First));
    }
}
