//! One tick into one instrument (specification §3, and the lateness of §4.4).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::{Tick, Venue};
use crate::rules::{Rules, Timeframe};
use crate::session::{Bounds, DAY_MS, Place, Session, window_inside, window_outside};
use crate::window::{Change, Frame, Mark, Trade};
use crate::witness::{Clock, Heard, LEAP_MS};

/// Ticks in a row that trade below the day's greatest total before it counts as stuck (§3.3).
const STUCK_TICKS: u32 = 100;
/// A kept tick long after the close still finds its trading day's record.
const KEEP_DAY_MS: i64 = 14 * 86_400_000;

/// Windows of a timeframe that an instrument may hold beyond a leap of its own clock: each is a claim that did not come true.
const CLAIMED_MAX: usize = 16;

/// Totals seen before the open of a trading day: only records that raise the greatest so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PreOpen {
    pub day: i64,
    pub close_ms: i64,
    /// (event time, offset, total), all three rising.
    pub(crate) steps: Vec<(i64, i64, i128)>,
}

impl PreOpen {
    fn add(&mut self, at_ms: i64, offset: i64, total: i128) {
        let index = self.steps.partition_point(|(t, o, _)| (*t, *o) < (at_ms, offset));
        let before = index.checked_sub(1).and_then(|i| self.steps.get(i));
        if before.is_some_and(|(_, _, greatest)| *greatest >= total) {
            return;
        }
        self.steps.insert(index, (at_ms, offset, total));
        let mut seen = 0;
        self.steps.retain(|(_, _, step)| {
            seen += 1;
            seen <= index + 1 || *step > total
        });
    }

    fn greatest_before(&self, at_ms: i64, offset: i64) -> Option<i128> {
        let index = self.steps.partition_point(|(t, o, _)| (*t, *o) < (at_ms, offset));
        index.checked_sub(1).and_then(|i| self.steps.get(i)).map(|(_, _, total)| *total)
    }
}

/// Everything held of one instrument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instrument {
    pub venue: u32,
    pub token: i64,
    /// The last company name read.
    company: Option<Arc<str>>,
    /// By its in-session ticks: its own clock for lateness.
    pub clock: Clock,
    /// Greatest event time of its accepted ticks.
    pub seen_ms: i64,
    /// Offset of its last accepted tick.
    pub heard_offset: i64,
    /// See `elapsed::name_of`.
    #[serde(skip)]
    pub name: u64,
    pub frames: Vec<Frame>,
    pub pre_open: Vec<PreOpen>,
    stuck: u32,
    /// The last scrip code, to be shared by the windows.
    #[serde(skip)]
    scrip: Option<Arc<str>>,
    /// The session of the last tick: the next one is most likely in it too.
    #[serde(skip)]
    session: Session,
    /// Already on the list of instruments to look at when the next commit forgets.
    #[serde(skip)]
    pub is_touched: bool,
}

/// What a tick did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folded {
    pub is_outside: bool,
    /// Whether its instrument's own clock leapt.
    pub is_leap: bool,
    /// Timeframes by bit that the tick was too late for.
    pub late: u64,
    pub is_stuck: bool,
}

/// Windows that a restart froze: began before `start_ms` and end at or before the frontier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Freeze {
    pub start_ms: i64,
    pub frontiers_ms: Vec<i64>,
}

impl Freeze {
    fn holds(&self, frame: usize, bounds: Bounds) -> bool {
        bounds.start_ms < self.start_ms && self.frontiers_ms.get(frame).is_some_and(|c| bounds.end_ms <= *c)
    }
}

impl Instrument {
    pub fn new(venue: u32, token: i64, name: u64, frames: usize) -> Self {
        Self {
            venue,
            token,
            name,
            company: None,
            clock: Clock::default(),
            seen_ms: i64::MIN,
            heard_offset: -1,
            frames: vec![Frame::default(); frames],
            pre_open: Vec::new(),
            stuck: 0,
            scrip: None,
            session: Session::default(),
            is_touched: false,
        }
    }

    /// Event times at or before this are too late: `end ≤ too_late` or, outside, `time ≤ too_late`.
    pub fn too_late_ms(&self, rules: &Rules) -> i64 {
        self.clock.value_ms.map_or(i64::MIN, |now_ms| now_ms - rules.allowed_lateness_ms)
    }

    /// A number that depends on all that the next tick will most likely touch.
    pub fn glance(&self) -> i64 {
        let newest = self.frames.iter().filter_map(|frame| frame.windows.newest());
        newest.fold(0, |seen, w| seen ^ w.start_ms ^ w.ticks_all ^ w.source_offset)
    }

