//! What was said, key by key, before anyone asks what it means: files over the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::env_file::{self, EnvFile, Unparseable};
use super::files::TextFile;
use super::kafka_properties;
use super::keys::{self, Named};
use super::problem::{Origin, Problem, Scope, Severity, shown_text};

/// The seam to the process environment.
pub trait Environment {
    /// Every variable, in any order.
    fn variables(&self) -> Vec<(OsString, OsString)>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }
}

/// For tests, which must not change their own process.
impl Environment for BTreeMap<OsString, OsString> {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        self.clone().into_iter().collect()
    }
}

/// What was said last about a key.
pub(super) struct Given {
    /// `None`: the key is there, but empty or without `=`, so its default counts.
    pub text: Option<String>,
    pub origin: Origin,
}

/// Every key with one of our prefixes that anyone named.
pub(super) type Variables = BTreeMap<String, Given>;

/// Lays the files over each other and over the environment. What files say that can't be read goes
/// to `problems`, and so does where a file and the environment differ.
pub(super) fn collect(
    files: &[TextFile],
    environment: &BTreeMap<OsString, OsString>,
    problems: &mut Vec<Problem>,
) -> Variables {
    let mut variables = Variables::new();
    // What later files see in `${NAME}`: all keys of all files before them.
    let mut earlier: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let parsed = env_file::parse(&file.text);
        let resolved = env_file::resolve(&parsed.assignments, &|name| {
            let from_environment = || environment.get(OsString::from(name).as_os_str())?.to_str();
            earlier.get(name).map(String::as_str).or_else(from_environment).map(str::to_owned)
        });
        look_at(file, &parsed, problems);
        for (assignment, text) in parsed.assignments.into_iter().zip(resolved) {
            if let Some(text) = &text {
                earlier.insert(assignment.key.clone(), text.clone());
            }
            // A byte order mark or a quote around a key makes it another one, without effect: it is
            // kept here all the same, to be reported as unknown.
            if keys::scope_of(keys::plain(&assignment.key)).is_some() {
                let origin = origin(file, assignment.line);
                let text = text.filter(|text| !text.trim().is_empty());
                let given = Given { text, origin };
                if let Some(before) = variables.get(&assignment.key) {
                    problems.extend(another_mode(&assignment.key, before, &given));
                }
                variables.insert(assignment.key, given);
            }
        }
    }
    for (name, value) in environment {
        if let Some(name) = name.to_str().filter(|name| keys::scope_of(name).is_some()) {
            from_environment(name, value, &mut variables, problems);
        }
    }
    variables
}

/// What to say of a mode that a later file changes: the app's own `.env` may be one of the two, and who edits one does
/// not think of the other. For other keys that is what a later file is for.
fn another_mode(key: &str, before: &Given, given: &Given) -> Option<Problem> {
    let (Origin::File { path: one, .. }, Origin::File { path: other, .. }) =
        (&before.origin, &given.origin)
    else {
        return None;
    };
    let mode = |given: &Given| given.text.as_deref().map(|text| text.trim().to_uppercase());
    if key != keys::MODE || one == other || mode(before) == mode(given) {
        return None;
    }
    let why = format!("{} has another one; this, of the later file, counts", before.origin);
    let problem = Problem::about(key, Scope::Common, &given.origin, why);
    let shown = shown_text(given.text.as_deref().unwrap_or_default());
    Some(problem.with_value(&shown).with_severity(Severity::Warning))
}

fn origin(file: &TextFile, line: usize) -> Origin {
    Origin::File { path: Arc::clone(&file.path), line: Some(line) }
}

