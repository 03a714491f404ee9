//! A simulation as a text: the configuration and one operation a line. Made from a seed, replayed from
//! a file, shortened by leaving lines out.

use std::fmt::Write as _;

use crate::rng::Rng;

/// What can happen. Each takes numbers, and means something in any state: a script that lost some of
/// its lines is still one.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident $text:literal $weight:literal ($($most:literal),*)),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $name),* }

        /// Its name in scripts, how often it is drawn, and how large its numbers are at most.
        const KINDS: &[(Kind, &str, u64, &[u64])] = &[$((Kind::$name, $text, $weight, &[$($most),*])),*];
    };
}

operations! {
    /// A whole line; its kind, what is before or behind it, whether over an unfinished one.
    Append "append" 300 (767, 15, 3),
    /// The beginning of a line, or more of it: how much.
    Piece "piece" 60 (767, 150),
    /// The rest of it.
    Finish "finish" 50 (),
    /// What was written to the input becomes durable.
    Fsync "fsync" 15 (),
    /// Renamed, a new one created.
    Rotate "rotate" 30 (),
    /// Renamed, none created.
    MoveAway "move-away" 10 (),
    /// Created, if missing: with which beginning.
    Create "create" 20 (3),
    /// The newest sibling comes back.
    MoveBack "move-back" 4 (),
    /// Copied aside, then cut to nothing: what happens between the two.
    CopyTruncate "copytruncate" 20 (3),
    /// So many at once, and whether the daemon has a turn after each.
    Rotations "rotations" 1 (80, 1),
    /// By an editor, into a new file: whether with a line more.
    Save "save" 8 (1),
    /// Cut to so many thousandths of its size.
    Truncate "truncate" 12 (1000),
    /// Other content in place: lines, and whether it is longer than before.
    Rewrite "rewrite" 10 (5, 1),
    /// The last lines of its own content in place, and whether the daemon looks while it is empty.
    Trim "trim" 12 (3, 1),
    Unlink "unlink" 10 (),
    /// The oldest sibling is deleted.
    DeleteOldest "delete-oldest" 10 (),
    /// A line by who has a file still open: the newest sibling, or (1) one that was replaced.
    Late "late" 20 (767, 1),
    /// The rest of an unfinished line there.
    LateFinish "late-finish" 8 (),
    /// May not be read (0), or may again.
    Chmod "chmod" 12 (2),
    /// The same for the directory.
    ChmodDirectory "chmod-directory" 5 (2),
    /// Something else is at the path, or no more: what, and whether the file comes back.
    Obstacle "obstacle" 8 (1, 1),
    /// A run of NULs at the end.
    Nuls "nuls" 8 (600),
    /// So many calls on the input fail.
    ReadErrors "read-errors" 15 (2, 4),
    /// So many reads give less than was asked for.
    ShortReads "short-reads" 15 (4, 300),
    /// Time passes, a turn: milliseconds, whether a hint came, whether the disk works.
    Poll "poll" 400 (400, 1, 3),
    /// The state writer does what it has.
    Disk "disk" 60 (),
    /// So many acknowledgements, in an order.
    Acks "acks" 230 (12, 63),
    /// The same report again.
    AckAgain "ack-again" 8 (),
    /// What was sent and is not acknowledged goes again.
    Nack "nack" 25 (),
    SinkDown "sink-down" 12 (),
    SinkUp "sink-up" 40 (),
    /// Calls on the state directory fail: which, how, how many.
    StateErrors "state-errors" 20 (7, 3, 6),
    StateHealed "state-healed" 15 (),
    /// The state directory is removed.
    StateRemoved "state-removed" 2 (),
    /// The process dies, after so many more calls on the state directory.
    Kill "kill" 12 (12),
    /// The machine dies: with which luck, after so many more calls.
    PowerCut "power-cut" 8 (4095, 12),
    /// Copies of the checkpoint are damaged while the daemon is down.
    Damage "damage" 3 (15, 4095),
    Start "start" 120 (),
    /// A clean stop, if everything can be settled.
    Stop "stop" 8 (),
    /// Everything heals, and everything must have arrived.
    Quiesce "quiesce" 5 (),
    /// Minutes pass.
    Minutes "minutes" 5 (10),
    /// The wall clock jumps: seconds, which way.
    WallClock "wall-clock" 4 (4000, 1),
}

/// One line of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) numbers: [u64; 3],
}

