//! The border: the only file that knows Python. `candles/_kernel.pyi` documents what is seen from there.
#![allow(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyList};

use crate::book;
use crate::decode::{Named, Venues, Verdict, judge as judge_record, stamp};
use crate::number::DECIMALS_MAX;
use crate::rules::{FIELD_COUNT, Rules, Timeframe};
use crate::session::{Schedule, Season};
use crate::state::FORMAT_VERSION;

type Hours = Vec<(i64, i64)>;
type Candles<'py> = Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>;
type ScheduleData = (String, String, Vec<(i64, i64)>, Vec<(i64, i64, u32, Hours)>, Vec<(i64, Hours)>);

/// Timeframes are bits of one word.
const TIMEFRAMES_MAX: usize = 32;

#[pyclass(module = "streamingcandle.candles._kernel")]
struct Book(book::Book);

fn schedule(data: ScheduleData) -> Arc<Schedule> {
    let (exchange, segment, utc_offsets, seasons, exceptions) = data;
    let season = |(from_day, to_day, weekday_mask, hours)| Season { from_day, to_day, weekday_mask, hours };
    let seasons = seasons.into_iter().map(season).collect();
    Arc::new(Schedule { exchange, segment, utc_offsets, seasons, exceptions })
}

fn check(rules: &Rules) -> Result<(), &'static str> {
    if rules.timeframes.is_empty() || rules.timeframes.len() > TIMEFRAMES_MAX {
        return Err("1 to 32 timeframes");
    }
    if rules.timeframes.iter().any(|t| t.length_ms < 0) || rules.allowed_lateness_ms < 0 || rules.after_close_ms < 0 {
        return Err("no length below 0");
    }
    if rules.fields.len() != FIELD_COUNT || rules.quantity_decimals > DECIMALS_MAX {
        return Err("nine field names, at most 18 decimals");
    }
    Ok(())
}

