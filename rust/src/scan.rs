//! One pass over a JSON text: the grammar of RFC 8259, strict and at any depth; nothing is built.

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// The keys of a feed's records in their order, as spelled from the opening quote to the value: records of one feed
/// look alike, and a key that is where it was expected needs no second look.
#[derive(Debug, Default)]
pub struct Layout(Vec<String>);

impl Layout {
    /// The layout of an object; `None` where `text` is none.
    pub fn of(text: &str) -> Option<Self> {
        let mut spelled = Vec::new();
        members(text, &Self::default(), |member| spelled.push(member.spelled.to_owned()))?;
        Some(Self(spelled))
    }
}

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    /// From the key's opening quote to the value.
    pub spelled: &'a str,
    pub value: &'a str,
    /// Its place in the layout, where it is the key expected there.
    pub known: Option<usize>,
}

impl<'a> Member<'a> {
    /// The key as spelled between its quotes.
    pub fn key(&self) -> Option<&'a str> {
        let (key, _colon) = self.spelled.strip_prefix('"')?.rsplit_once('"')?;
        Some(key)
    }
}

/// Hands over the members of the one object that `text` is, in their order; `None` where it is anything else.
pub fn members<'a>(text: &'a str, layout: &Layout, mut take: impl FnMut(Member<'a>)) -> Option<()> {
    let mut scanner = Scanner { text: text.as_bytes(), at: 0 };
    scanner.space();
    scanner.expect(b'{')?;
    scanner.space();
    if !scanner.next_is(b'}') {
        for index in 0.. {
            let key_at = scanner.at;
            let expected = layout.0.get(index).filter(|expected| scanner.starts_with(expected.as_bytes()));
            match expected {
                Some(expected) => {
                    scanner.at += expected.len();
                    scanner.space();
                }
                None => scanner.key()?,
            }
            let value_at = scanner.at;
            scanner.value()?;
            take(Member {
                spelled: text.get(key_at..value_at)?,
                value: text.get(value_at..scanner.at)?,
                known: expected.map(|_| index),
            });
            scanner.space();
            if !scanner.next_is(b',') {
                scanner.expect(b'}')?;
                break;
            }
            scanner.space();
        }
    }
    scanner.space();
    (scanner.at == text.len()).then_some(())
}

impl Scanner<'_> {
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

    fn expect(&mut self, wanted: u8) -> Option<()> {
        self.next_is(wanted).then_some(())
    }

    /// Behind the bytes that belong; returns how many they are.
    fn skip(&mut self, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len());
        self.at += count;
        count
    }

    fn space(&mut self) {
        if matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        }
    }

    fn starts_with(&self, wanted: &[u8]) -> bool {
        self.text.get(self.at..).is_some_and(|rest| rest.starts_with(wanted))
    }

    /// A string and its colon, to the value.
    fn key(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// To behind the closing quote; the opening one is read.
    fn string(&mut self) -> Option<()> {
        loop {
            self.skip(|byte| !matches!(byte, b'"' | b'\\' | 0x00..=0x1f));
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => (0..4).all(|_| self.next().is_some_and(|byte| byte.is_ascii_hexdigit())).then_some(()),
            _ => None,
        }
    }

    fn digits(&mut self) -> Option<()> {
        (self.skip(|byte| byte.is_ascii_digit()) > 0).then_some(())
    }

    /// What follows a number's first byte, a minus sign or a digit.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => {
                let _ = self.digits();
            }
            _ => return None,
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

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        let end = self.at + rest.len();
        (self.text.get(self.at..end)? == rest).then(|| self.at = end)
    }

    /// One value, to behind its last byte. Not recursive: a deep one must not take the stack.
    fn value(&mut self) -> Option<()> {
        let mut closers = Vec::new();
        loop {
            match self.next()? {
                b'"' => self.string()?,
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                b'{' => {
                    self.space();
                    if !self.next_is(b'}') {
                        closers.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.space();
                    if !self.next_is(b']') {
                        closers.push(b']');
                        continue;
                    }
                }
                first => self.number(first)?,
            }
            // A value has ended, and perhaps those around it.
            loop {
                let Some(closer) = closers.last().copied() else { return Some(()) };
                self.space();
                if self.next_is(b',') {
                    self.space();
                    if closer == b'}' {
                        self.key()?;
                    }
                    break;
                }
                self.expect(closer)?;
                closers.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, members};

    fn is_object(text: &str) -> bool {
        members(text, &Layout::default(), |_| {}).is_some()
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

    fn keys<'a>(text: &'a str, layout: &Layout) -> Vec<(Option<&'a str>, &'a str, Option<usize>)> {
        let mut found = Vec::new();
        members(text, layout, |member| found.push((member.key(), member.value, member.known)));
        found
    }

    #[test]
    fn members_as_spelled() {
        let text = r#"{ "a" : 1.0 , "b\"":"x" }"#;
        let expected = [(Some("a"), "1.0", None), (Some(r#"b\""#), "\"x\"", None)];
        assert_eq!(keys(text, &Layout::default()), expected);
    }

    #[test]
    fn a_layout_changes_nothing_but_the_way() {
        let layout = Layout::of(r#"{"a":1, "b":[2],"c" : 3}"#).unwrap_or_default();
        let known = [(Some("a"), "5", Some(0)), (Some("b"), "6", Some(1)), (Some("c"), "7", Some(2))];
        assert_eq!(keys(r#"{"a":5,"b":6,"c" : 7}"#, &layout), known);
        assert_eq!(keys("{ \"a\": 5 ,\t\"b\":\n6, \"c\" :  7}", &layout), known);
        let moved = [(Some("b"), "6", None), (Some("b"), "8", Some(1)), (Some("c"), "7", None), (Some("d"), "0", None)];
        assert_eq!(keys(r#"{"b":6,"b":8,"c": 7,"d":0}"#, &layout), moved);
    }
}
