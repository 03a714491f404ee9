//! One thing that was tried, and how to mend it.

use std::fmt;

/// What a finding means, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but not as one may think.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub level: Level,
    /// On one line, whatever it quotes.
    pub text: String,
    /// Commands that mend it, one a line.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding without remedy.
    pub fn new(level: Level, text: impl fmt::Display) -> Self {
        let mut line = String::new();
        for character in text.to_string().trim_end().chars() {
            match character {
                '\'' | '"' | '\\' => line.push(character),
                _ => line.extend(character.escape_debug()),
            }
        }
        Self { level, text: line, remedy: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn mended_by(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// `level: text`, then the remedy, indented.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level}: {}", self.text)?;
        let remedy = self.remedy.as_deref().unwrap_or_default();
        remedy.lines().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_on_one_line_and_the_remedy_below() {
        let finding =
            Finding::new(Level::Warning, "a\nb\u{1b}[2J 'c'\n").mended_by("do this\nthen that");
        assert_eq!(finding.to_string(), "warning: a\\nb\\u{1b}[2J 'c'\n    do this\n    then that");
    }

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_was() {
        for (word, expected) in [
            ("/srv/a-b", "/srv/a-b"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
