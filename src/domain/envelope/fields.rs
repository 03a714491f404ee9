//! Finds the five fields of the envelope in a line, and notes of what type they and four members
//! of `data` are.
//!
//! Names count as they read, not as they are written: `"user\u005fid"` is `user_id`.

use std::borrow::Cow;

use super::json::{Fault, Kind, Scanner, Surrogates, Text, UNICODE_ESCAPE_BYTES, unicode_escape};

/// A field of the envelope. Where several are at fault in the same way, the first in this order is
/// named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    EventType,
    Timestamp,
    UserId,
    Source,
    Data,
}

impl Field {
    pub(super) const ALL: [Self; 5] =
        [Self::EventType, Self::Timestamp, Self::UserId, Self::Source, Self::Data];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::EventType => "event_type",
            Self::Timestamp => "timestamp",
            Self::UserId => "user_id",
            Self::Source => "source",
            Self::Data => "data",
        }
    }

    #[inline]
    fn spelt(name: &[u8], escaped: bool) -> Option<Self> {
        if escaped {
            return Self::ALL.into_iter().find(|field| reads_as(name, field.name()));
        }
        match name {
            b"event_type" => Some(Self::EventType),
            b"timestamp" => Some(Self::Timestamp),
            b"user_id" => Some(Self::UserId),
            b"source" => Some(Self::Source),
            b"data" => Some(Self::Data),
            _ => None,
        }
    }
}

/// A member of `data` whose type `OpenAlgo`'s page relies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DataMember {
    Action,
    Request,
    Response,
    /// Of a probe: it is to go all the way.
    Through,
}

impl DataMember {
    const ALL: [Self; 4] = [Self::Action, Self::Request, Self::Response, Self::Through];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Request => "request",
            Self::Response => "response",
            Self::Through => "through",
        }
    }

    #[inline]
    fn spelt(name: &[u8], escaped: bool) -> Option<Self> {
        if escaped {
            return Self::ALL.into_iter().find(|member| reads_as(name, member.name()));
        }
        match name {
            b"action" => Some(Self::Action),
            b"request" => Some(Self::Request),
            b"response" => Some(Self::Response),
            b"through" => Some(Self::Through),
            _ => None,
        }
    }
}

/// What stands under a field of the envelope. Flat and written member by member: a copy of a nested
/// one stalls the processor, which is a tenth of the time a line takes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// `None` as long as the field is not found.
    pub(super) kind: Option<Kind>,
    /// The place between the quotes for a string, of the whole value else.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether a string has a backslash.
    pub(super) escaped: bool,
}

/// What a line that is one JSON object says, as far as the envelope goes.
#[derive(Default)]
pub(super) struct Fields {
    found: [Found; Field::ALL.len()],
    /// The types of the members of `data`; of a repeated one the last counts, as in a browser.
    members: [Option<Kind>; DataMember::ALL.len()],
    /// The first field that occurs again, and where.
    pub(super) repeated: Option<(Field, usize)>,
}

impl Fields {
    pub(super) fn get(&self, field: Field) -> &Found {
        &self.found[field as usize]
    }

    pub(super) fn member(&self, member: DataMember) -> Option<Kind> {
        self.members[member as usize]
    }

    /// Walks over a field's value and notes it if the field is one of the envelope.
    #[inline]
    fn read_field(&mut self, scanner: &mut Scanner<'_>, name: Text) -> Result<(), Fault> {
        let Some(field) = Field::spelt(scanner.bytes(name), name.escaped) else {
            return scanner.skip_value().map(drop);
        };
        let kind = scanner.kind()?;
        let mut start = scanner.at();
        let mut escaped = false;
        match (field, kind) {
            (Field::Data, Kind::Object) => self.read_data(scanner)?,
            (Field::Data, _) | (_, Kind::Object | Kind::Array | Kind::Number | Kind::Literal) => {
                scanner.skip_value()?;
            }
            (_, Kind::String) => {
                let string = scanner.string(Surrogates::OnlyPairs)?;
                (start, escaped) = (string.start, string.escaped);
            }
        }
        let quote = usize::from(field != Field::Data && kind == Kind::String);
        let found = &mut self.found[field as usize];
        if found.kind.is_some() {
            self.repeated.get_or_insert((field, name.start - 1));
        }
        found.kind = Some(kind);
        found.start = start;
        found.end = scanner.at() - quote;
        found.escaped = escaped;
        Ok(())
    }

    #[inline]
    fn read_data(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.object(Surrogates::AnyEscape, |scanner, name| {
            let kind = scanner.skip_value()?;
            if let Some(member) = DataMember::spelt(scanner.bytes(name), name.escaped) {
                self.members[member as usize] = Some(kind);
            }
            Ok(())
        })
    }
}

