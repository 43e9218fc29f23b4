//! The book of one partition: its instruments, its clock, its ledger. State = f(rules, log prefix).

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::decode::{Reason, Tick, Venues, Verdict, judge, usable};
use crate::elapsed::{Elapsed, Lost, name_of};
use crate::encode::key;
use crate::fold::{Folded, Freeze, Instrument};
use crate::forget::Idle;
use crate::rules::Rules;
use crate::window::Change;
use crate::witness::{Heard, LEAP_MS};

/// Records judged before the first of them is folded.
const AHEAD_RECORDS: usize = 32;
/// §4.2: a tick counts for E at most this far after its record's timestamp.
const AHEAD_MS: i64 = 2_000;

/// §7, since the fold's start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Ticks folded into at least one timeframe.
    pub folded: u64,
    /// Quotes without a trade.
    pub quotes: u64,
    /// Ticks outside the session.
    pub outside: u64,
    /// Ticks too late for every timeframe.
    pub late: u64,
    /// Ticks too late for some, and folded into others.
    pub late_some: u64,
    /// By reason, in the order of `Reason::ALL`.
    pub rejected: [u64; Reason::COUNT],
    /// Event time absent or before 2000: the record's timestamp instead.
    pub time_fallback: u64,
    /// Optional fields that were there and unreadable.
    pub optional_unreadable: u64,
    /// Instruments whose total stopped while they traded.
    pub volume_stuck: u64,
    /// Accepted ticks of more than a leap before E.
    pub behind: u64,
}

/// An exchange and segment by index, and a token.
pub type Key = (u32, i64);

/// The fold of one input partition.
#[derive(Debug)]
pub struct Book {
    pub(crate) rules: Rules,
    pub(crate) partition: i32,
    pub(crate) venues: Venues,
    pub(crate) index: FxHashMap<Key, u32>,
    pub(crate) slots: Vec<Option<Instrument>>,
    pub(crate) free: Vec<u32>,
    /// Slots of instruments forgotten while a window of theirs was not out.
    pub(crate) retired: Vec<u32>,
    pub(crate) idle: Idle,
    pub(crate) elapsed: Elapsed,
    pub(crate) last_offset: Option<i64>,
    pub(crate) freeze: Option<Freeze>,
    pub(crate) lost: Lost,
    pub(crate) ledger: Ledger,
    /// The last commit, per timeframe: C, O, flushed.
    pub(crate) frontiers_ms: Vec<i64>,
    pub(crate) offsets: Vec<i64>,
    pub(crate) flushed: Vec<i64>,
    /// Per timeframe: ends above C, with the slots that have such a window.
    pub(crate) open: Vec<BTreeMap<i64, Vec<u32>>>,
    /// Windows at or below C that changed since O: (timeframe, slot, start).
    pub(crate) revised: BTreeSet<(usize, u32, i64)>,
    touched: Vec<u32>,
    /// Slots of instruments not told of yet by `take_new`.
    pub(crate) fresh: Vec<u32>,
    changes: Vec<(usize, Change)>,
}

