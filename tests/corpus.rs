//! Owns the repetition of what fuzzing found: every input that was kept under `tests/fuzz/corpus` is
//! put to its check again. `scripts/fuzz` looks for more.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

#[path = "fuzz/src/lib.rs"]
pub mod checks;

const BYTES_MAX: u64 = 300_000;

fn listed(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).expect("the corpus can be listed");
    entries.map(|entry| entry.expect("the corpus can be listed").path()).collect()
}

#[test]
fn every_input_that_was_kept_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let expected = checks::CHECKS.iter().map(|(name, _)| corpus.join(name)).collect();
    assert_eq!(listed(&corpus), expected, "a folder for every check");
    let mut bytes = 0;
    for (name, check) in checks::CHECKS {
        let inputs = listed(&corpus.join(name));
        assert!(!inputs.is_empty(), "{name} has inputs");
        for input in inputs {
            let data = fs::read(&input).expect("the corpus can be read");
            bytes += data.len() as u64;
            let outcome = panic::catch_unwind(|| check(&data));
            assert!(outcome.is_ok(), "{} fails its check", input.display());
        }
    }
    assert!(bytes <= BYTES_MAX, "{bytes} bytes: the corpus is kept small");
}
