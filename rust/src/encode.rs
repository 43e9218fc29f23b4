//! A window to the JSON record of a candle topic (specification §5.1).

use crate::decode::Venue;
use crate::number::unit;
use crate::time::write_local;
use crate::window::Window;

/// What the candles of one venue's window say alike, whoever trades in it: candles come ordered by their ends, and
/// most can take it from the one before.
#[derive(Debug, Default)]
pub struct Shared {
    of: Option<(u32, i64, i64)>,
    exchange: Vec<u8>,
    times: Vec<u8>,
}

impl Shared {
    /// Make it that of this venue and window; all of one timeframe.
    pub fn turn_to(&mut self, venue: &Venue, index: u32, timeframe: &str, window: &Window) {
        let of = Some((index, window.start_ms, window.end_ms));
        if self.of == of {
            return;
        }
        self.of = of;
        let exchange = &mut self.exchange;
        exchange.clear();
        exchange.extend_from_slice(b",\"exchange\":");
        put_json(exchange, venue.exchange.as_str());
        exchange.extend_from_slice(b",\"exchangeType\":");
        put_json(exchange, venue.segment.as_str());
        let times = &mut self.times;
        times.clear();
        times.extend_from_slice(b",\"windowStartMillis\":");
        put_int(times, window.start_ms);
        times.extend_from_slice(b",\"windowEndMillis\":");
        put_int(times, window.end_ms);
        times.extend_from_slice(b",\"humanReadableStartTime\":\"");
        write_local(times, window.start_ms + venue.schedule.offset_ms(window.start_ms));
        times.extend_from_slice(b"\",\"humanReadableEndTime\":\"");
        write_local(times, window.end_ms + venue.schedule.offset_ms(window.end_ms));
        times.extend_from_slice(b"\",\"timeframe\":");
        put_json(times, timeframe);
    }
}

/// What a candle says beside its window.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    pub shared: &'a Shared,
    pub token: i64,
    pub partition: i32,
    pub quantity_decimals: u32,
    pub is_complete: bool,
    pub is_revised: bool,
}

fn put_int(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn put_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing a string or a finite float into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// A JSON number with no more digits than it needs.
fn put_quantity(out: &mut Vec<u8>, value: i128, decimals: u32) {
    let unit = unit(decimals);
    // Nearly all fit 64 bits, which divide many times faster.
    let mut fraction = if let (Ok(value), Ok(unit)) = (u64::try_from(value), u64::try_from(unit)) {
        put_int(out, value / unit);
        value % unit
    } else {
        put_int(out, value / unit);
        u64::try_from(value % unit).unwrap_or(0)
    };
    if fraction == 0 {
        return;
    }
    let mut digits = decimals as usize;
    while fraction % 10 == 0 {
        fraction /= 10;
        digits -= 1;
    }
    out.push(b'.');
    let text = fraction.to_string();
    out.extend(std::iter::repeat_n(b'0', digits - text.len()));
    out.extend_from_slice(text.as_bytes());
}

/// `N:C:2885`: the key of ticks' instrument and of its candles.
pub fn key(venue: &Venue, token: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.extend_from_slice(venue.exchange.as_bytes());
    out.push(b':');
    out.extend_from_slice(venue.segment.as_bytes());
    out.push(b':');
    put_int(&mut out, token);
    out
}

pub fn value(window: &Window, publication: &Publication) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for (name, price) in [
        (&b"{\"open\":"[..], window.open.price),
        (b",\"high\":", window.high),
        (b",\"low\":", window.low),
        (b",\"close\":", window.close.price),
    ] {
        out.extend_from_slice(name);
        put_json(&mut out, &price);
    }
    out.extend_from_slice(b",\"volume\":");
    put_quantity(&mut out, window.volume, publication.quantity_decimals);
    out.extend_from_slice(&publication.shared.exchange);
    out.extend_from_slice(b",\"companyName\":");
    put_json(&mut out, &window.company.as_deref());
    out.extend_from_slice(b",\"scripCode\":");
    match window.scrip.as_deref() {
        Some(code) => put_json(&mut out, code),
        None => {
            out.push(b'"');
            put_int(&mut out, publication.token);
            out.push(b'"');
        }
    }
    out.extend_from_slice(&publication.shared.times);
    out.extend_from_slice(b",\"ticks\":");
    put_int(&mut out, window.ticks);
    out.extend_from_slice(if publication.is_complete { b",\"complete\":true" } else { b",\"complete\":false" });
    out.extend_from_slice(if publication.is_revised { b",\"revised\":true" } else { b",\"revised\":false" });
    out.extend_from_slice(b",\"sourcePartition\":");
    put_int(&mut out, i64::from(publication.partition));
    out.extend_from_slice(b",\"sourceOffset\":");
    put_int(&mut out, window.source_offset);
    out.push(b'}');
    out
}