    fn place(&mut self, rules: &Rules, venue: &Venue, at_ms: i64) -> Place {
        if self.session.open_ms <= at_ms && at_ms < self.session.close_ms {
            return Place::Inside(self.session);
        }
        let place = venue.schedule.place(at_ms, rules.after_close_ms);
        if let Place::Inside(session) = place {
            self.session = session;
        }
        place
    }

    /// Whether the tick would open one claimed window too many (§6.6). Its clock hears the tick all the same: what
    /// comes true in the end is not refused for ever.
    pub fn claims_too_many(&mut self, rules: &Rules, venue: &Venue, tick: &Tick) -> bool {
        let mut clock = self.clock;
        clock.hear(tick.at_ms, || true);
        let Some(value_ms) = self.clock.value_ms.and(clock.value_ms).filter(|_| clock.is_leap(tick.at_ms)) else {
            return false;
        };
        let is_claimed = |start_ms: i64| start_ms > value_ms + LEAP_MS;
        let claimed = |frame: &Frame| frame.windows.len() - frame.windows.count_before(|w| !is_claimed(w.start_ms));
        if self.frames.iter().all(|frame| claimed(frame) < CLAIMED_MAX) {
            return false;
        }
        let place = self.place(rules, venue, tick.at_ms);
        let opens = |(frame, timeframe): (&Frame, &Timeframe)| {
            let start_ms = bounds_of(venue, place, timeframe, tick.at_ms).start_ms;
            is_claimed(start_ms) && frame.windows.find(|w| w.start_ms.cmp(&start_ms)).is_none()
        };
        let is_windowed = rules.keep_outside || matches!(place, Place::Inside(_));
        let is_too_many = is_windowed && self.frames.iter().zip(&rules.timeframes).any(opens);
        if is_too_many {
            self.clock = clock;
        }
        is_too_many
    }

    /// When no tick of the day of its last one is to come: its last close, and midnight behind it.
    pub fn day_over_ms(&self, rules: &Rules, venue: &Venue) -> i64 {
        let schedule = &venue.schedule;
        let date = schedule.local_day(self.seen_ms);
        let day = match schedule.place(self.seen_ms, rules.after_close_ms) {
            Place::Inside(session) | Place::Before(session) => session.day,
            Place::After => date,
        };
        schedule.day_bounds(day).1.max(schedule.to_utc_ms((date + 1) * DAY_MS))
    }

    /// Fold a tick; `changes` receives `(timeframe, change)` for each window that is new, or whose fields changed
    /// and that ends at or before the timeframe's frontier.
    #[expect(clippy::too_many_arguments, reason = "the tick, and what it is held against")]
    pub fn fold(
        &mut self,
        rules: &Rules,
        venue: &Venue,
        freeze: Option<&Freeze>,
        frontiers_ms: &[i64],
        tick: &Tick,
        offset: i64,
        changes: &mut Vec<(usize, Change)>,
    ) -> Folded {
        self.seen_ms = self.seen_ms.max(tick.at_ms);
        self.heard_offset = offset;
        if let Some(name) = tick.company.as_deref()
            && self.company.as_deref() != Some(name)
        {
            self.company = Some(Arc::from(name));
        }
        let place = self.place(rules, venue, tick.at_ms);
        if !rules.keep_outside && !matches!(place, Place::Inside(_)) {
            self.serve_base(rules, venue, place, tick, offset, changes);
            return Folded { is_outside: true, ..Folded::default() };
        }
        let is_leap = self.clock.hear(tick.at_ms, || true) == Heard::Leap;
        let too_late_ms = self.too_late_ms(rules);
        if self.scrip.as_deref() != tick.scrip.as_deref() {
            self.scrip = tick.scrip.as_deref().map(Arc::from);
        }
        let mark = Mark { at_ms: tick.at_ms, price: tick.price };
        let trade = Trade {
            mark,
            offset,
            quantity: tick.quantity,
            total: tick.total,
            company: self.company.as_ref(),
            scrip: self.scrip.as_ref(),
        };

        // Short after a close a tick belongs to the window before, even where a kept one has begun at the close.
        let is_after_close = matches!(place, Place::Inside(session) if tick.at_ms >= session.close_ms);
        let mut late = 0;
        let frames = self.frames.iter_mut().zip(&rules.timeframes).zip(frontiers_ms);
        for (i, ((frame, timeframe), frontier_ms)) in frames.enumerate() {
            let newest = if is_after_close { None } else { frame.newest_bounds(tick.at_ms) };
            let bounds = newest.unwrap_or_else(|| bounds_of(venue, place, timeframe, tick.at_ms));
            if bounds.end_ms <= too_late_ms || freeze.is_some_and(|f| f.holds(i, bounds)) {
                late |= 1 << i;
                continue;
            }
            let mut note = |change: Change| {
                if change.is_new || change.end_ms <= *frontier_ms {
                    changes.push((i, change));
                }
            };
            if newest.is_some() && frame.append(&trade, &mut note) {
                continue;
            }
            let is_rebased = tick.total > 0 && !frame.has_total_before(bounds) && {
                let pre_open = self.pre_open.iter().find(|p| p.day == bounds.day);
                found_base(frame, rules, venue, pre_open, bounds.day, tick, offset)
            };
            frame.fold(bounds, &trade, &mut note);
            if is_rebased {
                frame.rebase(bounds.day, offset, &mut note);
            }
        }
        Folded { is_outside: false, is_leap, late, is_stuck: self.is_stuck(tick) }
    }

