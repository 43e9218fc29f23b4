//! What instruments are held (§6): as many as may be, and of those too many the one least recently heard goes.

use std::collections::VecDeque;

use crate::book::Book;
use crate::fold::Instrument;

/// Instruments whose day is over, the one least recently heard first. A cache: what is forgotten does not depend on it.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Offset last heard at, and the slot.
    queue: VecDeque<(i64, u32)>,
    /// From this E on it must be made anew: another day is over then. None: at once.
    until_ms: Option<i64>,
}

impl Book {
    /// Forget one instrument whose day is over; false where there is none.
    pub(crate) fn make_room(&mut self) -> bool {
        let Some(event_ms) = self.event_ms() else { return false };
        if self.idle.until_ms.is_none_or(|until_ms| until_ms <= event_ms) {
            self.find_idle(event_ms);
        }
        while let Some((offset, slot)) = self.idle.queue.pop_front() {
            let is_held = |i: &Instrument| self.index.get(&(i.venue, i.token)) == Some(&slot);
            let held = self.slots.get(slot as usize).and_then(Option::as_ref).filter(|i| is_held(i));
            match held.map(|instrument| instrument.heard_offset) {
                Some(heard_offset) if heard_offset == offset => {
                    self.retire(slot);
                    return true;
                }
                // Heard meanwhile, of an old day: it is behind the others now.
                Some(_) => self.idle.until_ms = None,
                None => {}
            }
        }
        false
    }

    fn find_idle(&mut self, event_ms: i64) {
        let mut queue = Vec::new();
        let mut until_ms = i64::MAX;
        for slot in self.index.values() {
            let Some(Some(instrument)) = self.slots.get(*slot as usize) else { continue };
            let Some(venue) = self.venues.get(instrument.venue) else { continue };
            let over_ms = instrument.day_over_ms(&self.rules, venue).saturating_add(self.rules.late_horizon_ms);
            if over_ms <= event_ms {
                queue.push((instrument.heard_offset, *slot));
            } else {
                until_ms = until_ms.min(over_ms);
            }
        }
        queue.sort_unstable();
        self.idle = Idle { queue: queue.into(), until_ms: Some(until_ms) };
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
        if self.venues.give_back(instrument.venue) {
            self.elapsed.forget_venue(instrument.venue);
        }
    }

    /// The instruments as a dump carries them; false where one does not fit or is there twice.
    pub(crate) fn replace_instruments(&mut self, current: Vec<Instrument>, retired: Vec<Instrument>) -> bool {
        for (slot, instrument) in (0_u32..).zip(current) {
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
