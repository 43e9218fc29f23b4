//! What a commit publishes (specification §4.5 and §6.2). Reads the book, changes nothing.

use std::collections::HashSet;

use crate::book::Book;
use crate::encode::{Publication, Shared, key, value};
use crate::fold::Instrument;
use crate::window::Window;

impl Book {
    /// The C per timeframe that a commit reaches: `due_ms`, less where more than `candles_max` windows would be due.
    #[must_use]
    pub fn close(&self, due_ms: &[i64], flush: bool, candles_max: usize) -> Vec<i64> {
        let wanted = self.frontiers_ms.iter().zip(due_ms).map(|(c, due)| *c.max(due)).collect();
        if flush { wanted } else { self.reachable(wanted, candles_max) }
    }

    /// How many windows are due at C' = `due_ms` and not out.
    #[must_use]
    pub fn count_due(&self, due_ms: &[i64]) -> usize {
        let due = self.open.iter().zip(due_ms);
        due.flat_map(|(open, due_ms)| open.range(..=due_ms)).map(|(_, slots)| slots.len()).sum()
    }

    /// Lower the frontiers so that about `candles_max` windows are due, at least one end.
    fn reachable(&self, mut frontiers_ms: Vec<i64>, candles_max: usize) -> Vec<i64> {
        let mut ends: Vec<(i64, usize, usize)> = Vec::new();
        for (frame, (open, due_ms)) in self.open.iter().zip(&frontiers_ms).enumerate() {
            ends.extend(open.range(..=due_ms).map(|(end_ms, slots)| (*end_ms, frame, slots.len())));
        }
        ends.sort_unstable();
        let mut windows = 0;
        for (end_ms, frame, count) in ends {
            if windows > 0 && windows + count > candles_max {
                if let Some(frontier_ms) = frontiers_ms.get_mut(frame) {
                    *frontier_ms = (*frontier_ms).min(end_ms - 1);
                }
            } else {
                windows += count;
            }
        }
        frontiers_ms
    }

    /// What a commit that reaches C = `frontier_ms` publishes of a timeframe: `(key, value)`, a window's older life
    /// first.
    #[must_use]
    pub fn candles(&self, frame: usize, frontier_ms: i64, flush: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(open) = self.open.get(frame) else { return Vec::new() };
        let flushed = self.flushed.get(frame).copied().unwrap_or(0);
        let limit_ms = if flush { i64::MAX } else { frontier_ms };
        let mut found: Vec<(&Instrument, &Window)> = Vec::new();
        for (frame, slot, start_ms) in self.revised.range((frame, 0, i64::MIN)..(frame + 1, 0, i64::MIN)) {
            found.extend(self.window(*slot, *frame, |w| w.start_ms.cmp(start_ms)));
        }
        for (end_ms, slots) in open.range(..=limit_ms) {
            let windows = slots.iter().filter_map(|slot| self.window(*slot, frame, |w| w.end_ms.cmp(end_ms)));
            found.extend(windows.filter(|(_, window)| window.source_offset >= flushed));
        }
        found.sort_by_key(|(_, window)| (window.end_ms, window.source_offset));
        let mut shared = Shared::default();
        found
            .into_iter()
            .filter_map(|(instrument, window)| self.candle(frame, instrument, window, &mut shared))
            .collect()
    }

    /// The windows of a timeframe that end above C, as a commit would publish them now: the older end first. With
    /// `wanted` only those of the instruments so named: exchange, segment, token.
    #[must_use]
    pub fn open_windows(&self, frame: usize, wanted: Option<&[(String, String, i64)]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(open) = self.open.get(frame) else { return Vec::new() };
        let wanted: Option<HashSet<(u32, i64)>> = wanted.map(|names| {
            let places = names.iter().map(|(exchange, segment, token)| (self.venues.find(exchange, segment), token));
            places.filter_map(|(venue, token)| Some((venue?, *token))).collect()
        });
        let windows = open.iter().flat_map(|(end_ms, slots)| {
            slots.iter().filter_map(|slot| self.window(*slot, frame, |w| w.end_ms.cmp(end_ms)))
        });
        let mut shared = Shared::default();
        windows
            .filter(|(i, _)| wanted.as_ref().is_none_or(|named| named.contains(&(i.venue, i.token))))
            .filter_map(|(instrument, window)| self.candle(frame, instrument, window, &mut shared))
            .collect()
    }

    fn window(
        &self,
        slot: u32,
        frame: usize,
        compare: impl Fn(&Window) -> std::cmp::Ordering,
    ) -> Option<(&Instrument, &Window)> {
        let instrument = self.slots.get(slot as usize)?.as_ref()?;
        let window = instrument.frames.get(frame)?.windows.find(compare)?;
        Some((instrument, window))
    }

    /// Key and value; `shared` goes from candle to candle of one timeframe.
    fn candle(
        &self,
        frame: usize,
        instrument: &Instrument,
        window: &Window,
        shared: &mut Shared,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let venue = self.venues.get(instrument.venue)?;
        shared.turn_to(venue, instrument.venue, &self.rules.timeframes.get(frame)?.label, window);
        let is_out = self.frontiers_ms.get(frame).is_some_and(|c| window.end_ms <= *c);
        let known = if is_out { &self.offsets } else { &self.flushed };
        let publication = Publication {
            shared,
            token: instrument.token,
            partition: self.partition,
            quantity_decimals: self.rules.quantity_decimals,
            is_complete: !self.lost.holds(window.start_ms),
            is_revised: known.get(frame).is_some_and(|offset| window.first_offset < *offset),
        };
        Some((key(venue, instrument.token), value(window, &publication)))
    }

    /// Per timeframe the least end above C.
    #[must_use]
    pub fn next_ends_ms(&self) -> Vec<Option<i64>> {
        self.open.iter().map(|open| open.keys().next().copied()).collect()
    }

    /// Per timeframe the greatest end above C.
    #[must_use]
    pub fn last_ends_ms(&self) -> Vec<Option<i64>> {
        self.open.iter().map(|open| open.keys().next_back().copied()).collect()
    }
}
