//! `validate`: judges the lines of a file as the daemon would, and delivers nothing.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{Arguments, Validate};
use super::{Exit, complain, complain_config, load, note};
use crate::config::Purpose;
use crate::domain::envelope::{EventTypes, Reason, Rejection, Verdict, validate as judge};
use crate::domain::framing::{Content, Frame, LineFramer};

const BLOCK_BYTES: usize = 256 << 10;

/// How often the progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Default, Serialize)]
struct Summary {
    lines: u64,
    valid: u64,
    rejected: u64,
    filtered: u64,
    blank: u64,
}

#[derive(Serialize)]
struct RejectedLine<'a> {
    line: u64,
    offset: u64,
    length: u64,
    reason: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
struct Last<'a> {
    summary: &'a Summary,
}

struct Validator<W: Write> {
    name: String,
    types: EventTypes,
    max_line_bytes: usize,
    json: bool,
    out: W,
    summary: Summary,
}

/// Checks the file and says what it found.
pub(super) fn validate(arguments: &Arguments, options: &Validate) -> Exit {
    let (types, max_line_bytes) = match limits(arguments) {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    let name = options.file.display().to_string();
    let input = match open(&options.file) {
        Ok(input) => input,
        Err(error) => return complain(&format_args!("{name}: {error}"), Exit::Io),
    };
    let out = BufWriter::new(io::stdout().lock());
    let summary = Summary::default();
    let mut validator =
        Validator { name: name.clone(), types, max_line_bytes, json: options.json, out, summary };
    match validator.run(input) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format_args!("{name}: {error}"), Exit::Io)
        }
        // Also when the reader of the output went away (`| head`).
        _ if validator.summary.rejected > 0 => Exit::Data,
        _ => Exit::Ok,
    }
}

/// Limits and lists of the configuration, if it is named or readable.
fn limits(arguments: &Arguments) -> Result<(EventTypes, usize), Exit> {
    let loaded = load(arguments, Purpose::Ask);
    let settings = loaded.for_common().map_err(|problems| complain_config(&problems))?;
    note(format_args!("limits and lists: {}", loaded.sources));
    Ok((settings.event_types, settings.max_line_bytes))
}

fn open(path: &Path) -> io::Result<(Box<dyn Read>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

impl<W: Write> Validator<W> {
    fn run(&mut self, (mut input, size): (Box<dyn Read>, Option<u64>)) -> io::Result<()> {
        let mut framer = LineFramer::new(0, b"", self.max_line_bytes);
        let mut progress = Progress::new(size);
        loop {
            let got = match input.read(framer.space(BLOCK_BYTES)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Ok(0) => break,
                got => got?,
            };
            framer.filled(got);
            while let Some(frame) = framer.next_frame() {
                self.line(&frame, true)?;
            }
            progress.show(framer.position(), self.summary.lines);
        }
        if let Some(frame) = framer.finish() {
            self.line(&frame, false)?;
        }
        progress.clear();
        self.finish()
    }

    fn line(&mut self, frame: &Frame, whole: bool) -> io::Result<()> {
        self.summary.lines += 1;
        let (length, rejection) = match &frame.content {
            Content::Blank => {
                self.summary.blank += 1;
                return Ok(());
            }
            Content::Oversize(line) => {
                let detail = format!(
                    "the line has {} bytes, the limit is {}",
                    line.length, self.max_line_bytes
                );
                (line.length, Rejection::new(Reason::TooLong, detail))
            }
            Content::Line(line) => match judge(line.as_slice(), &self.types) {
                Verdict::Valid(_) => {
                    self.summary.valid += 1;
                    return Ok(());
                }
                Verdict::Filtered => {
                    self.summary.filtered += 1;
                    return Ok(());
                }
                Verdict::Rejected(rejection) => (line.len() as u64, rejection),
            },
        };
        self.summary.rejected += 1;
        let rejection = if whole { rejection } else { rejection.at_end_of_file() };
        let offset = frame.span.start + frame.skipped;
        self.rejected(offset, length, &rejection)
    }

    fn rejected(&mut self, offset: u64, length: u64, rejection: &Rejection) -> io::Result<()> {
        let (line, reason, detail) =
            (self.summary.lines, rejection.reason.as_str(), rejection.detail.as_str());
        if self.json {
            serde_json::to_writer(
                &mut self.out,
                &RejectedLine { line, offset, length, reason, detail },
            )?;
            writeln!(self.out)
        } else {
            writeln!(self.out, "{}:{line}: offset {offset}: {reason}: {detail}", self.name)
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let Summary { lines, valid, rejected, filtered, blank } = &self.summary;
        if self.json {
            serde_json::to_writer(&mut self.out, &Last { summary: &self.summary })?;
            writeln!(self.out)?;
        } else {
            writeln!(
                self.out,
                "{}: {lines} lines: {valid} valid, {rejected} rejected, {filtered} filtered, {blank} blank",
                self.name
            )?;
        }
        self.out.flush()
    }
}

/// A line on a terminal that says how far it is.
struct Progress {
    size: Option<u64>,
    next: Option<Instant>,
}

impl Progress {
    fn new(size: Option<u64>) -> Self {
        let terminal = io::stderr().is_terminal() && io::stdout().is_terminal();
        Self { size, next: terminal.then(|| Instant::now() + PROGRESS_INTERVAL) }
    }

    fn show(&mut self, position: u64, lines: u64) {
        const WIDTH: u64 = 40;
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + PROGRESS_INTERVAL);
        let _ = match self.size.filter(|size| *size > 0) {
            Some(size) => {
                let done = (position.min(size) * WIDTH / size) as usize;
                let (bar, rest) = ("#".repeat(done), " ".repeat(WIDTH as usize - done));
                write!(io::stderr(), "\r[{bar}{rest}] {:3} %  {lines} lines", position * 100 / size)
            }
            None => write!(io::stderr(), "\r{lines} lines"),
        };
    }

    fn clear(&self) {
        if self.next.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
