//! One pass over a JSON text: the grammar of RFC 8259, strict and at any depth; nothing is built.
//!
//! Sixteen bytes a step: where a number or a run of plain characters ends is computed from all of them at once.

use wide::u8x16;

/// Bytes looked at in one step.
const BLOCK: usize = 16;

/// Bit i: byte i is a digit.
fn digits_of(block: [u8; BLOCK]) -> u32 {
    (u8x16::new(block) - u8x16::splat(b'0')).simd_le(u8x16::splat(9)).to_bitmask()
}

/// Bit i: byte i is not part of a string as it stands, being a quote, a backslash or a control character.
fn specials_of(block: [u8; BLOCK]) -> u32 {
    let bytes = u8x16::new(block);
    let special =
        bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | bytes.simd_le(u8x16::splat(0x1f));
    special.to_bitmask()
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// A key as spelled, and its first bytes as one number.
#[derive(Debug)]
struct Key {
    spelled: Vec<u8>,
    head: u128,
    mask: u128,
}

impl Key {
    fn new(spelled: &[u8]) -> Self {
        let held = spelled.len().min(BLOCK);
        let mask = if held == BLOCK { u128::MAX } else { (1 << (8 * held)) - 1 };
        Self { spelled: spelled.to_vec(), head: u128::from_le_bytes(block_of(spelled)) & mask, mask }
    }
}

/// The keys of a feed's records in their order, as spelled from the opening quote to the value: records of one feed
/// look alike, and a key that is where it was expected needs no second look.
#[derive(Debug, Default)]
pub struct Layout(Vec<Key>);

impl Layout {
    /// The layout of an object; `None` where `text` is none.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut keys = Vec::new();
        members(text, &Self::default(), |member| {
            if let Name::Spelled(spelled) = member.name {
                keys.push(Key::new(spelled));
            }
        })?;
        Some(Self(keys))
    }

    /// The keys as spelled between their quotes.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|key| between_quotes(&key.spelled))
    }
}

/// How a member is named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name<'a> {
    /// By the key of the layout that was expected in this place.
    Known(usize),
    /// From the key's opening quote to the value.
    Spelled(&'a [u8]),
}

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    pub name: Name<'a>,
    pub value: &'a [u8],
    /// Whether the value is a string with a backslash in it.
    pub is_escaped: bool,
}

/// The key in what comes before a value.
pub fn between_quotes(spelled: &[u8]) -> &[u8] {
    let end = spelled.iter().rposition(|byte| *byte == b'"').unwrap_or(0);
    spelled.get(1..end).unwrap_or_default()
}

