//! Owns the reading of strace's log: what a server did to the files of its store, in order. A call
//! that changes files and is not known here fails the test, so that nothing goes unseen.

use std::collections::HashMap;

use crate::told::Moment;

/// The options that record what `parse` reads: bytes whole, descriptors with their paths, moments.
pub(crate) const OPTIONS: [&str; 7] = [
    "-ttt",
    "-T",
    "-y",
    "-s",
    "100000000",
    "-e",
    "trace=open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,syncfs,\
     sync_file_range,truncate,ftruncate,fallocate,copy_file_range,sendfile,unlink,unlinkat,rename,\
     renameat,renameat2,link,linkat",
];

/// What happened to a file. Names are those in the folder; the folder itself is "".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there from now on, if it was not.
    Open,
    Unlink,
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    /// At the end, wherever that is.
    Append {
        bytes: Vec<u8>,
    },
    Truncate {
        bytes: usize,
    },
    /// The thread begins to sync the file, and is done with it.
    SyncBegins {
        thread: u32,
    },
    SyncEnds {
        thread: u32,
        succeeded: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) moment: Moment,
    pub(crate) name: String,
    pub(crate) change: Change,
}

impl Change {
    pub(crate) fn is_failed_sync(&self) -> bool {
        matches!(self, Change::SyncEnds { succeeded: false, .. })
    }

    /// For people: without the bytes.
    pub(crate) fn kind(&self) -> String {
        match self {
            Change::Write { at, bytes } => format!("write of {} at {at}", bytes.len()),
            Change::Append { bytes } => format!("write of {} at the end", bytes.len()),
            change => format!("{change:?}"),
        }
    }
}

/// What a log holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) steps: Vec<Step>,
    /// Writes that a kill came upon: whether they happened, only the files know.
    pub(crate) cut_short: Vec<Step>,
}

/// Reads a log; `folder` is where the store's files are.
pub(crate) fn parse(log: &[u8], folder: &str) -> Trace {
    let mut parser = Parser { folder, begun: HashMap::new(), trace: Trace::default() };
    for line in log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line = std::str::from_utf8(line).expect("strace escapes what is not ASCII");
        let end = &line[line.len().saturating_sub(60)..];
        parser.line(line).unwrap_or_else(|| panic!("not understood: {line:.100} … {end}"));
    }
    parser.trace
}

struct Parser<'a> {
    folder: &'a str,
    /// A thread's call that did not return yet: its text so far.
    begun: HashMap<u32, String>,
    trace: Trace,
}

