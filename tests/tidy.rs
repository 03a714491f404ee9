//! House rules as tests. Each says which file breaks it and what to do; nothing but std is needed.
//!
//! The code is read without its comments and strings, so that a word in a sentence breaks nothing.

// The whole crate is a test; clippy's exception for tests knows only functions marked as one.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What each part of the house may import of the others; itself, always.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("domain", &[]),
    ("platform", &[]),
    ("service", &[]),
    ("config", &["domain"]),
    ("source", &["domain", "platform"]),
    ("sink", &["domain", "platform"]),
    ("checkpoint", &["domain", "platform"]),
    ("telemetry", &["domain", "platform"]),
    ("pipeline", &["checkpoint", "domain", "platform", "sink", "source", "telemetry"]),
    (
        "cli",
        &[
            "checkpoint",
            "config",
            "domain",
            "pipeline",
            "platform",
            "service",
            "sink",
            "source",
            "telemetry",
        ],
    ),
];

/// Where each dependency is named: a file, or a folder with all that is below it.
const HOMES: [(&str, &[&str]); 23] = [
    ("base64", &["src/sink/rejects.rs"]),
    ("bytes", &["src/domain/framing.rs", "src/sink/socketio/", "src/telemetry/http/"]),
    ("clap", &["src/cli/args.rs", "src/cli/completions.rs", "src/cli/man.rs", "src/cli/mod.rs"]),
    ("clap_complete", &["src/cli/completions.rs"]),
    ("clap_mangen", &["src/cli/man.rs"]),
    ("engineioxide", &["src/sink/socketio/server/"]),
    ("flate2", &["src/source/gzip.rs"]),
    ("futures_executor", &["src/sink/kafka/"]),
    ("http_body_util", &["src/sink/socketio/server/", "src/telemetry/http/"]),
    ("hyper", &["src/sink/socketio/server/", "src/telemetry/http/"]),
    ("hyper_util", &["src/sink/socketio/server/", "src/telemetry/http/"]),
    ("linemux", &["src/cli/tap.rs"]),
    ("notify", &["src/source/watch.rs"]),
    ("rdkafka", &["src/sink/kafka/"]),
    ("reqwest", &["src/sink/socketio/relay/handshake.rs", "src/sink/socketio/server/gate.rs"]),
    ("rust_socketio", &["src/sink/socketio/relay/link.rs"]),
    ("rustix", &["src/platform/"]),
    ("sha2", &["src/domain/"]),
    ("signal_hook", &["src/service/signals.rs"]),
    ("simdutf8", &["src/domain/envelope/mod.rs"]),
    ("systemd", &["src/service/descriptors.rs", "src/service/readiness.rs"]),
    ("tokio", &["src/cli/tap.rs", "src/sink/socketio/", "src/telemetry/http/"]),
    ("tracing_subscriber", &["src/telemetry/log.rs"]),
];

/// Dependencies that are words of the language here; of these, `domain` has its own list.
const VOCABULARY: [&str; 5] = ["memchr", "serde", "serde_json", "thiserror", "tracing"];

/// The dependencies that `domain` may use: they compute and do nothing else. Those with a file are
/// for that file alone.
const DOMAIN_CRATES: [(&str, &str); 7] = [
    ("bytes", "src/domain/"),
    ("memchr", "src/domain/"),
    ("serde", "src/domain/"),
    ("sha2", "src/domain/"),
    ("simdutf8", "src/domain/"),
    ("serde_json", "src/domain/envelope/schema.rs"),
    ("thiserror", "src/domain/envelope/reason.rs"),
];

/// Words that mean I/O, time, threads or chance.
const IO_WORDS: [&str; 18] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::{",
    "Condvar",
    "Instant",
    "Mutex",
    "SystemTime",
    "eprintln",
    "println",
    "rand",
    "tokio",
    "tracing",
];

const LINES_MAX: usize = 500;

/// Files that are longer, and the length that they must not pass. One that got short enough has to
/// leave the list.
const LONG_FILES: [(&str, usize); 0] = [];

/// Where the three `unsafe` are: one call each, where there is no safe way.
const UNSAFE: [&str; 3] = [
    "src/service/descriptors.rs",
    "src/sink/kafka/client.rs",
    "src/sink/socketio/server/buffer.rs",
];