/// Reports what a file says in vain: twice, in a line that can't be read, or inside of another value.
fn look_at(file: &TextFile, parsed: &EnvFile, problems: &mut Vec<Problem>) {
    let mut lines: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for assignment in &parsed.assignments {
        if keys::scope_of(&assignment.key).is_some() {
            lines.entry(&assignment.key).or_default().push(assignment.line);
        }
        let inside = assignment.value.iter().flat_map(|value| value.split('\n').skip(1));
        for (name, scope) in inside.filter_map(assigned_in) {
            let why = format!(
                "{} is inside the value that begins here, without effect: is a quote not closed?",
                keys::shown_name(name)
            );
            let problem = Problem::at(origin(file, assignment.line), why);
            problems.push(Problem { scope, ..problem });
        }
    }
    for (key, lines) in lines {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { continue };
        if first < last {
            let scope = keys::scope_of(key).unwrap_or(Scope::Common);
            let why = format!("stands also in line {first}; the last one, this, counts");
            let problem = Problem::about(&keys::shown_name(key), scope, &origin(file, *last), why);
            problems.push(problem.with_severity(Severity::Warning));
        }
    }
    for unparseable in &parsed.unparseable {
        look_at_unparseable(file, unparseable, problems);
    }
}

/// The text may hold secrets: nothing of it is repeated but the name of a key.
fn look_at_unparseable(file: &TextFile, skipped: &Unparseable, problems: &mut Vec<Problem>) {
    let mut ours = false;
    for (index, line) in skipped.text.split('\n').enumerate() {
        if let Some((name, scope)) = begins_with_ours(line) {
            ours = true;
            let key = keys::shown_name(name);
            let origin = origin(file, skipped.line + index);
            let why = "cannot be read: is a quote not closed, or something behind the value?";
            let problem = Problem::about(&key, scope, &origin, why);
            problems.push(problem.with_example(keys::example_line(name)));
        }
    }
    if !ours {
        let why = "cannot be read and is skipped";
        let problem = Problem::at(origin(file, skipped.line), why);
        problems.push(problem.with_severity(Severity::Warning));
    }
}

/// The name, up to its last letter, digit or underscore, if the line begins with one of ours.
fn begins_with_ours(line: &str) -> Option<(&str, Scope)> {
    let line = line.trim_start();
    let line =
        line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
    // A comment that a quote took in was without effect before, too.
    let name = if line.starts_with('#') { "" } else { keys::plain(line) };
    keys::scope_of(name).map(|scope| (name, scope))
}

/// The same for a line that looks like an assignment.
fn assigned_in(line: &str) -> Option<(&str, Scope)> {
    let (name, scope) = begins_with_ours(line)?;
    let behind = line.split_once(name).map(|(_, behind)| behind.trim_start());
    behind.is_some_and(|behind| behind.starts_with('=')).then_some((name, scope))
}

/// The environment fills keys that no file has.
fn from_environment(
    name: &str,
    value: &OsString,
    variables: &mut Variables,
    problems: &mut Vec<Problem>,
) {
    let Some(scope) = keys::scope_of(name) else { return };
    let known = keys::find(name);
    let text = value.to_str().map(|text| Some(text).filter(|text| !text.trim().is_empty()));
    if let Some(given) = variables.get(name) {
        if text != Some(given.text.as_deref()) && known.is_some() {
            let why = "differs from the process environment; the file wins";
            let problem = Problem::about(name, scope, &given.origin, why);
            problems.push(problem.with_severity(Severity::Note));
        }
        return;
    }
    match (known, text) {
        (Some(Named::EnvFile), _) => {}
        (Some(_), Some(text)) => {
            let text = text.map(str::to_owned);
            variables.insert(name.to_owned(), Given { text, origin: Origin::Environment });
        }
        (Some(_), None) => {
            problems.push(Problem::about(name, scope, &Origin::Environment, "is not UTF-8"));
        }
        (None, _) => {
            let why = unknown(name);
            let name = keys::shown_name(name);
            let problem = Problem::about(&name, scope, &Origin::Environment, why);
            problems.push(problem.with_severity(Severity::Warning));
        }
    }
}

/// Why `name`, which stands for nothing, has no effect, and what was meant, as far as that can be told.
pub(super) fn unknown(name: &str) -> String {
    let is = match name.strip_prefix(kafka_properties::PREFIX) {
        Some(_) => "is no property of librdkafka's producer",
        None => "is unknown",
    };
    match keys::meant(name) {
        Some(meant) => format!("{is}; did you mean {meant}?"),
        None => is.to_owned(),
    }
}