impl Parser<'_> {
    fn line(&mut self, line: &str) -> Option<()> {
        let (thread, rest) = line.split_once(' ')?;
        let thread = thread.parse().ok()?;
        let (moment, rest) = rest.trim_start().split_once(' ')?;
        let (seconds, fraction) = moment.split_once('.')?;
        let moment = format!("{seconds}{fraction}").parse().ok()?;
        if rest.starts_with("+++ ") || rest.starts_with("--- ") {
            return Some(());
        }
        if let Some(text) = rest.strip_suffix(" <unfinished ...>") {
            self.begin(thread, moment, text)?;
            self.begun.insert(thread, text.to_owned());
            return Some(());
        }
        // A thread that was killed as it began a call, before strace saw which.
        let unseen = ["<... ??? resumed>) = ?", "???( <detached ...>", "???()           = ?"];
        if unseen.contains(&rest) && !self.begun.contains_key(&thread) {
            return Some(());
        }
        // One that was in a call when strace, too, was at its end.
        if let Some(text) = rest.strip_suffix(" <detached ...>") {
            self.begin(thread, moment, text)?;
            return self.end(thread, moment, &format!("{text}) = ?"));
        }
        let resumed = rest.strip_prefix("<... ");
        let text = match resumed {
            Some(rest) => self.begun.remove(&thread)? + rest.split_once(" resumed>")?.1,
            None => {
                self.begin(thread, moment, rest)?;
                rest.to_owned()
            }
        };
        // Of a thread that was killed in the call; the latter where it was gone before strace asked.
        let killed = text.strip_suffix(" <unavailable>").unwrap_or(&text);
        if killed.ends_with(" = ?") {
            return self.end(thread, moment, killed);
        }
        let (text, took) = text.strip_suffix('>')?.rsplit_once(" <")?;
        let (seconds, fraction) = took.split_once('.')?;
        let took: Moment = format!("{seconds}{fraction}").parse().ok()?;
        // The moment of a line that resumes is that of the return already.
        self.end(thread, if resumed.is_some() { moment } else { moment + took }, text)
    }

    fn begin(&mut self, thread: u32, moment: Moment, text: &str) -> Option<()> {
        let (call, arguments) = text.split_once('(')?;
        if ["fsync", "fdatasync"].contains(&call)
            && let Some(name) = self.descriptor(arguments)?.0
        {
            self.trace.steps.push(Step { moment, name, change: Change::SyncBegins { thread } });
        }
        Some(())
    }

    fn end(&mut self, thread: u32, moment: Moment, text: &str) -> Option<()> {
        let (call, rest) = text.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        let arguments = arguments.trim_end().strip_suffix(')')?;
        let succeeded = !result.starts_with('-');
        let cut_short = result == "?";
        let (name, change) = match call {
            // It writes early what may be written at any time, and promises nothing.
            "sync_file_range" => return Some(()),
            "fsync" | "fdatasync" if cut_short => return Some(()),
            "fsync" | "fdatasync" => {
                (self.descriptor(arguments)?.0, Change::SyncEnds { thread, succeeded })
            }
            _ if !succeeded => return Some(()),
            _ if cut_short && !["pwrite64", "write"].contains(&call) => return None,
            "openat" => {
                let (_, rest) = arguments.split_once(", \"")?;
                let (path, flags) = rest.split_once('"')?;
                // Nothing but reads, or the folder.
                if !flags.contains("O_CREAT") {
                    return if flags.contains("O_TRUNC") { None } else { Some(()) };
                }
                (self.name(path), Change::Open)
            }
            "unlink" => (self.name(arguments.trim_matches('"')), Change::Unlink),
            "pwrite64" => {
                let (name, rest) = self.descriptor(arguments)?;
                let (rest, at) = rest.rsplit_once(", ")?;
                let bytes = written(rest, (!cut_short).then_some(result))?;
                (name, Change::Write { at: at.parse().ok()?, bytes })
            }
            // The one that does so has the log open for nothing else.
            "write" => {
                let (name, rest) = self.descriptor(arguments)?;
                (name, Change::Append { bytes: written(rest, (!cut_short).then_some(result))? })
            }
            "ftruncate" => {
                let (name, bytes) = self.descriptor(arguments)?;
                (name, Change::Truncate { bytes: bytes.parse().ok()? })
            }
            _ => return None,
        };
        let steps = if cut_short { &mut self.trace.cut_short } else { &mut self.trace.steps };
        steps.extend(name.map(|name| Step { moment, name, change }));
        Some(())
    }

    /// `14</folder/x.db>, rest`: the file's name, `None` if it is none that matters, and the rest.
    fn descriptor<'t>(&self, arguments: &'t str) -> Option<(Option<String>, &'t str)> {
        let (_, rest) = arguments.split_once('<')?;
        let (path, rest) = rest.split_once('>')?;
        if rest.starts_with("(deleted)") {
            return Some((None, rest));
        }
        Some((self.name(path), rest.strip_prefix(", ").unwrap_or(rest)))
    }

    /// The lock has no bytes, and the index of the log is made again by who opens it first.
    fn name(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix(self.folder)?.trim_start_matches('/');
        (!name.ends_with(".lock") && !name.ends_with("-shm")).then(|| name.to_owned())
    }
}

/// What was written of `"…", count`, which is all of it where the call did not return.
fn written(arguments: &str, result: Option<&str>) -> Option<Vec<u8>> {
    let (quoted, count) = arguments.rsplit_once(", ")?;
    let mut bytes = unescape(quoted.strip_prefix('"')?.strip_suffix('"')?)?;
    assert_eq!(count.parse(), Ok(bytes.len()), "a write was not recorded whole");
    if let Some(result) = result {
        bytes.truncate(result.split(' ').next()?.parse().ok()?);
    }
    Some(bytes)
}

