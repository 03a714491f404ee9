//! The checkpoint on disk: one line of JSON with a version and a checksum.
//!
//! `{"version":1,"sha256":"<of the body's text>","body":{...}}`, LF. Whatever follows the LF is
//! ignored: notes are written in place, and a shorter one leaves the end of a longer one behind.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Checkpoint;
use crate::domain::position::Sha256;

/// The version written.
pub const VERSION: u32 = 1;

/// Why a checkpoint could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer bridge: overwriting it would lose what only that one knows.
    #[error(
        "a newer version of the bridge wrote it (format {0}, this one knows {VERSION}): install that \
         one, or put the files aside"
    )]
    NewerVersion(u64),
    /// Torn, flipped or never a checkpoint.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    version: u64,
    #[serde(borrow)]
    sha256: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

/// The text of a checkpoint, LF included.
///
/// # Errors
/// Never for a checkpoint that this crate made; the error is serde's.
pub fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::value::to_raw_value(checkpoint)?;
    let sha256 = Sha256::of(body.get().as_bytes()).to_string();
    let envelope = Envelope { version: u64::from(VERSION), sha256: &sha256, body: &body };
    let mut text = serde_json::to_vec(&envelope)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`FormatError`] for anything else, whatever the bytes are.
pub fn decode(content: &[u8]) -> Result<Checkpoint, FormatError> {
    let end = memchr::memchr(b'\n', content).ok_or(FormatError::Damaged("no line end"))?;
    let line = &content[..end];
    let version: VersionOnly = serde_json::from_slice(line)
        .map_err(|_| FormatError::Damaged("not JSON with a version"))?;
    if version.version > u64::from(VERSION) {
        return Err(FormatError::NewerVersion(version.version));
    }
    if version.version == 0 {
        return Err(FormatError::Damaged("no such version"));
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(line).map_err(|_| FormatError::Damaged("not a checkpoint"))?;
    if Sha256::of(envelope.body.get().as_bytes()).to_string() != envelope.sha256 {
        return Err(FormatError::Damaged("the checksum differs"));
    }
    serde_json::from_str(envelope.body.get())
        .map_err(|_| FormatError::Damaged("the body is not understood"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn reads_back_what_it_writes_and_ignores_what_follows_the_line() {
        let checkpoint = example(7);
        let mut text = encode(&checkpoint).unwrap();
        assert_eq!(decode(&text), Ok(checkpoint.clone()));
        text.extend_from_slice(b"rest of a longer note}}}");
        assert_eq!(decode(&text), Ok(checkpoint));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        assert_eq!(
            decode(b"{\"version\":999,\"anything\":1}\n"),
            Err(FormatError::NewerVersion(999))
        );
        assert!(matches!(decode(b"{\"version\":0}\n"), Err(FormatError::Damaged(_))));
    }

    #[test]
    fn ck_09_what_an_earlier_bridge_wrote_lacks_what_was_added_since_and_is_read() {
        let mut body = serde_json::to_value(example(7)).unwrap();
        for added in ["ledger_since_ms", "requeued_lines"] {
            assert!(body.as_object_mut().unwrap().remove(added).is_some(), "{added}");
        }
        let body = body.to_string();
        let sha256 = Sha256::of(body.as_bytes());
        let text = format!("{{\"version\":1,\"sha256\":\"{sha256}\",\"body\":{body}}}\n");
        let expected = Checkpoint { ledger_since_ms: None, requeued_lines: 0, ..example(7) };
        assert_eq!(decode(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn ck_08_any_flipped_bit_and_any_cut_is_noticed() {
        let text = encode(&example(7)).unwrap();
        let original = decode(&text).unwrap();
        for index in 0..text.len() {
            assert!(decode(&text[..index]).is_err(), "cut at {index}");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[index] ^= 1 << bit;
                // A flip outside the checksummed body may be harmless; it must never change it.
                if let Ok(checkpoint) = decode(&flipped) {
                    assert_eq!(checkpoint, original, "bit {bit} of byte {index}");
                }
            }
        }
    }

    #[test]
    fn ck_08_garbage_is_damage() {
        let deep = [vec![b'['; 100_000], vec![b'\n']].concat();
        for garbage in
            [&b""[..], b"\n", b"\0\0\0\n", b"null\n", b"[]\n", b"{}\n", b"\xff\xfe\n", &deep]
        {
            assert!(
                matches!(decode(garbage), Err(FormatError::Damaged(_))),
                "{}",
                garbage.escape_ascii()
            );
        }
    }
}
