//! One record to one tick (semantics §1): the order of verdicts is the order of this file.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::number::{Decimal, float, integer, is_number};
use crate::rules::{FIELD_COUNT, Field, Rules};
use crate::scan::{Layout, Name, between_quotes, members};
use crate::session::{Schedule, find_schedule};
use crate::time::{FIRST_MS, LIMIT_MS, epoch_number_ms, text_ms};

/// So many records in a row unlike the layout, and it is learned anew: a few of another kind among them cost nothing.
const STRANGERS_MAX: u32 = 8;

/// Why a record is rejected; the text is the `reason` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Tombstone,
    Empty,
    Json,
    Instrument,
    Price,
    Time,
    Future,
}

impl Reason {
    pub const ALL: [Self; 7] =
        [Self::Tombstone, Self::Empty, Self::Json, Self::Instrument, Self::Price, Self::Time, Self::Future];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::Empty => "empty",
            Self::Json => "json",
            Self::Instrument => "instrument",
            Self::Price => "price",
            Self::Time => "time",
            Self::Future => "future",
        }
    }
}

/// An exchange and segment met in the log, with what it trades.
#[derive(Debug)]
pub struct Venue {
    pub exchange: String,
    pub segment: String,
    /// Shared: a feed may make up as many segments as it likes.
    pub schedule: Arc<Schedule>,
    pub since_zero: bool,
}

/// Venues by index; grows with the log, a handful in practice.
#[derive(Debug, Default)]
pub struct Venues {
    pub list: Vec<Venue>,
    by_name: FxHashMap<String, u32>,
    last: u32,
    feed: Feed,
}

impl Venues {
    pub fn get(&self, index: u32) -> Option<&Venue> {
        self.list.get(index as usize)
    }

    /// The index of this pair, if it was met.
    pub fn find(&self, exchange: &str, segment: &str) -> Option<u32> {
        self.by_name.get(&format!("{exchange}:{segment}")).copied()
    }

    /// The index of this pair, new ones added. Neither part holds a colon, so the joined name is unique.
    pub fn index(&mut self, rules: &Rules, exchange: &str, segment: &str) -> u32 {
        if let Some(venue) = self.get(self.last)
            && venue.exchange == exchange
            && venue.segment == segment
        {
            return self.last;
        }
        let name = format!("{exchange}:{segment}");
        self.last = match self.by_name.get(&name) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
                self.list.push(Venue {
                    exchange: exchange.to_owned(),
                    segment: segment.to_owned(),
                    schedule: find_schedule(rules, exchange, segment),
                    since_zero: rules.counts_since_zero(exchange),
                });
                self.by_name.insert(name, index);
                index
            }
        };
        self.last
    }
}

/// What a record says, judged up to its time.
#[derive(Debug)]
pub struct Tick<'a> {
    pub venue: u32,
    pub token: i64,
    pub price: f64,
    pub quantity: i64,
    /// 0 where the record has none.
    pub total: i64,
    pub at_ms: i64,
    pub company: Option<Cow<'a, str>>,
    /// `None` where it is the token itself.
    pub scrip: Option<Cow<'a, str>>,
    pub time_fallback: bool,
    pub optional_unreadable: u32,
}

/// The verdict on a record.
#[derive(Debug)]
pub enum Verdict<'a> {
    Rejected(Reason),
    /// Price 0: a quote without a trade.
    Quote {
        venue: u32,
        token: i64,
    },
    Tick(Tick<'a>),
}

/// A value as spelled.
#[derive(Clone, Copy, Debug)]
struct Spelled<'a> {
    text: &'a [u8],
    /// A string with a backslash in it.
    is_escaped: bool,
}

type Raw<'a> = [Option<Spelled<'a>>; FIELD_COUNT];

/// How the records of this feed are laid out, learned from one of them. A cache: verdicts do not depend on it.
#[derive(Debug, Default)]
struct Feed {
    layout: Layout,
    /// The field of each key of the layout.
    fields: Vec<Option<usize>>,
    /// Records in a row that were laid out in another way.
    strangers: u32,
}

impl Feed {
    /// Put the fields that a record has into `raw`, the last of a name winning and `null` absent; `None` where it is no
    /// JSON object.
    fn read<'a>(&mut self, rules: &Rules, value: &'a [u8], raw: &mut Raw<'a>) -> Option<()> {
        std::str::from_utf8(value).ok()?;
        let mut is_stranger = false;
        members(value, &self.layout, |member| {
            let index = match member.name {
                Name::Known(known) => self.fields.get(known).copied().flatten(),
                Name::Spelled(spelled) => {
                    is_stranger = true;
                    field_index(rules, between_quotes(spelled))
                }
            };
            if let Some(slot) = index.and_then(|index| raw.get_mut(index)) {
                let spelled = Spelled { text: member.value, is_escaped: member.is_escaped };
                *slot = (member.value != b"null").then_some(spelled);
            }
        })?;
        self.strangers = if is_stranger { self.strangers + 1 } else { 0 };
        if self.strangers == STRANGERS_MAX {
            self.learn(rules, value);
        }
        Some(())
    }

    fn learn(&mut self, rules: &Rules, text: &[u8]) {
        self.strangers = 0;
        self.layout = Layout::of(text).unwrap_or_default();
        self.fields = self.layout.keys().map(|key| field_index(rules, key)).collect();
    }
}

/// The index of the field that a key names, however it is spelled.
fn field_index(rules: &Rules, key: &[u8]) -> Option<usize> {
    let named = |name: &[u8]| rules.fields.iter().position(|field| field.as_bytes() == name);
    if key.contains(&b'\\') { named(unescaped(&[b"\"", key, b"\""].concat())?.as_bytes()) } else { named(key) }
}

