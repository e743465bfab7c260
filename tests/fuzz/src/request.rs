//! Owns the check of HTTP's heads and bodies: however the bytes of a connection are split, the same
//! requests come out, or the same refusal. Knows nothing of routes.

use rill::http::{BodyLength, BodyReader, Head, ParsedHead, parse_head};
use rill::problem::Problem;

use super::input::Input;

/// Small, so that inputs get past it.
const BODY_BYTES_MAX: usize = 200;
/// From here on the input's padding byte asks for some: most inputs are better short.
const PADDING_FROM: u8 = 200;
/// The most padding is more than the longest head.
const PADDING_UNIT: usize = 1_600;

/// Four lengths that the pieces have in turn; whether a byte is repeated, and where; the bytes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let lengths: [usize; 4] = std::array::from_fn(|_| usize::from(input.byte()) + 1);
    let padding = usize::from(input.byte().saturating_sub(PADDING_FROM)) * PADDING_UNIT;
    let place = usize::from(input.u16());
    let mut bytes = input.rest().to_vec();
    if let Some(&byte) = bytes.get(place) {
        bytes.splice(place..place, std::iter::repeat_n(byte, padding));
    }
    let whole = Receiver::of([bytes.as_slice()]);
    let mut rest = bytes.as_slice();
    let pieces = lengths.iter().cycle().map_while(|&length| {
        let piece;
        (piece, rest) = rest.split_at(length.min(rest.len()));
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(Receiver::of(pieces), whole, "splits do not matter");
    whole.check();
}

#[derive(Debug, PartialEq)]
struct Request {
    head: Head,
    /// Path and query.
    target: [String; 2],
    body: Vec<u8>,
}

/// One connection's bytes as they become requests, in the way that the hub does it.
#[derive(Debug, Default, PartialEq)]
struct Receiver {
    requests: Vec<Request>,
    /// Bytes that no request took yet.
    waiting: Vec<u8>,
    body_complete: bool,
    refused: Option<Problem>,
}

impl Receiver {
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Receiver {
        let mut receiver = Receiver { body_complete: true, ..Receiver::default() };
        let (mut scanned, mut reader) = (0, BodyReader::new(BodyLength::None));
        for piece in pieces {
            receiver.waiting.extend_from_slice(piece);
            while receiver.refused.is_none() && receiver.proceed(&mut scanned, &mut reader) {}
        }
        if receiver.refused.is_some() {
            // How much had come when it was refused is what the splits decide.
            receiver.waiting.clear();
            if !receiver.body_complete {
                receiver.requests.pop();
            }
        }
        receiver
    }

    /// Takes a head, or what is there of a body; whether there may be more to take.
    fn proceed(&mut self, scanned: &mut usize, reader: &mut BodyReader) -> bool {
        let taken = if self.body_complete {
            parse_head(&self.waiting, scanned, BODY_BYTES_MAX).map(|parsed| {
                let ParsedHead { head, path, query, length } = parsed?;
                *scanned = 0;
                *reader = BodyReader::new(head.body);
                self.body_complete = head.body == BodyLength::None;
                let target = [path.to_owned(), query.to_owned()];
                self.requests.push(Request { head, target, body: Vec::new() });
                Some(length)
            })
        } else {
            let request = self.requests.last_mut().expect("a body follows a head");
            reader.read(&self.waiting, &mut request.body, BODY_BYTES_MAX).map(|progress| {
                self.body_complete = progress.complete;
                Some(progress.consumed)
            })
        };
        match taken {
            Ok(Some(length)) => drop(self.waiting.drain(..length)),
            Ok(None) => return false,
            Err(problem) => self.refused = Some(problem),
        }
        !self.waiting.is_empty()
    }

    fn check(&self) {
        for Request { target: [path, query], body, .. } in &self.requests {
            assert!(path.starts_with('/') || path == "*", "{path:?}");
            assert!(format!("{path}{query}").bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(body.len() <= BODY_BYTES_MAX, "the limit holds for what chunks decode to");
        }
        if let Some(problem) = &self.refused {
            let known = matches!(problem.status, 400 | 413 | 414 | 415 | 417 | 431 | 501 | 505);
            assert!(known, "{problem:?}");
        }
    }
}
