//! A queue on disk: segments of frames, each with its length and checksum, and a cursor that says what was settled.
//!
//! A frame is length (4 bytes, little endian), CRC-32 of length and payload (4 bytes), payload. Frames are written with one call each, so the end of the process
//! loses none that was appended; the end of the machine may lose those that the kernel had not written yet, and a torn one at the end is cut off.
//! The cursor is written after the fact: what was settled right before the end may come again, never the reverse.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Segments grow to this size; a whole one is the least that goes when room is short.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Largest payload. Requests are split to much less.
const MAX_PAYLOAD: usize = 64 << 20;
/// Length and checksum.
const HEAD: usize = 8;
/// File with the cursor.
const CURSOR: &str = "cursor";

/// A place between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    segment: u64,
    offset: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

/// Such a queue.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    writer: Option<File>,
    /// What lies before it is settled.
    cursor: Cursor,
    /// Frames that could not be read.
    damaged: u64,
}

impl Log {
    /// Opens the queue in `folder`, which is made if need be.
    pub(super) fn open(folder: &Path) -> io::Result<Log> {
        fs::create_dir_all(folder)?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse().ok());
            if let Some(number) = number {
                segments.push(Segment { number, bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.number);
        let mut log = Log {
            folder: folder.into(),
            segments: segments.into(),
            writer: None,
            cursor: Cursor::default(),
            damaged: 0,
        };
        log.mend_end()?;
        log.cursor = log.read_cursor();
        log.remove_settled();
        Ok(log)
    }

    /// Bytes on disk, settled or not.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Frames that could not be read since the start.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Appends a frame. After an error nothing of it is there.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is too large to be kept"));
        }
        if self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES) {
            self.rotate()?;
        }
        let (Some(segment), folder) = (self.segments.back_mut(), &self.folder) else { return Ok(()) };
        let file = match &mut self.writer {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).create(true).open(path(folder, segment.number))?),
        };
        let frame = frame(payload);
        match file.write_all(&frame) {
            Ok(()) => {
                segment.bytes += frame.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Part of the frame may be there. If it cannot be cut off either, reading stops at it and a new segment is begun.
                if file.set_len(segment.bytes).is_err() {
                    self.rotate()?;
                }
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.segments.back().map_or(self.cursor.segment.max(1), |segment| segment.number + 1);
        let file = OpenOptions::new().append(true).create_new(true).open(path(&self.folder, number))?;
        self.writer = Some(file);
        self.segments.push_back(Segment { number, bytes: 0 });
        Ok(())
    }

    /// Frames that are not settled, oldest first, each with the place behind it: at most so many, and no more once there are so many bytes.
    pub(super) fn read(&mut self, most: usize, bytes: usize) -> io::Result<Vec<(Vec<u8>, Cursor)>> {
        let mut frames = Vec::new();
        let mut total = 0;
        let numbers = self.segments.iter().map(|segment| segment.number);
        let numbers: Vec<u64> = numbers.filter(|number| *number >= self.cursor.segment).collect();
        for number in numbers {
            let mut file = File::open(path(&self.folder, number))?;
            let mut offset = if number == self.cursor.segment { self.cursor.offset } else { 0 };
            file.seek(SeekFrom::Start(offset))?;
            while frames.len() < most && total < bytes {
                match next(&mut file)? {
                    Next::Frame(payload) => {
                        offset += (HEAD + payload.len()) as u64;
                        total += payload.len();
                        frames.push((payload, Cursor { segment: number, offset }));
                    }
                    Next::End => break,
                    Next::Damaged if frames.is_empty() => {
                        self.pass_damage(number)?;
                        break;
                    }
                    // What stands before it is settled first.
                    Next::Damaged => return Ok(frames),
                }
            }
            if frames.len() >= most || total >= bytes {
                break;
            }
        }
        Ok(frames)
    }

    /// What stands behind damage in a segment has no known beginning: the segment is left, and that is counted.
    fn pass_damage(&mut self, number: u64) -> io::Result<()> {
        self.damaged += 1;
        if self.segments.back().is_some_and(|last| last.number == number) {
            self.rotate()?;
        }
        self.settle(Cursor { segment: number + 1, offset: 0 })
    }

    /// All frames before `cursor` are settled.
    pub(super) fn settle(&mut self, cursor: Cursor) -> io::Result<()> {
        if cursor <= self.cursor {
            return Ok(());
        }
        self.cursor = cursor;
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&cursor.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&cursor.offset.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        fs::write(self.folder.join(CURSOR), bytes)?;
        self.remove_settled();
        Ok(())
    }

    /// Removes the oldest segment, settled or not, and gives how many frames were lost with it; `None` if there is none.
    pub(super) fn drop_oldest(&mut self) -> io::Result<Option<u64>> {
        let Some(oldest) = self.segments.front().map(|segment| segment.number) else { return Ok(None) };
        if self.segments.len() == 1 {
            self.rotate()?;
        }
        let mut file = File::open(path(&self.folder, oldest))?;
        if oldest == self.cursor.segment {
            file.seek(SeekFrom::Start(self.cursor.offset))?;
        }
        let mut lost = 0;
        while oldest >= self.cursor.segment && matches!(next(&mut file)?, Next::Frame(_)) {
            lost += 1;
        }
        fs::remove_file(path(&self.folder, oldest))?;
        self.segments.pop_front();
        let first = self.segments.front().map_or(oldest + 1, |segment| segment.number);
        self.settle(Cursor { segment: first.max(self.cursor.segment), offset: 0 })?;
        Ok(Some(lost))
    }

    /// Removes whole segments that are settled; the one that is written to stays. One that cannot be removed now is tried again later.
    fn remove_settled(&mut self) {
        while self.segments.len() > 1
            && let Some(first) = self.segments.front()
            && (first.number < self.cursor.segment
                || first.number == self.cursor.segment && first.bytes <= self.cursor.offset)
            && fs::remove_file(path(&self.folder, first.number)).is_ok()
        {
            self.segments.pop_front();
        }
    }

    fn read_cursor(&self) -> Cursor {
        let read = || {
            let bytes: [u8; 20] = fs::read(self.folder.join(CURSOR)).ok()?.try_into().ok()?;
            let (place, sum) = bytes.split_first_chunk::<16>()?;
            let (segment, offset) = place.split_first_chunk::<8>()?;
            let whole = crc32fast::hash(place).to_le_bytes() == *sum;
            let offset = u64::from_le_bytes(offset.try_into().ok()?);
            whole.then_some(Cursor { segment: u64::from_le_bytes(*segment), offset })
        };
        // Without a cursor everything comes again.
        read().unwrap_or_default()
    }

    /// Cuts a torn frame off the end of the last segment.
    fn mend_end(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let mut file = OpenOptions::new().read(true).write(true).open(path(&self.folder, last.number))?;
        let mut whole = 0;
        while let Next::Frame(payload) = next(&mut file)? {
            whole += (HEAD + payload.len()) as u64;
        }
        if whole < last.bytes {
            self.damaged += 1;
            file.set_len(whole)?;
            last.bytes = whole;
        }
        Ok(())
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

fn frame(payload: &[u8]) -> Vec<u8> {
    // Bounded by MAX_PAYLOAD.
    let length = (payload.len() as u32).to_le_bytes();
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend(length);
    frame.extend(checksum(&length, payload).to_le_bytes());
    frame.extend(payload);
    frame
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

enum Next {
    Frame(Vec<u8>),
    End,
    Damaged,
}

fn next(file: &mut File) -> io::Result<Next> {
    let mut head = [0; HEAD];
    match fill(file, &mut head)? {
        0 => return Ok(Next::End),
        HEAD => {}
        _ => return Ok(Next::Damaged),
    }
    let (length, sum) = head.split_at(4);
    let size = length.iter().rev().fold(0usize, |size, byte| size << 8 | usize::from(*byte));
    if size > MAX_PAYLOAD {
        return Ok(Next::Damaged);
    }
    let mut payload = vec![0; size];
    let whole = fill(file, &mut payload)? == size && checksum(length, &payload).to_le_bytes() == *sum;
    Ok(if whole { Next::Frame(payload) } else { Next::Damaged })
}

/// As many bytes as there are, at most as `into` holds.
fn fill(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
