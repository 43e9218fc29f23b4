//! Trading sessions: which one is open at an instant, and the window grid (specification §2).

use std::sync::Arc;

use crate::rules::Rules;

pub const DAY_MS: i64 = 86_400_000;
/// How far back the last session before a tick is looked for (`docs/decisions/0002`, 12).
const LOOK_BACK_DAYS: i64 = 400;

/// Opens and closes in ms of the local day.
pub type DayHours = Vec<(i64, i64)>;

/// Days `[from, to)` on which these hours are kept, by weekday.
#[derive(Clone, Debug)]
pub struct Season {
    /// First day, counted from 1970-01-01, local.
    pub from_day: i64,
    /// First day after.
    pub to_day: i64,
    /// Bit 0 is Monday.
    pub weekday_mask: u32,
    /// Sessions of such a day, in order.
    pub hours: DayHours,
}

/// What one exchange and segment trades.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// `Exch`
    pub exchange: String,
    /// `ExchType`, or `*` for every segment without a schedule of its own.
    pub segment: String,
    /// `(from UTC ms, offset ms)`, ascending, the first from the beginning of time.
    pub utc_offsets: Vec<(i64, i64)>,
    /// Disjoint, ascending.
    pub seasons: Vec<Season>,
    /// Exceptions by day, ascending.
    pub exceptions: Vec<(i64, DayHours)>,
}

/// One session, epoch ms, of the trading day `day`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Session {
    pub open_ms: i64,
    pub close_ms: i64,
    pub day: i64,
}

impl Session {
    fn is_open(&self, at_ms: i64) -> bool {
        self.open_ms <= at_ms && at_ms < self.close_ms
    }
}

/// Where a tick belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In session, or so short after its close that it belongs to its last window.
    Inside(Session),
    /// Outside; a later session of the same local date follows.
    Before(Session),
    /// Outside, and no session follows on that date.
    After,
}

impl Schedule {
    /// For exchanges that no row lists: open without end, aligned to midnight UTC.
    pub fn round_the_clock() -> Self {
        Self {
            exchange: String::new(),
            segment: String::from("*"),
            utc_offsets: vec![(i64::MIN, 0)],
            seasons: vec![Season {
                from_day: i64::MIN,
                to_day: i64::MAX,
                weekday_mask: 0x7f,
                hours: vec![(0, DAY_MS)],
            }],
            exceptions: Vec::new(),
        }
    }

    pub fn offset_ms(&self, at_ms: i64) -> i64 {
        let next = self.utc_offsets.partition_point(|(from_ms, _)| *from_ms <= at_ms);
        self.utc_offsets.get(next.saturating_sub(1)).map_or(0, |(_, offset_ms)| *offset_ms)
    }

    pub fn local_day(&self, at_ms: i64) -> i64 {
        (at_ms + self.offset_ms(at_ms)).div_euclid(DAY_MS)
    }

    /// Local wall time to UTC; twice there: the first; skipped: the offset before the jump.
    pub fn to_utc_ms(&self, local_ms: i64) -> i64 {
        let mut offset_ms = self.utc_offsets.first().map_or(0, |(_, offset_ms)| *offset_ms);
        for (from_ms, after_ms) in self.utc_offsets.iter().skip(1) {
            if local_ms < from_ms + offset_ms.max(*after_ms) {
                break;
            }
            offset_ms = *after_ms;
        }
        local_ms - offset_ms
    }

    fn hours(&self, day: i64) -> &[(i64, i64)] {
        if let Ok(found) = self.exceptions.binary_search_by_key(&day, |(d, _)| *d) {
            return self.exceptions.get(found).map_or(&[], |(_, hours)| hours);
        }
        let next = self.seasons.partition_point(|season| season.from_day <= day);
        // 1970-01-01 was a Thursday: day 0 is bit 3.
        let weekday = 1 << (day + 3).rem_euclid(7);
        match next.checked_sub(1).and_then(|i| self.seasons.get(i)) {
            Some(season) if day < season.to_day && season.weekday_mask & weekday != 0 => &season.hours,
            _ => &[],
        }
    }