/// Records of a batch that need a place of their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Index in the batch and the reason.
    pub rejects: Vec<(usize, &'static str)>,
    /// Index in the batch and the timeframes by bit.
    pub late: Vec<(usize, u64)>,
    /// Index in the batch of the first tick of each kind that the ledger counts beside its sums.
    pub notes: Vec<(usize, &'static str)>,
}

impl Sorted {
    fn note(&mut self, index: usize, kind: &'static str) {
        if !self.notes.iter().any(|(_, noted)| *noted == kind) {
            self.notes.push((index, kind));
        }
    }
}

impl Book {
    /// An empty book that nothing was committed of.
    #[must_use]
    pub fn new(rules: Rules, partition: i32) -> Self {
        let frames = rules.timeframes.len();
        Self {
            rules,
            partition,
            venues: Venues::default(),
            index: FxHashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            retired: Vec::new(),
            idle: Idle::default(),
            elapsed: Elapsed::default(),
            last_offset: None,
            freeze: None,
            lost: Lost::default(),
            ledger: Ledger::default(),
            frontiers_ms: vec![0; frames],
            offsets: vec![0; frames],
            flushed: vec![0; frames],
            open: vec![BTreeMap::new(); frames],
            revised: BTreeSet::new(),
            touched: Vec::new(),
            fresh: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Fold a batch of `(value, timestamp, offset)` in log order; offsets must rise.
    pub fn fold<'a>(&mut self, records: impl Iterator<Item = (Option<&'a [u8]>, i64, i64)>) -> Sorted {
        let mut sorted = Sorted::default();
        let mut records = records.enumerate();
        let mut judged = Vec::with_capacity(AHEAD_RECORDS);
        loop {
            judged.clear();
            for (i, (value, timestamp_ms, offset)) in records.by_ref().take(AHEAD_RECORDS) {
                let verdict = judge(&self.rules, &mut self.venues, value, timestamp_ms);
                judged.push((i, timestamp_ms, offset, verdict));
            }
            if judged.is_empty() {
                break;
            }
            let epoch = self.venues.epoch();
            self.warm(judged.iter().map(|(_, _, _, verdict)| verdict));
            for (i, timestamp_ms, offset, verdict) in &judged {
                self.last_offset = Some(*offset);
                match verdict {
                    Verdict::Rejected(reason) => self.reject(*reason, *i, &mut sorted),
                    Verdict::Quote(_) => self.ledger.quotes += 1,
                    Verdict::Tick(tick) => match self.fold_tick(tick, epoch, *timestamp_ms, *offset) {
                        Some(folded) => self.count(tick, folded, *i, &mut sorted),
                        None => self.reject(Reason::Limit, *i, &mut sorted),
                    },
                }
            }
        }
        // A long restore would otherwise hold the whole day's windows, all of them out already.
        if self.last_offset < self.offsets.iter().min().copied() {
            self.forget_touched();
        }
        sorted
    }

    /// Look at what the next ticks will change, all at once: the waits for memory overlap instead of adding up.
    fn warm<'v, 'a: 'v>(&self, verdicts: impl Iterator<Item = &'v Verdict<'a>>) {
        let mut seen = 0;
        for verdict in verdicts {
            let Verdict::Tick(tick) = verdict else { continue };
            let Some(slot) = tick.venue.and_then(|venue| self.index.get(&(venue, tick.named.token))) else { continue };
            let Some(Some(instrument)) = self.slots.get(*slot as usize) else { continue };
            seen ^= instrument.glance();
        }
        std::hint::black_box(seen);
    }

    fn reject(&mut self, reason: Reason, index: usize, sorted: &mut Sorted) {
        if let Some(count) = self.ledger.rejected.get_mut(reason as usize) {
            *count += 1;
        }
        sorted.rejects.push((index, reason.name()));
    }

    /// None, and nothing is folded, where the tick would go beyond a limit. `epoch`: of the venues as it was read.
    fn fold_tick(&mut self, tick: &Tick, epoch: u64, timestamp_ms: i64, offset: i64) -> Option<Folded> {
        let read_ms = usable(timestamp_ms);
        let capped_ms = read_ms.map_or(tick.at_ms, |read_ms| tick.at_ms.min(read_ms + AHEAD_MS));
        let Some(slot) = self.slot_of(tick, epoch, offset) else {
            let named = &tick.named;
            let name = format!("{}:{}:{}", named.exchange, named.segment, named.token);
            self.hear(name_of(name.as_bytes()), capped_ms, false);
            return None;
        };
        let instrument = self.slots.get_mut(slot as usize)?.as_mut()?;
        let venue = self.venues.get(instrument.venue)?;
        if instrument.clock.is_leap(tick.at_ms) && instrument.claims_too_many(&self.rules, venue, tick) {
            return None;
        }
        if !instrument.is_touched {
            instrument.is_touched = true;
            self.touched.push(slot);
        }
        let name = instrument.name;
        let freeze = self.freeze.as_ref();
        let folded = instrument.fold(&self.rules, venue, freeze, &self.frontiers_ms, tick, offset, &mut self.changes);
        self.note_changes(slot, offset);

        self.hear(name, capped_ms, folded.is_leap);
        Some(folded)
    }

    fn hear(&mut self, name: u64, at_ms: i64, is_leap: bool) {
        if matches!(self.elapsed.hear(name, at_ms, is_leap), Heard::Step | Heard::Leap) {
            self.lost.rise(self.event_ms());
        }
    }

    fn count(&mut self, tick: &Tick, folded: Folded, index: usize, sorted: &mut Sorted) {
        let all = (1_u64 << self.rules.timeframes.len()) - 1;
        let event_ms = self.event_ms();
        let ledger = &mut self.ledger;
        if tick.time_fallback {
            ledger.time_fallback += 1;
            sorted.note(index, "time_fallback");
        }
        if tick.optional_unreadable > 0 {
            ledger.optional_unreadable += u64::from(tick.optional_unreadable);
            sorted.note(index, "optional_unreadable");
        }
        if folded.is_stuck {
            ledger.volume_stuck += 1;
            sorted.note(index, "volume_stuck");
        }
        ledger.behind += u64::from(event_ms.is_some_and(|event_ms| tick.at_ms < event_ms - LEAP_MS));
        if folded.is_outside {
            ledger.outside += 1;
        } else if folded.late == all {
            ledger.late += 1;
        } else {
            ledger.folded += 1;
            ledger.late_some += u64::from(folded.late != 0);
        }
        if folded.late != 0 {
            sorted.late.push((index, folded.late));
        }
    }

    /// The slot of the tick's instrument; None where no more can be held.
    fn slot_of(&mut self, tick: &Tick, epoch: u64, offset: i64) -> Option<u32> {
        let named = &tick.named;
        let venue = if tick.venue.is_some() && self.venues.epoch() == epoch {
            tick.venue
        } else {
            self.venues.find(&named.exchange, &named.segment)
        };
        if let Some(slot) = venue.and_then(|venue| self.index.get(&(venue, named.token))) {
            return Some(*slot);
        }
        if self.index.len() >= self.rules.instruments_max && !self.make_room() {
            return None;
        }
        let venue = self.venues.take(&self.rules, &named.exchange, &named.segment);
        let name = self.venues.get(venue).map_or(0, |venue| name_of(&key(venue, named.token)));
        let mut instrument = Instrument::new(venue, named.token, name, self.rules.timeframes.len());
        (instrument.seen_ms, instrument.heard_offset) = (tick.at_ms, offset);
        let over_ms = if self.idle.is_known() { self.over_ms(&instrument) } else { None };
        let slot = self.put(instrument);
        self.expect_idle(slot, offset, over_ms);
        self.fresh.push(slot);
        self.index.insert((venue, named.token), slot);
        Some(slot)
    }

    fn put(&mut self, instrument: Instrument) -> u32 {
        if let Some(slot) = self.free.pop()
            && let Some(place) = self.slots.get_mut(slot as usize)
        {
            *place = Some(instrument);
            return slot;
        }
        self.slots.push(Some(instrument));
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Keep in mind which windows a commit may have to publish.
    fn note_changes(&mut self, slot: u32, offset: i64) {
        for (frame, change) in self.changes.drain(..) {
            let (Some(frontier_ms), Some(open)) = (self.frontiers_ms.get(frame), self.open.get_mut(frame)) else {
                continue;
            };
            if change.end_ms > *frontier_ms {
                if change.is_new {
                    open.entry(change.end_ms).or_default().push(slot);
                }
            } else if self.offsets.get(frame).is_some_and(|o| offset >= *o && change.source_before < *o) {
                self.revised.insert((frame, slot, change.start_ms));
            }
        }
    }

    /// Take over what the last commit says and forget what is out and too late.
    pub fn committed(&mut self, frontiers_ms: Vec<i64>, offsets: Vec<i64>, flushed: Vec<i64>) {
        let is_onward = self.frontiers_ms.iter().zip(&frontiers_ms).all(|(old, new)| old <= new);
        self.frontiers_ms = frontiers_ms;
        self.offsets = offsets;
        self.flushed = flushed;
        let is_behind = self.offsets.iter().any(|o| self.last_offset.is_some_and(|last| last >= *o));
        if is_onward && !is_behind {
            for (open, frontier_ms) in self.open.iter_mut().zip(&self.frontiers_ms) {
                *open = open.split_off(&(frontier_ms + 1));
            }
            self.revised.clear();
        } else {
            self.index_windows();
        }
        self.forget_touched();
        self.free_retired();
    }

    /// `open` and `revised` from the windows themselves: after a load, or a commit behind the fold.
    pub(crate) fn index_windows(&mut self) {
        self.open.iter_mut().for_each(BTreeMap::clear);
        self.revised.clear();
        for (slot, instrument) in (0_u32..).zip(&self.slots) {
            let frames = instrument.iter().flat_map(|i| i.frames.iter().enumerate());
            for (frame, window) in frames.flat_map(|(f, frame)| frame.windows.iter().map(move |w| (f, w))) {
                let frontier_ms = self.frontiers_ms.get(frame).copied().unwrap_or(0);
                let offset = self.offsets.get(frame).copied().unwrap_or(0);
                if window.end_ms <= frontier_ms {
                    if window.source_offset >= offset {
                        self.revised.insert((frame, slot, window.start_ms));
                    }
                } else if let Some(open) = self.open.get_mut(frame) {
                    open.entry(window.end_ms).or_default().push(slot);
                }
            }
        }
    }

    fn forget_touched(&mut self) {
        for slot in self.touched.drain(..) {
            if let Some(Some(instrument)) = self.slots.get_mut(slot as usize) {
                instrument.is_touched = false;
                instrument.forget(&self.rules, &self.frontiers_ms, &self.offsets);
            }
        }
    }

    /// Restore: windows that began before the fold's start and are out take no ticks.
    pub fn freeze(&mut self, start_ms: i64) {
        self.freeze = Some(Freeze { start_ms, frontiers_ms: self.frontiers_ms.clone() });
    }

    /// Records before the next one are gone, or were passed over: windows they may belong to are not complete.
    pub fn lose(&mut self) {
        self.lost.begin(self.event_ms());
    }

    /// E: None before two ticks have witnessed one.
    #[must_use]
    pub fn event_ms(&self) -> Option<i64> {
        self.elapsed.clock.value_ms
    }

    /// The time of a tick far after E that waits for its witness.
    #[must_use]
    pub fn claim_ms(&self) -> Option<i64> {
        self.elapsed.clock.claim_ms
    }

    /// The time that half of the instruments have reached by their own clocks; None where none has one.
    #[must_use]
    pub fn usual_ms(&self) -> Option<i64> {
        let held = self.index.values().filter_map(|slot| self.slots.get(*slot as usize)?.as_ref());
        let mut times_ms: Vec<i64> = held.filter_map(|instrument| instrument.clock.value_ms).collect();
        times_ms.sort_unstable();
        times_ms.get(times_ms.len() / 2).copied()
    }

    /// E as the last commit has it, or as another witness of the claim says; the claim is dropped.
    pub fn set_event_ms(&mut self, event_ms: Option<i64>) {
        self.elapsed.set(event_ms);
        self.lost.rise(event_ms);
        self.idle = Idle::default();
    }

    /// Offset after the last record folded.
    #[must_use]
    pub fn position(&self) -> Option<i64> {
        self.last_offset.map(|offset| offset.saturating_add(1))
    }

    /// How many instruments are held.
    #[must_use]
    pub fn instruments(&self) -> usize {
        self.index.len()
    }

    /// Instruments met since the last call, and when each was last seen.
    pub fn take_new(&mut self) -> Vec<(Vec<u8>, i64)> {
        let slots = std::mem::take(&mut self.fresh);
        let met = slots.into_iter().filter_map(|slot| self.slots.get(slot as usize)?.as_ref());
        met.filter_map(|i| Some((key(self.venues.get(i.venue)?, i.token), i.seen_ms))).collect()
    }

    /// Greatest event time of this instrument's ticks.
    #[must_use]
    pub fn seen_ms(&self, exchange: &str, segment: &str, token: i64) -> Option<i64> {
        let slot = self.index.get(&(self.venues.find(exchange, segment)?, token))?;
        self.slots.get(*slot as usize)?.as_ref().map(|instrument| instrument.seen_ms)
    }

    /// Counts by name; `read` is the sum of the five kinds.
    #[must_use]
    pub fn ledger(&self) -> Vec<(String, u64)> {
        let ledger = &self.ledger;
        let rejected: u64 = ledger.rejected.iter().sum();
        let mut counts = vec![
            ("folded".to_owned(), ledger.folded),
            ("quotes".to_owned(), ledger.quotes),
            ("outside".to_owned(), ledger.outside),
            ("late".to_owned(), ledger.late),
            ("rejected".to_owned(), rejected),
            ("late_some".to_owned(), ledger.late_some),
            ("time_fallback".to_owned(), ledger.time_fallback),
            ("optional_unreadable".to_owned(), ledger.optional_unreadable),
            ("volume_stuck".to_owned(), ledger.volume_stuck),
            ("behind".to_owned(), ledger.behind),
        ];
        let read = ledger.folded + ledger.quotes + ledger.outside + ledger.late + rejected;
        counts.push(("read".to_owned(), read));
        let by_reason = Reason::ALL.iter().zip(ledger.rejected);
        counts.extend(by_reason.map(|(reason, count)| (format!("rejected_{}", reason.name()), count)));
        counts
    }
}
