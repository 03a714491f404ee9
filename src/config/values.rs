//! Each key by itself: known, well-formed, allowed. What keys mean to each other comes later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::files;
use super::kafka_properties::{Property, Use};
use super::keys::{self, Key, Named};
use super::parse::Kind;
use super::problem::{Origin, Problem, Scope, Severity};
use super::vars::{Given, Variables, unknown};

/// Its default depends on the instance.
const STATE_DIR: &str = "BRIDGE_STATE_DIR";

/// A value that its kind accepts.
#[derive(Clone)]
pub(super) struct Value {
    /// In the canonical spelling.
    pub text: String,
    pub origin: Origin,
}

/// Every value that was given and is well-formed, and the defaults behind them.
#[derive(Default)]
pub(super) struct Values {
    given: BTreeMap<&'static str, Value>,
    /// Given, but not as their kind wants it; reported, so nothing more has to be said about them.
    faulty: BTreeSet<&'static str>,
    /// Properties of librdkafka, well-formed and allowed.
    pub properties: Vec<(&'static Property, Value)>,
    /// Counts instead of the table's default of `BRIDGE_STATE_DIR`: that of an instance.
    pub state_dir: Option<String>,
}

impl Values {
    /// What counts for `name`, in the canonical spelling; `None`: nothing, or something faulty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        if self.faulty.contains(name) {
            return None;
        }
        if let Some(value) = self.given.get(name) {
            return Some(value.text.clone());
        }
        let key = keys::key(name)?;
        key.kind.canonical(self.default_of(key)).ok().filter(|_| !self.default_of(key).is_empty())
    }

    /// What was said for `name`, if it is well-formed.
    pub(super) fn given(&self, name: &str) -> Option<&Value> {
        self.given.get(name)
    }

    /// Something was said for `name`, good or not.
    pub(super) fn was_given(&self, name: &str) -> bool {
        self.given.contains_key(name) || self.faulty.contains(name)
    }

    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        T::try_from(self.get(name)?.parse().ok()?).ok()
    }

    /// Where what counts for `name` was said.
    pub(super) fn origin(&self, name: &str) -> Origin {
        match self.given.get(name) {
            Some(value) => value.origin.clone(),
            None if name == STATE_DIR && self.state_dir.is_some() => Origin::CommandLine,
            None => Origin::Default,
        }
    }

    /// The property of this name, if it was given.
    pub(super) fn property(&self, name: &str) -> Option<&Value> {
        self.properties.iter().find(|(property, _)| property.name == name).map(|(_, value)| value)
    }

    pub(super) fn default_of<'a>(&'a self, key: &'a Key) -> &'a str {
        match &self.state_dir {
            Some(state_dir) if key.name == STATE_DIR => state_dir,
            _ => key.default,
        }
    }
}

/// Judges what was given. `too_open` are the files that others can read.
pub(super) fn check(
    variables: &Variables,
    too_open: &BTreeSet<Arc<Path>>,
    problems: &mut Vec<Problem>,
) -> Values {
    let mut checker =
        Checker { values: Values::default(), too_open, warned: BTreeSet::new(), problems };
    for (name, given) in variables {
        checker.variable(name, given);
    }
    checker.values
}

