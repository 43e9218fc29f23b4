//! One record to one tick (specification §1): the order of verdicts is the order of this file.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::number::{Decimal, float, integer, is_number, quantity};
use crate::rules::{FIELD_COUNT, Field, Rules};
use crate::scan::{Layout, Name, between_quotes, members};
use crate::session::{Schedule, find_schedule};
use crate::time::{FIRST_MS, LIMIT_MS, epoch_number_ms, text_ms};

/// So many records in a row unlike the layout, and it is learned anew: a few of another kind among them cost nothing.
const STRANGERS_MAX: u32 = 8;

/// An exchange's or segment's name, in bytes of UTF-8: longer ones are no names, and a candle always fits its topic.
const NAME_BYTES_MAX: usize = 64;
/// `companyName` and `ScripCode`, in bytes of UTF-8; escaped in a candle they take at most six times as many.
const TEXT_BYTES_MAX: usize = 256;

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
    /// More instruments, or more claimed windows, than may be held.
    Limit,
}

impl Reason {
    pub const COUNT: usize = 8;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Tombstone,
        Self::Empty,
        Self::Json,
        Self::Instrument,
        Self::Price,
        Self::Time,
        Self::Future,
        Self::Limit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::Empty => "empty",
            Self::Json => "json",
            Self::Instrument => "instrument",
            Self::Price => "price",
            Self::Time => "time",
            Self::Future => "future",
            Self::Limit => "limit",
        }
    }
}

/// An exchange and segment of instruments that are held, with what it trades.
#[derive(Debug)]
pub struct Venue {
    pub exchange: String,
    pub segment: String,
    /// Shared: a feed may make up as many segments as it likes.
    pub schedule: Arc<Schedule>,
    pub since_zero: bool,
    /// How many instruments held are of it.
    instruments: u32,
}

/// The venues of the instruments held, by index; a handful in practice.
#[derive(Debug, Default)]
pub struct Venues {
    list: Vec<Option<Venue>>,
    free: Vec<u32>,
    by_name: FxHashMap<String, u32>,
    last: u32,
    epoch: u64,
    feed: Feed,
}

impl Venues {
    pub fn get(&self, index: u32) -> Option<&Venue> {
        self.list.get(index as usize)?.as_ref()
    }

    /// Another number as soon as an index may mean another pair.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Exchange and segment of each index, both empty where none is held.
    pub fn names(&self) -> Vec<(&str, &str)> {
        let names = self.list.iter().map(Option::as_ref);
        names.map(|venue| venue.map_or(("", ""), |v| (v.exchange.as_str(), v.segment.as_str()))).collect()
    }

    /// The index of this pair, if it is held.
    pub fn find(&self, exchange: &str, segment: &str) -> Option<u32> {
        self.by_name.get(&format!("{exchange}:{segment}")).copied()
    }

    /// As `find`, fast where the record before was of the same pair.
    fn find_again(&mut self, exchange: &str, segment: &str) -> Option<u32> {
        let is_last = self.get(self.last).is_some_and(|v| v.exchange == exchange && v.segment == segment);
        if !is_last {
            self.last = self.find(exchange, segment)?;
        }
        Some(self.last)
    }

    /// The index of this pair for one instrument more. Neither part holds a colon, so the joined name is unique.
    pub fn take(&mut self, rules: &Rules, exchange: &str, segment: &str) -> u32 {
        let index = self.find(exchange, segment).unwrap_or_else(|| {
            let index = self.free.pop().unwrap_or_else(|| {
                self.list.push(None);
                u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
            });
            self.put(index, rules, exchange, segment);
            index
        });
        self.count(index, 1);
        index
    }

    /// One instrument less; with the last one the index means nothing any more.
    pub fn give_back(&mut self, index: u32) {
        if self.count(index, -1) != Some(0) {
            return;
        }
        if let Some(venue) = self.list.get_mut(index as usize).and_then(Option::take) {
            self.by_name.remove(&format!("{}:{}", venue.exchange, venue.segment));
            self.free.push(index);
            self.epoch += 1;
        }
    }

