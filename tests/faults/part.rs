//! Owns which part of a long test a run of it does: with `RILL_TEST_PART=2/5` every fifth of its cases
//! from the second on, so that five runs do all of it.

pub(crate) struct Part {
    first: usize,
    step: usize,
}

impl Part {
    /// All of it where the variable is not there.
    pub(crate) fn from_environment() -> Part {
        let Ok(text) = std::env::var("RILL_TEST_PART") else { return Part { first: 0, step: 1 } };
        let numbers = text.split_once('/').and_then(|(part, parts)| {
            Some((part.parse::<usize>().ok()?, parts.parse::<usize>().ok()?))
        });
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => {
                Part { first: part - 1, step: parts }
            }
            _ => panic!("RILL_TEST_PART is one like 2/5, and not {text}"),
        }
    }

    /// Those of all cases that are this part.
    pub(crate) fn of<T>(&self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.first).step_by(self.step)
    }

    /// Whether the first case is among them.
    pub(crate) fn is_first(&self) -> bool {
        self.first == 0
    }
}
