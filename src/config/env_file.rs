//! Reads the text of a `.env` file as python-dotenv does, with which the app itself loads its own.
//!
//! The dialect is that of python-dotenv 1.2.4; `tests/dotenv` compares this module with the real
//! thing. Releases before it read three things in another way: up to 1.2.2, a backslash before a
//! closing quote hides it even if it is itself escaped, and a byte order mark becomes a part of the
//! first key, which leaves that line silently without effect; up to 1.2.3, `KEY= # note` has the
//! value `# note`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// One assignment as the file says it, before `${VAR}` is resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Never empty. It can hold any character when it was written in single quotes.
    pub key: String,
    /// The value without its quotes, escapes decoded; `None`: a key without `=`.
    pub value: Option<String>,
    /// The line, counted from 1, on which the key begins.
    pub line: usize,
}

/// A statement that is no assignment; the file counts without it.
#[derive(Clone, PartialEq, Eq)]
pub struct Unparseable {
    /// The line, counted from 1, on which the statement begins.
    pub line: usize,
    /// What was skipped, from its first visible character to the end of its last line. It has
    /// several lines when a quote that nobody closed took in the ones that follow; whoever looks
    /// for keys that were lost must look at each. It may hold secrets.
    pub text: String,
}

/// What a `.env` file says, in its own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    /// Every assignment; a key that stands there twice is here twice, and the last one decides.
    pub assignments: Vec<Assignment>,
    /// Every statement that had to be skipped.
    pub unparseable: Vec<Unparseable>,
}

/// Leaves the value out: it may be a secret.
impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("key", &self.key)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// Leaves the text out: it may hold a secret.
impl fmt::Debug for Unparseable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unparseable").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Takes a file's text apart. Every text has a result; `unparseable` has what was not understood.
pub fn parse(text: &str) -> EnvFile {
    let text = with_line_feeds(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut scanner = Scanner { rest: &text, line: 1 };
    let mut file = EnvFile::default();
    loop {
        scanner.take_while(is_space);
        if scanner.rest.is_empty() {
            return file;
        }
        let (line, start) = (scanner.line, scanner.rest);
        match scanner.statement() {
            Ok(Some((key, value))) => file.assignments.push(Assignment { key, value, line }),
            Ok(None) => {}
            Err(Malformed) => {
                scanner.take_line();
                let text = start[..start.len() - scanner.rest.len()].to_owned();
                file.unparseable.push(Unparseable { line, text });
            }
        }
    }
}

/// Resolves `${NAME}` and `${NAME:-default}` in the order of the file, one result per assignment.
///
/// Names that stand further up in the file win over `environment`. A default counts only for a name
/// that neither has: a name with an empty value is empty, and so is one without `=`, which hides
/// even the environment's value. Defaults are taken as they are; a `${` in them is not resolved.
pub fn resolve(
    assignments: &[Assignment],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vec<Option<String>> {
    let mut resolved: Vec<Option<String>> = Vec::with_capacity(assignments.len());
    let mut latest: HashMap<&str, usize> = HashMap::new();
    for (index, assignment) in assignments.iter().enumerate() {
        let value = assignment.value.as_deref().map(|value| {
            expand(value, |name| match latest.get(name) {
                Some(&earlier) => Some(resolved[earlier].clone().unwrap_or_default()),
                None => environment(name),
            })
        });
        resolved.push(value);
        latest.insert(&assignment.key, index);
    }
    resolved
}

/// A statement that is neither an assignment nor a comment.
struct Malformed;

/// What is left of the text, and the line it begins on. Line ends are LF, nothing else.
struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// One statement, up to the end of its last line; `None` is a comment. The caller has skipped
    /// the white space in front. After an error the scanner stands where it could not go on.
    fn statement(&mut self) -> Result<Option<(String, Option<String>)>, Malformed> {
        self.skip_export();
        let key = match self.peek() {
            Some('#') => None,
            Some('\'') => Some(self.quoted_key()?),
            _ => Some(self.bare_key()?),
        };
        self.take_while(is_blank);
        let value = if self.peek() == Some('=') {
            self.take(1);
            Some(self.value()?)
        } else {
            None
        };
        self.finish_line()?;
        Ok(key.map(|key| (key.to_owned(), value)))
    }

    /// `export` is a prefix only with a blank after it; alone it is a key like any other.
    fn skip_export(&mut self) {
        if self.rest.strip_prefix("export").is_some_and(|rest| rest.starts_with(is_blank)) {
            self.take("export".len());
            self.take_while(is_blank);
        }
    }

    /// A key in single quotes: no escapes, and line ends are part of it.
    fn quoted_key(&mut self) -> Result<&'a str, Malformed> {
        let length = self.rest[1..].find('\'').filter(|&length| length > 0).ok_or(Malformed)?;
        let key = &self.rest[1..=length];
        self.take(length + 2);
        Ok(key)
    }

    /// A key without quotes. Double quotes are no quotes here but a part of the key.
    fn bare_key(&mut self) -> Result<&'a str, Malformed> {
        let key = self.take_while(|c| !matches!(c, '=' | '#') && !is_space(c));
        if key.is_empty() { Err(Malformed) } else { Ok(key) }
    }

    /// What follows the `=`. A `#` right after it belongs to the value, after a blank it does not.
    fn value(&mut self) -> Result<String, Malformed> {
        let blanks = self.take_while(is_blank);
        match self.peek() {
            Some('#') if !blanks.is_empty() => Ok(String::new()),
            Some(quote @ ('\'' | '"')) => Ok(unescape(self.quoted(quote)?, quote)),
            _ => Ok(without_comment(self.take_while(|c| c != '\n')).to_owned()),
        }
    }

    /// The inside of a quoted value, which may go over several lines. A backslash hides whatever
    /// character follows it, so that `'C:\\'` ends where it seems to and `'C:\'` does not.
    fn quoted(&mut self, quote: char) -> Result<&'a str, Malformed> {
        let inside = &self.rest[1..];
        let mut hidden = false;
        let end = inside
            .find(|c| {
                let ends = c == quote && !hidden;
                hidden = c == '\\' && !hidden;
                ends
            })
            .ok_or(Malformed)?;
        self.take(end + 2);
        Ok(&inside[..end])
    }

    /// After a key or a value, only a comment can still stand on the line.
    fn finish_line(&mut self) -> Result<(), Malformed> {
        self.take_while(is_blank);
        match self.peek() {
            None | Some('\n') => Ok(()),
            Some('#') => {
                self.take_line();
                Ok(())
            }
            Some(_) => Err(Malformed),
        }
    }

    /// The rest of the line; its line end stays.
    fn take_line(&mut self) {
        self.take_while(|c| c != '\n');
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len()))
    }

    /// `length` is in bytes and ends at a character: callers got it from searching `rest`.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }
}

