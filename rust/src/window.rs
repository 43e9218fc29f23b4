//! A timeframe of one instrument: its windows, oldest first, and its trading days (specification §3).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::session::Bounds;
use crate::windows::Windows;

/// A price and its event time. Ticks are folded by rising offset, so of two at one time the one heard later is the later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Mark {
    pub at_ms: i64,
    pub price: f64,
}

/// One window of one instrument. All of a live market are held at once: a field more is felt in speed and in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
    pub day: i64,
    pub open: Mark,
    pub close: Mark,
    pub high: f64,
    pub low: f64,
    /// T(w): the greatest total seen in this window, 0 for none.
    pub total: i128,
    /// M of the day's window before, 0 where none had a total.
    pub below: i128,
    /// While M(w) is 0 the sum of `LastQty`, which stops at the greatest 128-bit integer.
    pub volume: i128,
    /// Ticks folded up to `source_offset`, and in all.
    pub ticks: i64,
    pub ticks_all: i64,
    pub first_offset: i64,
    pub source_offset: i64,
    pub company: Option<Arc<str>>,
    /// `None`: the token.
    pub scrip: Option<Arc<str>>,
}

/// What the volumes of a trading day rest on, in one timeframe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Day {
    pub day: i64,
    /// When its last session closes.
    pub close_ms: i64,
    /// Time and offset of the first in-session tick with a total, and that total less its `LastQty`.
    pub first: Option<(i64, i64, i128)>,
    pub base: i128,
    /// M of the windows already forgotten.
    pub carried: i128,
}

/// A tick as a window takes it.
#[derive(Debug)]
pub struct Trade<'a> {
    pub mark: Mark,
    pub offset: i64,
    pub quantity: i128,
    pub total: i128,
    pub company: Option<&'a Arc<str>>,
    pub scrip: Option<&'a Arc<str>>,
}

impl Window {
    fn new(bounds: Bounds, below: i128, trade: &Trade) -> Self {
        Self {
            start_ms: bounds.start_ms,
            end_ms: bounds.end_ms,
            day: bounds.day,
            open: trade.mark,
            close: trade.mark,
            high: trade.mark.price,
            low: trade.mark.price,
            total: trade.total,
            below,
            volume: trade.quantity,
            ticks: 1,
            ticks_all: 1,
            first_offset: trade.offset,
            source_offset: trade.offset,
            company: trade.company.cloned(),
            scrip: trade.scrip.cloned(),
        }
    }

    /// M(w): the greatest total of the day up to and with this window, 0 for none.
    pub fn reach(&self) -> i128 {
        self.below.max(self.total)
    }

    /// All but a volume that rests on totals; true when a published field changed.
    fn take(&mut self, trade: &Trade) -> bool {
        let mark = trade.mark;
        self.ticks_all += 1;
        let mut changed = false;
        // Offsets only rise: at equal times the first stays the open and the newcomer is the close.
        if mark.at_ms < self.open.at_ms {
            changed |= differs(mark.price, self.open.price);
            self.open = mark;
        }
        if mark.at_ms >= self.close.at_ms {
            changed |= differs(mark.price, self.close.price);
            self.close = mark;
            if self.company.as_ref() != trade.company {
                self.company = trade.company.cloned();
                changed = true;
            }
            if self.scrip.as_ref() != trade.scrip {
                self.scrip = trade.scrip.cloned();
                changed = true;
            }
        }
        if mark.price > self.high {
            self.high = mark.price;
            changed = true;
        }
        if mark.price < self.low {
            self.low = mark.price;
            changed = true;
        }
        self.total = self.total.max(trade.total);
        if self.reach() == 0 {
            let volume = self.volume.saturating_add(trade.quantity);
            changed |= volume != self.volume;
            self.volume = volume;
        }
        changed
    }

    /// The volume that rests on M before this window and on the day's base; true when it changed.
    fn settle(&mut self, below: i128, base: i128) -> bool {
        self.below = below;
        let volume = match (below, self.reach()) {
            (0, 0) => self.volume,
            (0, reach) => (reach - base).max(0),
            (below, reach) => reach - below,
        };
        let changed = volume != self.volume;
        self.volume = volume;
        changed
    }

    /// Take a trade that is the last by time and leaves every base and other window as it is; true when a published field
    /// changed. `None`, and nothing has, where that is not certain.
    fn append(&mut self, trade: &Trade) -> Option<bool> {
        if trade.mark.at_ms < self.close.at_ms {
            return None;
        }
        let reach = self.reach();
        let raised_by = (trade.total - reach).max(0);
        // In the day's first window with a total the base is what M and the volume differ by.
        if raised_by > 0 && self.below == 0 && (reach == 0 || self.volume == 0) {
            return None;
        }
        let is_changed = self.take(trade) || raised_by > 0;
        self.volume += raised_by;
        if is_changed {
            self.touch(trade.offset);
        }
        Some(is_changed)
    }

    fn touch(&mut self, offset: i64) {
        self.source_offset = offset;
        self.ticks = self.ticks_all;
    }
}

fn differs(a: f64, b: f64) -> bool {
    a.to_bits() != b.to_bits()
}

/// The windows of one instrument in one timeframe that some tick may still change or a commit publish.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Frame {
    pub windows: Windows,
    pub days: Vec<Day>,
}

/// A window whose published fields changed: its end, whether it is new, and its source offset before.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub start_ms: i64,
    pub end_ms: i64,
    pub is_new: bool,
    pub source_before: i64,
}

