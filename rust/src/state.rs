//! Dump and load: the whole state, versioned and checked. A state of another version is made anew from the log.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::book::{Book, Ledger};
use crate::elapsed::{Elapsed, Lost};
use crate::fold::{Freeze, Instrument};
use crate::session::DAY_MS;
use crate::window::{Day, Frame, Window};
use crate::witness::Clock;

const MAGIC: &[u8; 4] = b"SCBK";
/// Raised whenever the layout below changes.
pub const FORMAT_VERSION: u16 = 2;

/// Far above every time and count of a book, and so low that no sum of some overflows.
const SOUND_MAX: i64 = i64::MAX / 8;
/// Sums stop here.
const AMOUNT_MAX: i128 = i128::MAX;

/// Why a dump cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    Damaged(&'static str),
    Older(u16),
    Newer(u16),
    OtherRules,
    OtherPartition(i32),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Damaged(how) => write!(f, "damaged: {how}"),
            Self::Older(version) => write!(f, "format {version} is older than {FORMAT_VERSION}, the one read"),
            Self::Newer(version) => {
                write!(f, "format {version} is newer than {FORMAT_VERSION}, the one this program reads")
            }
            Self::OtherRules => f.write_str("written under other rules"),
            Self::OtherPartition(partition) => write!(f, "of partition {partition}"),
        }
    }
}

#[derive(Serialize)]
struct Dumped<'a> {
    digest: &'a str,
    fingerprint: &'a [u8],
    partition: i32,
    elapsed: &'a Elapsed,
    last_offset: Option<i64>,
    lost: Lost,
    freeze: Option<&'a Freeze>,
    ledger: &'a Ledger,
    venues: Vec<(&'a str, &'a str)>,
    instruments: Vec<&'a Instrument>,
    retired: Vec<&'a Instrument>,
}

#[derive(Deserialize)]
struct Loaded {
    digest: String,
    fingerprint: Vec<u8>,
    partition: i32,
    elapsed: Elapsed,
    last_offset: Option<i64>,
    lost: Lost,
    freeze: Option<Freeze>,
    ledger: Ledger,
    venues: Vec<(String, String)>,
    instruments: Vec<Instrument>,
    retired: Vec<Instrument>,
}