/// CRLF and lone CR become LF, inside quotes as well, as when Python opens a text file.
fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        text.replace("\r\n", "\n").replace('\r', "\n").into()
    } else {
        text.into()
    }
}

/// What Python's `\s` and `str.rstrip` take as white space: four separators more than Rust does.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// White space within a line.
fn is_blank(c: char) -> bool {
    c != '\n' && is_space(c)
}

/// An unquoted value ends where white space and a `#` follow; `a#b` and a leading `#` are values.
fn without_comment(line: &str) -> &str {
    let end = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| line[..at].ends_with(is_space))
        .unwrap_or(line.len());
    line[..end].trim_end_matches(is_space)
}

/// Decodes what may be escaped between such quotes; any other backslash stays as it is.
fn unescape(inside: &str, quote: char) -> String {
    let mut decoded = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        let (plain, tail) = (&rest[..at], &rest[at + 1..]);
        decoded.push_str(plain);
        if let Some(c) = tail.chars().next().and_then(|c| escaped(c, quote)) {
            decoded.push(c);
            rest = &tail[1..]; // every character that can be escaped has one byte
        } else {
            decoded.push('\\');
            rest = tail;
        }
    }
    decoded.push_str(rest);
    decoded
}

fn escaped(c: char, quote: char) -> Option<char> {
    match c {
        '\\' | '\'' => Some(c),
        _ if quote == '\'' => None,
        '"' => Some('"'),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        _ => None,
    }
}

/// Puts a value in the place of each `${NAME}` and `${NAME:-default}`; a missing one is empty.
fn expand(value: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(value.len());
    // Nothing after the last closing brace can be a variable; not to look for one there keeps this
    // linear in the length of the value.
    let (mut rest, literal) = value.split_at(value.rfind('}').map_or(0, |brace| brace + 1));
    while let Some(at) = rest.find("${") {
        let inside = &rest[at + 2..];
        let Some(name_length) = inside.find(['}', ':']) else { break };
        let (name, tail) = inside.split_at(name_length);
        let Some((default, after)) = default_and_rest(tail) else {
            // A colon that introduces no default. A `${` before it would only come to it as well.
            let colon = rest.len() - tail.len();
            expanded.push_str(&rest[..=colon]);
            rest = &tail[1..];
            continue;
        };
        expanded.push_str(&rest[..at]);
        expanded.push_str(&lookup(name).unwrap_or_else(|| default.to_owned()));
        rest = after;
    }
    expanded.push_str(rest);
    expanded.push_str(literal);
    expanded
}