/// What may stand at the top besides what `.gitignore` names there.
const TOP_LEVEL: [&str; 23] = [
    ".ci",
    ".git",
    ".gitattributes",
    ".gitignore",
    ".sample.env",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "docs",
    "fuzz",
    "packaging",
    "rustfmt.toml",
    "src",
    "systemd",
];

/// Also at the top; apart, since it holds this file.
const TESTS: &str = "tests";

/// Prefixes of the settings (`src/config/keys.rs`).
const PREFIXES: [&str; 4] = ["BRIDGE_", "KAFKA_", "ORDER_EVENT_", "SOCKETIO_"];

/// What begins like a setting in the documents and is none: names the configuration file; makes
/// tests longer.
const NO_SETTINGS: [&str; 2] = ["BRIDGE_ENV_FILE", "BRIDGE_SOAK"];

// --- the rules ------------------------------------------------------------------------------

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let Some(part) = file.part() else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{}: {part} is not in the table IMPORTS", file.path));
            continue;
        };
        for imported in file.imported() {
            if imported != part && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: {part} must not import {imported}", file.path));
            }
        }
    }
    check("imports go one way (ARCHITECTURE.md, \"Code map\")", &wrong);
}

#[test]
fn every_dependency_is_named_in_one_place() {
    let mut wrong = Vec::new();
    let dependencies = dependencies(Section::Normal);
    for name in &dependencies {
        let has_home = HOMES.iter().any(|(known, _)| known == name);
        if !has_home && !VOCABULARY.contains(&name.as_str()) {
            wrong.push(format!("{name}: decide where it lives, in HOMES or VOCABULARY"));
        }
    }
    for file in sources("src") {
        for (name, homes) in HOMES {
            let here = homes.iter().any(|home| file.path.starts_with(home));
            if !here && file.names(name) {
                wrong.push(format!("{}: names {name}, whose place is {homes:?}", file.path));
            }
        }
    }
    for (name, homes) in HOMES {
        let used = sources("src").iter().any(|file| file.names(name));
        if !used && dependencies.contains(name) {
            wrong.push(format!("{name}: is a dependency and named nowhere in {homes:?}"));
        }
    }
    check("every dependency is named in one file or folder", &wrong);
}

#[test]
fn domain_does_nothing_but_compute() {
    let mut wrong = Vec::new();
    let mut external = dependencies(Section::Normal);
    // Its tests draw random input; nothing else of the tests' dependencies has a place there.
    external.extend(dependencies(Section::Dev).into_iter().filter(|name| name != "proptest"));
    for file in sources("src/domain") {
        for name in external.iter().filter(|name| file.names(name)) {
            let allowed =
                |(known, home): &(&str, &str)| known == name && file.path.starts_with(home);
            if !DOMAIN_CRATES.iter().any(allowed) {
                wrong.push(format!("{}: names {name}", file.path));
            }
        }
        for word in IO_WORDS.into_iter().filter(|word| has_word(&file.code, word)) {
            wrong.push(format!("{}: says {word}", file.path));
        }
    }
    check("domain does no I/O, asks no clock, logs nothing, starts no thread", &wrong);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().chain(sources(TESTS)) {
        let first = file.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{}: does not open with a sentence after `//! `", file.path));
        }
    }
    check("every source file opens with one sentence on what it is for", &wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().filter(|file| !file.path.ends_with("/tests.rs")) {
        let lines = file.lines_before_tests();
        let exempted = LONG_FILES.iter().find(|(path, _)| *path == file.path);
        let path = &file.path;
        match exempted {
            None if lines > LINES_MAX => {
                wrong.push(format!("{path}: {lines} lines before its tests, {LINES_MAX} at most"));
            }
            Some((_, most)) if lines > *most => {
                wrong.push(format!("{path}: {lines} lines, and even its exemption ends at {most}"));
            }
            Some(_) if lines <= LINES_MAX => {
                wrong.push(format!("{path}: is short enough now, take it out of LONG_FILES"));
            }
            _ => {}
        }
    }
    for (path, _) in LONG_FILES.iter().filter(|(path, _)| !root().join(path).is_file()) {
        wrong.push(format!("{path}: is gone, take it out of LONG_FILES"));
    }
    check("files have at most 500 lines before `mod tests`", &wrong);
}

