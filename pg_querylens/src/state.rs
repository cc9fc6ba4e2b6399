//! Statistics across restarts: a file of the data directory, written whole, checked whole, and set aside if it is damaged.
//!
//! It holds the tables as they are in memory, so it is read only by the same version of the extension and of the server.

use std::{
    fs, io,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::Ordering,
};

use pgrx::pg_sys;

use crate::{
    history::History,
    locks::Mode,
    plan_id::Hash,
    raw,
    rows::ChangeRow,
    settings,
    shmem::{self, Shared},
    table::{Key, Plain, Table},
};

/// Relative to the data directory, in which every process of the server runs.
const FILE: &str = "pg_stat/pg_querylens.stat";
/// Where a new file is written.
const NEW: &str = "pg_stat/pg_querylens.stat.tmp";
/// Where a damaged file goes.
const DAMAGED: &str = "pg_stat/pg_querylens.stat.damaged";
/// First bytes of the file: what it is, and the version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"pgqlens\x01");
/// Largest file that is read.
const LARGEST: u64 = 4 << 30;

/// What [`crate::shmem::Header::loaded`] says.
pub(crate) mod loaded {
    /// There was no file.
    pub(crate) const ABSENT: u32 = 0;
    /// It was read.
    pub(crate) const READ: u32 = 1;
    /// It was damaged, or of another version, and was set aside.
    pub(crate) const SET_ASIDE: u32 = 2;
}

/// A checksum of what precedes it: a hash of 64 bits over words of 8 bytes.
fn checksum(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).fold(Hash::new(bytes.len() as u64), |hash, chunk| hash.add(word(chunk))).value()
}

/// Writes what is `Plain`.
fn put<T: Plain>(out: &mut Vec<u8>, value: &T) {
    // SAFETY: `Plain` has no padding, so all of its bytes are initialised.
    out.extend_from_slice(unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) });
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Reads from the front of what is left. Nothing, if there is not enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn get<T: Plain>(&mut self) -> Option<T> {
        let bytes = self.bytes(size_of::<T>())?;
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: so many bytes, and any bytes are valid for what is `Plain`.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), bytes.len());
            Some(value.assume_init())
        }
    }

    /// A count of things of a size, if they can be there.
    fn count(&mut self, size: usize) -> Option<usize> {
        let (count, found) = (usize::try_from(self.number()?).ok()?, self.number()?);
        (found == size as u64 && count.checked_mul(size.max(1))? <= self.0.len()).then_some(count)
    }
}

fn put_table<K: Key, V: Plain>(out: &mut Vec<u8>, table: &Table<K, V>) {
    let all = table.collect(|_, _| true);
    put_number(out, all.len() as u64);
    put_number(out, (size_of::<K>() + size_of::<V>()) as u64);
    for (key, value) in &all {
        put(out, key);
        put(out, value);
    }
}

fn get_table<K: Key, V: Plain>(reader: &mut Reader<'_>) -> Option<Vec<(K, V)>> {
    let count = reader.count(size_of::<K>() + size_of::<V>())?;
    (0..count).map(|_| Some((reader.get()?, reader.get()?))).collect()
}

fn fill<K: Key, V: Plain>(table: &Table<K, V>, all: Vec<(K, V)>) {
    for (key, value) in all {
        table.update(key, |row, _| *row = value);
    }
}

/// Everything as bytes.
fn encode(shared: &Shared) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, MAGIC);
    put_number(&mut out, u64::from(pg_sys::PG_VERSION_NUM / 10_000));
    put_table(&mut out, &shared.plans);
    put_table(&mut out, &shared.statements);
    put_table(&mut out, &shared.errors);
    put_table(&mut out, &shared.nodes);
    let changes = shared.history.all();
    put_number(&mut out, changes.len() as u64);
    put_number(&mut out, size_of::<ChangeRow>() as u64);
    changes.iter().for_each(|change| put(&mut out, change));
    let texts = shared.texts.all();
    put_number(&mut out, texts.len() as u64);
    for (key, text) in &texts {
        put_number(&mut out, key.plan_id);
        put_number(&mut out, text.len() as u64);
        out.extend_from_slice(text);
    }
    put_number(&mut out, shared.header().reset_at.load(Ordering::Relaxed) as u64);
    let sum = checksum(&out);
    put_number(&mut out, sum);
    out
}