    /// The list as `names` gave it; false where a pair is there twice. Instruments are counted by `count`.
    pub fn restore(&mut self, rules: &Rules, names: &[(String, String)]) -> bool {
        for (index, (exchange, segment)) in (0_u32..).zip(names) {
            self.list.push(None);
            if exchange.is_empty() && segment.is_empty() {
                self.free.push(index);
            } else if self.find(exchange, segment).is_some() {
                return false;
            } else {
                self.put(index, rules, exchange, segment);
            }
        }
        true
    }

    fn put(&mut self, index: u32, rules: &Rules, exchange: &str, segment: &str) {
        self.by_name.insert(format!("{exchange}:{segment}"), index);
        if let Some(place) = self.list.get_mut(index as usize) {
            *place = Some(Venue {
                exchange: exchange.to_owned(),
                segment: segment.to_owned(),
                schedule: find_schedule(rules, exchange, segment),
                since_zero: rules.counts_since_zero(exchange),
                instruments: 0,
            });
        }
    }

    /// How many instruments there are of it after `change`; `None` where it is not held.
    pub fn count(&mut self, index: u32, change: i32) -> Option<u32> {
        let venue = self.list.get_mut(index as usize)?.as_mut()?;
        venue.instruments = venue.instruments.saturating_add_signed(change);
        Some(venue.instruments)
    }
}

/// Exchange, segment, token.
#[derive(Debug)]
pub struct Named<'a> {
    pub exchange: Cow<'a, str>,
    pub segment: Cow<'a, str>,
    pub token: i64,
}

