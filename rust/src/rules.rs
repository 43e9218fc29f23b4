//! The rules of a fold, as plain data from Python's `Rules`.

use std::sync::Arc;

use crate::session::Schedule;

/// A candle length; `length_ms` 0 is the trading day.
#[derive(Clone, Debug)]
pub struct Timeframe {
    /// As in the record's `timeframe` field: `5m`.
    pub label: String,
    /// Milliseconds, 0 for `1d`.
    pub length_ms: i64,
}

/// JSON names in the order of [`Field`].
pub const FIELD_COUNT: usize = 9;

/// What we read of a record (specification §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Exch`
    Exchange,
    /// `ExchType`
    Segment,
    /// `Token`
    Token,
    /// `LastRate`
    Price,
    /// `LastQty`
    Quantity,
    /// `TotalQty`
    Total,
    /// `TickDt`
    Time,
    /// `companyName`
    Company,
    /// `ScripCode`
    Scrip,
}

/// Everything that decides what a tick does to a candle.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Equal digests mean equal states; Python computes it.
    pub digest: String,
    /// Shortest first.
    pub timeframes: Vec<Timeframe>,
    /// JSON names, in the order of [`Field`].
    pub fields: Vec<String>,
    /// Every listed exchange and segment.
    pub schedules: Vec<Arc<Schedule>>,
    /// §4.4: too late when a window ended this long before the instrument's own time.
    pub allowed_lateness_ms: i64,
    /// §1.5: rejected when further than this after the record's timestamp.
    pub future_ms: i64,
    /// §2.3: a tick this short after the close belongs to the last window.
    pub after_close_ms: i64,
    /// §1.4: quantities are rounded to this many decimals.
    pub quantity_decimals: u32,
    /// §6.6: so many instruments are held at the most.
    pub instruments_max: usize,
    /// §2.5: ticks outside the session get windows of their own.
    pub keep_outside: bool,
    /// §3.3: exchanges whose first window counts from zero; `*` for all.
    pub since_zero: Vec<String>,
}

impl Rules {
    /// §3.3 `first_window_volume = "since-zero"` for this exchange.
    #[must_use]
    pub fn counts_since_zero(&self, exchange: &str) -> bool {
        self.since_zero.iter().any(|e| e == exchange || e == "*")
    }
}
