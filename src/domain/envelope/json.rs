//! Walks over one JSON text (RFC 8259) from front to back, once, and keeps nothing of it.
//!
//! Written by hand for three things that a parser of values does not give together: the place of
//! the first fault, be it grammar or depth; the same verdict at any depth and size, without
//! recursion or allocation (the open levels are one bit each); and speed, because every line the
//! bridge delivers goes through here.
//!
//! The text must be UTF-8; that is checked before, on the whole line.

/// How many levels of arrays and objects a line may nest; the envelope itself is the first.
pub const DEPTH_LEVELS_MAX: u32 = 128;

/// The first thing in a text that makes it unacceptable, and the byte where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: What,
}

/// What is wrong at a place. The sentences follow "at byte N ".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Ends,
    NoValue,
    NoName,
    NoColon,
    NoCommaOrBrace,
    NoCommaOrBracket,
    BadNumber,
    BadEscape,
    Control,
    LoneSurrogate,
    Trailing,
    TooDeep,
}

impl What {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ends => "the line ends before its JSON does",
            Self::NoValue => "a JSON value is expected (NaN and Infinity are none)",
            Self::NoName => "a field name in quotes is expected",
            Self::NoColon => "a colon is expected after the field name",
            Self::NoCommaOrBrace => "a comma or a closing brace is expected",
            Self::NoCommaOrBracket => "a comma or a closing bracket is expected",
            Self::BadNumber => "a number is not written as JSON wants it",
            Self::BadEscape => "a string has an escape that JSON does not know",
            Self::Control => "a string has a control character that is not escaped",
            Self::LoneSurrogate => {
                "an escape is half of a surrogate pair, in a string that has to be decoded"
            }
            Self::Trailing => "something follows the end of the JSON value",
            Self::TooDeep => "arrays and objects nest deeper than 128 levels",
        }
    }
}

/// The type of a value, as far as its first byte tells; that is enough once the value has been
/// walked over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Literal,
}

/// A stretch of the line: for a string what stands between its quotes, else the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Text {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether a string has a backslash; without one it reads as it is written.
    pub(super) escaped: bool,
}

/// Which `\u` escapes a string may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Surrogates {
    /// What the grammar allows: the bridge passes the string on and never decodes it.
    AnyEscape,
    /// Only what stands for a character: the bridge has to decode the string.
    OnlyPairs,
}

/// A place in the text, and the arrays and objects that are open there.
///
/// The places inside one step are handed from function to function as values and not kept here:
/// that keeps them in registers, which is half of the speed.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    /// The next byte to look at; at most `text.len()`.
    at: usize,
    levels: Levels,
}

/// The arrays and objects that are open at a place.
#[derive(Clone, Copy, Default)]
struct Levels {
    /// How many; at most [`DEPTH_LEVELS_MAX`].
    depth: u32,
    /// Bit n is set if the level that lies n outside the innermost is an object.
    objects: u128,
}

impl Levels {
    #[inline]
    fn open(&mut self, text: &[u8], at: usize, is_object: bool) -> Result<(), Fault> {
        if self.depth == DEPTH_LEVELS_MAX {
            return Err(fault(text, at, What::TooDeep));
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
        Ok(())
    }

    #[inline]
    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    #[inline]
    fn in_object(self) -> bool {
        self.objects & 1 == 1
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, levels: Levels::default() }
    }