/// Fills the tables; nothing is changed unless all bytes are as they should be.
fn decode(bytes: &[u8], shared: &Shared) -> Option<()> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if checksum(content).to_le_bytes() != sum {
        return None;
    }
    let mut reader = Reader(content);
    if reader.number()? != MAGIC || reader.number()? != u64::from(pg_sys::PG_VERSION_NUM / 10_000) {
        return None;
    }
    let plans = get_table(&mut reader)?;
    let statements = get_table(&mut reader)?;
    let errors = get_table(&mut reader)?;
    let nodes = get_table(&mut reader)?;
    let count = reader.count(size_of::<ChangeRow>())?;
    let changes: Vec<ChangeRow> = (0..count).map(|_| reader.get()).collect::<Option<_>>()?;
    let count = reader.number()?;
    let mut texts = Vec::new();
    for _ in 0..count {
        let (plan_id, length) = (reader.number()?, usize::try_from(reader.number()?).ok()?);
        texts.push((plan_id, reader.bytes(length)?));
    }
    let reset_at = reader.number()? as i64;
    fill(&shared.plans, plans);
    fill(&shared.statements, statements);
    fill(&shared.errors, errors);
    fill(&shared.nodes, nodes);
    write_all(&shared.history, changes);
    for (plan_id, text) in texts {
        shared.texts.write(plan_id, text);
    }
    shared.header().reset_at.store(reset_at, Ordering::Relaxed);
    Some(())
}

fn write_all(history: &History, changes: Vec<ChangeRow>) {
    changes.into_iter().for_each(|change| history.write(change));
}

/// Reads the file, if there is one, and arranges that it is written when the server ends. In the postmaster, which nothing may harm.
pub(crate) fn load_at_start(shared: &Shared) {
    // SAFETY: registers a function that lives as long as the process.
    unsafe { pg_sys::on_shmem_exit(Some(on_shutdown), pg_sys::Datum::from(0)) };
    if !settings::SAVE.get() {
        return;
    }
    let outcome = load(shared);
    shared.header().loaded.store(outcome, Ordering::Relaxed);
    if outcome == loaded::SET_ASIDE {
        pgrx::warning!(
            "pg_querylens: {FILE} is damaged or of another version; it was moved to {DAMAGED}, and statistics begin anew"
        );
    }
}

fn load(shared: &Shared) -> u32 {
    let small = fs::metadata(FILE).map(|metadata| metadata.len() <= LARGEST);
    match small {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return loaded::ABSENT,
        Ok(true) if fs::read(FILE).ok().and_then(|bytes| decode(&bytes, shared)).is_some() => return loaded::READ,
        _ => {}
    }
    let _ = fs::rename(FILE, DAMAGED);
    loaded::SET_ASIDE
}

/// Writes the file. One process at a time; a file that could not be written is counted, and the old one stays.
pub(crate) fn save(shared: &Shared) {
    let (locks, lock) = shared.file_lock();
    let bytes = encode(shared);
    let written = {
        let _held = locks.hold(lock, Mode::Exclusive);
        write(&bytes)
    };
    match written {
        // SAFETY: reads the clock.
        Ok(()) => shared.header().saved_at.store(unsafe { raw::GetCurrentTimestamp() }, Ordering::Relaxed),
        Err(_) => {
            shared.header().save_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// So that at any time there is a whole file.
fn write(bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut file = fs::File::create(NEW)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(NEW, Path::new(FILE))
}

/// The end of the postmaster, when all other processes have handed on what they counted. Not after a crash: then memory is not to be trusted.
unsafe extern "C-unwind" fn on_shutdown(code: i32, _argument: pg_sys::Datum) {
    // SAFETY: plain variable of this process. The children of the postmaster inherit this function, but have forgotten it.
    let postmaster = unsafe { !pg_sys::IsUnderPostmaster };
    if code == 0 && postmaster && settings::SAVE.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if let Some(shared) = shmem::shared() {
                save(&shared);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::TextKey, rows::TextRow};

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_number(&mut out, 1);
        put_number(&mut out, (size_of::<TextKey>() + size_of::<TextRow>()) as u64);
        put(&mut out, &TextKey { plan_id: 7 });
        put(&mut out, &TextRow { position: 8, length: 9 });
        let all = get_table::<TextKey, TextRow>(&mut Reader(&out)).expect("one entry");
        assert_eq!((all[0].0.plan_id, all[0].1.position, all[0].1.length), (7, 8, 9));
    }

    #[test]
    fn what_is_cut_or_of_another_size_is_not_read() {
        let mut out = Vec::new();
        put_number(&mut out, 1);
        put_number(&mut out, (size_of::<TextKey>() + size_of::<TextRow>()) as u64);
        put(&mut out, &TextKey { plan_id: 7 });
        assert!(get_table::<TextKey, TextRow>(&mut Reader(&out)).is_none());
        let mut huge = Vec::new();
        put_number(&mut huge, u64::MAX);
        put_number(&mut huge, (size_of::<TextKey>() + size_of::<TextRow>()) as u64);
        assert!(get_table::<TextKey, TextRow>(&mut Reader(&huge)).is_none());
        let mut other = Vec::new();
        put_number(&mut other, 0);
        put_number(&mut other, 5);
        assert!(get_table::<TextKey, TextRow>(&mut Reader(&other)).is_none());
    }

    #[test]
    fn a_checksum_sees_every_byte_and_the_length() {
        let bytes: Vec<u8> = (0..100).collect();
        let sum = checksum(&bytes);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(checksum(&changed), sum);
        }
        assert_ne!(checksum(&bytes[..99]), sum);
        assert_ne!(checksum(&[0]), checksum(&[0, 0]));
    }
}
