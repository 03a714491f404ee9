//! The `.env` parser next to the real python-dotenv: the files in `cases/`, and thousands of small
//! files made at random, must mean the same to both.
//!
//! Python is asked once, for all of them. It gets every text as it is, a byte order mark included:
//! since 1.2.3 python-dotenv skips one as well. (To compare with an older release, take it off.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use openalgo_bridge::config::env_file::{parse, resolve};
use serde_json::{Value, json};

/// Both sides see these and nothing else as the process environment.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME_DIR", "/srv"), ("EMPTY", ""), ("SHADOW", "from-environment")];

const RANDOM_FILES: usize = 6_000;

/// What random files are made of: pieces that mean something to the dialect or look as if.
const PIECES: [&str; 60] = [
    "A",
    "B",
    "HOME_DIR",
    "SHADOW",
    "EMPTY",
    "export",
    "export ",
    "=",
    "=",
    "=",
    " = ",
    "'",
    "'",
    "\"",
    "\"",
    "\\",
    "\\",
    "\\'",
    "\\\"",
    "\\n",
    "\\x",
    "#",
    " #",
    " # ",
    "${",
    "${",
    "}",
    "}",
    ":-",
    ":",
    "-",
    "$",
    "${A}",
    "${B:-b}",
    "${SHADOW}",
    "${EMPTY:-x}",
    "${NONE:-d}",
    "x",
    "ä",
    "😀",
    " ",
    " ",
    "\t",
    "\u{b}",
    "\u{c}",
    "\u{1c}",
    "\u{1f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{200b}",
    "\u{feff}",
    "\0",
    "\n",
    "\n",
    "\n",
    "\nA=",
    "\r\n",
    "\r",
    "\nB='",
];

struct Input {
    name: String,
    text: String,
}

/// The inputs, and what python-dotenv says to each; or why it could not be asked.
struct Reference {
    version: String,
    cases: Vec<(Input, Value)>,
    random: Vec<(Input, Value)>,
}

static REFERENCE: LazyLock<Result<Reference, String>> = LazyLock::new(|| {
    let (cases, random) = (case_files()?, random_files());
    let texts: Vec<&str> = cases.iter().chain(&random).map(|input| input.text.as_str()).collect();
    let environment: BTreeMap<_, _> = ENVIRONMENT.into_iter().collect();
    let said = ask_python(&json!({ "environment": environment, "texts": texts }))?;
    let answers = said["answers"].as_array().filter(|answers| answers.len() == texts.len());
    let mut answers = answers.ok_or("reference.py left texts out")?.iter().cloned();
    let version = said["version"].as_str().unwrap_or("?").to_owned();
    let cases = cases.into_iter().zip(answers.by_ref()).collect();
    Ok(Reference { version, cases, random: random.into_iter().zip(answers).collect() })
});

fn reference() -> &'static Reference {
    REFERENCE.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dotenv")
}

fn ask_python(question: &Value) -> Result<Value, String> {
    let python = std::env::var_os("BRIDGE_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/python/bin/python3"),
        PathBuf::from,
    );
    if !python.exists() {
        return Err(format!("there is no {}: run `make tools`", python.display()));
    }
    let failed = |why: std::io::Error| format!("{}: {why}", python.display());
    let mut process = Command::new(&python)
        .arg(here().join("reference.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It reads everything before it answers, so neither pipe can fill up while the other is used.
    // If it died instead, its own words say more than the broken pipe.
    let _ = process.stdin.take().map(|mut pipe| pipe.write_all(question.to_string().as_bytes()));
    let output = process.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(format!("reference.py: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|why| format!("reference.py: {why}"))
}

fn case_files() -> Result<Vec<Input>, String> {
    let folder = here().join("cases");
    let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "env") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            cases.push(Input { name, text: std::fs::read_to_string(&path).map_err(failed)? });
        }
    }
    for (name, text) in [
        ("made: a very long value", format!("A={}\nB=1", "x ${A}#'".repeat(50_000))),
        ("made: a very long quoted value", format!("A='{}'\nB=1", "x\n${A}\\'".repeat(50_000))),
        ("made: a very long key", format!("{}=1\nB=1", "K".repeat(300_000))),
        ("made: a very long line that is none", format!("{}\nB=1", "= x".repeat(100_000))),
        ("made: many variables without an end", format!("A={}\nB=1", "${:${X:-".repeat(500))),
        (
            "made: many lines",
            (0..3_000).fold(String::new(), |text, n| text + &format!("K{n}={n}\n")),
        ),
    ] {
        cases.push(Input { name: name.to_owned(), text });
    }
    Ok(cases)
}

