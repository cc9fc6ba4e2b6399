//! The spool on a real file system, with ends of the process wherever they may come. Does not prove what a power failure leaves.
#![allow(clippy::unwrap_used)]

use std::{fs::OpenOptions, path::PathBuf};

use super::*;

fn config(max_mib: u64) -> Config {
    Config { enabled: true, max_mib, memory_mib: 1 }
}

fn entry(number: u32, bytes: usize) -> Vec<u8> {
    let mut entry = number.to_le_bytes().to_vec();
    entry.resize(bytes.max(4), 7);
    entry
}

fn number(entry: &[u8]) -> u32 {
    u32::from_le_bytes(*entry.first_chunk().unwrap())
}

/// Takes and settles everything there is.
fn drain(spool: &mut Spool) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(taken) = spool.take(7, 1 << 20).unwrap() {
        numbers.extend(taken.entries.iter().map(|entry| number(entry)));
        spool.settle(&taken, taken.entries.len()).unwrap();
    }
    numbers
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("exact")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = entries.filter(|path| path.extension().is_some()).collect();
    segments.sort();
    segments
}

#[test]
fn statistics_come_before_examples_and_each_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    for mut spool in [Spool::open(folder.path(), &config(16)).unwrap(), Spool::memory(&config(16))] {
        for number in 0..20 {
            let priority = if number % 2 == 0 { Priority::Example } else { Priority::Exact };
            spool.push(priority, entry(number, 100)).unwrap();
        }
        let expected: Vec<u32> = (0..20).filter(|at| at % 2 == 1).chain((0..20).filter(|at| at % 2 == 0)).collect();
        assert_eq!(drain(&mut spool), expected);
        assert_eq!((drain(&mut spool).len(), spool.losses().len()), (0, 0));
    }
}

/// Scenario: entries go in and come out in random numbers, with random ends of the process, some right after something was taken.
/// Guarantees: what was not settled comes again after the end, in its order; what was settled does not.
#[test]
fn nothing_is_lost_whenever_the_process_ends() {
    fastrand::seed(4711);
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Some(Spool::open(folder.path(), &config(64)).unwrap());
        let (mut pushed, mut settled) = (0, 0);
        for _ in 0..150 {
            let open = spool.as_mut().unwrap();
            match fastrand::u32(0..10) {
                0..5 => {
                    open.push(Priority::Exact, entry(pushed, fastrand::usize(4..400_000))).unwrap();
                    pushed += 1;
                }
                5..8 => {
                    let most = fastrand::usize(1..10);
                    let Some(taken) = open.take(most, usize::MAX).unwrap() else {
                        assert_eq!(settled, pushed);
                        continue;
                    };
                    let numbers: Vec<u32> = taken.entries.iter().map(|entry| number(entry)).collect();
                    let expected: Vec<u32> = (settled..pushed).take(most).collect();
                    assert_eq!(numbers, expected);
                    let count = fastrand::usize(0..=numbers.len());
                    open.settle(&taken, count).unwrap();
                    settled += count as u32;
                }
                _ => {
                    drop(spool.take());
                    spool = Some(Spool::open(folder.path(), &config(64)).unwrap());
                }
            }
        }
        let mut spool = spool.unwrap();
        assert_eq!(drain(&mut spool), (settled..pushed).collect::<Vec<_>>());
        assert!(spool.losses().is_empty());
        assert!(spool.bytes() < 5 << 20, "settled segments are removed: {}", spool.bytes());
    }
}

#[test]
fn a_torn_frame_at_the_end_is_cut_off_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), &config(16)).unwrap();
    (0..3).for_each(|number| spool.push(Priority::Exact, entry(number, 50)).unwrap());
    drop(spool);
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    let length = fs::metadata(segment).unwrap().len();
    OpenOptions::new().write(true).open(segment).unwrap().set_len(length - 5).unwrap();
    let mut spool = Spool::open(folder.path(), &config(16)).unwrap();
    spool.push(Priority::Exact, entry(3, 50)).unwrap();
    assert_eq!(drain(&mut spool), [0, 1, 3]);
    assert_eq!(spool.losses(), BTreeMap::from([("spool_damaged", 1)]));
}

#[test]
fn damage_within_costs_the_rest_of_its_segment_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), &config(64)).unwrap();
    (0..30).for_each(|number| spool.push(Priority::Exact, entry(number, 1 << 20)).unwrap());
    drop(spool);
    let all = segments(folder.path());
    assert!(all.len() > 3, "{all:?}");
    let mut bytes = fs::read(&all[1]).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0xff;
    fs::write(&all[1], bytes).unwrap();
    let mut spool = Spool::open(folder.path(), &config(64)).unwrap();
    let numbers = drain(&mut spool);
    assert!(numbers.len() > 24 && numbers.is_sorted() && numbers.last() == Some(&29), "{numbers:?}");
    assert_eq!(spool.losses(), BTreeMap::from([("spool_damaged", 1)]));
}

/// Guarantees: beyond the bound examples go first, the oldest first, and each is counted; statistics stay until there are no examples.
#[test]
fn when_room_is_short_the_oldest_examples_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), &config(16)).unwrap();
    for number in 0..30 {
        let priority = if number < 5 { Priority::Exact } else { Priority::Example };
        spool.push(priority, entry(number, 1 << 20)).unwrap();
        assert!(spool.bytes() <= 16 << 20, "{}", spool.bytes());
    }
    assert!(spool.fill() > 0.5);
    let lost = spool.losses()["spool_full"];
    let numbers = drain(&mut spool);
    assert_eq!(numbers[..5], [0, 1, 2, 3, 4]);
    assert_eq!(numbers.len() as u64 + lost, 30);
    assert_eq!(numbers[5..], (30 - numbers.len() as u32 + 5..30).collect::<Vec<_>>());

    let mut memory = Spool::memory(&config(16));
    for number in 0..20 {
        let priority = if number % 2 == 0 { Priority::Exact } else { Priority::Example };
        memory.push(priority, entry(number, 100 << 10)).unwrap();
    }
    let lost = memory.losses()["spool_full"];
    let numbers = drain(&mut memory);
    assert_eq!((numbers.len() as u64 + lost, numbers.len()), (20, 10));
    assert!(numbers.iter().all(|number| number % 2 == 0), "{numbers:?}");
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), &config(16)).unwrap();
    fs::remove_dir_all(folder.path().join("exact")).unwrap();
    spool.push(Priority::Exact, entry(1, 100)).unwrap_err();
    fs::create_dir(folder.path().join("exact")).unwrap();
    spool.push(Priority::Exact, entry(2, 100)).unwrap();
    let mut numbers = drain(&mut spool);
    numbers.sort_unstable();
    assert_eq!((numbers, spool.losses().len()), (vec![1, 2], 0));
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &config(16)).unwrap();
    let error = Spool::open(folder.path(), &config(16)).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(spool);
    Spool::open(folder.path(), &config(16)).unwrap();
}