/// What stays the same over a simulation.
#[allow(clippy::struct_excessive_bools)] // any of them goes with any other
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) max_line: u64,
    pub(crate) interval_ms: u64,
    /// Begins at the end of what is there.
    pub(crate) at_end: bool,
    /// Every file begins with the same line.
    pub(crate) headers: bool,
    /// The file system knows when a file was born.
    pub(crate) births: bool,
    /// The file system gives a freed inode to the next file.
    pub(crate) reuses: bool,
    /// How many records the sink sends before the first is acknowledged.
    pub(crate) window: u64,
    pub(crate) rejects_bytes: u64,
    /// How rotated files are called, and how many are kept.
    pub(crate) naming: u64,
    pub(crate) keep: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) config: Config,
    pub(crate) ops: Vec<Op>,
}

pub(crate) const OPS_PER_SEED: usize = 500;

impl Script {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            records: rng.within(1, 40),
            bytes: rng.within(100, 6_000),
            max_line: rng.within(180, 400),
            interval_ms: rng.within(100, 1_500),
            at_end: rng.percent(10),
            headers: rng.percent(30),
            births: rng.percent(80),
            reuses: rng.percent(50),
            window: rng.within(1, 30),
            rejects_bytes: rng.within(600, 6_000),
            naming: rng.within(0, 3),
            keep: [2, 3, 6, 100][rng.below(4) as usize],
        };
        // Each seed has its own weather: some operations are rare or missing in it.
        let weights: Vec<u64> = KINDS
            .iter()
            .map(|(kind, _, weight, _)| match kind {
                Kind::Poll | Kind::Acks | Kind::Append | Kind::Start | Kind::SinkUp => *weight,
                _ => weight * [0, 1, 1, 1, 2, 4][rng.below(6) as usize],
            })
            .collect();
        let sum: u64 = weights.iter().sum();
        let mut ops = Vec::with_capacity(OPS_PER_SEED);
        while ops.len() < OPS_PER_SEED {
            let mut drawn = rng.below(sum);
            let found = KINDS.iter().zip(&weights).find(|(_, weight)| {
                let here = drawn < **weight;
                drawn = drawn.wrapping_sub(**weight);
                here
            });
            let Some(((kind, _, _, most), _)) = found else { continue };
            let mut numbers = [0; 3];
            for (number, most) in numbers.iter_mut().zip(*most) {
                *number = rng.within(0, *most);
            }
            ops.push(Op { kind: *kind, numbers });
        }
        Self { config, ops }
    }

    pub(crate) fn to_text(&self) -> String {
        let c = &self.config;
        let mut text = format!(
            "config records={} bytes={} max_line={} interval_ms={} at_end={} headers={} births={} \
             reuses={} window={} rejects_bytes={} naming={} keep={}\n",
            c.records,
            c.bytes,
            c.max_line,
            c.interval_ms,
            u64::from(c.at_end),
            u64::from(c.headers),
            u64::from(c.births),
            u64::from(c.reuses),
            c.window,
            c.rejects_bytes,
            c.naming,
            c.keep
        );
        for op in &self.ops {
            let _ = writeln!(text, "{op}");
        }
        text
    }

    /// Reads what [`Script::to_text`] wrote; lines that begin with `#` are for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let first = lines.next().ok_or("an empty script")?;
        let number = |name: &str| {
            let found =
                first.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.and_then(|value| value.parse::<u64>().ok()).ok_or(format!("no {name}: {first}"))
        };
        let config = Config {
            records: number("records")?,
            bytes: number("bytes")?,
            max_line: number("max_line")?,
            interval_ms: number("interval_ms")?,
            at_end: number("at_end")? != 0,
            headers: number("headers")? != 0,
            births: number("births")? != 0,
            reuses: number("reuses")? != 0,
            window: number("window")?,
            rejects_bytes: number("rejects_bytes")?,
            naming: number("naming")?,
            keep: number("keep")?,
        };
        let ops = lines.map(Op::parse).collect::<Result<_, _>>()?;
        Ok(Self { config, ops })
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((_, name, _, most)) = KINDS.iter().find(|(kind, ..)| *kind == self.kind) else {
            return f.write_str("?");
        };
        f.write_str(name)?;
        self.numbers.iter().take(most.len()).try_for_each(|number| write!(f, " {number}"))
    }
}

impl Op {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let (kind, ..) = KINDS
            .iter()
            .find(|(_, known, ..)| *known == name)
            .ok_or(format!("no such operation: {line}"))?;
        let mut numbers = [0; 3];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.parse().map_err(|_| format!("no number: {line}"))?;
        }
        Ok(Self { kind: *kind, numbers })
    }
}
