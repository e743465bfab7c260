//! The shape of the source: who may know whom, what every file opens with, how long it may be, and
//! that the README keeps up with what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Process, rill};

const LINES_MAX: usize = 600;

/// Crates, and the modules that may name them.
const CRATES: &[(&[&str], &[&str])] = &[
    (&["mio", "socket2", "signal_hook", "signal_hook_mio"], &["reactor", "main"]),
    (&["rusqlite"], &["store"]),
    (&["arc_swap"], &["sync"]),
    (&["crossbeam_channel"], &["main", "reactor", "writer", "reader"]),
    (&["httparse"], &["http"]),
    (&["lexopt"], &["cli", "main"]),
];

const CORE: &[&str] = &["http", "route", "sse", "feed", "selection", "event", "id", "problem"];
const SHELLS: &[&str] = &["hub", "reactor", "writer", "reader", "store"];
const STORE_KNOWS: &[&str] = &["store", "config", "event", "id"];

struct Source {
    path: PathBuf,
    /// The part of `crate::` that it belongs to.
    module: String,
    text: String,
    /// Without comments and without unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the source can be listed") {
            let path = entry.expect("the source can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(&root, path));
            }
        }
    }
    assert!(sources.len() > 10, "the source was found");
    sources
}

impl Source {
    fn read(root: &Path, path: PathBuf) -> Source {
        let text = fs::read_to_string(&path).expect("source is UTF-8");
        let path = path.strip_prefix(root).expect("it was found there").to_owned();
        let first = path.iter().next().expect("a path has a part").to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
        let code = if is_test { String::new() } else { code_of(&text) };
        Source { path, module, text, code }
    }

    /// The modules of this crate that it names.
    fn knows(&self) -> BTreeSet<&str> {
        let mut known = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => known.extend(top_level_names(group)),
                None => known.extend([word(rest)]),
            }
        }
        known
    }

    fn names_crate(&self, name: &str) -> bool {
        self.code.match_indices(name).any(|(at, _)| {
            let before = self.code[..at].chars().next_back().unwrap_or(' ');
            let starts = !(before.is_alphanumeric() || matches!(before, '_' | ':' | '"'));
            let rest = &self.code[at + name.len()..];
            let used = self.code[..at].ends_with("use ") && word(rest).is_empty();
            starts && (rest.starts_with("::") || used)
        })
    }
}

fn code_of(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

/// The first words of `a::b, c::{d, e}, f}`.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut names, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(group[from..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(group[from..at].trim_start()));
                from = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn names_are_found_where_they_stand() {
    let text = "//! About crate::a.\nuse crate::{b::{x, y}, c};\nuse mio::Poll;\n\
                fn f() { crate::d::g(\"use arc_swap\"); std::mio::x(); }\n\
                #[cfg(test)]\nmod tests { use crate::e; }\n";
    let source =
        Source { path: "x.rs".into(), module: "x".into(), text: text.into(), code: code_of(text) };
    assert_eq!(source.knows(), BTreeSet::from(["b", "c", "d"]));
    assert!(source.names_crate("mio") && !source.names_crate("arc"));
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let (path, module) = (source.path.display(), source.module.as_str());
        for (crates, modules) in CRATES {
            for name in crates.iter().filter(|name| source.names_crate(name)) {
                if !modules.contains(&module) {
                    wrong.push(format!("{path} names {name}, which belongs to {modules:?}"));
                }
            }
        }
        for known in source.knows() {
            let core = CORE.contains(&module) && SHELLS.contains(&known);
            let store = module == "store" && !STORE_KNOWS.contains(&known);
            if core || store {
                wrong.push(format!("{path} knows {known}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_owns_and_is_short() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        if !source.text.starts_with("//!") {
            wrong.push(format!("{path} does not say what it owns"));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path} has {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_readme_mentions_every_script_and_every_flag() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(readme) = fs::read_to_string(root.join("README.md")) else {
        return;
    };
    let mut expected: Vec<String> = flags();
    if let Ok(scripts) = fs::read_dir(root.join("scripts")) {
        let scripts = scripts.map(|entry| entry.expect("scripts can be listed"));
        let files = scripts.filter(|entry| entry.path().is_file());
        expected.extend(files.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    expected.retain(|name| !readme.contains(name.as_str()));
    assert!(expected.is_empty(), "README.md does not mention {expected:?}");
}

fn flags() -> Vec<String> {
    let (code, help, _) = Process::start(&mut rill(&["serve", "--help"])).outcome();
    assert_eq!(code, Some(0));
    let words = help.lines().filter_map(|line| line.split_whitespace().next());
    let flags: Vec<String> =
        words.filter(|word| word.starts_with("--")).map(str::to_owned).collect();
    assert!(flags.iter().any(|flag| flag == "--listen"), "{help}");
    flags
}
