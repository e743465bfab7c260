//! Owns the body of a request: which bytes are its, and what they decode to (RFC 9112, 6 and 7).
//! Called by the hub with whatever bytes have come; keeps none of them. Room is taken for bytes that
//! are there, never for a number that announces them.

use super::head::BodyLength;
use super::{excerpt, is_token_byte, is_value_byte};
use crate::config::HEAD_BYTES_MAX;
use crate::problem::Problem;

/// Chunk extensions of a whole body: they mean nothing here, and are not read for ever.
const EXTENSIONS_BYTES_MAX: usize = 4 * 1024;
/// Enough for every number of 64 bits; more are leading zeros.
const SIZE_DIGITS_MAX: usize = 16;

#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// Of the sized body, or of the chunk whose size is being read or whose data is.
    remaining: usize,
    /// What the chunks so far decoded to.
    decoded: usize,
    extensions_bytes: usize,
    trailers_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sized,
    /// So many digits of a chunk's size were read.
    Size(usize),
    /// White space after the size: only an extension may follow.
    BeforeExtension,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyProgress {
    pub consumed: usize,
    /// Bytes after `consumed` belong to the next request.
    pub complete: bool,
}

impl BodyReader {
    pub fn new(length: BodyLength) -> BodyReader {
        let (state, remaining) = match length {
            BodyLength::None | BodyLength::Sized(0) => (State::Complete, 0),
            BodyLength::Sized(bytes) => (State::Sized, bytes),
            BodyLength::Chunked => (State::Size(0), 0),
        };
        BodyReader { state, remaining, decoded: 0, extensions_bytes: 0, trailers_bytes: 0 }
    }

    /// Takes what belongs to the body from the start of `input` and appends what it decodes to.
    /// All of `input` is taken unless the body is complete.
    pub fn read(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        body_bytes_max: usize,
    ) -> Result<BodyProgress, Problem> {
        let mut consumed = 0;
        while consumed < input.len() && self.state != State::Complete {
            let rest = &input[consumed..];
            if matches!(self.state, State::Sized | State::Data) {
                consumed += self.take_data(rest, body);
            } else {
                self.state = self.step(rest[0], body_bytes_max)?;
                consumed += 1;
            }
        }
        Ok(BodyProgress { consumed, complete: self.state == State::Complete })
    }

    fn take_data(&mut self, input: &[u8], body: &mut Vec<u8>) -> usize {
        let taken = self.remaining.min(input.len());
        body.extend_from_slice(&input[..taken]);
        self.remaining -= taken;
        self.decoded += taken;
        if self.remaining == 0 {
            self.state = if self.state == State::Sized { State::Complete } else { State::DataCr };
        }
        taken
    }

    /// One byte of a chunked body that is not data.
    fn step(&mut self, byte: u8, body_bytes_max: usize) -> Result<State, Problem> {
        let next = match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                return self.size_digit(digits, byte, body_bytes_max);
            }
            (State::Size(1..), b' ' | b'\t') => State::BeforeExtension,
            (State::BeforeExtension, b' ' | b'\t') => State::BeforeExtension,
            (State::Size(1..) | State::BeforeExtension, b';') => State::Extension,
            (State::Size(1..) | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_value_byte(byte) => State::Extension,
            (State::SizeLf, b'\n') if self.remaining == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Complete,
            _ => return Err(self.misplaced(byte)),
        };
        self.count(next)?;
        Ok(next)
    }

    fn size_digit(
        &mut self,
        digits: usize,
        byte: u8,
        body_bytes_max: usize,
    ) -> Result<State, Problem> {
        if digits == SIZE_DIGITS_MAX {
            let detail = format!("chunk size: more than {SIZE_DIGITS_MAX} digits");
            return Err(Problem::bad_request(detail));
        }
        let digit = char::from(byte).to_digit(16).expect("the caller matched hexadecimal digits");
        self.remaining = self.remaining.saturating_mul(16).saturating_add(digit as usize);
        if self.remaining > body_bytes_max.saturating_sub(self.decoded) {
            let detail = format!("request body: over the limit of {body_bytes_max} bytes");
            return Err(Problem::new(413, detail));
        }
        Ok(State::Size(digits + 1))
    }

    /// Bounds what is read and thrown away.
    fn count(&mut self, next: State) -> Result<(), Problem> {
        match next {
            State::BeforeExtension | State::Extension => self.extensions_bytes += 1,
            State::TrailerName | State::TrailerValue | State::TrailerLf => self.trailers_bytes += 1,
            _ => {}
        }
        if self.extensions_bytes > EXTENSIONS_BYTES_MAX {
            let detail = format!("chunk extensions: longer than {EXTENSIONS_BYTES_MAX} bytes");
            return Err(Problem::bad_request(detail));
        }
        if self.trailers_bytes > HEAD_BYTES_MAX {
            let detail = format!("trailer fields: longer than {HEAD_BYTES_MAX} bytes");
            return Err(Problem::new(431, detail));
        }
        Ok(())
    }

    fn misplaced(&self, byte: u8) -> Problem {
        let wanted = match self.state {
            State::Size(0) => "chunk size: a hexadecimal digit",
            State::Size(_) => "chunk size: a hexadecimal digit, ';' or CR LF",
            State::BeforeExtension => "chunk size: ';'",
            State::Extension => "chunk extension: visible text or CR LF",
            State::SizeLf => "chunk size: LF after CR",
            State::DataCr | State::DataLf => {
                "chunk data: CR LF after as many bytes as its size says"
            }
            State::TrailerStart => "trailer fields: a field name or CR LF",
            State::TrailerName => "trailer field: a name and ':'",
            State::TrailerValue => "trailer field: visible text or CR LF",
            State::TrailerLf | State::LastLf => "trailer fields: LF after CR",
            State::Sized | State::Data | State::Complete => {
                unreachable!("data is taken whole, and nothing after the end")
            }
        };
        Problem::bad_request(format!("{wanted} is expected, not {}", excerpt(&[byte])))
    }
}