    /// The bytes of a stretch that this scanner has given out.
    #[inline]
    pub(super) fn bytes(&self, text: Text) -> &'a [u8] {
        &self.text[text.start..text.end]
    }

    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Moves to the value that comes next and says of which type it is.
    #[inline]
    pub(super) fn kind(&mut self) -> Result<Kind, Fault> {
        self.at = after_whitespace(self.text, self.at);
        kind(self.text, self.at)
    }

    /// Walks over the string that comes next; the scanner stands on its opening quote.
    #[inline]
    pub(super) fn string(&mut self, surrogates: Surrogates) -> Result<Text, Fault> {
        let string = string(self.text, self.at, surrogates)?;
        self.at = string.end + 1;
        Ok(string)
    }

    /// Walks over the value that comes next, whatever it holds.
    #[inline]
    pub(super) fn skip_value(&mut self) -> Result<Kind, Fault> {
        let kind = self.kind()?;
        self.at = match kind {
            Kind::Array | Kind::Object => skip_nested(self.text, self.at, self.levels, kind)?,
            _ => after_scalar(self.text, self.at, kind)?,
        };
        Ok(kind)
    }

    /// Walks over the object that comes next. `member` gets each name and has to walk over its
    /// value.
    #[inline]
    pub(super) fn object(
        &mut self,
        names: Surrogates,
        mut member: impl FnMut(&mut Self, Text) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.levels.open(self.text, self.at, true)?;
        self.at = after_whitespace(self.text, self.at + 1);
        if self.text.get(self.at) != Some(&b'}') {
            loop {
                let name = name(self.text, self.at, names)?;
                self.at = after_colon(self.text, name)?;
                member(self, name)?;
                self.at = after_whitespace(self.text, self.at);
                match self.text.get(self.at) {
                    Some(b',') => self.at = after_whitespace(self.text, self.at + 1),
                    Some(b'}') => break,
                    _ => return Err(fault(self.text, self.at, What::NoCommaOrBrace)),
                }
            }
        }
        self.at += 1;
        self.levels.close();
        Ok(())
    }

    /// Makes sure that only white space is left.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.at = after_whitespace(self.text, self.at);
        if self.at == self.text.len() {
            return Ok(());
        }
        Err(fault(self.text, self.at, What::Trailing))
    }
}

/// Walks over the array or object at `at`, inside those that are open already.
fn skip_nested(text: &[u8], at: usize, around: Levels, kind: Kind) -> Result<usize, Fault> {
    let (mut at, mut levels, mut next) = (at, around, kind);
    loop {
        if matches!(next, Kind::Array | Kind::Object) {
            let is_object = next == Kind::Object;
            levels.open(text, at, is_object)?;
            at = after_whitespace(text, at + 1);
            if text.get(at) != Some(&closing(is_object)) {
                (at, next) = element(text, at, is_object)?;
                continue;
            }
        } else {
            at = after_whitespace(text, after_scalar(text, at, next)?);
        }
        // A value has ended: at its last byte if it was empty brackets, else before what follows
        // it.
        loop {
            let in_object = levels.in_object();
            match text.get(at) {
                Some(b',') => {
                    at = after_whitespace(text, at + 1);
                    (at, next) = element(text, at, in_object)?;
                    break;
                }
                Some(&byte) if byte == closing(in_object) => {
                    at += 1;
                    levels.close();
                    if levels.depth == around.depth {
                        return Ok(at);
                    }
                    at = after_whitespace(text, at);
                }
                _ if in_object => return Err(fault(text, at, What::NoCommaOrBrace)),
                _ => return Err(fault(text, at, What::NoCommaOrBracket)),
            }
        }
    }
}

#[inline]
const fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// Walks over the name, if there is to be one, in front of the next value in an object or array.
#[inline]
fn element(text: &[u8], at: usize, in_object: bool) -> Result<(usize, Kind), Fault> {
    let mut at = at;
    if in_object {
        let name = name(text, at, Surrogates::AnyEscape)?;
        at = after_whitespace(text, after_colon(text, name)?);
    }
    Ok((at, kind(text, at)?))
}

#[inline]
fn kind(text: &[u8], at: usize) -> Result<Kind, Fault> {
    match text.get(at) {
        Some(b'"') => Ok(Kind::String),
        Some(b'{') => Ok(Kind::Object),
        Some(b'[') => Ok(Kind::Array),
        Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
        Some(b't' | b'f' | b'n') => Ok(Kind::Literal),
        _ => Err(fault(text, at, What::NoValue)),
    }
}

#[inline]
fn name(text: &[u8], at: usize, surrogates: Surrogates) -> Result<Text, Fault> {
    if text.get(at) != Some(&b'"') {
        return Err(fault(text, at, What::NoName));
    }
    string(text, at, surrogates)
}

