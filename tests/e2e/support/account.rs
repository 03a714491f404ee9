//! Where every byte went and what a daemon takes: the ledger adds up, and all that was taken is given back.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::consumer::{Topic, assert_first_deliveries_in_order};
use super::daemon::{Bridge, Daemon};
use super::{PATIENCE, poll, wait_for};

/// How many rotated files may be held open, in case their writers come back.
pub const HELD_MAX: usize = 64;

/// A note, a connection, a thread of librdkafka's may come later; a leak would be one a rotation.
const LATE: usize = 5;

/// How much more memory there may be.
const GROWN_MAX_KB: u64 = 8 << 10;

/// What a daemon takes beside the files of its input, at a quiet moment.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    descriptors: usize,
    threads: usize,
    watches: usize,
    memory_kb: u64,
}

impl Base {
    /// What it takes now.
    pub fn of(daemon: &Daemon) -> Self {
        Self {
            descriptors: own_descriptors(daemon),
            threads: fs::read_dir(proc(daemon, "task")).expect("a daemon").count(),
            watches: watches(daemon),
            memory_kb: daemon.memory_kb("VmRSS"),
        }
    }

    /// Waits until it takes no more than that, and holds no more files open than it may.
    #[track_caller]
    pub fn expect_back(&self, daemon: &Daemon) {
        // And the live one.
        self.expect_back_with(daemon, HELD_MAX + 1, PATIENCE);
    }

    /// The same, with `most` files open, in so much time.
    #[track_caller]
    pub fn expect_back_with(&self, daemon: &Daemon, most: usize, patience: Duration) {
        let given_back = poll(patience, || {
            let now = Self::of(daemon);
            let given_back = held(daemon).len() <= most
                && now.descriptors <= self.descriptors + LATE
                && now.threads <= self.threads + LATE
                && now.watches == self.watches
                && now.memory_kb <= self.memory_kb + GROWN_MAX_KB;
            given_back.then_some(())
        });
        let now = (held(daemon).len(), Self::of(daemon));
        println!("{now:?} after {self:?}");
        assert!(given_back.is_some(), "{now:?} are held, not {most} and {self:?}");
    }
}

fn proc(daemon: &Daemon, what: &str) -> String {
    format!("/proc/{}/{what}", daemon.pid())
}