    /// An outside tick's total may be the base of the session that follows it.
    fn serve_base(
        &mut self,
        rules: &Rules,
        venue: &Venue,
        place: Place,
        tick: &Tick,
        offset: i64,
        changes: &mut Vec<(usize, Change)>,
    ) {
        let Place::Before(next) = place else { return };
        if tick.total == 0 || tick.at_ms <= self.too_late_ms(rules) {
            return;
        }
        if !self.pre_open.iter().any(|p| p.day == next.day) {
            let (_, close_ms) = venue.schedule.day_bounds(next.day);
            self.pre_open.push(PreOpen { day: next.day, close_ms, steps: Vec::new() });
        }
        let Some(pre_open) = self.pre_open.iter_mut().find(|p| p.day == next.day) else { return };
        pre_open.add(tick.at_ms, offset, tick.total);
        for (i, frame) in self.frames.iter_mut().enumerate() {
            let Some(day) = frame.day_mut(next.day) else { continue };
            let base = base_of(day.first, Some(pre_open), venue);
            if base != day.base {
                day.base = base;
                frame.rebase(next.day, offset, &mut |change| changes.push((i, change)));
            }
        }
    }

    /// True on the tick that makes the instrument's volume count as stuck.
    fn is_stuck(&mut self, tick: &Tick) -> bool {
        let Some(window) = self.frames.first().and_then(|frame| frame.windows.newest()) else { return false };
        if tick.total == 0 || tick.quantity == 0 {
            return false;
        }
        self.stuck = if tick.total < window.reach() { self.stuck.saturating_add(1) } else { 0 };
        self.stuck == STUCK_TICKS
    }

    /// Forget what no tick can change and no commit publish again.
    pub fn forget(&mut self, rules: &Rules, frontiers_ms: &[i64], offsets: &[i64]) {
        let too_late_ms = self.too_late_ms(rules);
        for (frame, (frontier_ms, offset)) in self.frames.iter_mut().zip(frontiers_ms.iter().zip(offsets)) {
            frame.forget(too_late_ms, *frontier_ms, *offset);
        }
        self.pre_open.retain(|p| p.close_ms > too_late_ms);
    }

    /// Whether every window is out by the last commit.
    pub fn is_out(&self, frontiers_ms: &[i64], offsets: &[i64]) -> bool {
        self.frames.iter().zip(frontiers_ms.iter().zip(offsets)).all(|(frame, (frontier_ms, offset))| {
            frame.windows.iter().all(|w| w.end_ms <= *frontier_ms && w.source_offset < *offset)
        })
    }
}

fn bounds_of(venue: &Venue, place: Place, timeframe: &Timeframe, at_ms: i64) -> Bounds {
    match place {
        Place::Inside(session) => window_inside(&venue.schedule, session, timeframe.length_ms, at_ms),
        outside => window_outside(&venue.schedule, outside, timeframe.length_ms, at_ms),
    }
}

fn base_of(first: Option<(i64, i64, i128)>, pre_open: Option<&PreOpen>, venue: &Venue) -> i128 {
    let Some((at_ms, offset, base)) = first else { return 0 };
    if venue.since_zero {
        return 0;
    }
    pre_open.and_then(|p| p.greatest_before(at_ms, offset)).map_or(base, |greatest| base.min(greatest))
}

/// Note a total's tick as the day's first where it is; true when the day's base changed.
fn found_base(
    frame: &mut Frame,
    rules: &Rules,
    venue: &Venue,
    pre_open: Option<&PreOpen>,
    day: i64,
    tick: &Tick,
    offset: i64,
) -> bool {
    let close_ms = || venue.schedule.day_bounds(day).1 + if rules.keep_outside { KEEP_DAY_MS } else { 0 };
    let Some(record) = frame.day_or_new(day, close_ms) else { return false };
    if record.first.is_some_and(|(at_ms, _, _)| at_ms <= tick.at_ms) {
        return false;
    }
    record.first = Some((tick.at_ms, offset, (tick.total - tick.quantity).max(0)));
    let base = base_of(record.first, pre_open, venue);
    let is_changed = base != record.base;
    record.base = base;
    is_changed
}
