//! What instruments are held (§6.6): as many as may be, and of those too many the one least recently heard goes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::book::Book;
use crate::elapsed::name_of;
use crate::encode::key;
use crate::fold::Instrument;

/// Instruments whose day is over, the one least recently heard first. A cache: what is forgotten does not depend on it.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Offset at which each was heard when it was put here, and its slot.
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    /// From this E on the days of others may be over too. None: nothing is known yet.
    until_ms: Option<i64>,
}

impl Idle {
    /// Whether room was ever made: until then nobody need know whose day is over.
    pub(crate) fn is_known(&self) -> bool {
        self.until_ms.is_some()
    }
}

impl Book {
    /// Forget one instrument whose day is over; false where there is none.
    pub(crate) fn make_room(&mut self) -> bool {
        let Some(event_ms) = self.event_ms() else { return false };
        if self.idle.until_ms.is_none_or(|until_ms| until_ms <= event_ms) {
            self.find_idle(event_ms);
        }
        while let Some(Reverse((offset, slot))) = self.idle.queue.pop() {
            let is_held = |i: &&Instrument| self.index.get(&(i.venue, i.token)) == Some(&slot);
            let Some(held) = self.slots.get(slot as usize).and_then(Option::as_ref).filter(is_held) else { continue };
            if held.heard_offset == offset {
                self.retire(slot);
                return true;
            }
            // Heard meanwhile: it has another place, or none if it was of today.
            let (heard_offset, over_ms) = (held.heard_offset, self.over_ms(held));
            self.expect_idle(slot, heard_offset, over_ms);
        }
        false
    }

    /// Keep in mind when the day of an instrument that was heard is over.
    pub(crate) fn expect_idle(&mut self, slot: u32, heard_offset: i64, over_ms: Option<i64>) {
        let (Some(until_ms), Some(over_ms)) = (self.idle.until_ms, over_ms) else { return };
        if Some(over_ms) <= self.event_ms() {
            self.idle.queue.push(Reverse((heard_offset, slot)));
        } else {
            self.idle.until_ms = Some(until_ms.min(over_ms));
        }
    }

    /// From this E on it may be forgotten.
    pub(crate) fn over_ms(&self, instrument: &Instrument) -> Option<i64> {
        let venue = self.venues.get(instrument.venue)?;
        Some(instrument.day_over_ms(&self.rules, venue).saturating_add(self.rules.allowed_lateness_ms))
    }

    fn find_idle(&mut self, event_ms: i64) {
        let mut queue = BinaryHeap::new();
        let mut until_ms = i64::MAX;
        for slot in self.index.values() {
            let Some(Some(instrument)) = self.slots.get(*slot as usize) else { continue };
            match self.over_ms(instrument) {
                Some(over_ms) if over_ms <= event_ms => queue.push(Reverse((instrument.heard_offset, *slot))),
                Some(over_ms) => until_ms = until_ms.min(over_ms),
                None => {}
            }
        }
        self.idle = Idle { queue, until_ms: Some(until_ms) };
    }

    /// Take it out of the index; its windows that are not out stay until they are.
    fn retire(&mut self, slot: u32) {
        let Some(Some(instrument)) = self.slots.get(slot as usize) else { return };
        self.index.remove(&(instrument.venue, instrument.token));
        if instrument.is_out(&self.frontiers_ms, &self.offsets) { self.release(slot) } else { self.retired.push(slot) }
    }

    pub(crate) fn free_retired(&mut self) {
        for slot in std::mem::take(&mut self.retired) {
            match self.slots.get(slot as usize) {
                Some(Some(instrument)) if instrument.is_out(&self.frontiers_ms, &self.offsets) => self.release(slot),
                _ => self.retired.push(slot),
            }
        }
    }

    fn release(&mut self, slot: u32) {
        let Some(instrument) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.venues.give_back(instrument.venue);
    }

    /// The instruments as a dump carries them; false where one does not fit or is there twice.
    pub(crate) fn replace_instruments(&mut self, current: Vec<Instrument>, retired: Vec<Instrument>) -> bool {
        for (slot, mut instrument) in (0_u32..).zip(current) {
            let Some(venue) = self.venues.get(instrument.venue) else { return false };
            instrument.name = name_of(&key(venue, instrument.token));
            let key = (instrument.venue, instrument.token);
            if self.venues.count(instrument.venue, 1).is_none() || self.index.insert(key, slot).is_some() {
                return false;
            }
            self.slots.push(Some(instrument));
            self.fresh.push(slot);
        }
        for instrument in retired {
            if self.venues.count(instrument.venue, 1).is_none() {
                return false;
            }
            self.retired.push(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
            self.slots.push(Some(instrument));
        }
        self.index_windows();
        true
    }
}