/// Hundredths of a second that it has spent on a processor.
pub fn ticks(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(proc(daemon, "stat")).expect("a daemon");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("its name").split(' ').collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

/// The files of the input that are open.
pub fn held(daemon: &Daemon) -> Vec<PathBuf> {
    let open = fs::read_dir(proc(daemon, "fd")).expect("a daemon").flatten();
    let names = open.filter_map(|it| fs::read_link(it.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("/events/")).collect()
}

/// What it opened itself, without files of the input. What it was given from the start, by the tests that
/// run beside this one, stayed open over `exec`; nothing else would.
fn own_descriptors(daemon: &Daemon) -> usize {
    const CLOSED_ON_EXEC: u64 = 0o2_000_000;
    let infos = infos(daemon);
    let flags = |info: &String| {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u64::from_str_radix(flags.trim(), 8).ok()
    };
    let own = infos.iter().filter(|info| flags(info).is_some_and(|it| it & CLOSED_ON_EXEC != 0));
    own.count().saturating_sub(held(daemon).len())
}

/// How many directories the daemon watches.
pub fn watches(daemon: &Daemon) -> usize {
    let lines = infos(daemon);
    lines.iter().flat_map(|text| text.lines()).filter(|it| it.starts_with("inotify wd:")).count()
}

fn infos(daemon: &Daemon) -> Vec<String> {
    let infos = fs::read_dir(proc(daemon, "fdinfo")).expect("a daemon").flatten();
    infos.filter_map(|info| fs::read_to_string(info.path()).ok()).collect()
}

/// Waits until nothing is pending and `read` bytes are, asserts that each of them is in one class and
/// `lost` others are told, and gives the ledger.
#[track_caller]
pub fn expect_ledger_adds_up(bridge: &Bridge, read: u64, lost: u64) -> Value {
    let ledger = || bridge.status()["ledger"].clone();
    let settled = poll(PATIENCE, || {
        let ledger = ledger();
        (ledger["bytes"]["read"] == read && ledger["bytes"]["pending"] == 0).then_some(ledger)
    });
    let ledger = settled.unwrap_or_else(|| panic!("not {read} bytes in {:#}", ledger()));
    for unit in ["bytes", "lines"] {
        let classes = ["delivered", "rejected", "filtered", "blank", "pending"];
        let sum: u64 = classes.iter().map(|class| ledger[unit][class].as_u64().unwrap()).sum();
        assert_eq!(ledger[unit]["read"], sum, "{unit}: {ledger}");
    }
    let ranges = ledger["lost"].as_array().expect("ranges").iter();
    let told: u64 =
        ranges.map(|it| it["to"].as_u64().unwrap() - it["from"].as_u64().unwrap()).sum();
    assert_eq!((told, &ledger["bytes"]["lost"]), (lost, &lost.into()), "{ledger:#}");
    ledger
}

/// At the end of whatever happened: the ledger says what is in the topic, each event counted once; all that
/// the daemon took is given back; and after a restart it is all the same. `read` and `lost` are bytes.
#[track_caller]
pub fn expect_accounted(
    bridge: &Bridge,
    daemon: Daemon,
    base: &Base,
    topic: &mut Topic,
    (read, lost): (u64, u64),
) {
    let before = expect_ledger_adds_up(bridge, read, lost);
    let records = topic.read_all().to_vec();
    let events: HashMap<_, _> =
        records.iter().map(|it| (it.header("ce_id"), it.payload.len() as u64 + 1)).collect();
    let (bytes, lines): (u64, usize) = (events.values().sum(), events.len());
    assert_eq!(before["bytes"]["delivered"], bytes, "is not what came: {before:#}");
    assert_eq!(before["lines"]["delivered"], lines, "are not those that came: {before:#}");
    base.expect_back(&daemon);
    assert_eq!(daemon.stop(), 0);

    let daemon = bridge.start();
    wait_for("the input to be followed", || {
        (bridge.status()["state"] == "following").then_some(())
    });
    let after = expect_ledger_adds_up(bridge, read, lost);
    assert_eq!(after, before, "a restart changes nothing");
    base.expect_back(&daemon);
    assert_eq!(topic.read_all().len(), records.len(), "repeated after a restart");
    assert_eq!(daemon.stop(), 0);
}

/// Waits until all that is in the input is settled, and asserts that events 0 to `count` are in the topic,
/// the first deliveries in order, and none again that did not go through another producer; that each is once
/// in the ledger and none in the rejects, and that nothing is wrong any more. For one life of the daemon.
#[track_caller]
pub fn expect_all_delivered(bridge: &Bridge, bootstrap: &str, topic: &str, count: u64) {
    bridge.wait_until_settled();
    let mut consumer = Topic::open(bootstrap, topic);
    let numbers = consumer.wait_for_events(count as usize);
    let delivered: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(delivered, (0..count).collect());
    assert_first_deliveries_in_order(&consumer.records);
    expect_nothing_wrong(bridge, count);
    let repeated = numbers.len() as u64 - count;
    let retries = bridge.status()["sink"]["retries"].as_u64().expect("a number");
    println!("{count} events, {repeated} came again of {retries} that went again");
    assert!(repeated <= retries, "{repeated} came again, and {retries} went again");
}

/// Asserts that `count` lines are delivered and none put aside, and that soon nothing is wrong any more.
#[track_caller]
pub fn expect_nothing_wrong(bridge: &Bridge, count: u64) {
    let size = fs::metadata(bridge.input()).expect("the input").len();
    let ledger = expect_ledger_adds_up(bridge, size, 0);
    let lines = &ledger["lines"];
    assert_eq!((&lines["delivered"], &lines["rejected"]), (&count.into(), &0.into()), "{lines}");
    assert!(bridge.rejects().is_empty());
    // librdkafka may complain of what is over.
    wait_for("the sink to be up", || {
        let sink = bridge.status()["sink"].clone();
        (sink["state"] == "up" && sink["reason"].is_null()).then_some(())
    });
}
