//! The book of one partition: its instruments, its clock, its ledger. State = f(rules, log prefix).

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::decode::{Reason, Tick, Venues, Verdict, judge, usable};
use crate::encode::key;
use crate::fold::{Folded, Freeze, Instrument};
use crate::rules::Rules;
use crate::session::DAY_MS;
use crate::window::Change;

/// §6: an instrument silent this long before E is forgotten whole.
const SILENT_MS: i64 = 7 * DAY_MS;
/// How far E may run between two looks for silent instruments: they are small, there is no hurry.
const SWEEP_MS: i64 = 3_600_000;
/// Records judged before the first of them is folded.
const AHEAD_RECORDS: usize = 32;
/// §4: a tick counts for E at most this far after its record's timestamp.
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
    pub rejected: [u64; 7],
    /// Event time absent or unreadable: the record's timestamp instead.
    pub time_fallback: u64,
    /// Optional fields that were there and unreadable.
    pub optional_unreadable: u64,
    /// Instruments whose total stopped while they traded.
    pub volume_stuck: u64,
}

/// The fold of one input partition.
#[derive(Debug)]
pub struct Book {
    pub(crate) rules: Rules,
    pub(crate) partition: i32,
    pub(crate) venues: Venues,
    index: FxHashMap<(u32, i64), u32>,
    pub(crate) slots: Vec<Option<Instrument>>,
    free: Vec<u32>,
    pub(crate) event_ms: Option<i64>,
    /// Event time of the first accepted tick since the fold's start.
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_offset: Option<i64>,
    pub(crate) freeze: Option<Freeze>,
    pub(crate) lost_ms: Option<i64>,
    pub(crate) ledger: Ledger,
    swept_ms: i64,
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
    fresh: Vec<u32>,
    changes: Vec<(usize, Change)>,
}

