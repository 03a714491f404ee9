//! What is wrong with a configuration, said so that it can be mended without the manual.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Stands in the place of whatever must not be printed.
pub(super) const MASK: &str = "********";

/// How much of a value is printed, in characters: enough to recognise it.
const SHOWN_CHARS_MAX: usize = 120;

/// Which of the bridge's modes a key belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// What both modes and every command share.
    Common,
    /// `KAFKA_…`.
    Kafka,
    /// `SOCKETIO_…`.
    SocketIo,
}

/// What a problem means for `run`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// `run` exits with 78.
    Error,
    /// The bridge runs, but not as the writer of the line may think.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`, as it stands before a problem.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Where a value was said. The order is that in which problems are printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// A file, and the line, counted from 1, on which the key begins; `None`: the file as a whole.
    File {
        /// As it was named.
        path: Arc<Path>,
        /// Never 0.
        line: Option<usize>,
    },
    /// The process environment.
    Environment,
    /// An argument of the command.
    CommandLine,
    /// Nobody said it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", shown_path(path)),
            Self::File { path, line: None } => f.write_str(&shown_path(path)),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Whose start it can stop.
    pub scope: Scope,
    /// Already that for the chosen mode: what is wrong with the other one is a warning.
    pub severity: Severity,
    /// `None`: it is about a file, or a line that no key can be read from.
    pub key: Option<String>,
    /// Where the value was said; [`Origin::Default`]: nowhere.
    pub origin: Origin,
    /// What was said, safe to print; never a secret, and never the value of an unknown key.
    pub value: Option<String>,
    /// The rest of a sentence that begins with the key or the file.
    pub why: String,
    /// A line as it could stand in the file.
    pub example: Option<String>,
}

impl Problem {
    /// An error about `key`, without value and example.
    pub(super) fn about(key: &str, scope: Scope, origin: &Origin, why: impl Into<String>) -> Self {
        Self {
            scope,
            severity: Severity::Error,
            key: Some(key.to_owned()),
            origin: origin.clone(),
            value: None,
            why: why.into(),
            example: None,
        }
    }

    /// An error about a place rather than a key.
    pub(super) fn at(origin: Origin, why: impl Into<String>) -> Self {
        Self {
            scope: Scope::Common,
            severity: Severity::Error,
            key: None,
            origin,
            value: None,
            why: why.into(),
            example: None,
        }
    }

    /// The same with a value, which is safe to print, and of which the beginning is enough.
    pub(super) fn with_value(self, shown: &str) -> Self {
        Self { value: Some(shortened(shown)), ..self }
    }

    pub(super) fn with_example(self, example: Option<String>) -> Self {
        Self { example, ..self }
    }

    pub(super) fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

/// `FILE:LINE: KEY = 'value': why`, then the example on a line of its own. The severity is left to
/// the caller.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = '{value}': ")?,
            (Some(key), None) => write!(f, "{key}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.why)?;
        match &self.example {
            Some(example) => write!(f, "\n    example: {example}"),
            None => Ok(()),
        }
    }
}

/// Everything that was found, of which at least one stops the command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigProblems {
    /// Errors, warnings and notes in the order of the files.
    pub problems: Vec<Problem>,
}

/// One `severity: problem` each, without a line end behind the last.
impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}: {problem}", problem.severity.as_str())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}

/// A path on one line of a terminal, whatever its bytes are.
pub(super) fn shown_path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A text on one line of a terminal: what does not print is escaped, and only the first line of it is
/// there, since what follows a line break may be another, secret, assignment that a quote took in.
pub(super) fn shown_text(text: &str) -> String {
    match text.split_once('\n') {
        Some((first, _)) => printable(first) + "…",
        None => printable(text),
    }
}

/// The first 120 characters of what is shown already.
fn shortened(shown: &str) -> String {
    match shown.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.to_owned(),
    }
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Leaves out what stands before the last `@`, where a password may be, and what follows a `?`,
/// where a token may be.
pub(super) fn without_credentials(text: &str) -> String {
    let (mut shown, rest) = match text.rfind('@') {
        Some(at) => {
            let scheme = text[..at].find("://").map_or(0, |scheme| scheme + "://".len());
            // In front of a `://` stands a scheme, or something that nobody can vouch for.
            let scheme = &text[..scheme];
            let known = ["http://", "https://", "PLAINTEXT://", "SSL://"].contains(&scheme);
            (format!("{}{MASK}", if known { scheme } else { "" }), &text[at..])
        }
        None => (String::new(), text),
    };
    match rest.split_once('?') {
        Some((before, _)) => {
            shown.push_str(before);
            shown.push('?');
            shown.push_str(MASK);
        }
        None => shown.push_str(rest),
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_password_is_left_out() {
        for (text, expected) in [
            ("b1:9092,b2:9092", "b1:9092,b2:9092"),
            ("user:pa@ss,word@b1:9092,b2:9092", "********@b1:9092,b2:9092"),
            ("a:1,user:word@b:2,c:3", "********@b:2,c:3"),
            ("https://user:pa?ss@host/path", "https://********@host/path"),
            ("pa://ss@host", "********@host"),
            ("http://host/auth?token=x&y", "http://host/auth?********"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_printed_on_one_line_and_not_without_end() {
        assert_eq!(shown_text("a'b\\c\té\u{1b}[2J"), "a'b\\c\\té\\u{1b}[2J");
        assert_eq!(shown_text("a\u{202e}b\u{2028}c"), "a\\u{202e}b\\u{2028}c");
        assert_eq!(shown_text("info\nKAFKA_SASL_PASSWORD=x"), "info…");
        assert_eq!(shown_text(&"é".repeat(121)), "é".repeat(121));
        assert_eq!(shortened(&"é".repeat(120)), "é".repeat(120));
        assert_eq!(shortened(&"é".repeat(121)), "é".repeat(120) + "…");
    }

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let origin = Origin::File { path: Path::new("/etc/a\n.env").into(), line: Some(12) };
        let mut problem = Problem::about("KEY", Scope::Kafka, &origin, "is not a number");
        assert_eq!(problem.to_string(), "/etc/a\\n.env:12: KEY: is not a number");
        problem.value = Some("fast".into());
        problem.example = Some("KEY = '10'".into());
        let text = "/etc/a\\n.env:12: KEY = 'fast': is not a number\n    example: KEY = '10'";
        assert_eq!(problem.to_string(), text);
        let note = Problem::at(Origin::Environment, "x").with_severity(Severity::Note);
        let missing = Problem::about("KEY", Scope::Common, &Origin::Default, "is missing");
        let all = ConfigProblems { problems: vec![note, missing] };
        assert_eq!(all.to_string(), "note: environment: x\nerror: KEY: is missing");
    }
}