#[test]
fn unsafe_code_is_in_three_places() {
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().chain(sources(TESTS)) {
        let allowed = usize::from(UNSAFE.contains(&file.path.as_str()));
        for word in ["unsafe", "unsafe_code"] {
            let found = words(&file.code).filter(|found| *found == word).count();
            if found != allowed {
                wrong.push(format!("{}: says {word} {found} times, not {allowed}", file.path));
            }
        }
    }
    check("unsafe code is one call in each of three files", &wrong);
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_skipped() {
    let mut wrong = Vec::new();
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    for path in ["src", TESTS, "benches", "fuzz", "docs", "packaging", "systemd", ".ci"]
        .iter()
        .flat_map(|folder| all_files(folder))
        .chain(top_level().into_iter().filter(|name| root().join(name).is_file()))
    {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for mark in marks.into_iter().filter(|mark| words(&text).any(|word| word == *mark)) {
            wrong.push(format!("{path}: has a {mark}; open an issue, or do it"));
        }
    }
    for file in sources("src").into_iter().chain(sources(TESTS)) {
        if file.code.contains("#[ignore") {
            wrong.push(format!("{}: ignores a test; a slow one belongs to `make soak`", file.path));
        }
    }
    check("nothing is left for later, and no test is skipped", &wrong);
}

#[test]
fn the_readme_shows_the_open_settings_with_their_defaults_and_no_others() {
    let mut wrong = Vec::new();
    let readme = read("README.md");
    let sample = read(".sample.env");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with('|')).collect();
    let mut known = BTreeSet::new();
    for line in sample.lines() {
        let Some((key, default)) = line.trim_start_matches("# ").split_once(" = '") else {
            continue;
        };
        known.insert(key);
        let default = default.trim_end_matches('\'');
        let (key_cell, default_cell) = (format!("| `{key}` |"), format!("`{default}`"));
        let documented = rows.iter().any(|row| {
            row.starts_with(&key_cell) && (default.is_empty() || row.contains(&default_cell))
        });
        if !line.starts_with('#') && !documented {
            wrong.push(format!("README.md: has no row `{key}` with the default `{default}`"));
        }
    }
    if !readme.contains("(.sample.env)") {
        wrong
            .push("README.md: has no link to .sample.env, where the other settings are".to_owned());
    }
    for document in documents() {
        let text = read(&document);
        for word in words(&text).filter(|word| PREFIXES.iter().any(|p| word.starts_with(p))) {
            let key = word.strip_suffix("_FILE").unwrap_or(word);
            let fine = word.ends_with('_') // a family of keys, as in KAFKA_CONF_<PROPERTY>
                || known.contains(key)
                || NO_SETTINGS.contains(&word)
                || word.starts_with("KAFKA_CONF_");
            if !fine {
                wrong.push(format!("{document}: names {word}, which is not in .sample.env"));
            }
        }
    }
    check("the documents name the settings that there are", &wrong);
}

#[test]
fn every_dependency_has_its_reason() {
    let mut wrong = Vec::new();
    let text = read("docs/dependencies.md");
    let Some((normal, dev)) = text.split_once("\nFor tests only:") else {
        panic!("docs/dependencies.md: the line `For tests only:` between its two tables is gone");
    };
    let (normal, dev) = (table(normal), table(dev));
    let in_manifest = (dependencies(Section::Normal), dependencies(Section::Dev));
    for name in in_manifest.0.iter().filter(|name| !normal.contains(*name)) {
        wrong.push(format!("{name}: is a dependency without a line in the first table"));
    }
    for name in in_manifest.1.iter().filter(|name| !normal.contains(*name) && !dev.contains(*name))
    {
        wrong.push(format!("{name}: is a dependency of the tests without a line"));
    }
    for name in normal.union(&dev) {
        if !in_manifest.0.contains(name) && !in_manifest.1.contains(name) {
            wrong.push(format!("{name}: has a line and is no dependency"));
        }
    }
    check("docs/dependencies.md and Cargo.toml name the same crates", &wrong);
}

#[test]
fn the_top_level_holds_what_it_may() {
    let wrong: Vec<String> = top_level()
        .into_iter()
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()) && name != TESTS)
        .collect();
    check("at the top there is nothing but what design and .gitignore name", &wrong);
}

