//! Owns how a selection's cursors become a plan: which are valid, what a reset means, and what the
//! entity tag of a reply is. Pure.

use crate::event::{Cursor, Epochs, Seq};
use crate::http;
use crate::plan::{ItemFilter, ReadItem, ReadPlan};
use crate::selection::{Item, Selection, Window};

/// A selection for one JSON reply.
pub(super) fn plan(selection: Selection, epochs: &Epochs, visible: Seq) -> ReadPlan {
    let after = selection.after;
    resolve(selection, after, false, epochs, visible)
}

/// A selection for a stream: its cursor is the `Last-Event-ID` header, else `lastEventId` in the
/// query, else `after`. One of the first two that is no cursor at all is a reset too. A sketch is
/// ignored where there is any: a client that comes back sends the one it made before it went.
pub(super) fn stream_plan(
    selection: Selection,
    last_event_id: Option<&str>,
    epochs: &Epochs,
    visible: Seq,
) -> ReadPlan {
    let of_query = selection.last_event_id.clone();
    let text = last_event_id
        .filter(|text| !text.is_empty())
        .or(of_query.as_deref().filter(|text| !text.is_empty()));
    let (after, malformed) = match text.map(str::parse::<Cursor>) {
        None => (selection.after, false),
        Some(Ok(cursor)) => (Some(cursor), false),
        Some(Err(_)) => (None, true),
    };
    let mut plan = resolve(selection, after, malformed, epochs, visible);
    if after.is_some() || plan.reset {
        for item in &mut plan.items {
            item.filter.take_if(|filter| matches!(filter, ItemFilter::Sketch(_)));
        }
    }
    plan
}

fn resolve(
    selection: Selection,
    after: Option<Cursor>,
    malformed: bool,
    epochs: &Epochs,
    visible: Seq,
) -> ReadPlan {
    let cursors = selection.items.iter().filter_map(|item| item.after).chain(after);
    let reset = malformed || cursors.into_iter().any(|cursor| !epochs.accepts(cursor, visible));
    let start = |cursor: Option<Cursor>| cursor.filter(|_| !reset).map_or(0, |cursor| cursor.seq);
    let after_seq = start(after);
    let read = |item: Item| ReadItem {
        after: after_seq.max(start(item.after)),
        filter: item.filter.map(ItemFilter::new),
        id: item.id,
    };
    let items = selection.items.into_iter().map(read).collect();
    // A reconnecting stream's cursor takes the place of `last`.
    let window = match selection.window {
        Window::Newest(_) if after.is_some() && !reset => Window::All,
        window => window,
    };
    let (last, held, selection_held) = (None, None, None);
    ReadPlan { items, window, reset, after: after_seq, last, held, selection_held }
}

/// The strong entity tag of a JSON reply: as the rest is in the URL, the last `seq` among its
/// storages, the server's epoch, and whether it is a reset say what it holds.
pub(super) fn write_entity_tag(out: &mut Vec<u8>, last: Seq, reset: bool, epochs: &Epochs) {
    out.push(b'"');
    epochs.cursor(last).write(out);
    out.extend_from_slice(if reset { b"-reset\"" } else { b"\"" });
}

pub(super) fn entity_tag(last: Seq, reset: bool, epochs: &Epochs) -> String {
    let mut tag = Vec::new();
    write_entity_tag(&mut tag, last, reset, epochs);
    String::from_utf8(tag).expect("cursors are ASCII")
}

/// The `seq`s of which a tag in `If-None-Match` is the entity tag, letter for letter: for these,
/// and no other, `none_match` says that the client has the reply.
pub(super) fn seqs_of_tags(if_none_match: &str, reset: bool, epochs: &Epochs) -> Vec<Seq> {
    http::listed_tags(if_none_match)
        .filter_map(|tag| {
            let (seq, _) = tag.strip_prefix('"')?.split_once('.')?;
            let seq = seq.parse().ok()?;
            (tag == entity_tag(seq, reset, epochs)).then_some(seq)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Epoch;
    use crate::id::Id;

    fn epochs() -> Epochs {
        Epochs::new(&[(Epoch(1), 0), (Epoch(2), 10)])
    }

    fn selection(after: Option<&str>, items: &[Option<&str>], window: Window) -> Selection {
        let cursor = |text: &str| text.parse().unwrap();
        Selection {
            items: items
                .iter()
                .enumerate()
                .map(|(place, after)| Item {
                    id: Id::new(&format!("s{place}")).unwrap(),
                    after: after.map(cursor),
                    filter: None,
                })
                .collect(),
            after: after.map(cursor),
            window,
            last_event_id: None,
        }
    }

    fn afters(plan: &ReadPlan) -> Vec<Seq> {
        plan.items.iter().map(|item| item.after).collect()
    }

    #[test]
    fn an_items_own_cursor_counts_where_it_is_larger() {
        let selection = selection(Some("5"), &[None, Some("3"), Some("8.00000001")], Window::All);
        let plan = plan(selection, &epochs(), 20);
        assert_eq!((plan.reset, plan.after, afters(&plan)), (false, 5, vec![5, 5, 8]));
    }

    #[test]
    fn one_invalid_cursor_starts_everything_over() {
        for (after, item) in
            [(Some("21"), None), (Some("5"), Some("11.00000001")), (None, Some("1.000000ff"))]
        {
            let selection = selection(after, &[None, item], Window::All);
            let plan = plan(selection, &epochs(), 20);
            assert_eq!((plan.reset, plan.after, afters(&plan)), (true, 0, vec![0, 0]), "{after:?}");
        }
    }

    #[test]
    fn a_streams_cursor_has_three_places() {
        let mut from_query = selection(Some("5"), &[None], Window::All);
        from_query.last_event_id = Some("6".to_owned());
        for (header, expected) in [
            (Some("7"), (false, 7)),
            (Some(""), (false, 6)),
            (None, (false, 6)),
            (Some("x"), (true, 0)),
            (Some("99999999999999999999999"), (true, 0)),
        ] {
            let plan = stream_plan(from_query.clone(), header, &epochs(), 20);
            assert_eq!((plan.reset, plan.after), expected, "{header:?}");
        }
    }

    #[test]
    fn a_reconnecting_cursor_replaces_the_window_unless_it_is_invalid() {
        let newest = selection(None, &[None], Window::Newest(3));
        for (header, window, reset) in [
            (None, Window::Newest(3), false),
            (Some("7"), Window::All, false),
            (Some("21"), Window::Newest(3), true),
        ] {
            let plan = stream_plan(newest.clone(), header, &epochs(), 20);
            assert_eq!((plan.window, plan.reset), (window, reset), "{header:?}");
        }
    }

    #[test]
    fn entity_tags_are_found_again() {
        let epochs = epochs();
        let tag = entity_tag(17, false, &epochs);
        assert_eq!(tag, "\"17.00000002\"");
        let list = format!("\"3.00000002\", W/{tag}, \"4.00000001\", *, \"x\"");
        assert_eq!(seqs_of_tags(&list, false, &epochs), [3, 17]);
        for unlike in
            ["\"017.00000002\"", "\"x, \"17.00000002\" ,\"", "17.00000002", "\"+17.00000002\""]
        {
            assert_eq!(seqs_of_tags(unlike, false, &epochs), [] as [Seq; 0], "{unlike}");
            assert!(!http::none_match(unlike, &tag), "{unlike}");
        }
        let reset = entity_tag(17, true, &epochs);
        assert_eq!(seqs_of_tags(&reset, true, &epochs), [17]);
        assert_eq!(seqs_of_tags(&reset, false, &epochs), [] as [Seq; 0]);
    }
}
