//! What was sent in the calendar month, by server and kind of signal, and what the month will come to.

use std::collections::{BTreeMap, VecDeque};

use jiff::{Timestamp as UnixTime, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::signal::Kind;

/// Servers that are told apart; further ones share one account.
const MAX_INSTANCES: usize = 1024;
/// Days from which the days to come are estimated: four weeks have each day of the week four times.
const DAYS: usize = 28;
/// Bytes of a gigabyte as it is billed.
pub(super) const GIGABYTE: f64 = 1e9;

/// The account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The day that is being counted, in the account's time zone, as year, month and day.
    today: Option<(i16, i8, i8)>,
    /// Bytes of this day.
    day: u64,
    /// Bytes of this month, up to and with this day.
    month: u64,
    /// Bytes of this month by server; nil holds those beyond the bound.
    by_instance: BTreeMap<Uuid, u64>,
    by_kind: BTreeMap<Kind, u64>,
    /// Bytes of whole days that have passed, with the day of the week from Monday 0, oldest first.
    past: VecDeque<(u8, u64)>,
    /// The day was counted from its beginning.
    whole: bool,
    /// Bytes that the receiver says it has stored this month, and what this account said then.
    stored: Option<(f64, u64)>,
}

impl Ledger {
    /// Goes to the day of `unix_nanos`; whether a month began. A clock that was set back leaves the account on its day: what was counted stays counted.
    pub(super) fn go_to(&mut self, unix_nanos: i64, zone: &TimeZone) -> bool {
        let Some(date) = date(unix_nanos, zone) else { return false };
        let Some(today) = self.today.and_then(|(year, month, day)| Date::new(year, month, day).ok()) else {
            self.today = Some((date.year(), date.month(), date.day()));
            return false;
        };
        if date <= today {
            return false;
        }
        if self.whole {
            if self.past.len() == DAYS {
                self.past.pop_front();
            }
            self.past.push_back((weekday(today), self.day));
        }
        // A day that the agent did not see begin says nothing of a whole one.
        self.whole = today.tomorrow().is_ok_and(|next| next == date);
        self.day = 0;
        self.today = Some((date.year(), date.month(), date.day()));
        let month = (date.year(), date.month()) != (today.year(), today.month());
        if month {
            self.month = 0;
            self.by_instance.clear();
            self.by_kind.clear();
            self.stored = None;
        }
        month
    }

    /// Counts bytes as they were encoded.
    pub(super) fn add(&mut self, instance: Uuid, kind: Kind, bytes: u64) {
        self.day = self.day.saturating_add(bytes);
        self.month = self.month.saturating_add(bytes);
        let known = self.by_instance.len() < MAX_INSTANCES || self.by_instance.contains_key(&instance);
        let account = self.by_instance.entry(if known { instance } else { Uuid::nil() }).or_default();
        *account = account.saturating_add(bytes);
        let account = self.by_kind.entry(kind).or_default();
        *account = account.saturating_add(bytes);
    }

    /// The receiver has stored so many bytes this month, by its own count.
    pub(super) fn stored(&mut self, bytes: f64) {
        if bytes.is_finite() && bytes >= 0.0 {
            self.stored = Some((bytes, self.month));
        }
    }

    /// Bytes of this month: what the receiver said last, and what was sent since; without its word what was sent.
    pub(super) fn bytes(&self) -> f64 {
        match self.stored {
            Some((stored, then)) => stored + self.month.saturating_sub(then) as f64,
            None => self.month as f64,
        }
    }

    /// Bytes that the month will come to: each day to come is like the days of its weekday, or like the mean of all days where there was none. `None` before a
    /// whole day was seen: less than that says nothing.
    pub(super) fn forecast(&self, unix_nanos: i64, zone: &TimeZone) -> Option<f64> {
        let today = self.today.and_then(|(year, month, day)| Date::new(year, month, day).ok())?;
        if self.past.is_empty() {
            return None;
        }
        let mean = |days: &mut dyn Iterator<Item = u64>| {
            let (mut sum, mut count) = (0.0, 0.0);
            days.for_each(|bytes| (sum, count) = (sum + bytes as f64, count + 1.0));
            (count > 0.0).then_some(sum / count)
        };
        let all = mean(&mut self.past.iter().map(|(_, bytes)| *bytes))?;
        let like = |day: Date| {
            let weekday = weekday(day);
            mean(&mut self.past.iter().filter(|(known, _)| *known == weekday).map(|(_, bytes)| *bytes)).unwrap_or(all)
        };
        let mut total = self.bytes() + like(today) * (1.0 - passed(unix_nanos, today, zone));
        let mut day = today;
        while let Ok(next) = day.tomorrow()
            && next.month() == today.month()
        {
            day = next;
            total += like(day);
        }
        Some(total)
    }

    /// Bytes by server.
    pub(super) fn by_instance(&self) -> impl Iterator<Item = (Uuid, u64)> {
        self.by_instance.iter().map(|(instance, bytes)| (*instance, *bytes))
    }

    /// Bytes by kind of signal.
    pub(super) fn by_kind(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.by_kind.iter().map(|(kind, bytes)| (*kind, *bytes))
    }
}

fn date(unix_nanos: i64, zone: &TimeZone) -> Option<Date> {
    let time = UnixTime::from_nanosecond(i128::from(unix_nanos)).ok()?;
    Some(time.to_zoned(zone.clone()).date())
}

fn weekday(date: Date) -> u8 {
    date.weekday().to_monday_zero_offset().unsigned_abs()
}

/// Part of the day that has passed; days of a change of clocks have 23 or 25 hours.
fn passed(unix_nanos: i64, today: Date, zone: &TimeZone) -> f64 {
    let begin = |day: Date| day.to_zoned(zone.clone()).ok().map(|begin| begin.timestamp().as_nanosecond());
    let (Some(begin), Some(end)) = (begin(today), today.tomorrow().ok().and_then(begin)) else { return 1.0 };
    ((i128::from(unix_nanos) - begin) as f64 / (end - begin) as f64).clamp(0.0, 1.0)
}