/// Tests are named after the faults that they show; the table of faults and the list of invariants
/// name tests. Neither may be ahead of the other.
#[test]
fn the_documents_name_tests_that_exist_and_every_test_of_a_fault() {
    let mut wrong = Vec::new();
    let tests: BTreeSet<String> = sources("src")
        .into_iter()
        .chain(sources(TESTS))
        .flat_map(|file| function_names(&file.code))
        .collect();
    let faults = read("docs/faults.md");
    for name in tests.iter().filter(|name| is_of_a_fault(name)) {
        if !words(&faults).any(|word| word == name) {
            wrong.push(format!("docs/faults.md: does not name {name}"));
        }
    }
    for document in documents() {
        let text = read(&document);
        // Between backticks, and long enough to be the name of a test and nothing else.
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_name = quoted.matches('_').count() >= 4
                && quoted
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            // Metrics have such names too; `tests/e2e/http.rs` holds them to what is served.
            let is_name = is_name && !quoted.starts_with("openalgo_bridge_");
            if is_name && !tests.contains(quoted) {
                wrong.push(format!("{document}: names {quoted}, which is no function"));
            }
        }
    }
    check("documents and tests agree on which faults and invariants are shown", &wrong);
}

#[test]
fn comments_and_strings_are_not_code() {
    for (text, expected) in [
        ("a // crate::b\nc", "a  \nc"),
        ("a /* x /* y */ z */ b", "a   b"),
        (r#"a "\"// b" c"#, "a   c"),
        (r##"a r#"" crate::b "# c"##, "a   c"),
        (r#"b"x" 'x' '\'' '"' c"#, "        c"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&code_of(text)), squeezed(expected), "{text}");
    }
}

// --- reading the tree -----------------------------------------------------------------------

struct Source {
    /// From the top of the tree, with slashes.
    path: String,
    text: String,
    /// The text without comments and without what stands in quotes; as many lines as before.
    code: String,
}

impl Source {
    /// `domain` for what is below `src/domain`; none for `main.rs` and `lib.rs`.
    fn part(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split_once('/').map(|(part, _)| part)
    }

    /// The parts that it imports, by whatever path.
    fn imported(&self) -> BTreeSet<String> {
        let mut imported: BTreeSet<String> = self
            .code
            .match_indices("crate::")
            .filter(|(at, _)| is_boundary(self.code[..*at].chars().next_back()))
            .map(|(at, path)| first_word(&self.code[at + path.len()..]))
            .collect();
        // `super` often enough is `crate`. A `mod` within the file makes the way one longer.
        let depth =
            self.path.split('/').count() - if self.path.ends_with("/mod.rs") { 2 } else { 1 };
        let before_tests = self.code.lines().take(self.lines_before_tests());
        let ways =
            [(before_tests.collect::<Vec<_>>().join("\n"), depth), (self.code.clone(), depth + 1)];
        for (code, depth) in ways {
            let to_root = "super::".repeat(depth);
            imported.extend(code.split(&to_root).skip(1).map(first_word));
        }
        imported
    }

    /// Whether it names an external crate: `name::`, not behind another `::`, or `use name;`.
    fn names(&self, name: &str) -> bool {
        let code = &self.code;
        code.match_indices(name).any(|(at, _)| {
            let (before, behind) = (&code[..at], &code[at + name.len()..]);
            let path = behind.starts_with("::")
                && is_boundary(before.chars().next_back())
                && !before.ends_with("::");
            let alone = before.ends_with("use ") && is_boundary(behind.chars().next());
            path || alone || (before.ends_with("use ::") && behind.starts_with("::"))
        })
    }

    fn lines_before_tests(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let tests = lines.iter().position(|line| line.starts_with("mod tests"));
        match tests {
            Some(line) if line > 0 && lines[line - 1].starts_with("#[cfg(test)]") => line - 1,
            Some(line) => line,
            None => lines.len(),
        }
    }
}

#[track_caller]
fn check(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n  {}\n", wrong.join("\n  "));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder`, in order; none if there is no such folder.
fn all_files(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The Rust files below `folder`; read once for all rules.
fn sources(folder: &str) -> Vec<&'static Source> {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let is_rust = |path: &String| Path::new(path).extension().is_some_and(|ext| ext == "rs");
        let source = |path: String| {
            let text = read(&path);
            let code = code_of(&text);
            Source { path, text, code }
        };
        let paths = all_files("src").into_iter().chain(all_files(TESTS));
        paths.filter(is_rust).map(source).collect()
    });
    let below = |source: &&Source| Path::new(&source.path).starts_with(folder);
    let sources: Vec<&Source> = SOURCES.iter().filter(below).collect();
    assert!(!sources.is_empty(), "{folder} holds no source: the rule would check nothing");
    sources
}

/// What people read: Markdown at the top and in `docs/`.
fn documents() -> Vec<String> {
    let is_markdown = |path: &String| Path::new(path).extension().is_some_and(|ext| ext == "md");
    top_level().into_iter().chain(all_files("docs")).filter(is_markdown).collect()
}

/// Names at the top, without those that `.gitignore` names there.
fn top_level() -> Vec<String> {
    let ignored = read(".gitignore");
    let is_ignored = |name: &str| {
        ignored.lines().filter_map(|line| line.trim().strip_prefix('/')).any(|line| line == name)
    };
    let mut names: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| !is_ignored(name))
        .collect();
    names.sort();
    names
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Normal,
    Dev,
}

/// Names of dependencies as they stand in code.
fn dependencies(section: Section) -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let mut tables: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut header = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            header = line.trim();
        } else if let Some((name, _)) = line.split_once('=')
            && !line.starts_with([' ', '#'])
        {
            tables.entry(header).or_default().insert(name.trim().replace('-', "_"));
        }
    }
    let wanted = |header: &str| match section {
        Section::Normal => header.ends_with("dependencies]") && !header.contains("dev-"),
        Section::Dev => header.ends_with("dev-dependencies]"),
    };
    tables.into_iter().filter(|(header, _)| wanted(header)).flat_map(|(_, names)| names).collect()
}