/// The batch's values without copying them; the list keeps them alive.
fn slices<'a>(values: &'a [Option<Bound<'_, PyBytes>>]) -> Vec<Option<&'a [u8]>> {
    values.iter().map(|value| value.as_ref().map(PyBytesMethods::as_bytes)).collect()
}

fn into_bytes(py: Python<'_>, candles: Vec<(Vec<u8>, Vec<u8>)>) -> Candles<'_> {
    candles.into_iter().map(|(key, value)| (PyBytes::new(py, &key), PyBytes::new(py, &value))).collect()
}

fn same_length(one: usize, other: usize) -> PyResult<()> {
    if one == other { Ok(()) } else { Err(PyValueError::new_err("sequences of different lengths")) }
}

#[pymethods]
impl Book {
    #[new]
    #[pyo3(signature = (*, partition, digest, timeframes, fields, schedules, allowed_lateness_ms, future_ms,
                        after_close_ms, quantity_decimals, instruments_max, keep_outside, since_zero))]
    #[expect(clippy::too_many_arguments, reason = "the rules, each by its name")]
    fn new(
        partition: i32,
        digest: String,
        timeframes: Vec<(String, i64)>,
        fields: Vec<String>,
        schedules: Vec<ScheduleData>,
        allowed_lateness_ms: i64,
        future_ms: i64,
        after_close_ms: i64,
        quantity_decimals: u32,
        instruments_max: usize,
        keep_outside: bool,
        since_zero: Vec<String>,
    ) -> PyResult<Self> {
        let timeframe = |(label, length_ms)| Timeframe { label, length_ms };
        let rules = Rules {
            digest,
            timeframes: timeframes.into_iter().map(timeframe).collect(),
            fields,
            schedules: schedules.into_iter().map(schedule).collect(),
            allowed_lateness_ms,
            future_ms,
            after_close_ms,
            quantity_decimals,
            instruments_max,
            keep_outside,
            since_zero,
        };
        check(&rules).map_err(PyValueError::new_err)?;
        Ok(Self(book::Book::new(rules, partition)))
    }

    #[expect(clippy::type_complexity, reason = "three lists of pairs")]
    fn fold(
        &mut self,
        py: Python<'_>,
        values: Vec<Option<Bound<'_, PyBytes>>>,
        timestamps_ms: Vec<i64>,
        offsets: Vec<i64>,
    ) -> PyResult<(Vec<(usize, &'static str)>, Vec<(usize, String)>, Vec<(usize, &'static str)>)> {
        same_length(values.len(), timestamps_ms.len())?;
        same_length(values.len(), offsets.len())?;
        let mut last = self.0.last_offset.unwrap_or(-1);
        for offset in &offsets {
            if *offset <= last {
                return Err(PyValueError::new_err(format!("offset {offset} is not above the last, {last}")));
            }
            last = *offset;
        }
        let book = &mut self.0;
        let records = slices(&values);
        let sorted = py.detach(|| {
            let times = timestamps_ms.into_iter().zip(offsets);
            book.fold(
                records.into_iter().zip(times).map(|(value, (timestamp_ms, offset))| (value, timestamp_ms, offset)),
            )
        });
        let late = sorted.late.into_iter().map(|(i, frames)| (i, self.labels(frames))).collect();
        Ok((sorted.rejects, late, sorted.notes))
    }

    #[pyo3(signature = (*, frontiers_ms, offsets, flushed))]
    fn committed(
        &mut self,
        py: Python<'_>,
        frontiers_ms: Vec<i64>,
        offsets: Vec<i64>,
        flushed: Vec<i64>,
    ) -> PyResult<()> {
        for numbers in [&frontiers_ms, &offsets, &flushed] {
            same_length(numbers.len(), self.0.rules.timeframes.len())?;
        }
        let book = &mut self.0;
        py.detach(|| book.committed(frontiers_ms, offsets, flushed));
        Ok(())
    }

    fn freeze(&mut self, fold_start_ms: i64) {
        self.0.freeze(fold_start_ms);
    }

    fn lose(&mut self) {
        self.0.lose();
    }

    #[pyo3(signature = (*, due_ms, flush, candles_max))]
    fn close(&self, due_ms: Vec<i64>, flush: bool, candles_max: usize) -> PyResult<Vec<i64>> {
        same_length(due_ms.len(), self.0.rules.timeframes.len())?;
        Ok(self.0.close(&due_ms, flush, candles_max))
    }

    #[pyo3(signature = (*, timeframe, frontier_ms, flush))]
    fn candles<'py>(&self, py: Python<'py>, timeframe: usize, frontier_ms: i64, flush: bool) -> PyResult<Candles<'py>> {
        self.check_timeframe(timeframe)?;
        let book = &self.0;
        Ok(into_bytes(py, py.detach(|| book.candles(timeframe, frontier_ms, flush))))
    }

    #[pyo3(signature = (*, timeframe, instruments))]
    fn open_windows<'py>(
        &self,
        py: Python<'py>,
        timeframe: usize,
        instruments: Option<Vec<(String, String, i64)>>,
    ) -> PyResult<Candles<'py>> {
        self.check_timeframe(timeframe)?;
        let book = &self.0;
        Ok(into_bytes(py, py.detach(|| book.open_windows(timeframe, instruments.as_deref()))))
    }

    fn count_due(&self, due_ms: Vec<i64>) -> usize {
        self.0.count_due(&due_ms)
    }

    fn next_ends_ms(&self) -> Vec<Option<i64>> {
        self.0.next_ends_ms()
    }

    fn last_ends_ms(&self) -> Vec<Option<i64>> {
        self.0.last_ends_ms()
    }

    fn event_ms(&self) -> Option<i64> {
        self.0.event_ms()
    }

    fn claim_ms(&self) -> Option<i64> {
        self.0.claim_ms()
    }

    fn usual_ms(&self) -> Option<i64> {
        self.0.usual_ms()
    }

    fn set_event_ms(&mut self, event_ms: Option<i64>) {
        self.0.set_event_ms(event_ms);
    }

    fn position(&self) -> Option<i64> {
        self.0.position()
    }

    fn ledger(&self) -> BTreeMap<String, u64> {
        self.0.ledger().into_iter().collect()
    }

    fn instruments(&self) -> usize {
        self.0.instruments()
    }

    fn take_new(&mut self) -> Vec<(String, i64)> {
        let text = |(name, seen_ms)| String::from_utf8(name).ok().map(|name| (name, seen_ms));
        self.0.take_new().into_iter().filter_map(text).collect()
    }

    fn seen_ms(&self, exchange: &str, segment: &str, token: i64) -> Option<i64> {
        self.0.seen_ms(exchange, segment, token)
    }

    fn dump<'py>(&self, py: Python<'py>, fingerprint: &[u8]) -> Bound<'py, PyBytes> {
        let book = &self.0;
        let dumped = py.detach(|| book.dump(fingerprint));
        PyBytes::new(py, &dumped)
    }

    fn load<'py>(&mut self, py: Python<'py>, dumped: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let book = &mut self.0;
        let fingerprint = py.detach(|| book.load(dumped));
        fingerprint.map(|f| PyBytes::new(py, &f)).map_err(|why| PyValueError::new_err(why.to_string()))
    }
}