    fn sessions(&self, day: i64) -> impl DoubleEndedIterator<Item = Session> + '_ {
        let midnight_ms = day * DAY_MS;
        self.hours(day).iter().map(move |(open, close)| Session {
            open_ms: self.to_utc_ms(midnight_ms + open),
            close_ms: self.to_utc_ms(midnight_ms + close),
            day,
        })
    }

    /// First open and last close of a trading day; without sessions the local day itself.
    pub fn day_bounds(&self, day: i64) -> (i64, i64) {
        let open = self.sessions(day).next().map(|s| s.open_ms);
        let close = self.sessions(day).next_back().map(|s| s.close_ms);
        open.zip(close).unwrap_or_else(|| (self.to_utc_ms(day * DAY_MS), self.to_utc_ms((day + 1) * DAY_MS)))
    }

    pub fn place(&self, at_ms: i64, after_close_ms: i64) -> Place {
        let day = self.local_day(at_ms);
        if let Some(session) = self.sessions(day).find(|s| s.is_open(at_ms)) {
            return Place::Inside(session);
        }
        let closed = self
            .sessions(day)
            .chain(self.sessions(day - 1))
            .find(|s| (0..=after_close_ms).contains(&(at_ms - s.close_ms)));
        if let Some(session) = closed {
            return Place::Inside(session);
        }
        match self.sessions(day).find(|s| s.open_ms > at_ms) {
            Some(next) => Place::Before(next),
            None => Place::After,
        }
    }

    /// The last session that ended before `at_ms`, if any within [`LOOK_BACK_DAYS`].
    fn last_before(&self, at_ms: i64) -> Option<Session> {
        let day = self.local_day(at_ms);
        (day - LOOK_BACK_DAYS..=day).rev().find_map(|d| self.sessions(d).rev().find(|s| s.close_ms <= at_ms))
    }
}

/// A window's bounds and its trading day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub start_ms: i64,
    pub end_ms: i64,
    pub day: i64,
}

/// The window of a tick in session: aligned to the open, the last one cut at the close.
pub fn window_inside(schedule: &Schedule, session: Session, length_ms: i64, at_ms: i64) -> Bounds {
    let day = session.day;
    if length_ms == 0 {
        let (start_ms, end_ms) = schedule.day_bounds(day);
        return Bounds { start_ms, end_ms, day };
    }
    // A tick at or short after the close belongs to the window that ends there.
    let inside_ms = at_ms.min(session.close_ms - 1);
    let start_ms = inside_ms - (inside_ms - session.open_ms) % length_ms;
    Bounds { start_ms, end_ms: (start_ms + length_ms).min(session.close_ms), day }
}

/// The window of a kept tick outside (`docs/decisions/0002`, 12).
pub fn window_outside(schedule: &Schedule, place: Place, length_ms: i64, at_ms: i64) -> Bounds {
    let date = schedule.local_day(at_ms);
    let midnight_ms = schedule.to_utc_ms(date * DAY_MS);
    let before = schedule.last_before(at_ms);
    let (day, anchor_ms) = match (place, before) {
        (Place::Before(next) | Place::Inside(next), _) => (next.day, next.open_ms),
        (Place::After, Some(last)) => (last.day, last.close_ms),
        (Place::After, None) => (date, midnight_ms),
    };
    if length_ms == 0 {
        let (start_ms, end_ms) = schedule.day_bounds(day);
        return Bounds { start_ms, end_ms, day };
    }
    let start_ms = anchor_ms + (at_ms - anchor_ms).div_euclid(length_ms) * length_ms;
    let end_ms = start_ms + length_ms;
    if at_ms < anchor_ms {
        let cut_ms = before.map_or(midnight_ms, |last| last.close_ms.max(midnight_ms));
        return Bounds { start_ms: start_ms.max(cut_ms), end_ms, day };
    }
    let cut_ms = (date + 1..=date + 2)
        .find(|d| before.is_none() || !schedule.hours(*d).is_empty())
        .map_or(i64::MAX, |d| schedule.to_utc_ms(d * DAY_MS));
    Bounds { start_ms, end_ms: end_ms.min(cut_ms), day }
}

/// The schedules by exchange and segment, with the one for what is unlisted.
pub fn find_schedule(rules: &Rules, exchange: &str, segment: &str) -> Arc<Schedule> {
    let named = |wanted: &str| rules.schedules.iter().find(|s| s.exchange == exchange && s.segment == wanted);
    named(segment).or_else(|| named("*")).cloned().unwrap_or_else(|| Arc::new(Schedule::round_the_clock()))
}