/// Records of a batch that need a place of their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Index in the batch and the reason.
    pub rejects: Vec<(usize, &'static str)>,
    /// Index in the batch and the timeframes by bit.
    pub late: Vec<(usize, u64)>,
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
            event_ms: None,
            first_ms: None,
            last_offset: None,
            freeze: None,
            lost_ms: None,
            ledger: Ledger::default(),
            swept_ms: 0,
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
            self.warm(judged.iter().map(|(_, _, _, verdict)| verdict));
            for (i, timestamp_ms, offset, verdict) in &judged {
                self.last_offset = Some(*offset);
                match verdict {
                    Verdict::Rejected(reason) => {
                        if let Some(count) = self.ledger.rejected.get_mut(*reason as usize) {
                            *count += 1;
                        }
                        sorted.rejects.push((*i, reason.name()));
                    }
                    Verdict::Quote { .. } => self.ledger.quotes += 1,
                    Verdict::Tick(tick) => {
                        let late = self.fold_tick(tick, *timestamp_ms, *offset);
                        if late != 0 {
                            sorted.late.push((*i, late));
                        }
                    }
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
            let Some(slot) = self.index.get(&(tick.venue, tick.token)) else { continue };
            let Some(Some(instrument)) = self.slots.get(*slot as usize) else { continue };
            seen ^= instrument.glance();
        }
        std::hint::black_box(seen);
    }

    fn fold_tick(&mut self, tick: &Tick, timestamp_ms: i64, offset: i64) -> u64 {
        let slot = self.slot_of(tick);
        let (Some(Some(instrument)), Some(venue)) = (self.slots.get_mut(slot as usize), self.venues.get(tick.venue))
        else {
            return 0;
        };
        if !instrument.is_touched {
            instrument.is_touched = true;
            self.touched.push(slot);
        }
        let freeze = self.freeze.as_ref();
        let folded = instrument.fold(&self.rules, venue, freeze, &self.frontiers_ms, tick, offset, &mut self.changes);
        self.note_changes(slot, offset);

        let capped_ms = usable(timestamp_ms).map_or(tick.at_ms, |read_ms| tick.at_ms.min(read_ms + AHEAD_MS));
        self.event_ms = self.event_ms.max(Some(capped_ms));
        self.first_ms = self.first_ms.or(Some(tick.at_ms));
        self.count(tick, folded);
        folded.late
    }

    fn count(&mut self, tick: &Tick, folded: Folded) {
        let all = (1_u64 << self.rules.timeframes.len()) - 1;
        let ledger = &mut self.ledger;
        ledger.time_fallback += u64::from(tick.time_fallback);
        ledger.optional_unreadable += u64::from(tick.optional_unreadable);
        ledger.volume_stuck += u64::from(folded.is_stuck);
        if folded.is_outside {
            ledger.outside += 1;
        } else if folded.late == all {
            ledger.late += 1;
        } else {
            ledger.folded += 1;
            ledger.late_some += u64::from(folded.late != 0);
        }
    }

    /// The tick's instrument; one silent for too long begins anew, its open windows stay till they are out.
    fn slot_of(&mut self, tick: &Tick) -> u32 {
        let key = (tick.venue, tick.token);
        let silent_ms = self.event_ms.map_or(i64::MIN, |e| e - SILENT_MS);
        if let Some(slot) = self.index.get(&key)
            && let Some(Some(instrument)) = self.slots.get(*slot as usize)
            && instrument.seen_ms > silent_ms
        {
            return *slot;
        }
        let instrument = Instrument::new(tick.venue, tick.token, self.rules.timeframes.len());
        let slot = self.put(instrument);
        self.fresh.push(slot);
        self.index.insert(key, slot);
        slot
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
        self.sweep();
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

    /// Free the slots of instruments silent for too long, once all of their windows are out.
    fn sweep(&mut self) {
        let Some(event_ms) = self.event_ms.filter(|e| *e >= self.swept_ms + SWEEP_MS) else { return };
        self.swept_ms = event_ms;
        for (slot, place) in (0_u32..).zip(&mut self.slots) {
            let Some(instrument) = place else { continue };
            let key = (instrument.venue, instrument.token);
            let is_current = self.index.get(&key) == Some(&slot);
            let is_silent = instrument.seen_ms <= event_ms - SILENT_MS;
            if (is_silent || !is_current) && instrument.is_out(&self.frontiers_ms, &self.offsets) {
                if is_current {
                    self.index.remove(&key);
                }
                *place = None;
                self.free.push(slot);
            }
        }
    }

    /// Restore: windows that began before the fold's start and are out take no ticks.
    pub fn freeze(&mut self, start_ms: i64) {
        self.freeze = Some(Freeze { start_ms, frontiers_ms: self.frontiers_ms.clone() });
    }

    /// Ticks up to this event time are known to be gone.
    pub fn lose(&mut self, lost_ms: i64) {
        self.lost_ms = self.lost_ms.max(Some(lost_ms));
    }

    /// Restore: E of the last commit, where the fold began after the tick that set it.
    pub fn raise_event_ms(&mut self, event_ms: i64) {
        self.event_ms = self.event_ms.max(Some(event_ms));
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

    /// The instruments as a dump carries them, and the way back.
    pub(crate) fn replace_instruments(&mut self, instruments: Vec<Instrument>) {
        self.index.clear();
        self.free.clear();
        self.touched.clear();
        self.changes.clear();
        self.slots = instruments.into_iter().map(Some).collect();
        self.fresh = (0_u32..).zip(&self.slots).map(|(slot, _)| slot).collect();
        for (slot, instrument) in (0_u32..).zip(&self.slots) {
            // Of two lives of one instrument the younger comes later and stays in the index.
            if let Some(instrument) = instrument {
                self.index.insert((instrument.venue, instrument.token), slot);
            }
        }
        self.index_windows();
    }

    /// Older lives of an instrument first.
    pub(crate) fn instruments_by_age(&self) -> Vec<&Instrument> {
        let is_current = |slot: u32, i: &Instrument| self.index.get(&(i.venue, i.token)) == Some(&slot);
        let all = || (0_u32..).zip(&self.slots).filter_map(|(slot, place)| place.as_ref().map(|i| (slot, i)));
        let old = all().filter(|(slot, i)| !is_current(*slot, i));
        let current = all().filter(|(slot, i)| is_current(*slot, i));
        old.chain(current).map(|(_, i)| i).collect()
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
        ];
        let read = ledger.folded + ledger.quotes + ledger.outside + ledger.late + rejected;
        counts.push(("read".to_owned(), read));
        let by_reason = Reason::ALL.iter().zip(ledger.rejected);
        counts.extend(by_reason.map(|(reason, count)| (format!("rejected_{}", reason.name()), count)));
        counts
    }
}
