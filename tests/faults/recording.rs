//! Owns the recording of what servers do to their files, and the loss of power at every moment of it:
//! states that the disk may then be found in are opened, and what anybody had been told by then must
//! be in them. Does not say what is played meanwhile.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::disk::{Disk, KEPT, Kept, State};
use crate::harness::{Folder, Process, Random, Server};
use crate::strace::{self, Attached};
use crate::told::{self, Moment, Told};
use crate::trace::{self, Change, Step};

const FILES: [&str; 3] = ["x.db", "x.db-wal", "x.db-journal"];

/// What servers did, one after the other in one folder, and what clients were told meanwhile.
pub(crate) struct Recording {
    pub(crate) folder: Arc<Folder>,
    /// What was there before, for certain.
    before: Disk,
    pub(crate) steps: Vec<Step>,
    pub(crate) told: Told,
}

/// How a server comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Stopped,
    /// By itself, with an error.
    Failed,
}

impl Recording {
    pub(crate) fn new(found: State) -> Recording {
        let folder = folder_in_memory();
        for (name, bytes) in &found {
            fs::write(folder.file(name), bytes).expect("the folder can be written");
        }
        let before = Disk::with(&found);
        Recording { folder: Arc::new(folder), before, steps: Vec::new(), told: Told::default() }
    }

    /// A server's life in this folder, with further options for strace.
    pub(crate) fn live(
        &mut self,
        end: End,
        options: &[String],
        play: impl FnOnce(&mut Server) -> Told,
    ) {
        let words = strace::under(&self.folder, &FILES, &recorded(options));
        let process = match Server::start_under(&words, self.folder.clone(), &[]) {
            Ok(mut server) => {
                self.told.join(play(&mut server));
                server.process
            }
            Err(process) => process,
        };
        self.end(end, process);
    }

    /// What starts a program whose life in this folder is recorded until it `end`s.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let words = strace::under(&self.folder, &FILES, &recorded(&[]));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    /// A server's life that is recorded from now on, when what it did before is certain: at a time
    /// when it has nothing to do.
    pub(crate) fn live_on(
        &mut self,
        end: End,
        options: &[String],
        mut server: Server,
        play: impl FnOnce(&mut Server) -> Told,
    ) {
        self.before = Disk::with(&self.files());
        self.steps.clear();
        let attached = Attached::to_all(&server, &FILES, &recorded(options));
        self.told.join(play(&mut server));
        self.end(end, server.process);
        attached.detach();
    }

    /// The files of the store as they are now.
    fn files(&self) -> State {
        let mut files = self.folder.contents();
        files.retain(|name, _| FILES.contains(&name.as_str()));
        files
    }

    pub(crate) fn end(&mut self, end: End, mut process: Process) {
        let code = match end {
            End::Killed => {
                process.signal("KILL");
                None
            }
            End::Stopped => {
                process.signal("TERM");
                Some(0)
            }
            End::Failed => Some(1),
        };
        // Its output ends when strace ends, too.
        let (ended, _, said) = process.outcome();
        assert_eq!(ended, code, "{said}");
        let folder = self.folder.file("");
        let folder = folder.to_str().expect("test paths are UTF-8").trim_end_matches('/');
        let trace = trace::parse(&strace::log_of(&self.folder), folder);
        self.steps.extend(trace.steps);
        let files = self.folder.contents();
        for step in trace.cut_short {
            self.steps.extend(self.what_happened(step, &files));
        }
        // What a sync that failed was to write is in the files, and counts as lost.
        if !self.steps.iter().any(|step| step.change.is_failed_sync()) {
            self.check_record();
        }
    }

    /// What the files have of a write that a kill came upon.
    fn what_happened(&self, mut step: Step, files: &State) -> Option<Step> {
        let file = &files[&step.name];
        let happened = match &mut step.change {
            Change::Write { at, bytes } => file.get(*at..*at + bytes.len()) == Some(&bytes[..]),
            Change::Append { bytes } => {
                bytes.truncate(file.len() - self.recorded()[&step.name].len());
                !bytes.is_empty()
            }
            change => panic!("{change:?} is not looked for"),
        };
        happened.then_some(step)
    }

    fn recorded(&self) -> State {
        let mut disk = self.before.clone();
        self.steps.iter().for_each(|step| disk.apply(step));
        disk.running()
    }

    /// Without a loss of power, the files are what was recorded.
    fn check_record(&self) {
        let (files, recorded) = (self.files(), self.recorded());
        assert!(recorded.keys().eq(files.keys()), "{:?}, {:?}", recorded.keys(), files.keys());
        for (name, bytes) in files {
            assert!(recorded[&name] == bytes, "{name} is not as recorded");
        }
    }

    /// The power goes at one of so many moments, chosen at random, and after the last.
    pub(crate) fn check(
        &self,
        one_in: u64,
        random: &mut Random,
        mut also: impl FnMut(&State, &Told, &mut Random),
    ) {
        let mut disk = self.before.clone();
        let mut states = 0;
        for (number, step) in self.steps.iter().enumerate() {
            if random.one_in(one_in) {
                let told = self.told.before(step.moment);
                for kept in KEPT {
                    let state = disk.cut(kept, random);
                    check_state(&state, &told, &self.describe(number, kept));
                    also(&state, &told, random);
                    states += 1;
                }
            }
            disk.apply(step);
        }
        println!("{states} states of {} steps", self.steps.len());
        self.check_last(random, "");
    }

    /// The power goes after everything.
    pub(crate) fn check_last(&self, random: &mut Random, before: &str) {
        let mut disk = self.before.clone();
        self.steps.iter().for_each(|step| disk.apply(step));
        let told = self.told.before(Moment::MAX);
        for kept in KEPT {
            let what = self.describe(self.steps.len(), kept);
            check_state(&disk.cut(kept, random), &told, &(before.to_owned() + &what));
        }
    }

    fn describe(&self, number: usize, kept: Kept) -> String {
        let next = self.steps.get(number).map(|step| (&step.name, step.change.kind()));
        let steps = self.steps.len();
        format!("power lost before step {number} of {steps}, {next:?}, of what is pending {kept:?}")
    }
}

/// The options for strace that record, and these.
fn recorded(options: &[String]) -> Vec<String> {
    trace::OPTIONS.iter().map(|&word| word.to_owned()).chain(options.to_vec()).collect()
}

/// Where there is memory to be had as a folder: nothing here depends on the disk's own syncs.
fn folder_in_memory() -> Folder {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { Folder::within(memory) } else { Folder::new() }
}

fn check_state(state: &State, told: &Told, what: &str) {
    let folder = folder_in_memory();
    for (name, bytes) in state {
        fs::write(folder.file(name), bytes).expect("the folder can be written");
    }
    told::check(&folder.file("x.db"), told, what);
}
