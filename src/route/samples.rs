//! Owns the filters of the tests' tables, which write `$F` for one, so that a line stays readable.
//! Called by the tests of `get` and `bloom`.

use crate::event::Hash;
use crate::filter::{Filter, InverseBloom, Sketch};

/// Two inverse Bloom filters for 3 events each, and a sketch of 2 events.
fn samples() -> [(&'static str, String); 3] {
    let mut sketch = Sketch::new(4, 7);
    ["x", "y"].iter().for_each(|value| sketch.add(&Hash::of(value)));
    [
        ("$F", InverseBloom::build(&[], 3, || 1).encode()),
        ("$G", InverseBloom::build(&[], 3, || 2).encode()),
        ("$S", sketch.encode()),
    ]
}

/// The text of a request, with filters where their names stand.
pub(super) fn fill(text: &str) -> String {
    samples().iter().fold(text.to_owned(), |text, (name, filter)| text.replace(name, filter))
}

/// The name of the filter that was decoded.
pub(super) fn name(filter: &Filter) -> &'static str {
    let text = match filter {
        Filter::InverseBloom(filter) => filter.encode(),
        Filter::Sketch(sketch) => sketch.encode(),
    };
    samples().into_iter().find(|(_, sample)| *sample == text).expect("a sample was sent").0
}