/// Hands over the members of the one object that `text` is, in their order; `None` where it is anything else.
///
/// `text` must be UTF-8: only its ASCII is looked at.
pub fn members<'a>(text: &'a [u8], layout: &Layout, mut take: impl FnMut(Member<'a>)) -> Option<()> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.token(b'{')?;
    if scanner.significant()? == b'}' {
        scanner.at += 1;
    } else {
        for index in 0.. {
            scanner.significant()?;
            let key_at = scanner.at;
            let is_known = layout.0.get(index).is_some_and(|key| scanner.pass(key));
            if !is_known {
                scanner.key()?;
            }
            scanner.significant()?;
            let value_at = scanner.at;
            let is_escaped = scanner.value()?;
            let name = if is_known { Name::Known(index) } else { Name::Spelled(text.get(key_at..value_at)?) };
            take(Member { name, value: text.get(value_at..scanner.at)?, is_escaped });
            let next = scanner.significant()?;
            scanner.at += 1;
            match next {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
    }
    scanner.significant().is_none().then_some(())
}

/// The first bytes; behind the end zeros, which are in no string and no number.
#[inline]
fn block_of(bytes: &[u8]) -> [u8; BLOCK] {
    bytes.first_chunk().copied().unwrap_or_else(|| last_block_of(bytes))
}

#[cold]
fn last_block_of(bytes: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    block
}

#[expect(clippy::inline_always, reason = "a member takes fewer instructions than the calls for it would")]
impl Scanner<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn next_is(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    /// The next byte that is no white space, not passed over; `None` at the end.
    #[inline(always)]
    fn significant(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// White space and then this byte.
    fn token(&mut self, wanted: u8) -> Option<()> {
        (self.significant()? == wanted).then(|| self.at += 1)
    }

    #[inline]
    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Behind this key, to the value, where it is spelled so.
    #[inline(always)]
    fn pass(&mut self, key: &Key) -> bool {
        let head = u128::from_le_bytes(block_of(self.rest()));
        let is_spelled_so =
            (head ^ key.head) & key.mask == 0 && (key.spelled.len() <= BLOCK || self.rest().starts_with(&key.spelled));
        self.at += if is_spelled_so { key.spelled.len() } else { 0 };
        is_spelled_so
    }

    /// A string and its colon.
    fn key(&mut self) -> Option<()> {
        self.token(b'"')?;
        self.string()?;
        self.token(b':')
    }

    /// To behind the closing quote; the opening one is read. Whether there was a backslash.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        let mut is_escaped = false;
        loop {
            let special = specials_of(block_of(self.rest()));
            if special == 0 {
                self.at += BLOCK;
                continue;
            }
            self.at += special.trailing_zeros() as usize;
            match self.next()? {
                b'"' => return Some(is_escaped),
                b'\\' => self.escape()?,
                _ => return None,
            }
            is_escaped = true;
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => (0..4).all(|_| self.next().is_some_and(|byte| byte.is_ascii_hexdigit())).then_some(()),
            _ => None,
        }
    }

    /// Behind the digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    #[inline(always)]
    fn number(&mut self) -> Option<()> {
        let block = block_of(self.rest());
        let digits = digits_of(block);
        let sign = usize::from(block.first() == Some(&b'-'));
        let whole = (digits >> sign).trailing_ones() as usize;
        let mut end = sign + whole;
        let is_grammar = if block.get(end) == Some(&b'.') {
            let fraction = (digits >> (end + 1)).trailing_ones() as usize;
            end += 1 + fraction;
            fraction > 0
        } else {
            true
        };
        match block.get(end) {
            Some(b'e' | b'E') | None => self.long_number(),
            Some(_) => {
                self.at += end;
                (is_grammar && (whole == 1 || whole > 1 && block.get(sign) != Some(&b'0'))).then_some(())
            }
        }
    }

    /// A number with an exponent, or longer than a block.
    fn long_number(&mut self) -> Option<()> {
        self.next_is(b'-');
        if !self.next_is(b'0') {
            self.digits()?;
        }
        if self.next_is(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest().starts_with(text).then(|| self.at += text.len())
    }

    /// One value, to behind its last byte; whether it is a string with a backslash in it.
    #[inline(always)]
    fn value(&mut self) -> Option<bool> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()
            }
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            _ => self.nested().map(|()| false),
        }
    }

    /// A value of any kind. Not recursive: a deep one must not take the stack.
    fn nested(&mut self) -> Option<()> {
        let mut closers = Vec::new();
        loop {
            match self.significant()? {
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'{' => {
                    self.at += 1;
                    if self.significant()? != b'}' {
                        closers.push(b'}');
                        self.key()?;
                        continue;
                    }
                    self.at += 1;
                }
                b'[' => {
                    self.at += 1;
                    if self.significant()? != b']' {
                        closers.push(b']');
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                _ => self.number()?,
            }
            // A value has ended, and perhaps those around it.
            loop {
                let Some(closer) = closers.last().copied() else { return Some(()) };
                let next = self.significant()?;
                self.at += 1;
                if next == b',' {
                    if closer == b'}' {
                        self.key()?;
                    }
                    break;
                }
                if next != closer {
                    return None;
                }
                closers.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, Name, between_quotes, members};

    fn is_object(text: &str) -> bool {
        members(text.as_bytes(), &Layout::default(), |_| {}).is_some()
    }

    #[test]
    fn grammar() {
        for text in [
            "{}",
            " { } ",
            r#"{"a":1}"#,
            r#"{"a":-0.5e+7,"b":[1,{"c":[]},"\u00e9\ud800"],"d":{"e":null}}"#,
            "\t{\"a\" : [ ] , \"b\" : { } }\r\n",
            r#"{"a":true,"a":false}"#,
        ] {
            assert!(is_object(text), "{text}");
        }
        for text in [
            "",
            "[]",
            "{",
            "{}}",
            "{} x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1}"#,
            r#"{"a":{"b":1]}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":-}"#,
            r#"{"a":NaN}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"\n\"}",
            r"{'a':1}",
            r"{a:1}",
            "{\"a\":1}\u{a0}",
        ] {
            assert!(!is_object(text), "{text}");
        }
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = |closers: &str| format!("{{\"a\":{}1{}}}", "[".repeat(1_000_000), closers.repeat(1_000_000));
        assert!(is_object(&deep("]")));
        assert!(!is_object(&deep("}")));
    }

    type Found<'a> = (&'a str, &'a str, bool);

    /// A known key by its place.
    fn found<'a>(text: &'a str, layout: &Layout) -> Vec<Found<'a>> {
        let utf8 = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let mut found = Vec::new();
        members(text.as_bytes(), layout, |member| {
            let name = match member.name {
                Name::Known(index) => ["#0", "#1", "#2"].get(index).copied().unwrap_or_default(),
                Name::Spelled(spelled) => utf8(between_quotes(spelled)),
            };
            found.push((name, utf8(member.value), member.is_escaped));
        });
        found
    }

    #[test]
    fn members_as_spelled() {
        let text = r#"{ "a" : 1.0 , "b\"":"x" , "c":"\n" }"#;
        let expected = [("a", "1.0", false), (r#"b\""#, "\"x\"", false), ("c", r#""\n""#, true)];
        assert_eq!(found(text, &Layout::default()), expected);
    }

    #[test]
    fn a_layout_changes_nothing_but_the_way() {
        let layout = Layout::of(br#"{"a":1, "b":[2],"a name of over sixteen" : 3}"#).unwrap_or_default();
        assert!(layout.keys().eq([&b"a"[..], b"b", b"a name of over sixteen"]));
        let known = [("#0", "5", false), ("#1", "6", false), ("#2", "7", false)];
        assert_eq!(found(r#"{"a":5,"b":6,"a name of over sixteen" : 7}"#, &layout), known);
        assert_eq!(found("{ \"a\": 5 ,\t\"b\":\n6, \"a name of over sixteen\" :  7}", &layout), known);
        let others = [("b", "6", false), ("#1", "8", false), ("a name of over sixtee_", "7", false), ("d", "0", false)];
        assert_eq!(found(r#"{"b":6,"b":8,"a name of over sixtee_" : 7,"d":0}"#, &layout), others);
    }

    #[test]
    fn sixteen_bytes_a_step() {
        for length in 0..40 {
            let (digits, plain) = ("9".repeat(length), "é~ ".repeat(length));
            for end in ["", "x", "/", ":", "\u{80}", "\u{7f}"] {
                assert_eq!(is_object(&format!("{{\"a\":1{digits}{end}}}")), end.is_empty(), "{length} {end}");
            }
            for (end, is_good) in [("", true), ("!", true), ("#", true), ("\u{7f}", true), ("\u{ff}", true)]
                .into_iter()
                .chain([("\u{1f}", false), ("\0", false), ("\"", false), ("\\", false), ("\n", false)])
            {
                assert_eq!(is_object(&format!("{{\"{plain}{end}\":\"{plain}{end}\"}}")), is_good, "{length} {end:?}");
            }
        }
    }
}
