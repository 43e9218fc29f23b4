//! What both targets share: rules, and the way a partition goes after it was read.

use std::sync::Arc;

use _kernel::book::Book;
use _kernel::rules::{Rules, Timeframe};
use _kernel::{Schedule, Season};

pub const PARTITION: i32 = 0;
/// 2026-01-02 12:04:35.500 in Kolkata, a Friday.
pub const NOW_MS: i64 = 1_767_335_675_500;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// One-minute and one-day candles, the National Stock Exchange's hours, a digest of one letter.
#[must_use]
pub fn rules(quantity_decimals: u32, keep_outside: bool) -> Rules {
    let timeframe = |label: &str, length_ms| Timeframe { label: label.to_owned(), length_ms };
    let names = ["Exch", "ExchType", "Token", "LastRate", "LastQty", "TotalQty", "TickDt", "companyName", "ScripCode"];
    let hours = vec![(9 * HOUR_MS + HOUR_MS / 4, 15 * HOUR_MS + HOUR_MS / 2)];
    Rules {
        digest: "d".to_owned(),
        timeframes: vec![timeframe("1m", 60_000), timeframe("1d", 0)],
        fields: names.map(str::to_owned).into(),
        schedules: vec![Arc::new(Schedule {
            exchange: "N".to_owned(),
            segment: "*".to_owned(),
            utc_offsets: vec![(i64::MIN, 5 * HOUR_MS + HOUR_MS / 2)],
            seasons: vec![Season { from_day: 10_957, to_day: i64::MAX, weekday_mask: 0x1f, hours }],
            exceptions: vec![(20_456, vec![(18 * HOUR_MS, 19 * HOUR_MS)])],
        })],
        allowed_lateness_ms: 600_000,
        future_ms: 60_000,
        after_close_ms: 1_000,
        quantity_decimals,
        instruments_max: 10,
        keep_outside,
        since_zero: Vec::new(),
    }
}

/// Close, commit, and go on with some plain ticks: nothing of it may panic, whatever the book holds.
pub fn go_on(book: &mut Book) {
    for at_ms in [NOW_MS, NOW_MS - 300_000, NOW_MS + 8 * DAY_MS] {
        let offset = book.position().unwrap_or(0);
        if offset > i64::MAX / 2 {
            return;
        }
        let ticks: Vec<Vec<u8>> = [("N", "C", 7), ("X", "Y", 0)].iter().map(|i| tick(*i, at_ms)).collect();
        let records = ticks.iter().zip(offset..).map(|(value, offset)| (Some(value.as_slice()), at_ms, offset));
        book.fold(records);
        let due_ms = [NOW_MS; 2];
        let frontiers_ms = book.close(&due_ms, false, 3);
        for (frame, frontier_ms) in frontiers_ms.iter().enumerate() {
            for flush in [true, false] {
                std::hint::black_box(book.candles(frame, *frontier_ms, flush));
            }
        }
        let (due, ends, ledger, new) = (book.count_due(&due_ms), book.next_ends_ms(), book.ledger(), book.take_new());
        std::hint::black_box((due, ends, ledger, new));
        book.committed(frontiers_ms, vec![offset.saturating_add(2); 2], vec![0; 2]);
    }
}

fn tick((exchange, segment, token): (&str, &str, i64), at_ms: i64) -> Vec<u8> {
    let text = format!(
        r#"{{"Exch":"{exchange}","ExchType":"{segment}","Token":{token},"LastRate":100.5,"LastQty":2,"TotalQty":50,"TickDt":{at_ms}}}"#
    );
    text.into_bytes()
}