fn unescaped(raw: &[u8]) -> Option<String> {
    serde_json::from_slice(raw).ok()
}

/// The bytes of a JSON string; `None` for anything else and for lone surrogates.
fn unquoted(raw: Spelled<'_>) -> Option<Cow<'_, [u8]>> {
    let inner = raw.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if raw.is_escaped { Some(Cow::Owned(unescaped(raw.text)?.into_bytes())) } else { Some(Cow::Borrowed(inner)) }
}

/// The text of a JSON string, as `unquoted`.
fn string(raw: Spelled<'_>) -> Option<Cow<'_, str>> {
    match unquoted(raw)? {
        Cow::Borrowed(inner) => std::str::from_utf8(inner).ok().map(Cow::Borrowed),
        Cow::Owned(inner) => String::from_utf8(inner).ok().map(Cow::Owned),
    }
}

/// What a number says, also one that comes as a string.
fn number<T>(raw: Spelled, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    match raw.text.first()? {
        b'"' => read(&unquoted(raw).filter(|text| is_number(text))?),
        b'-' | b'0'..=b'9' => read(raw.text),
        _ => None,
    }
}

fn whole(raw: Spelled, decimals: u32) -> Option<i64> {
    number(raw, |text| integer(text, decimals))
}

fn name_part(raw: Spelled<'_>) -> Option<Cow<'_, str>> {
    string(raw).filter(|text| !text.is_empty() && !text.as_bytes().contains(&b':'))
}

/// The record's own timestamp where it can be one (`docs/decisions/0002`, 6).
pub fn usable(timestamp_ms: i64) -> Option<i64> {
    (FIRST_MS..LIMIT_MS).contains(&timestamp_ms).then_some(timestamp_ms)
}

fn event_time(raw: Option<Spelled>, schedule: &Schedule) -> Option<i64> {
    let raw = raw?;
    let ms = match raw.text.first()? {
        b'"' => text_ms(&unquoted(raw)?, schedule),
        _ => epoch_number_ms(raw.text),
    };
    ms.filter(|ms| *ms >= FIRST_MS)
}

/// Judge one record: JSON, instrument, price, time.
pub fn judge<'a>(rules: &Rules, venues: &mut Venues, value: Option<&'a [u8]>, timestamp_ms: i64) -> Verdict<'a> {
    let Some(value) = value else { return Verdict::Rejected(Reason::Tombstone) };
    if value.is_empty() {
        return Verdict::Rejected(Reason::Empty);
    }
    let mut raw = Raw::default();
    if venues.feed.read(rules, value, &mut raw).is_none() {
        return Verdict::Rejected(Reason::Json);
    }
    let field = |field: Field| raw.get(field as usize).copied().flatten();

    let exchange = field(Field::Exchange).and_then(name_part);
    let segment = field(Field::Segment).and_then(name_part);
    let token = field(Field::Token).and_then(|text| whole(text, 0));
    let (Some(exchange), Some(segment), Some(token)) = (exchange, segment, token) else {
        return Verdict::Rejected(Reason::Instrument);
    };
    let venue = venues.index(rules, &exchange, &segment);

    let price = field(Field::Price).and_then(|text| number(text, float));
    let price = match price {
        Some(price) if price.is_finite() && price >= 0.0 => price,
        _ => return Verdict::Rejected(Reason::Price),
    };
    if price == 0.0 {
        return Verdict::Quote { venue, token };
    }

    let Some(schedule) = venues.get(venue).map(|v| &v.schedule) else { return Verdict::Rejected(Reason::Instrument) };
    let (at_ms, time_fallback) = match time(event_time(field(Field::Time), schedule), timestamp_ms, rules.future_ms) {
        Ok(time) => time,
        Err(reason) => return Verdict::Rejected(reason),
    };

    let mut optional_unreadable = 0;
    let mut amount = |text: Option<Spelled>| {
        let value = text.and_then(|text| whole(text, rules.quantity_decimals));
        optional_unreadable += u32::from(text.is_some() && value.is_none());
        value.unwrap_or(0)
    };
    let quantity = amount(field(Field::Quantity));
    let total = amount(field(Field::Total));
    let company_text = field(Field::Company);
    let company = company_text.and_then(string);
    let scrip_text = field(Field::Scrip);
    let scrip = scrip_text.and_then(scrip_code);
    optional_unreadable += u32::from(company_text.is_some() && company.is_none());
    optional_unreadable += u32::from(scrip_text.is_some() && scrip.is_none());
    let scrip = scrip.filter(|code| !is_token(code, token));
    Verdict::Tick(Tick {
        venue,
        token,
        price,
        quantity,
        total,
        at_ms,
        company,
        scrip,
        time_fallback,
        optional_unreadable,
    })
}

/// Event time and whether it is the record's own timestamp.
fn time(read: Option<i64>, timestamp_ms: i64, future_ms: i64) -> Result<(i64, bool), Reason> {
    match (read, usable(timestamp_ms)) {
        (Some(ms), Some(timestamp_ms)) if ms > timestamp_ms + future_ms => Err(Reason::Future),
        (Some(ms), None) if ms >= LIMIT_MS => Err(Reason::Time),
        (Some(ms), _) => Ok((ms, false)),
        (None, Some(timestamp_ms)) => Ok((timestamp_ms, true)),
        (None, None) => Err(Reason::Time),
    }
}

/// A string as it is, a whole number as its digits.
fn scrip_code(raw: Spelled<'_>) -> Option<Cow<'_, str>> {
    if raw.text.first() == Some(&b'"') {
        return string(raw);
    }
    Decimal::parse(raw.text)?.scaled(0).map(|code| Cow::Owned(code.to_string()))
}

fn is_token(code: &str, token: i64) -> bool {
    itoa::Buffer::new().format(token) == code
}