/// Where the colon after a name ends.
#[inline]
fn after_colon(text: &[u8], name: Text) -> Result<usize, Fault> {
    let at = after_whitespace(text, name.end + 1);
    if text.get(at) != Some(&b':') {
        return Err(fault(text, at, What::NoColon));
    }
    Ok(at + 1)
}

#[inline]
fn after_whitespace(text: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Where the value at `at` ends, which is no array and no object.
#[inline]
fn after_scalar(text: &[u8], at: usize, kind: Kind) -> Result<usize, Fault> {
    match kind {
        Kind::String => Ok(string(text, at, Surrogates::AnyEscape)?.end + 1),
        Kind::Number => after_number(text, at),
        _ => after_literal(text, at),
    }
}

/// The string whose opening quote is at `at`.
#[inline]
fn string(text: &[u8], at: usize, surrogates: Surrogates) -> Result<Text, Fault> {
    let start = at + 1;
    let end = after_plain(text, start);
    if text.get(end) == Some(&b'"') {
        return Ok(Text { start, end, escaped: false });
    }
    unusual_string(text, start, end, surrogates)
}

/// A string that has an escape, or a fault, at `at`.
#[cold]
#[inline(never)]
fn unusual_string(
    text: &[u8],
    start: usize,
    at: usize,
    surrogates: Surrogates,
) -> Result<Text, Fault> {
    let mut at = at;
    while text.get(at) == Some(&b'\\') {
        at = after_plain(text, after_escape(text, at, surrogates)?);
    }
    if text.get(at) == Some(&b'"') {
        return Ok(Text { start, end: at, escaped: true });
    }
    Err(fault(text, at, What::Control))
}

/// The next byte in a string that is not plain text, found eight bytes at a time.
#[inline]
fn after_plain(text: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = not_plain(*chunk);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= b' ') {
        at += 1;
    }
    at
}

/// Where the escape ends whose backslash is at `start`; a surrogate pair is one where pairs are
/// asked for.
fn after_escape(text: &[u8], start: usize, surrogates: Surrogates) -> Result<usize, Fault> {
    match text.get(start + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(start + 2),
        Some(b'u') => {}
        _ => return Err(fault(text, start + 1, What::BadEscape)),
    }
    let digits = start + 2;
    let end = digits + hex_digits(&text[digits..]);
    let Some(unit) = unicode_escape(&text[start..]) else {
        return Err(fault(text, end, What::BadEscape));
    };
    match (surrogates, unit) {
        (Surrogates::OnlyPairs, 0xD800..=0xDBFF) => match unicode_escape(&text[end..]) {
            Some(0xDC00..=0xDFFF) => Ok(end + UNICODE_ESCAPE_BYTES),
            _ => Err(Fault { at: start, what: What::LoneSurrogate }),
        },
        (Surrogates::OnlyPairs, 0xDC00..=0xDFFF) => {
            Err(Fault { at: start, what: What::LoneSurrogate })
        }
        _ => Ok(end),
    }
}

/// How many of the first four bytes are hexadecimal digits, up to the first that is not.
fn hex_digits(text: &[u8]) -> usize {
    text.iter().take(4).take_while(|digit| digit.is_ascii_hexdigit()).count()
}

/// Where the number at `at` ends, which begins with a minus or a digit.
#[inline]
fn after_number(text: &[u8], at: usize) -> Result<usize, Fault> {
    let mut at = at;
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    if text.get(at) == Some(&b'0') {
        at += 1;
        if let Some(b'0'..=b'9') = text.get(at) {
            return Err(fault(text, at, What::BadNumber));
        }
    } else {
        at = after_digits(text, at)?;
    }
    if text.get(at) == Some(&b'.') {
        at = after_digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = after_digits(text, at)?;
    }
    Ok(at)
}

/// Where at least one digit ends.
#[inline]
fn after_digits(text: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start;
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    if at == start { Err(fault(text, at, What::BadNumber)) } else { Ok(at) }
}