impl Book {
    fn check_timeframe(&self, timeframe: usize) -> PyResult<()> {
        if timeframe < self.0.rules.timeframes.len() {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("no timeframe {timeframe}")))
    }

    fn labels(&self, frames: u64) -> String {
        let chosen = self.0.rules.timeframes.iter().enumerate().filter(|(i, _)| frames & (1 << i) != 0);
        chosen.map(|(_, timeframe)| timeframe.label.as_str()).collect::<Vec<_>>().join(",")
    }
}

#[pyfunction]
#[expect(clippy::type_complexity, reason = "a triple a record")]
fn judge(
    book: &Book,
    values: Vec<Option<Bound<'_, PyBytes>>>,
    timestamps_ms: Vec<i64>,
) -> PyResult<Vec<(Option<&'static str>, Option<String>, Option<i64>)>> {
    same_length(values.len(), timestamps_ms.len())?;
    let mut venues = Venues::default();
    let mut verdicts = Vec::with_capacity(values.len());
    for (value, timestamp_ms) in slices(&values).into_iter().zip(timestamps_ms) {
        let verdict = match judge_record(&book.0.rules, &mut venues, value, timestamp_ms) {
            Verdict::Rejected(reason) => (Some(reason.name()), None, None),
            Verdict::Quote(named) => (None, Some(instrument(&named)), None),
            Verdict::Tick(tick) => (None, Some(instrument(&tick.named)), Some(tick.at_ms)),
        };
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

#[pyfunction]
fn stamps(book: &Book, values: Vec<Bound<'_, PyBytes>>) -> Vec<(Option<&'static str>, Option<i64>, Option<i64>)> {
    let mut venues = Venues::default();
    let mut read = |value: &Bound<'_, PyBytes>| match stamp(&book.0.rules, &mut venues, value.as_bytes()) {
        Ok((token, event_ms)) => (None, Some(token), event_ms),
        Err(reason) => (Some(reason.name()), None, None),
    };
    values.iter().map(&mut read).collect()
}

fn instrument(named: &Named) -> String {
    format!("{}:{}:{}", named.exchange, named.segment, named.token)
}

#[pymodule]
fn _kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Book>()?;
    module.add_function(wrap_pyfunction!(judge, module)?)?;
    module.add_function(wrap_pyfunction!(stamps, module)?)?;
    module.add("FORMAT_VERSION", FORMAT_VERSION)?;
    module.add("__all__", PyList::new(module.py(), ["FORMAT_VERSION", "Book", "judge", "stamps"])?)
}
