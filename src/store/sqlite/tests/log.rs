//! When the write-ahead log is copied, and starts over.

use super::*;

#[test]
fn the_log_starts_over_and_a_held_one_stops_appends() {
    let folder = Folder::new();
    let path = folder.file("db");
    let mut opened = open_with(&path, tiny()).unwrap();
    let mut random = Random(3);
    let mut model = Model::default();
    let mut wal_bytes_max = 0;
    for _ in 0..300 {
        live(&mut opened, &mut model, &mut random);
        wal_bytes_max = wal_bytes_max.max(opened.log.gauges().wal_bytes);
    }
    assert!((50_000..200_000).contains(&wal_bytes_max), "{wal_bytes_max}");
    let mut reader = open_reader(&path).unwrap();
    reader.begin().unwrap();
    let big = |n: u32| NewValue::new(format!("{n}").repeat(20_000));
    let a = id(1);
    let refused = (0..60).find_map(|n| {
        let values = [big(n)];
        commit(&mut *opened.log, &[Batch { id: &a, values: &values }]).err()
    });
    assert_eq!(refused, Some(StoreError::Failed(wal::HELD.to_owned())));
    reader.end();
    let values = [big(99)];
    let placed = commit(&mut *opened.log, &[Batch { id: &a, values: &values }]).unwrap();
    assert!(placed[0][0].new);
    assert!(opened.log.gauges().wal_bytes < 200_000);
}

#[test]
fn the_checkpointer_runs_again_for_what_was_committed_meanwhile() {
    let folder = Folder::new();
    let tuning = Tuning { wal_bytes_hard: usize::MAX, ..tiny() };
    let path = folder.file("db");
    let mut opened = open_with(&path, tuning).unwrap();
    let mut reader = open_reader(&path).unwrap();
    let mut random = Random(4);
    // How much is committed during each run, and how many runs there are before the log starts over.
    let much = config::WAL_REST_BYTES + 100_000;
    let cases: [(&[usize], u32); 5] = [
        (&[0], 1),
        (&[1_000], 1),
        (&[much, 1_000], 2),
        (&[much, much, 0], 3),
        (&[much; 9], config::CHECKPOINT_RUNS_MAX),
    ];
    for (meanwhile, runs_expected) in cases {
        append_bytes(&mut opened, 200_000, &mut random);
        let mut runs = 0;
        while opened.log.checkpoint_due() {
            assert_eq!(opened.log.is_restarting(), runs > 0, "before run {runs} of {meanwhile:?}");
            // SQLite begins a log anew that is copied and that nobody reads.
            reader.begin().unwrap();
            let copied_bytes = opened.checkpoint.run().unwrap();
            assert_eq!(copied_bytes, opened.log.gauges().wal_bytes, "all that there was");
            append_bytes(&mut opened, meanwhile[runs as usize], &mut random);
            reader.end();
            opened.log.restart_log(copied_bytes).unwrap();
            runs += 1;
        }
        assert_eq!(runs, runs_expected, "{meanwhile:?}");
        assert_eq!(opened.log.gauges().wal_bytes, 0, "{meanwhile:?}");
        assert!(!opened.log.is_restarting(), "{meanwhile:?}");
    }
}

#[test]
fn a_log_that_was_begun_anew_meanwhile_is_left_alone() {
    let folder = Folder::new();
    let mut opened = open_with(&folder.file("db"), tiny()).unwrap();
    let mut random = Random(5);
    append_bytes(&mut opened, 200_000, &mut random);
    assert!(opened.log.checkpoint_due());
    let copied_bytes = opened.checkpoint.run().unwrap();
    append_bytes(&mut opened, 50_000, &mut random);
    opened.log.restart_log(copied_bytes).unwrap();
    assert!((50_000..100_000).contains(&opened.log.gauges().wal_bytes));
    assert!(!opened.log.checkpoint_due() && !opened.log.is_restarting());
    append_bytes(&mut opened, 100_000, &mut random);
    assert!(opened.log.checkpoint_due());
}