/// Walks over a whole line. `None`: it is JSON, but not an object.
pub(super) fn read(line: &str) -> Result<Option<Fields>, Fault> {
    let mut scanner = Scanner::new(line.as_bytes());
    if scanner.kind()? != Kind::Object {
        scanner.skip_value()?;
        scanner.finish()?;
        return Ok(None);
    }
    let mut fields = Fields::default();
    scanner.object(Surrogates::OnlyPairs, |scanner, name| fields.read_field(scanner, name))?;
    scanner.finish()?;
    Ok(Some(fields))
}

/// The string that stands between quotes as `written`; its escapes have been walked over as
/// `OnlyPairs`.
pub(super) fn decode(written: &str, escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return Cow::Borrowed(written);
    }
    let mut decoded = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((plain, escape)) = rest.split_once('\\') {
        decoded.push_str(plain);
        let at = written.len() - escape.len() - 1;
        let (char, bytes) = decode_escape(&written[at..]);
        decoded.push(char);
        rest = &written[at + bytes..];
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The character that the escape at the start of `text` stands for, and how many bytes it takes.
fn decode_escape(text: &str) -> (char, usize) {
    let bytes = text.as_bytes();
    let Some(unit) = unicode_escape(bytes) else {
        return (simple_escape(bytes[1]) as char, 2);
    };
    let pair = [unit, unicode_escape(&bytes[UNICODE_ESCAPE_BYTES..]).unwrap_or_default()];
    let char = char::decode_utf16(pair).next().and_then(Result::ok);
    // Never the default: lone surrogates are refused before.
    let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
    (char, UNICODE_ESCAPE_BYTES * char.len_utf16())
}

/// What a letter after a backslash stands for.
fn simple_escape(letter: u8) -> u8 {
    match letter {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself, // quote, backslash, slash
    }
}

/// Whether a string with escapes in it, as `written`, reads as `name`, which is ASCII. Without
/// decoding it into memory of its own: it may be a megabyte long.
fn reads_as(written: &[u8], name: &str) -> bool {
    let mut rest = written;
    for &wanted in name.as_bytes() {
        let (unit, bytes) = match (unicode_escape(rest), rest) {
            (Some(unit), _) => (unit, UNICODE_ESCAPE_BYTES),
            (None, [b'\\', letter, ..]) => (u16::from(simple_escape(*letter)), 2),
            (None, [byte, ..]) => (u16::from(*byte), 1),
            (None, []) => return false,
        };
        if unit != u16::from(wanted) {
            return false;
        }
        rest = &rest[bytes..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_decoded(written: &str, expected: &str) {
        let decoded = decode(written, written.contains('\\'));
        assert_eq!(decoded, expected, "{written:?}");
        assert_eq!(matches!(decoded, Cow::Borrowed(_)), !written.contains('\\'), "{written:?}");
    }

    #[test]
    fn strings_are_decoded_and_borrowed_where_that_is_possible() {
        for (written, expected) in [
            ("", ""),
            ("plain \u{1f4c8}", "plain \u{1f4c8}"),
            (r"a\u0062", "ab"),
            (r"\u0000\u00E9\u20ac!", "\0\u{e9}\u{20ac}!"),
            (r"\ud83d\udcc8\ud83d\udcc8", "\u{1f4c8}\u{1f4c8}"),
            (r"\uDBFF\uDFFF\uFFFF\uE000", "\u{10ffff}\u{ffff}\u{e000}"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\\u0041\\", r"\u0041\"),
            (r"\u005cu0041", r"\u0041"),
        ] {
            check_decoded(written, expected);
        }
    }

    #[track_caller]
    fn check_spelling(written: &str, expected: Option<Field>) {
        let escaped = written.contains('\\');
        assert_eq!(Field::spelt(written.as_bytes(), escaped), expected, "{written:?}");
    }

    #[test]
    fn names_count_as_they_read() {
        for field in Field::ALL {
            check_spelling(field.name(), Some(field));
            let escapes = field.name().bytes().map(|byte| format!("\\u{byte:04x}"));
            check_spelling(&escapes.collect::<String>(), Some(field));
        }
        check_spelling(r"user\u005fid", Some(Field::UserId));
        check_spelling(r"d\u0061ta", Some(Field::Data));
        for other in [
            "",
            "Data",
            "dat",
            "data ",
            r"\u0064at",
            r"data\u0000",
            r"d\u0161ta",
            r"\ud800ata",
            r"d\ta",
            r"data\n",
            r"\u10064ata",
        ] {
            check_spelling(other, None);
        }
        assert_eq!(DataMember::spelt(br"act\u0069on", true), Some(DataMember::Action));
        assert_eq!(DataMember::spelt(b"response", false), Some(DataMember::Response));
        assert_eq!(DataMember::spelt(b"responses", false), None);
    }
}