/// Where the literal at `at` ends, which begins like one.
#[inline]
fn after_literal(text: &[u8], at: usize) -> Result<usize, Fault> {
    let rest = &text[at..];
    let literal: &[u8] = match rest.first() {
        Some(b't') => b"true",
        Some(b'f') => b"false",
        _ => b"null",
    };
    if rest.starts_with(literal) {
        return Ok(at + literal.len());
    }
    let same = rest.iter().zip(literal).take_while(|(found, wanted)| found == wanted).count();
    Err(fault(text, at + same, What::NoValue))
}

/// The fault at a place; at the end of the line it is always that the line ends.
#[cold]
fn fault(text: &[u8], at: usize, what: What) -> Fault {
    Fault { at, what: if at == text.len() { What::Ends } else { what } }
}

/// The length of `\uXXXX`.
pub(super) const UNICODE_ESCAPE_BYTES: usize = 6;

/// The UTF-16 unit that a `\uXXXX` at the start of `text` stands for, if there is one.
pub(super) fn unicode_escape(text: &[u8]) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = text.first_chunk::<UNICODE_ESCAPE_BYTES>()? else {
        return None;
    };
    digits.iter().try_fold(0, |unit, &digit| {
        let value = (digit as char).to_digit(16)?;
        Some(unit << 4 | value as u16)
    })
}