impl Book {
    /// Magic, version, checksum of the rest, the rest.
    #[must_use]
    pub fn dump(&self, fingerprint: &[u8]) -> Vec<u8> {
        let held = |slot: &u32| self.slots.get(*slot as usize)?.as_ref();
        let mut current: Vec<u32> = self.index.values().copied().collect();
        current.sort_unstable();
        let dumped = Dumped {
            digest: &self.rules.digest,
            fingerprint,
            partition: self.partition,
            elapsed: &self.elapsed,
            last_offset: self.last_offset,
            lost: self.lost,
            freeze: self.freeze.as_ref(),
            ledger: &self.ledger,
            venues: self.venues.names(),
            instruments: current.iter().filter_map(held).collect(),
            retired: self.retired.iter().filter_map(held).collect(),
        };
        // Serialising into memory fails for no value of these types.
        let body = postcard::to_allocvec(&dumped).unwrap_or_default();
        let mut out = Vec::with_capacity(body.len() + 10);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Replace the state and return the fingerprint; on an error nothing has changed.
    ///
    /// # Errors
    /// [`Unusable`] says why the dump is not for this book.
    pub fn load(&mut self, dumped: &[u8]) -> Result<Vec<u8>, Unusable> {
        let body = body(dumped)?;
        let loaded: Loaded = postcard::from_bytes(body).map_err(|_| Unusable::Damaged("not in its own format"))?;
        if loaded.digest != self.rules.digest {
            return Err(Unusable::OtherRules);
        }
        if loaded.partition != self.partition {
            return Err(Unusable::OtherPartition(loaded.partition));
        }
        if loaded.instruments.len() > self.rules.instruments_max {
            return Err(Unusable::Damaged("more instruments than may be held"));
        }
        let frames = self.rules.timeframes.len();
        let mut instruments = loaded.instruments.iter().chain(&loaded.retired);
        if !instruments.clone().all(|instrument| instrument.frames.len() == frames) {
            return Err(Unusable::Damaged("an instrument that does not fit"));
        }
        let offset_max = loaded.last_offset.unwrap_or(-1);
        if !is_counted(&loaded.ledger)
            || !is_elapsed(&loaded)
            || !instruments.all(|instrument| is_sound(instrument, offset_max))
        {
            return Err(Unusable::Damaged("numbers that no fold arrives at"));
        }
        let mut fresh = Self::new(self.rules.clone(), self.partition);
        if !fresh.venues.restore(&self.rules, &loaded.venues) {
            return Err(Unusable::Damaged("an exchange twice"));
        }
        fresh.frontiers_ms.clone_from(&self.frontiers_ms);
        fresh.offsets.clone_from(&self.offsets);
        fresh.flushed.clone_from(&self.flushed);
        fresh.elapsed = loaded.elapsed;
        fresh.last_offset = loaded.last_offset;
        fresh.lost = loaded.lost;
        fresh.freeze = loaded.freeze;
        fresh.ledger = loaded.ledger;
        if !fresh.replace_instruments(loaded.instruments, loaded.retired) {
            return Err(Unusable::Damaged("an instrument that does not fit"));
        }
        *self = fresh;
        Ok(loaded.fingerprint)
    }
}

fn body(dumped: &[u8]) -> Result<&[u8], Unusable> {
    let rest = dumped.strip_prefix(MAGIC).ok_or(Unusable::Damaged("no dump of a book"))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Unusable::Damaged("cut off"))?;
    let version = u16::from_le_bytes(*version);
    if version > FORMAT_VERSION {
        return Err(Unusable::Newer(version));
    }
    if version < FORMAT_VERSION {
        return Err(Unusable::Older(version));
    }
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or(Unusable::Damaged("cut off"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(Unusable::Damaged("checksum"));
    }
    Ok(body)
}

// What the fold computes with must be in the range that it would have kept to itself: the kernel stops at an overflow.

fn is_time(ms: i64) -> bool {
    (0..=SOUND_MAX).contains(&ms)
}

fn is_counted(ledger: &Ledger) -> bool {
    let counts = [ledger.folded, ledger.quotes, ledger.outside, ledger.late, ledger.late_some, ledger.behind];
    let others = [ledger.time_fallback, ledger.optional_unreadable, ledger.volume_stuck];
    counts.iter().chain(&others).chain(&ledger.rejected).all(|count| *count <= u64::MAX / 32)
}

fn is_elapsed(loaded: &Loaded) -> bool {
    let lost_ms = loaded.lost.before_ms;
    let frozen_ms = loaded.freeze.as_ref().map(|freeze| freeze.start_ms);
    is_clock(&loaded.elapsed.clock)
        && lost_ms.is_none_or(is_time)
        && frozen_ms.is_none_or(|ms| ms.saturating_abs() <= SOUND_MAX)
        && loaded.last_offset.is_none_or(is_time)
}

fn is_clock(clock: &Clock) -> bool {
    clock.value_ms.is_none_or(is_time) && clock.claim_ms.is_none_or(is_time)
}

fn is_sound(instrument: &Instrument, offset_max: i64) -> bool {
    let is_offset = |offset: i64| (0..=offset_max).contains(&offset);
    let frames = instrument.frames.iter().all(|Frame { windows, days }| {
        let starts = windows.iter().zip(windows.iter().skip(1));
        windows.iter().all(|window| is_window(window, is_offset))
            && starts.into_iter().all(|(one, next)| one.start_ms < next.start_ms)
            && days.iter().all(|day| is_base(day) && day.carried >= 0 && is_time(day.close_ms))
    });
    let steps = instrument.pre_open.iter().flat_map(|day| &day.steps);
    let totals = steps.into_iter().all(|(at_ms, offset, total)| is_time(*at_ms) && is_offset(*offset) && *total >= 0);
    is_clock(&instrument.clock) && is_time(instrument.seen_ms) && is_offset(instrument.heard_offset) && frames && totals
}

fn is_window(window: &Window, is_offset: impl Fn(i64) -> bool) -> bool {
    let times =
        [window.start_ms, window.end_ms, window.day.saturating_mul(DAY_MS), window.open.at_ms, window.close.at_ms];
    let amounts = [window.total, window.below, window.volume];
    let offsets = [window.first_offset, window.source_offset];
    let prices = [window.open.price, window.high, window.low, window.close.price];
    // A trade that raises M raises the volume by as much.
    let is_settled = || match (window.below, window.reach()) {
        (0, 0) => true,
        (0, reach) => window.volume <= reach,
        (below, reach) => window.volume == reach - below,
    };
    times.into_iter().all(is_time)
        && window.start_ms < window.end_ms
        && 1 <= window.ticks
        && window.ticks <= window.ticks_all
        && is_time(window.ticks_all)
        && amounts.iter().all(|amount| (0..=AMOUNT_MAX).contains(amount))
        && offsets.into_iter().all(is_offset)
        && window.first_offset <= window.source_offset
        && prices.iter().all(|price| price.is_finite() && *price > 0.0 && window.low <= *price && *price <= window.high)
        && is_settled()
}

fn is_base(day: &Day) -> bool {
    let is_first = |(at_ms, _, base): (i64, i64, i128)| is_time(at_ms) && (0..=AMOUNT_MAX).contains(&base);
    (0..=AMOUNT_MAX).contains(&day.base) && (0..=AMOUNT_MAX).contains(&day.carried) && day.first.is_none_or(is_first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rules::{Rules, Timeframe};
    use crate::session::Schedule;

    const HOUR_MS: i64 = 3_600_000;
    const OPEN_MS: i64 = 20_455 * DAY_MS + HOUR_MS;
    const TOO_LATE_MS: i64 = SOUND_MAX + 1;

    type Spoil = fn(&mut Book);

    fn new_book() -> Book {
        let names =
            ["Exch", "ExchType", "Token", "LastRate", "LastQty", "TotalQty", "TickDt", "companyName", "ScripCode"];
        let mut schedule = Schedule::round_the_clock();
        schedule.exchange = "N".to_owned();
        schedule.seasons.iter_mut().for_each(|season| season.hours = vec![(HOUR_MS, DAY_MS)]);
        let rules = Rules {
            digest: "d".to_owned(),
            timeframes: vec![Timeframe { label: "1m".to_owned(), length_ms: 60_000 }],
            fields: names.map(str::to_owned).into(),
            schedules: vec![Arc::new(schedule)],
            allowed_lateness_ms: 600_000,
            future_ms: 60_000,
            after_close_ms: 1_000,
            quantity_decimals: 0,
            instruments_max: 10,
            keep_outside: false,
            since_zero: Vec::new(),
        };
        Book::new(rules, 0)
    }

    /// A total before the open, and two ticks of one window.
    fn folded() -> Book {
        let mut book = new_book();
        for (offset, (late_ms, total)) in (0_i64..).zip([(-60_000, 40), (1_000, 50), (2_000, 60)]) {
            let at_ms = OPEN_MS + late_ms;
            let value = format!(
                r#"{{"Exch":"N","ExchType":"C","Token":7,"LastRate":100.5,"LastQty":2,"TotalQty":{total},"TickDt":{at_ms}}}"#
            );
            book.fold([(Some(value.as_bytes()), at_ms, offset)].into_iter());
        }
        book
    }

    fn instruments(book: &mut Book) -> impl Iterator<Item = &mut Instrument> {
        book.slots.iter_mut().flatten()
    }

    fn windows(book: &mut Book) -> impl Iterator<Item = &mut Window> {
        instruments(book).flat_map(|instrument| &mut instrument.frames).flat_map(|frame| frame.windows.iter_mut())
    }

    fn days(book: &mut Book) -> impl Iterator<Item = &mut Day> {
        instruments(book).flat_map(|instrument| &mut instrument.frames).flat_map(|frame| &mut frame.days)
    }

    fn steps(book: &mut Book) -> impl Iterator<Item = &mut (i64, i64, i128)> {
        instruments(book).flat_map(|instrument| &mut instrument.pre_open).flat_map(|day| &mut day.steps)
    }

    fn loaded(spoil: Spoil) -> Result<Vec<u8>, Unusable> {
        let mut book = folded();
        spoil(&mut book);
        new_book().load(&book.dump(b"f"))
    }

    fn assert_refused(what: &str, spoils: &[Spoil]) {
        for (place, spoil) in spoils.iter().enumerate() {
            let refused = Err(Unusable::Damaged("numbers that no fold arrives at"));
            assert_eq!(loaded(*spoil), refused, "{what}, number {place} of the list");
        }
    }

    #[test]
    fn what_a_fold_arrives_at_is_loaded_with_everything_that_can_be_spoiled() {
        let mut book = folded();
        let held = (windows(&mut book).count(), days(&mut book).count(), steps(&mut book).count());
        assert_eq!(held, (1, 1, 1));
        assert!(days(&mut book).all(|day| day.first.is_some()));
        assert!(
            instruments(&mut book).all(|instrument| instrument.clock.value_ms.is_some()) && book.event_ms().is_some()
        );
        assert_eq!(loaded(|_| ()), Ok(b"f".to_vec()));
    }

    #[test]
    fn the_greatest_numbers_are_loaded() {
        let greatest: &[Spoil] = &[
            |book| book.elapsed.clock.value_ms = Some(SOUND_MAX),
            |book| book.elapsed.clock.value_ms = None,
            |book| instruments(book).for_each(|i| i.clock.value_ms = Some(SOUND_MAX)),
            |book| instruments(book).for_each(|i| i.clock.value_ms = None),
            |book| book.ledger.folded = u64::MAX / 32,
            |book| windows(book).for_each(|w| w.end_ms = SOUND_MAX),
            |book| windows(book).for_each(|w| [w.total, w.volume] = [i128::MAX; 2]),
            |book| days(book).for_each(|day| day.carried = i128::MAX),
            |book| days(book).for_each(|day| day.first = None),
        ];
        for (place, spoil) in greatest.iter().enumerate() {
            assert_eq!(loaded(*spoil), Ok(b"f".to_vec()), "number {place} of the list");
        }
    }

    #[test]
    fn counts_whose_sum_would_overflow_are_refused() {
        const TOO_MANY: u64 = u64::MAX / 32 + 1;
        assert_refused(
            "counts",
            &[
                |book| book.ledger.folded = TOO_MANY,
                |book| book.ledger.quotes = TOO_MANY,
                |book| book.ledger.outside = TOO_MANY,
                |book| book.ledger.late = TOO_MANY,
                |book| book.ledger.late_some = TOO_MANY,
                |book| book.ledger.time_fallback = TOO_MANY,
                |book| book.ledger.optional_unreadable = TOO_MANY,
                |book| book.ledger.volume_stuck = TOO_MANY,
                |book| book.ledger.rejected.iter_mut().take(1).for_each(|count| *count = TOO_MANY),
                |book| book.ledger.rejected.iter_mut().skip(6).for_each(|count| *count = TOO_MANY),
            ],
        );
    }

    #[test]
    fn times_out_of_range_are_refused() {
        assert_refused(
            "the book's time and an instrument's",
            &[
                |book| book.elapsed.clock.value_ms = Some(-1),
                |book| book.elapsed.clock.value_ms = Some(TOO_LATE_MS),
                |book| instruments(book).for_each(|i| i.clock.value_ms = Some(-1)),
                |book| instruments(book).for_each(|i| i.clock.value_ms = Some(TOO_LATE_MS)),
            ],
        );
    }

    #[test]
    fn windows_out_of_range_are_refused() {
        assert_refused(
            "times and ticks",
            &[
                |book| windows(book).for_each(|w| w.start_ms = -1),
                |book| windows(book).for_each(|w| w.start_ms = TOO_LATE_MS),
                |book| windows(book).for_each(|w| w.end_ms = -1),
                |book| windows(book).for_each(|w| w.end_ms = TOO_LATE_MS),
                |book| windows(book).for_each(|w| w.day = -1),
                |book| windows(book).for_each(|w| w.day = SOUND_MAX / DAY_MS + 1),
                |book| windows(book).for_each(|w| w.day = i64::MAX),
                |book| windows(book).for_each(|w| w.ticks = -1),
                |book| windows(book).for_each(|w| w.ticks = TOO_LATE_MS),
                |book| windows(book).for_each(|w| w.ticks_all = -1),
                |book| windows(book).for_each(|w| w.ticks_all = TOO_LATE_MS),
            ],
        );
        assert_refused(
            "amounts",
            &[
                |book| windows(book).for_each(|w| [w.total, w.volume] = [-1, 0]),
                |book| windows(book).for_each(|w| w.below = -1),
                |book| windows(book).for_each(|w| [w.total, w.below, w.volume] = [-1, -1, 0]),
                |book| windows(book).for_each(|w| w.volume = -1),
            ],
        );
        assert_refused(
            "what does not fit together",
            &[
                |book| windows(book).for_each(|w| w.volume = w.reach() + 1),
                |book| windows(book).for_each(|w| [w.below, w.volume] = [w.reach(), 1]),
                |book| windows(book).for_each(|w| [w.total, w.below] = [i128::MAX, i128::MIN]),
            ],
        );
    }

    #[test]
    fn what_volumes_rest_on_is_never_below_zero() {
        assert_refused(
            "a day, and totals before its open",
            &[
                |book| days(book).for_each(|day| day.base = -1),
                |book| days(book).for_each(|day| day.first = Some((OPEN_MS, 1, -1))),
                |book| days(book).for_each(|day| day.carried = -1),
                |book| steps(book).for_each(|(_, _, total)| *total = -1),
            ],
        );
    }
}