/// What a record says, judged up to its time.
#[derive(Debug)]
pub struct Tick<'a> {
    pub named: Named<'a>,
    /// Where an instrument of this exchange and segment was held when the record was read.
    pub venue: Option<u32>,
    pub price: f64,
    /// In units of 10^-`quantity_decimals`.
    pub quantity: i128,
    /// As `quantity`; 0 where the record has none.
    pub total: i128,
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
    Quote(Named<'a>),
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

/// At most `bytes_max` of text.
fn short(raw: Spelled<'_>, bytes_max: usize) -> Option<Cow<'_, str>> {
    string(raw).filter(|text| text.len() <= bytes_max)
}

fn name_part(raw: Spelled<'_>) -> Option<Cow<'_, str>> {
    short(raw, NAME_BYTES_MAX).filter(|text| !text.is_empty() && !text.as_bytes().contains(&b':'))
}

/// The record's own timestamp where it can be one (`docs/decisions/0002`, 6).
pub fn usable(timestamp_ms: i64) -> Option<i64> {
    (FIRST_MS..LIMIT_MS).contains(&timestamp_ms).then_some(timestamp_ms)
}

/// `Ok(None)`: no time is given, or one before 2000; an error: what is there cannot be read.
fn event_time(raw: Option<Spelled>, schedule: &Schedule) -> Result<Option<i64>, Reason> {
    let Some(raw) = raw else { return Ok(None) };
    let ms = match raw.text.first() {
        Some(b'"') => unquoted(raw).and_then(|text| text_ms(&text, schedule)),
        _ => epoch_number_ms(raw.text),
    };
    ms.map(|ms| Some(ms).filter(|ms| *ms >= FIRST_MS)).ok_or(Reason::Time)
}

/// Judge one record: JSON, instrument, price, time.
pub fn judge<'a>(rules: &Rules, venues: &mut Venues, value: Option<&'a [u8]>, timestamp_ms: i64) -> Verdict<'a> {
    read(rules, venues, value, timestamp_ms).unwrap_or_else(Verdict::Rejected)
}

fn read<'a>(
    rules: &Rules,
    venues: &mut Venues,
    value: Option<&'a [u8]>,
    timestamp_ms: i64,
) -> Result<Verdict<'a>, Reason> {
    let value = value.ok_or(Reason::Tombstone)?;
    if value.is_empty() {
        return Err(Reason::Empty);
    }
    let mut raw = Raw::default();
    venues.feed.read(rules, value, &mut raw).ok_or(Reason::Json)?;
    let field = |field: Field| raw.get(field as usize).copied().flatten();

    let exchange = field(Field::Exchange).and_then(name_part);
    let segment = field(Field::Segment).and_then(name_part);
    let token = field(Field::Token).and_then(|text| number(text, integer));
    let (Some(exchange), Some(segment), Some(token)) = (exchange, segment, token) else {
        return Err(Reason::Instrument);
    };

    let price = field(Field::Price).and_then(|text| number(text, float)).ok_or(Reason::Price)?;
    if !price.is_finite() || price < 0.0 {
        return Err(Reason::Price);
    }
    if price == 0.0 {
        return Ok(Verdict::Quote(Named { exchange, segment, token }));
    }

    let venue = venues.find_again(&exchange, &segment);
    let time_text = field(Field::Time);
    let read_ms = match venue.and_then(|index| venues.get(index)) {
        Some(venue) => event_time(time_text, &venue.schedule)?,
        None => event_time(time_text, &find_schedule(rules, &exchange, &segment))?,
    };
    let (at_ms, time_fallback) = time(read_ms, timestamp_ms, rules.future_ms)?;

    let mut optional_unreadable = 0;
    let mut amount = |text: Option<Spelled>, may_be_negative: bool| {
        let value = text.and_then(|text| number(text, |text| quantity(text, rules.quantity_decimals)));
        let value = value.filter(|(_, is_negative)| may_be_negative || !is_negative);
        optional_unreadable += u32::from(text.is_some() && value.is_none());
        value.map_or(0, |(size, _)| size)
    };
    // The sign of a trade's quantity is its side.
    let quantity = amount(field(Field::Quantity), true);
    let total = amount(field(Field::Total), false);
    let company_text = field(Field::Company);
    let company = company_text.and_then(|text| short(text, TEXT_BYTES_MAX));
    let scrip_text = field(Field::Scrip);
    let scrip = scrip_text.and_then(scrip_code);
    optional_unreadable += u32::from(company_text.is_some() && company.is_none());
    optional_unreadable += u32::from(scrip_text.is_some() && scrip.is_none());
    let scrip = scrip.filter(|code| !is_token(code, token));
    Ok(Verdict::Tick(Tick {
        named: Named { exchange, segment, token },
        venue,
        price,
        quantity,
        total,
        at_ms,
        company,
        scrip,
        time_fallback,
        optional_unreadable,
    }))
}

/// Where a record belongs and when, whatever else is wrong with it: its token, and its event time where that is readable.
pub fn stamp(rules: &Rules, venues: &mut Venues, value: &[u8]) -> Result<(i64, Option<i64>), Reason> {
    let mut raw = Raw::default();
    venues.feed.read(rules, value, &mut raw).ok_or(Reason::Json)?;
    let field = |field: Field| raw.get(field as usize).copied().flatten();
    let exchange = field(Field::Exchange).and_then(name_part).ok_or(Reason::Instrument)?;
    let segment = field(Field::Segment).and_then(name_part).ok_or(Reason::Instrument)?;
    let token = field(Field::Token).and_then(|text| number(text, integer)).ok_or(Reason::Instrument)?;
    let schedule = find_schedule(rules, &exchange, &segment);
    let event_ms = event_time(field(Field::Time), &schedule).ok().flatten();
    Ok((token, event_ms.filter(|ms| *ms < LIMIT_MS)))
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
        return short(raw, TEXT_BYTES_MAX);
    }
    Decimal::parse(raw.text)?.whole().map(|code| Cow::Owned(code.to_string()))
}

fn is_token(code: &str, token: i64) -> bool {
    itoa::Buffer::new().format(token) == code
}