/// Marks, with a byte's highest bit, where in eight bytes of a string something other than plain
/// text stands: a quote, a backslash or a control character. Marks above the lowest one may be
/// wrong (a borrow wanders up).
#[inline]
const fn not_plain(chunk: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let word = u64::from_le_bytes(chunk);
    // Swapping 0x20 with 0x22 and so on puts the quote right above the control characters: one
    // comparison.
    let quote_or_control = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5C)).wrapping_sub(ONES);
    (quote_or_control | backslash) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Kind, Fault> {
        let mut scanner = Scanner::new(text.as_bytes());
        let kind = scanner.skip_value()?;
        scanner.finish()?;
        assert_eq!(scanner.levels.depth, 0, "{text:?}");
        Ok(kind)
    }

    #[track_caller]
    fn check(text: &str, expected: Kind) {
        assert_eq!(scan(text), Ok(expected), "{text:?}");
    }

    #[track_caller]
    fn check_fault(text: &str, at: usize, what: What) {
        assert_eq!(scan(text), Err(Fault { at, what }), "{text:?}");
    }

    #[test]
    fn what_rfc_8259_allows_passes() {
        for (text, kind) in [
            ("null", Kind::Literal),
            (" true\t", Kind::Literal),
            ("false\r\n", Kind::Literal),
            ("0", Kind::Number),
            ("-0.0e+00", Kind::Number),
            ("1e400", Kind::Number),
            ("-123456789012345678901234567890.5E-7", Kind::Number),
            (r#""""#, Kind::String),
            (r#""\ud800""#, Kind::String),
            (r#""\"\\\/\b\f\n\r\t\u00e9\uDBFF\uDFFF""#, Kind::String),
            ("\"\u{7f}\u{80}\u{2028}\u{10ffff}\"", Kind::String),
            ("[]", Kind::Array),
            ("[ [ ] , { } , [ 1 , \"\" ] ]", Kind::Array),
            ("{}", Kind::Object),
            (r#"{"": {"": [{}]}, "":0}"#, Kind::Object),
        ] {
            check(text, kind);
        }
    }

    #[test]
    fn a_fault_is_named_at_its_place() {
        for (text, at, what) in [
            ("", 0, What::Ends),
            ("  ", 2, What::Ends),
            ("tru", 3, What::Ends),
            ("truE", 3, What::NoValue),
            ("nullx", 4, What::Trailing),
            ("NaN", 0, What::NoValue),
            ("-Infinity", 1, What::BadNumber),
            ("+1", 0, What::NoValue),
            (".5", 0, What::NoValue),
            ("-", 1, What::Ends),
            ("01", 1, What::BadNumber),
            ("-01", 2, What::BadNumber),
            ("1.", 2, What::Ends),
            ("1.e5", 2, What::BadNumber),
            ("1e", 2, What::Ends),
            ("1e+x", 3, What::BadNumber),
            ("0x1", 1, What::Trailing),
            ("\u{feff}1", 0, What::NoValue),
            ("\u{a0}1", 0, What::NoValue),
            ("1\x0b", 1, What::Trailing),
            ("'a'", 0, What::NoValue),
            (r#""abc"#, 4, What::Ends),
            (r#""abcdefghijk"#, 12, What::Ends),
            ("\"a\tb\"", 2, What::Control),
            ("\"abcdefghijk\x1fb\"", 12, What::Control),
            ("\"\\n\n\"", 3, What::Control),
            (r#""\x""#, 2, What::BadEscape),
            (r#""\"#, 2, What::Ends),
            (r#""\u12"#, 5, What::Ends),
            (r#""\u12G4""#, 5, What::BadEscape),
            (r#""\u+123""#, 3, What::BadEscape),
            ("[", 1, What::Ends),
            ("[1", 2, What::Ends),
            ("[1 2]", 3, What::NoCommaOrBracket),
            ("[1}", 2, What::NoCommaOrBracket),
            ("[1,]", 3, What::NoValue),
            ("[,1]", 1, What::NoValue),
            ("{1:2}", 1, What::NoName),
            (r#"{"a" 1}"#, 5, What::NoColon),
            (r#"{"a"}"#, 4, What::NoColon),
            (r#"{"a":}"#, 5, What::NoValue),
            (r#"{"a":1]"#, 6, What::NoCommaOrBrace),
            (r#"{"a":1,}"#, 7, What::NoName),
            (r#"{"a":1,,"b":2}"#, 7, What::NoName),
            ("[1]]", 3, What::Trailing),
            ("{}{}", 2, What::Trailing),
            ("1 // one", 2, What::Trailing),
        ] {
            check_fault(text, at, what);
        }
    }

    #[test]
    fn level_129_is_a_fault_unless_one_comes_before_it() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        check(&nested(128), Kind::Array);
        check_fault(&nested(129), 128, What::TooDeep);
        check_fault(&"[".repeat(1_000_000), 128, What::TooDeep);
        check_fault(&(r#"{"":[0,"#.repeat(64) + "{"), 64 * 7, What::TooDeep);
        check_fault(&(r#"{"":[0,"#.repeat(64) + "}"), 64 * 7, What::NoValue);
        check_fault(&"[".repeat(128), 128, What::Ends);
        check(&format!("[{},{}]", nested(127), nested(127)), Kind::Array);
    }

    #[test]
    fn surrogates_have_to_be_pairs_only_where_that_is_asked_for() {
        for (text, at) in [
            (r#""\ud83d\ude00 \u0000""#, None),
            (r#""\ud83d""#, Some(1)),
            (r#""\ude00""#, Some(1)),
            (r#""ab\ud83d\ud83d\ude00""#, Some(3)),
            (r#""\ud83d\\ude00""#, Some(1)),
            (r#""\ud83d-\ude00""#, Some(1)),
            (r#""\ud83d\n""#, Some(1)),
        ] {
            let fault = string(text.as_bytes(), 0, Surrogates::OnlyPairs).err();
            let expected = at.map(|at| Fault { at, what: What::LoneSurrogate });
            assert_eq!(fault, expected, "{text}");
            check(text, Kind::String);
        }
    }

    /// The search for the end of a string handles eight bytes at once: every byte has to be judged
    /// the same way at every place in such a group and after it.
    #[test]
    fn every_byte_is_judged_alike_at_every_place() {
        for byte in 0..=u8::MAX {
            let plain = byte >= b' ' && byte != b'"' && byte != b'\\';
            for before in 0..20 {
                for after in 0..20 {
                    let mut text = vec![b'\xff'; before];
                    text.push(byte);
                    text.resize(before + 1 + after, b'!');
                    let expected = if plain { text.len() } else { before };
                    assert_eq!(after_plain(&text, 0), expected, "{byte:#x} at {before}, {after}");
                }
            }
        }
    }
}