impl Frame {
    /// The window that `at_ms` falls into, if it is the newest one: the common case.
    pub fn newest_bounds(&self, at_ms: i64) -> Option<Bounds> {
        let window = self.windows.newest()?;
        (window.start_ms <= at_ms && at_ms < window.end_ms).then_some(Bounds {
            start_ms: window.start_ms,
            end_ms: window.end_ms,
            day: window.day,
        })
    }

    /// Fold a trade into the newest window, which its time falls into, where it comes last and nothing else changes by it;
    /// false, and nothing has changed, where that is not certain.
    pub fn append(&mut self, trade: &Trade, note: &mut impl FnMut(Change)) -> bool {
        let Some(window) = self.windows.newest_mut() else { return false };
        let source_before = window.source_offset;
        let Some(is_changed) = window.append(trade) else { return false };
        if is_changed {
            note(Change { start_ms: window.start_ms, end_ms: window.end_ms, is_new: false, source_before });
        }
        true
    }

    /// Whether the newest window is this one and an earlier one of its day has a total: then no tick of it can be
    /// the day's first.
    pub fn has_total_before(&self, bounds: Bounds) -> bool {
        self.windows.newest().is_some_and(|window| window.start_ms == bounds.start_ms && window.below > 0)
    }

    pub fn day_mut(&mut self, day: i64) -> Option<&mut Day> {
        self.days.iter_mut().rev().find(|d| d.day == day)
    }

    /// The day's record, made when it is new; `close_ms` is asked for only then.
    pub fn day_or_new(&mut self, day: i64, close_ms: impl FnOnce() -> i64) -> Option<&mut Day> {
        if self.day_mut(day).is_none() {
            // Mostly there is one: a vector that grows by itself would begin with room for four.
            self.days.reserve_exact(1);
            self.days.push(Day { day, close_ms: close_ms(), first: None, base: 0, carried: 0 });
        }
        self.day_mut(day)
    }

    fn base(&self, day: i64) -> i128 {
        self.days.iter().rev().find(|d| d.day == day).map_or(0, |d| d.base)
    }

    /// M of the day's window before the one at `index`.
    fn below(&self, index: usize, day: i64) -> i128 {
        match index.checked_sub(1).and_then(|i| self.windows.get(i)) {
            Some(window) if window.day == day => window.reach(),
            _ => self.days.iter().rev().find(|d| d.day == day).map_or(0, |d| d.carried),
        }
    }

    /// Fold a trade into its window and pass a changed M on to later windows of the day.
    pub fn fold(&mut self, bounds: Bounds, trade: &Trade, note: &mut impl FnMut(Change)) {
        let offset = trade.offset;
        let index = self.windows.count_before(|w| w.start_ms < bounds.start_ms);
        let is_there = self.windows.get(index).is_some_and(|w| w.start_ms == bounds.start_ms);
        if !is_there {
            let below = self.below(index, bounds.day);
            self.windows.insert(index, Window::new(bounds, below, trade));
        }
        let first_without_below = self.windows.get(index).is_some_and(|w| w.below == 0);
        let base = if first_without_below { self.base(bounds.day) } else { 0 };
        let Some(window) = self.windows.get_mut(index) else { return };
        let source_before = if is_there { window.source_offset } else { -1 };
        let reach_before = if is_there { window.reach() } else { window.below };
        let mut is_changed = !is_there;
        if is_there {
            is_changed |= window.take(trade);
        }
        is_changed |= window.settle(window.below, base);
        if is_changed {
            window.touch(offset);
            note(Change { start_ms: window.start_ms, end_ms: window.end_ms, is_new: !is_there, source_before });
        }
        if window.reach() != reach_before && index + 1 < self.windows.len() {
            self.pass_on(index + 1, bounds.day, offset, note);
        }
    }

    /// The base of a day changed: settle all its windows.
    pub fn rebase(&mut self, day: i64, offset: i64, note: &mut impl FnMut(Change)) {
        let first = self.windows.count_before(|w| w.day < day);
        self.pass_on(first, day, offset, note);
    }

    /// Settle the windows of a day from `index` on.
    fn pass_on(&mut self, index: usize, day: i64, offset: i64, note: &mut impl FnMut(Change)) {
        let base = self.base(day);
        let mut below = self.below(index, day);
        for window in self.windows.iter_mut().skip(index).take_while(|w| w.day == day) {
            let source_before = window.source_offset;
            if window.settle(below, base) {
                window.touch(offset);
                note(Change { start_ms: window.start_ms, end_ms: window.end_ms, is_new: false, source_before });
            }
            below = window.reach();
        }
    }

    /// Forget from the front what is out (`end ≤ frontier`, source below `offset`) and too late for any tick.
    pub fn forget(&mut self, too_late_ms: i64, frontier_ms: i64, offset: i64) {
        while let Some(window) = self.windows.oldest() {
            if window.end_ms > too_late_ms || window.end_ms > frontier_ms || window.source_offset >= offset {
                break;
            }
            let (day, reach) = (window.day, window.reach());
            if let Some(day) = self.day_mut(day) {
                day.carried = day.carried.max(reach);
            }
            self.windows.drop_oldest();
        }
        let windows = &self.windows;
        self.days.retain(|d| d.close_ms > too_late_ms || windows.iter().any(|w| w.day == d.day));
    }
}
