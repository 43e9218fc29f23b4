//! Records separated by `0xff`, a byte that no text has: judged, folded, closed.

#![no_main]

use _kernel::book::Book;
use _kernel::{Reason, Venues, Verdict, judge};
use bench::{NOW_MS, PARTITION, go_on, rules};
use libfuzzer_sys::fuzz_target;

/// Enough for the decoder to learn the layout of a record.
const TIMES_TO_LEARN: usize = 8;

fuzz_target!(|input: &[u8]| {
    let records: Vec<&[u8]> = input.split(|byte| *byte == 0xff).collect();
    for (decimals, keep_outside) in [(0, false), (9, true)] {
        let rules = rules(decimals, keep_outside);
        let mut learned = Venues::default();
        for _ in 0..TIMES_TO_LEARN {
            judge(&rules, &mut learned, records.first().copied(), NOW_MS);
        }
        let mut fresh = Venues::default();
        for record in &records {
            let verdict = judge(&rules, &mut fresh, Some(record), NOW_MS);
            let is_no_json = matches!(verdict, Verdict::Rejected(Reason::Json));
            assert_eq!(is_no_json, !record.is_empty() && !is_object(record), "grammar");
            let warm = judge(&rules, &mut learned, Some(record), NOW_MS);
            assert_eq!(format!("{verdict:?}"), format!("{warm:?}"), "a layout changed a verdict");
        }
        let mut book = Book::new(rules, PARTITION);
        let repeated = records.iter().chain(&records).map(|record| Some(*record));
        book.fold(repeated.zip(0_i64..).map(|(record, offset)| (record, NOW_MS, offset)));
        go_on(&mut book);
    }
});

/// What another parser says: one JSON object of valid UTF-8.
fn is_object(record: &[u8]) -> bool {
    let starts = record.iter().find(|byte| !b" \t\n\r".contains(byte));
    let is_utf8 = std::str::from_utf8(record).is_ok();
    is_utf8 && starts == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(record).is_ok()
}