/// The bytes of a C string as strace writes it.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        let simple = match escape {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'"' | b'\\' => escape,
            b'0'..=b'7' => {
                let digits = rest.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let octal = std::str::from_utf8(&rest[..digits]).ok()?;
                bytes.push(u8::from_str_radix(octal, 8).ok()?);
                rest = &rest[digits..];
                continue;
            }
            _ => return None,
        };
        bytes.push(simple);
        rest = after;
    }
    Some(bytes)
}

#[test]
fn a_log_is_read_as_strace_writes_it() {
    let log = "7 1700000000.000001 openat(AT_FDCWD</>, \"/f/x.db\", O_RDWR|O_CREAT, 0644) = \
               3</f/x.db> <0.000002>\n\
               7 1700000000.000010 pwrite64(3</f/x.db>, \"a\\0\\0011\\n\\\"\\377, 2, 3\", 13, 4096 \
               <unfinished ...>\n\
               8 1700000000.000011 fsync(4</f> <unfinished ...>\n\
               7 1700000000.000012 <... pwrite64 resumed>) = 13 <0.000002>\n\
               8 1700000000.000020 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED) \
               <0.000009>\n\
               7 1700000000.000030 fsync(3</f/x.db-shm>) = 0 <0.000005>\n\
               7 1700000000.000040 ftruncate(3</f/x.db>, 0) = 0 <0.000005>\n\
               7 1700000000.000050 unlink(\"/f/x.db\") = 0 <0.000005>\n\
               7 1700000000.000055 write(5</f/x.db-wal>, \"\\0\\0\\0\", 3) = 2 <0.000002>\n\
               7 1700000000.000060 pwrite64(3</f/x.db>, \"b\", 1, 7) = ?\n\
               9 1700000000.000060 pwrite64(3</f/x.db>, \"c\", 1, 8) = ? <unavailable>\n\
               8 1700000000.000061 <... ??? resumed>) = ?\n\
               9 1700000000.000061 ???( <detached ...>\n\
               11 1700000000.000061 pwrite64(3</f/x.db>, \"d\", 1, 9 <detached ...>\n\
               12 1700000000.000062 write(5</f/x.db-wal>, \"\\0\", 1) = ?\n\
               11 1700000000.000062 sync_file_range(3</f/x.db>, 0, 9, SYNC_FILE_RANGE_WRITE) = ?\n\
               10 1700000000.000061 ???()           = ?\n\
               7 1700000000.000061 +++ killed by SIGKILL +++\n";
    let step = |moment: Moment, name: &str, change| Step {
        moment: 1_700_000_000_000_000 + moment,
        name: name.to_owned(),
        change,
    };
    let bytes = b"a\0\x011\n\"\xff, 2, 3".to_vec();
    let trace = parse(log.as_bytes(), "/f");
    let write = |at, bytes: &[u8]| Change::Write { at, bytes: bytes.to_vec() };
    let cut_short = [(60, 7, b"b"), (60, 8, b"c"), (61, 9, b"d")]
        .map(|(moment, at, bytes)| step(moment, "x.db", write(at, bytes)));
    let added = |moment, bytes| step(moment, "x.db-wal", Change::Append { bytes: vec![0; bytes] });
    assert_eq!(trace.cut_short, [&cut_short[..], &[added(62, 1)]].concat());
    assert_eq!(
        trace.steps,
        [
            step(3, "x.db", Change::Open),
            step(11, "", Change::SyncBegins { thread: 8 }),
            step(12, "x.db", Change::Write { at: 4_096, bytes }),
            step(20, "", Change::SyncEnds { thread: 8, succeeded: false }),
            step(45, "x.db", Change::Truncate { bytes: 0 }),
            step(55, "x.db", Change::Unlink),
            added(57, 2),
        ]
    );
}