/// `SplitMix64`: the same files on every machine, without a dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn pieces(&mut self, most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.pick(&PIECES)).collect()
    }

    /// A line that is an assignment more often than not, so that much of the file counts.
    fn line(&mut self) -> String {
        let mut line = String::from(self.pick(&["", "", "", " ", "export ", "\u{a0}"]));
        line += self.pick(&["A", "B", "C", "SHADOW", "'A'", "'a b'", "\"A\"", "EMPTY"]);
        line += self.pick(&["=", "=", "=", " = ", "= ", "\t=\u{2003}", ""]);
        let quote = self.pick(&["", "'", "\""]);
        let inside = self.pieces(6);
        let _ = write!(line, "{quote}{inside}{quote}");
        line + self.pick(&["", "", " ", " # it's", "#", " x"]) + self.pick(&["\n", "\r\n", "\r"])
    }
}

fn random_files() -> Vec<Input> {
    let mut random = Random(20_260_105);
    (0..RANDOM_FILES)
        .map(|index| {
            let text = if index % 2 == 0 {
                random.pieces(30)
            } else {
                (0..=random.below(5)).map(|_| random.line()).collect()
            };
            Input { name: format!("random file {index}"), text }
        })
        .collect()
}

/// What our parser says, in the form of `reference.py`'s answers.
fn ours(text: &str) -> Value {
    let file = parse(text);
    let environment = |name: &str| {
        ENVIRONMENT.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let mut values = BTreeMap::new();
    let resolved = resolve(&file.assignments, &environment);
    assert_eq!(resolved.len(), file.assignments.len());
    for (assignment, value) in file.assignments.iter().zip(resolved) {
        values.insert(&assignment.key, value);
    }
    values.retain(|_, value| value.is_some());
    json!({
        "assignments": file.assignments.iter().map(|a| json!([a.line, a.key, a.value])).collect::<Vec<_>>(),
        "unparseable": file.unparseable.iter().map(|u| json!([u.line, u.text])).collect::<Vec<_>>(),
        "values": values,
    })
}

/// Says of every difference what it is, a long text shortened; fails if there is one.
#[track_caller]
fn check(answers: &[(Input, Value)]) {
    let shorten = |text: String| text.chars().take(600).collect::<String>();
    let mut differences = Vec::new();
    for (input, theirs) in answers {
        let ours = ours(&input.text);
        if ours != *theirs {
            differences.push(shorten(format!("{}: {:?}", input.name, input.text)));
            differences.push(shorten(format!("  ours:   {ours}")));
            differences.push(shorten(format!("  python: {theirs}")));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ from python-dotenv {} (1.2.4 is the dialect we speak):\n{}",
        differences.len() / 3,
        answers.len(),
        reference().version,
        differences[..differences.len().min(30)].join("\n"),
    );
}

#[test]
fn case_files_mean_what_python_dotenv_says() {
    assert!(reference().cases.len() >= 60, "cases are missing");
    check(&reference().cases);
}

#[test]
fn random_files_mean_what_python_dotenv_says() {
    check(&reference().random);
    // The files would prove little if they were all rubbish, or all plain.
    let with = |part: &str| {
        let says = |answer: &Value| answer[part].as_array().is_some_and(|list| !list.is_empty());
        reference().random.iter().filter(|(_, answer)| says(answer)).count()
    };
    assert!(with("assignments") > RANDOM_FILES / 2, "{}", with("assignments"));
    assert!(with("unparseable") > RANDOM_FILES / 4, "{}", with("unparseable"));
}

/// A checkout that converts line ends, or an editor that tidies up, would leave these cases empty.
#[test]
fn case_files_still_hold_their_odd_bytes() {
    for (name, bytes) in [
        ("crlf", "\r\n"),
        ("cr_alone", "\r"),
        ("bom", "\u{feff}"),
        ("nul", "\0"),
        ("space_unicode_around_equals", "\u{2003}"),
        ("space_trailing", " \n"),
    ] {
        let case = reference().cases.iter().find(|(input, _)| input.name == name);
        let text = case.map(|(input, _)| input.text.as_str()).unwrap_or_default();
        assert!(text.contains(bytes), "cases/{name}.env has lost its {bytes:?}");
        assert!(name != "cr_alone" || !text.contains('\n'), "cases/{name}.env has got a LF");
    }
}