/// The first cells of a table, as names in code.
fn table(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| *cell != "crate")
        .map(|cell| cell.replace('-', "_"))
        .collect()
}

/// `in_09_…`: a test that shows fault IN-09 of the catalogue.
fn is_of_a_fault(name: &str) -> bool {
    let mut parts = name.split('_');
    let section = parts.next().unwrap_or_default();
    let number = parts.next().unwrap_or_default();
    ["in", "fi", "ck", "ka", "si", "pr", "cf", "sec"].contains(&section)
        && number.len() == 2
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn function_names(code: &str) -> Vec<String> {
    code.match_indices("fn ")
        .filter(|(at, _)| is_boundary(code[..*at].chars().next_back()))
        .map(|(at, word)| first_word(&code[at + word.len()..]))
        .collect()
}

// --- words and code ---------------------------------------------------------------------------

fn is_boundary(character: Option<char>) -> bool {
    character.is_none_or(|c| !c.is_alphanumeric() && c != '_')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| is_boundary(Some(c))).filter(|word| !word.is_empty())
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| !is_boundary(Some(*c))).collect()
}

/// Whether `text` has `word` (which may be a path) with nothing of a word around it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let behind = text[at + word.len()..].chars().next();
        is_boundary(text[..at].chars().next_back()) && (word.ends_with('{') || is_boundary(behind))
    })
}

/// Rust without comments and without what is in quotes; line ends stay.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let after_word = !is_boundary(code.chars().next_back());
        let length = comment(rest).or_else(|| quoted(rest, after_word));
        let length = if let Some(length) = length {
            code.push(' ');
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            length
        } else {
            code.push(next);
            next.len_utf8()
        };
        rest = &rest[length..];
    }
    code
}

/// The length of the comment that `text` begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The length of the string or character that `text` begins with, prefix and quotes included.
fn quoted(text: &str, after_word: bool) -> Option<usize> {
    let prefix =
        if after_word { 0 } else { text.find(|c| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(0) };
    let (prefix, body) = text.split_at(prefix);
    if prefix.contains('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let inside = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(prefix.len() + hashes + 1 + inside.find(&end)? + end.len());
    }
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut characters = body.char_indices().skip(1);
    let mut count = 0;
    while let Some((at, character)) = characters.next() {
        count += 1;
        match character {
            '\\' => drop(characters.next()),
            _ if character == quote && (quote == '"' || count > 1) => {
                return Some(prefix.len() + at + 1);
            }
            // A lifetime has no closing quote behind its first character.
            _ if quote == '\'' && !body[at + character.len_utf8()..].starts_with('\'') => {
                return None;
            }
            _ => {}
        }
    }
    None
}