/// `tail` begins with the `}` or the `:` that ends a name. `None`: this is no complete variable.
fn default_and_rest(tail: &str) -> Option<(&str, &str)> {
    match tail.strip_prefix('}') {
        Some(rest) => Some(("", rest)),
        None => tail.strip_prefix(":-")?.split_once('}'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOME_DIR" => Some("/srv".to_owned()),
            "EMPTY" => Some(String::new()),
            "SHADOW" => Some("from-environment".to_owned()),
            _ => None,
        }
    }

    /// One line per assignment, `line KEY=value` or `line KEY`, then `line !text` per skipped one.
    fn shown(text: &str) -> Vec<String> {
        let file = parse(text);
        let values = resolve(&file.assignments, &environment);
        let assigned = file.assignments.iter().zip(values).map(|(a, value)| match value {
            Some(value) => format!("{} {}={value}", a.line, a.key),
            None => format!("{} {}", a.line, a.key),
        });
        let skipped = file.unparseable.iter().map(|u| format!("{} !{}", u.line, u.text));
        assigned.chain(skipped).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(shown(text), expected, "for {text:?}");
    }

    #[test]
    fn keys_and_statements() {
        check("", &[]);
        check(" \n\t\n", &[]);
        check("# comment\n  # another", &[]);
        check("A=1\nB=2\n", &["1 A=1", "2 B=2"]);
        check("  A = 1  \n\n export\tB=2", &["1 A=1", "3 B=2"]);
        check("export\nexport=1\nexportA=2", &["1 export", "2 export=1", "3 exportA=2"]);
        check("export =1\nexport # none\nexport ", &["1 !export =1", "3 !export "]);
        check("A\nB # none\nC#none", &["1 A", "2 B", "3 C"]);
        check("'A B'=1\n'C\nD'=2\nE=3", &["1 A B=1", "2 C\nD=2", "4 E=3"]);
        check("''=1\n'A=2\nB=3", &["3 B=3", "1 !''=1", "2 !'A=2"]);
        check("\"A\"=1", &["1 \"A\"=1"]);
        check("A=1\nA=2\nA", &["1 A=1", "2 A=2", "3 A"]);
        check("=1\nA B\n$=3", &["3 $=3", "1 !=1", "2 !A B"]);
    }

    #[test]
    fn values() {
        check("A=\nB=''\nC=\"\"\nD= ", &["1 A=", "2 B=", "3 C=", "4 D="]);
        check("A = 'x y'  # note\nB='#'#note", &["1 A=x y", "2 B=#"]);
        check("A=x # note\nB=x#y\nC=#x # y", &["1 A=x", "2 B=x#y", "3 C=#x"]);
        check("A= # note\nB =\t#\nC=\n#", &["1 A=", "2 B=", "3 C="]);
        check("A=it's \"so\"\nB=\\n", &["1 A=it's \"so\"", "2 B=\\n"]);
        check(r"A='\n\\\'\x'", &["1 A=\\n\\'\\x"]);
        check(r#"A="\a\b\f\n\r\t\v\\\'\"\x""#, &["1 A=\u{7}\u{8}\u{c}\n\r\t\u{b}\\'\"\\x"]);
        check("A='1\n2'\nB=3", &["1 A=1\n2", "3 B=3"]);
        check("A='1\n2' x\nB=3", &["3 B=3", "1 !A='1\n2' x"]);
        check("A='1\nB=2", &["2 B=2", "1 !A='1"]);
        check("A='x'y\nB=\"x\" \"y\"", &["1 !A='x'y", "2 !B=\"x\" \"y\""]);
    }

    #[test]
    fn a_backslash_before_the_closing_quote() {
        check(r"A='C:\\'", &[r"1 A=C:\"]);
        check("A='C:\\\\'\nB='x'", &[r"1 A=C:\", "2 B=x"]);
        check(r"A='C:\'", &[r"1 !A='C:\'"]);
        check("A='C:\\'\nB='x'\nD=1", &["3 D=1", "1 !A='C:\\'\nB='x'"]);
        check("A='C:\\'\nB=it's\nD=1", &["3 D=1", "1 !A='C:\\'\nB=it's"]);
        check("A='C:\\'\nB=it'\nD=1", &["1 A=C:'\nB=it", "3 D=1"]);
        check(r#"A="\"#, &[r#"1 !A="\"#]);
    }

    #[test]
    fn line_ends_and_white_space() {
        check("A=1\r\nB=2\rC='x\r\ny'\rD=3", &["1 A=1", "2 B=2", "3 C=x\ny", "5 D=3"]);
        check("\u{feff}A=1\n\u{feff}B=2", &["1 A=1", "2 \u{feff}B=2"]);
        check("\u{a0}A\u{1c}=\u{2003}1\u{2028}#note", &["1 A=1"]);
        check("A=a\u{85}#b\nB=a\u{200b}#b", &["1 A=a", "2 B=a\u{200b}#b"]);
        check("A=\0\nÄ=ö", &["1 A=\0", "2 Ä=ö"]);
    }

    #[test]
    fn variables() {
        check("A=${HOME_DIR}/a\nB='${A}'\nC=\"${B}\"", &["1 A=/srv/a", "2 B=/srv/a", "3 C=/srv/a"]);
        check("A=$HOME_DIR${NONE}${}", &["1 A=$HOME_DIR"]);
        check("A=${NONE:-x}${NONE:-}${HOME_DIR:-x}", &["1 A=x/srv"]);
        check("A=${EMPTY:-x}", &["1 A="]);
        check("SHADOW=file\nA=${SHADOW}", &["1 SHADOW=file", "2 A=file"]);
        check(
            "SHADOW=${SHADOW}+\nSHADOW=${SHADOW}+",
            &["1 SHADOW=from-environment+", "2 SHADOW=from-environment++"],
        );
        check("SHADOW\nA=${SHADOW:-x}", &["1 SHADOW", "2 A="]);
        check("A=${B}\nB=1", &["1 A=", "2 B=1"]);
        check("A=${NONE:-${HOME_DIR}}", &["1 A=${HOME_DIR}"]);
        check("A=${X${HOME_DIR}}", &["1 A=}"]);
        check("A=${X:y ${HOME_DIR}", &["1 A=${X:y /srv"]);
        check("A=${X:-y ${HOME_DIR", &["1 A=${X:-y ${HOME_DIR"]);
        check("A=${X:?y}${HOME_DIR", &["1 A=${X:?y}${HOME_DIR"]);
        check("A='${B'\nC='${X:-1\n2}'", &["1 A=${B", "2 C=1\n2"]);
    }

    #[test]
    fn white_space_is_what_python_says() {
        let spaces: Vec<u32> =
            (0..=0x10_ffff).filter(|&c| char::from_u32(c).is_some_and(is_space)).collect();
        let mut expected: Vec<u32> = (0x09..=0x0d).chain(0x1c..=0x20).collect();
        expected.extend([0x85, 0xa0, 0x1680].into_iter().chain(0x2000..=0x200a));
        expected.extend([0x2028, 0x2029, 0x202f, 0x205f, 0x3000]);
        assert_eq!(spaces, expected);
    }

    #[test]
    fn debug_output_keeps_secrets() {
        let printed = format!("{:?}", parse("A=hunter2\nB hunter2"));
        assert!(printed.contains("\"A\"") && !printed.contains("hunter2"), "{printed}");
    }

    proptest! {
        #[test]
        fn any_text_has_a_result(
            text in prop_oneof![any::<String>(), "(?s)[AB='\"\\\\#${}:\\- \n\r\t\u{1c}é]{0,60}"]
        ) {
            let file = parse(&text);
            prop_assert_eq!(resolve(&file.assignments, &environment).len(), file.assignments.len());
            let lines = with_line_feeds(&text).split('\n').count();
            let assigned: Vec<usize> = file.assignments.iter().map(|a| a.line).collect();
            let skipped: Vec<usize> = file.unparseable.iter().map(|u| u.line).collect();
            for order in [&assigned, &skipped] {
                prop_assert!(order.is_sorted_by(|a, b| a < b), "two statements on one line");
                prop_assert!(order.iter().all(|line| (1..=lines).contains(line)));
            }
            prop_assert!(file.assignments.iter().all(|a| !a.key.is_empty()));
            prop_assert!(file.unparseable.iter().all(|u| with_line_feeds(&text).contains(&u.text)));
        }

        #[test]
        fn a_value_in_quotes_comes_back(value in "[^\r]*", quote in prop_oneof![Just('\''), Just('"')]) {
            let inside = value.replace('\\', r"\\").replace(quote, &format!("\\{quote}"));
            let file = parse(&format!("# note\nKEY = {quote}{inside}{quote}  # it's \"so\"\nB=2"));
            let expected = [("KEY", value.as_str(), 2), ("B", "2", 3 + value.matches('\n').count())]
                .map(|(key, value, line)| Assignment {
                    key: key.to_owned(),
                    value: Some(value.to_owned()),
                    line,
                });
            prop_assert!(file.assignments == expected && file.unparseable.is_empty());
        }

        #[test]
        fn line_ends_and_byte_order_marks_change_nothing(text in "[AB='\"\\\\# \ne]{0,60}") {
            let expected = parse(&text);
            for same in [
                text.replace('\n', "\r\n"),
                text.replace('\n', "\r"),
                format!("\u{feff}{text}"),
            ] {
                prop_assert!(parse(&same) == expected);
            }
        }
    }
}