struct Checker<'a> {
    values: Values,
    too_open: &'a BTreeSet<Arc<Path>>,
    /// Those of them that a warning was given about.
    warned: BTreeSet<Arc<Path>>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn variable(&mut self, name: &str, given: &Given) {
        let origin = &given.origin;
        match (keys::find(name), &given.text) {
            (None, _) => self.unknown(name, origin),
            (Some(Named::EnvFile), _) => {
                let why = "has no effect in a file: it is read from the process environment";
                self.report(Problem::about(name, Scope::Common, origin, why), Severity::Warning);
            }
            (Some(_), None) => {}
            (Some(Named::Key(key)), Some(text)) => self.key(key, text, origin),
            (Some(Named::SecretFile(key)), Some(path)) => self.secret_file(key, path, origin),
            (Some(Named::Property(property)), Some(text)) => {
                self.property(property, text, origin);
            }
            (Some(Named::PropertyFile(property)), Some(path)) => {
                self.property_file(property, path, origin);
            }
        }
    }

    fn report(&mut self, problem: Problem, severity: Severity) {
        self.problems.push(problem.with_severity(severity));
    }

    fn unknown(&mut self, name: &str, origin: &Origin) {
        let plain = keys::plain(name);
        let scope = keys::scope_of(plain).unwrap_or(Scope::Common);
        let (why, example) = if plain != name && keys::find(plain).is_some() {
            let why = "has something around it or right behind it that makes it another key";
            (why.to_owned(), keys::example_line(plain))
        } else {
            (unknown(plain), keys::meant(plain).and_then(|meant| keys::example_line(&meant)))
        };
        let problem = Problem::about(&keys::shown_name(name), scope, origin, why);
        self.report(problem.with_example(example), Severity::Error);
    }

    fn key(&mut self, key: &'static Key, text: &str, origin: &Origin) {
        if key.ignored {
            let why = "is accepted and ignored: the bridge only produces";
            self.report(Problem::about(key.name, key.scope, origin, why), Severity::Note);
        }
        if key.is_secret() {
            self.warn_if_open(origin);
        }
        match key.kind.canonical(text) {
            Ok(text) => {
                self.values.given.insert(key.name, Value { text, origin: origin.clone() });
            }
            Err(why) => {
                let why = match key.because {
                    "" => why,
                    because => format!("{why}; {because}"),
                };
                self.values.faulty.insert(key.name);
                self.refuse(key.name, key.scope, text, why, origin);
            }
        }
    }

    fn refuse(&mut self, name: &str, scope: Scope, text: &str, why: String, origin: &Origin) {
        let mut problem =
            Problem::about(name, scope, origin, why).with_example(keys::example_line(name));
        if keys::is_printable(name) {
            problem = problem.with_value(&keys::shown_value(name, text));
        }
        self.report(problem, Severity::Error);
    }

    fn secret_file(&mut self, key: &'static Key, path: &str, origin: &Origin) {
        let name = keys::file_key(key.name);
        if self.values.was_given(key.name) {
            self.both(key.name, &name, key.scope, origin);
        } else if let Some(text) = self.secret(&name, key.scope, path, origin) {
            self.values.given.insert(key.name, Value { text, origin: origin.clone() });
        } else {
            self.values.faulty.insert(key.name);
        }
    }

    fn both(&mut self, name: &str, file_name: &str, scope: Scope, origin: &Origin) {
        let why = format!("stands beside {name}: which of the two counts? Take one of them out");
        self.report(Problem::about(file_name, scope, origin, why), Severity::Error);
    }

    /// The content of the file at `path`. The path is not printed: it may be the secret itself.
    fn secret(&mut self, name: &str, scope: Scope, path: &str, origin: &Origin) -> Option<String> {
        let why = match files::read_secret(Path::new(path.trim())) {
            Ok((text, too_open)) => {
                if too_open {
                    let why = "names a file that others can read: chmod o=,g-w it";
                    self.report(Problem::about(name, scope, origin, why), Severity::Warning);
                }
                match text.as_str() {
                    text if text.trim().is_empty() => "names a file that is empty".to_owned(),
                    text if text.contains('\0') => "names a file that has a NUL".to_owned(),
                    _ => return Some(text),
                }
            }
            Err(error) => format!("names a file that cannot be read: {error}"),
        };
        let problem = Problem::about(name, scope, origin, why);
        self.report(problem.with_example(keys::example_line(name)), Severity::Error);
        None
    }

    fn property(&mut self, property: &'static Property, text: &str, origin: &Origin) {
        let name = property.key();
        match property.use_ {
            Use::Own(key) => {
                let why = format!("is not the way to set {}: use {key}", property.name);
                let problem = Problem::about(&name, Scope::Kafka, origin, why);
                self.report(problem.with_example(keys::example_line(key)), Severity::Error);
            }
            Use::Refused(why) => {
                self.report(Problem::about(&name, Scope::Kafka, origin, why), Severity::Error);
            }
            Use::Free(kind) => match kind.canonical(text) {
                Ok(text) => {
                    if kind == Kind::Secret {
                        self.warn_if_open(origin);
                    }
                    self.values.properties.push((property, Value { text, origin: origin.clone() }));
                }
                Err(why) => {
                    self.refuse(&name, Scope::Kafka, text, why, origin);
                }
            },
        }
    }

    fn property_file(&mut self, property: &'static Property, path: &str, origin: &Origin) {
        let (name, file_name) = (property.key(), keys::file_key(&property.key()));
        if self.values.property(property.name).is_some() {
            self.both(&name, &file_name, Scope::Kafka, origin);
        } else if let Some(text) = self.secret(&file_name, Scope::Kafka, path, origin) {
            self.values.properties.push((property, Value { text, origin: origin.clone() }));
        }
    }

    /// A secret stands in a configuration file: warn, once, if others can read it.
    fn warn_if_open(&mut self, origin: &Origin) {
        let Origin::File { path, .. } = origin else { return };
        if self.too_open.contains(path) && self.warned.insert(Arc::clone(path)) {
            let why = "holds a secret, and others can read or change it: chmod o=,g-w it";
            let origin = Origin::File { path: Arc::clone(path), line: None };
            self.report(Problem::at(origin, why), Severity::Warning);
        }
    }
}