#[test]
fn the_checkpointer_does_not_run_again_for_what_somebody_holds() {
    let folder = Folder::new();
    let path = folder.file("db");
    let tuning = Tuning { wal_bytes_hard: usize::MAX, ..tiny() };
    let mut opened = open_with(&path, tuning).unwrap();
    let mut reader = open_reader(&path).unwrap();
    let mut random = Random(6);
    append_bytes(&mut opened, 100_000, &mut random);
    reader.begin().unwrap();
    append_bytes(&mut opened, 2 * config::WAL_REST_BYTES, &mut random);
    let mut runs = 0;
    while opened.log.checkpoint_due() {
        let copied_bytes = opened.checkpoint.run().unwrap();
        assert!((100_000..200_000).contains(&copied_bytes), "{copied_bytes}");
        opened.log.restart_log(copied_bytes).unwrap();
        runs += 1;
    }
    assert_eq!(runs, 2);
    reader.end();
    append_bytes(&mut opened, 100_000, &mut random);
    assert!(opened.log.checkpoint_due() && !opened.log.is_restarting());
}

#[test]
fn the_file_of_the_log_is_longer_than_what_stands_in_it() {
    let folder = Folder::new();
    let path = folder.file("db");
    let tuning = Tuning { wal_bytes_soft: 4 << 20, wal_bytes_hard: usize::MAX, ..tiny() };
    let (file_bytes_min, file_bytes_max) = (tuning.wal_file_bytes_min as u64, 9 << 19);
    let mut opened = open_with(&path, tuning).unwrap();
    let file_bytes = || fs::metadata(file::beside(&path, "-wal")).unwrap().len();
    assert_eq!(file_bytes(), file_bytes_min);
    let (mut random, mut model) = (Random(7), Model::default());
    let (mut asked, mut lengthened) = (0, 0);
    while opened.log.gauges().wal_bytes < file_bytes_max {
        commit_both(&mut *opened.log, &mut model, &random_batches(&mut random));
        let Some(bytes) = opened.log.lengthening_due() else { continue };
        assert!(bytes <= file_bytes_max);
        // Not always in time, as another thread does it.
        asked += 1;
        if asked % 3 > 0 {
            opened.checkpoint.lengthen(bytes).unwrap();
            assert_eq!(file_bytes(), bytes);
            lengthened += 1;
        }
    }
    assert!(lengthened > 5, "{lengthened} times");
    assert_eq!(opened.log.lengthening_due(), None, "it is as long as it should be");
    let copy = folder.file("copy");
    copy_files(&path, &copy, |bytes| bytes);
    let reopened = open_with(&copy, tiny()).unwrap();
    assert_eq!(reopened.last, model.events.len() as Seq);
    check_reader(&mut *open_reader(&copy).unwrap(), &model, &mut random);
}

#[test]
fn the_file_of_the_log_is_asked_to_be_twice_as_long_when_a_third_is_used() {
    let folder = Folder::new();
    let mut opened = open_with(&folder.file("db"), tiny()).unwrap();
    let mut random = Random(8);
    let (mut file_bytes, mut asked) = (tiny().wal_file_bytes_min as u64, 0);
    loop {
        append_bytes(&mut opened, 100, &mut random);
        let used = opened.log.gauges().wal_bytes;
        let due = opened.log.lengthening_due();
        assert_eq!(due.is_some(), used > file_bytes / 3, "{used} of {file_bytes}");
        assert_eq!(opened.log.lengthening_due(), None, "each length once");
        let Some(bytes) = due else { continue };
        (file_bytes, asked) = (bytes, asked + 1);
        if bytes == 112_500 {
            break;
        }
    }
    assert!((4..10).contains(&asked), "{asked} lengths");
}

/// One new value of so many bytes.
fn append_bytes(opened: &mut Opened, bytes: usize, random: &mut Random) {
    if bytes > 0 {
        let values = [NewValue::new(format!("{:x}{}", random.next(), "x".repeat(bytes)))];
        commit(&mut *opened.log, &[Batch { id: &id(1), values: &values }]).unwrap();
    }
}
