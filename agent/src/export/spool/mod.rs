//! What waits until a receiver takes it: on disk, so that an outage of the receiver, a restart and a kill of the agent lose nothing that was put in; in memory
//! where there is no disk, or while it takes nothing.
//!
//! Two queues, exact statistics and everything else: the first is sent first, and what is in the second goes first when room is short. Delivery is at
//! least once: what the receiver took right before the agent was killed is sent again.

mod config;
mod log;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    path::Path,
};

pub use config::Config;
use log::{Cursor, Log};

/// What an entry is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Exact statistics: the last to go.
    Exact,
    /// Examples, findings and the like.
    Example,
}

impl Priority {
    const ALL: [Priority; 2] = [Priority::Exact, Priority::Example];

    fn folder(self) -> &'static str {
        match self {
            Priority::Exact => "exact",
            Priority::Example => "examples",
        }
    }
}

/// Such a store.
#[derive(Debug)]
pub struct Spool {
    lanes: [Lane; 2],
    disk_bytes: u64,
    memory_bytes: u64,
    /// Requests lost, by cause.
    losses: BTreeMap<&'static str, u64>,
    /// Held while the spool is in use, so that no second agent writes to it.
    _lock: Option<File>,
}

/// The queue of one priority: what is in memory came while the disk took nothing, or there is no disk.
#[derive(Debug, Default)]
struct Lane {
    log: Option<Log>,
    memory: VecDeque<Vec<u8>>,
    memory_bytes: u64,
}

/// Entries of one queue, and what it takes to settle them.
#[derive(Debug)]
pub struct Taken {
    lane: usize,
    /// The entries, oldest first.
    pub entries: Vec<Vec<u8>>,
    /// Place behind each on disk; empty if they are from memory.
    places: Vec<Cursor>,
}

impl Taken {
    /// Whether the entries are on disk.
    pub fn on_disk(&self) -> bool {
        !self.places.is_empty()
    }
}

impl Spool {
    /// A spool in `folder`, which must not be in use by another process.
    pub fn open(folder: &Path, config: &Config) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        let mut spool = Spool::memory(config);
        for (lane, priority) in spool.lanes.iter_mut().zip(Priority::ALL) {
            lane.log = Some(Log::open(&folder.join(priority.folder()))?);
        }
        spool.disk_bytes = config.max_mib << 20;
        spool._lock = Some(lock);
        Ok(spool)
    }

    /// A spool that forgets when the process ends.
    pub fn memory(config: &Config) -> Spool {
        Spool {
            lanes: Default::default(),
            disk_bytes: 0,
            memory_bytes: config.memory_mib << 20,
            losses: BTreeMap::new(),
            _lock: None,
        }
    }

    /// Puts an entry in. An error is the disk's: the entry waits in memory then, if there is room.
    pub fn push(&mut self, priority: Priority, entry: Vec<u8>) -> io::Result<()> {
        let at = priority as usize;
        let kept = match self.make_room(entry.len() as u64) {
            Ok(()) => self.lanes[at].log.as_mut().map(|log| log.append(&entry)),
            Err(error) => Some(Err(error)),
        };
        match kept {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                self.remember(at, entry);
                Err(error)
            }
            None => {
                self.remember(at, entry);
                Ok(())
            }
        }
    }

    /// The oldest entries that are not settled: at most so many, and no more once there are so many bytes. Exact statistics first.
    pub fn take(&mut self, most: usize, bytes: usize) -> io::Result<Option<Taken>> {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(log) = &mut lane.log {
                let frames = log.read(most, bytes)?;
                if !frames.is_empty() {
                    let (entries, places) = frames.into_iter().unzip();
                    return Ok(Some(Taken { lane: at, entries, places }));
                }
            }
            let mut total = 0;
            let enough = |entry: &&Vec<u8>| {
                let more = total < bytes;
                total += entry.len();
                more
            };
            let entries: Vec<Vec<u8>> = lane.memory.iter().take(most).take_while(enough).cloned().collect();
            if !entries.is_empty() {
                return Ok(Some(Taken { lane: at, entries, places: Vec::new() }));
            }
        }
        Ok(None)
    }

    /// The first `count` of what was taken need not be sent again.
    pub fn settle(&mut self, taken: &Taken, count: usize) -> io::Result<()> {
        let Some(last) = count.min(taken.entries.len()).checked_sub(1) else { return Ok(()) };
        let lane = &mut self.lanes[taken.lane];
        match (taken.places.get(last), &mut lane.log) {
            (Some(place), Some(log)) => log.settle(*place),
            _ => {
                for entry in &taken.entries[..=last] {
                    // Others may have made room meanwhile.
                    if lane.memory.front() == Some(entry) {
                        lane.memory.pop_front();
                        lane.memory_bytes -= entry.len() as u64;
                    }
                }
                Ok(())
            }
        }
    }

    /// How full it is, from 0 to 1.
    pub fn fill(&self) -> f64 {
        let share = |used: u64, of: u64| if of == 0 { 0.0 } else { used as f64 / of as f64 };
        let memory = self.lanes.iter().map(|lane| lane.memory_bytes).sum();
        share(self.bytes(), self.disk_bytes).max(share(memory, self.memory_bytes)).min(1.0)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.lanes.iter().filter_map(|lane| lane.log.as_ref()).map(Log::bytes).sum()
    }

    /// Requests lost so far, by cause.
    pub fn losses(&self) -> BTreeMap<&'static str, u64> {
        let mut losses = self.losses.clone();
        let damaged: u64 = self.lanes.iter().filter_map(|lane| lane.log.as_ref()).map(Log::damaged).sum();
        if damaged > 0 {
            losses.insert("spool_damaged", damaged);
        }
        losses
    }

    /// Makes room on disk for so many bytes: the oldest examples go, then the oldest statistics.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.disk_bytes > 0 && self.bytes() + bytes > self.disk_bytes {
            let mut lost = None;
            for lane in self.lanes.iter_mut().rev() {
                if let Some(log) = lane.log.as_mut().filter(|log| log.bytes() > 0) {
                    lost = log.drop_oldest()?;
                    break;
                }
            }
            match lost {
                Some(lost) => *self.losses.entry("spool_full").or_default() += lost,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Keeps an entry in memory; what has no room goes, examples before statistics, the older before the newer.
    fn remember(&mut self, at: usize, entry: Vec<u8>) {
        let bytes = entry.len() as u64;
        let used = |spool: &Spool| spool.lanes.iter().map(|lane| lane.memory_bytes).sum::<u64>();
        while used(self) + bytes > self.memory_bytes {
            *self.losses.entry("spool_full").or_default() += 1;
            // No example displaces a statistic.
            let lane = self.lanes[at..].iter_mut().rev().find(|lane| !lane.memory.is_empty());
            let Some((lane, oldest)) = lane.and_then(|lane| lane.memory.pop_front().map(|oldest| (lane, oldest)))
            else {
                return;
            };
            lane.memory_bytes -= oldest.len() as u64;
        }
        let lane = &mut self.lanes[at];
        lane.memory.push_back(entry);
        lane.memory_bytes += bytes;
    }
}
