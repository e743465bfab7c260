//! Owns what the parameters of all queries have in common. Called by `get` and `bloom`, which know
//! their names. Percent-encoding itself is `percent`'s.

use std::borrow::Cow;

use super::json::Path;
use super::percent;
use crate::problem::Problem;

/// A parameter's value.
pub(super) fn decode<'q>(name: &str, value: &'q str) -> Result<Cow<'q, str>, Problem> {
    percent::decode_query(value).map_err(|error| Path::Name(name).bad_request(error))
}

/// For a parameter that stands at most once.
pub(super) fn put_once<'q>(
    place: &mut Option<Cow<'q, str>>,
    name: &str,
    value: Cow<'q, str>,
) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Path::Name(name).bad_request("stands twice")),
    }
}

/// An integer from 0, in digits; one above `u64::MAX` is given as that, as in JSON.
pub(super) fn natural(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
