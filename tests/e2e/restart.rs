//! Everything at once while the broker is away: rotated, deleted, cut, and the daemon ended in the middle.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::account::{Base, HELD_MAX, expect_accounted, held};
use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::events::{Appender, event, padded_event};
use crate::support::wait_for;

/// A file that was written: its events, and where each begins. Its length is no other one's.
#[derive(Clone, Debug, Default)]
struct Written {
    events: Vec<(u64, u64)>,
    size: u64,
}

impl Written {
    fn line(&mut self, number: u64, line: &str) -> String {
        self.events.push((number, self.size));
        self.size += line.len() as u64 + 1;
        format!("{line}\n")
    }

    /// From where on something is missing, and to where.
    fn missing(&self, came: &HashSet<u64>) -> Option<(u64, u64)> {
        let at = self.events.iter().position(|(number, _)| !came.contains(number))?;
        let rest = self.events[at..].iter();
        assert!(rest.copied().all(|(number, _)| !came.contains(&number)), "a part: {self:?}");
        Some((self.events[at].1, self.size))
    }
}

/// Rename rotations whose writers notice late, with the broker away.
struct Load {
    bridge: Bridge,
    files: Vec<Written>,
    /// Those that nobody can read any more.
    gone: BTreeSet<usize>,
    late: Option<Appender>,
}

const ROTATIONS: usize = 200;

/// The number of the file that is cut, after those that are rotated.
const CUT: usize = ROTATIONS;

impl Load {
    fn rotated(&self, round: usize) -> PathBuf {
        let name = format!("order_events.jsonl-20260129-{round:06}");
        self.bridge.input().with_file_name(name)
    }

    fn append(&mut self, to: &mut Appender, round: usize, events: Range<u64>) {
        let first = round as u64 * 10;
        for number in events.map(|number| first + number) {
            let padding = if number == first { round } else { 0 };
            to.write(self.files[round].line(number, &padded_event(number, padding)).as_bytes());
        }
    }

    /// The file goes away under another name; its writer has not noticed, the one before that does now.
    fn rotate(&mut self, rounds: Range<usize>) {
        for round in rounds {
            let mut input = self.bridge.append();
            self.append(&mut input, round, 0..6);
            fs::rename(self.bridge.input(), self.rotated(round)).unwrap();
            self.append(&mut input, round, 6..8);
            if let Some(mut before) = self.late.replace(input) {
                self.append(&mut before, round - 1, 8..10);
            }
        }
    }

    /// Waits until the daemon knows how large each rotated file and the live one is: what it does not know
    /// it can't miss. Gives those that it holds.
    fn wait_until_known(&self, daemon: &Daemon) -> BTreeSet<usize> {
        let directory = self.bridge.input().parent().unwrap().to_owned();
        let sizes = fs::read_dir(directory).unwrap().flatten();
        let sizes: BTreeSet<u64> = sizes.map(|it| it.metadata().unwrap().len()).collect();
        wait_for("all sizes to be known", || {
            let checkpoint = self.bridge.checkpoint();
            let known = checkpoint["generations"].as_array().unwrap().iter();
            let known: BTreeSet<u64> = known.map(|it| it["size"].as_u64().unwrap()).collect();
            known.is_superset(&sizes).then_some(())
        });
        let round = |path: &PathBuf| {
            let path = path.to_string_lossy();
            path.split_once(".jsonl-20260129-")?.1[..6].parse().ok()
        };
        held(daemon).iter().filter_map(round).collect()
    }

    fn delete(&mut self, rounds: Range<usize>, held: &BTreeSet<usize>) {
        for round in rounds {
            fs::remove_file(self.rotated(round)).unwrap();
            if !held.contains(&round) {
                self.gone.insert(round);
            }
        }
    }
}

/// How the daemon ends in the middle of it, with the live file cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

impl Load {
    /// The live file is cut before anyone has opened it, and the daemon ended.
    fn cut_and_restart(&mut self, daemon: Daemon, end: End) -> Daemon {
        fs::write(self.bridge.input(), "").unwrap();
        self.gone.insert(CUT);
        match end {
            // What it held of deleted files is kept.
            End::Stopped => assert_eq!(daemon.stop(), 0),
            End::Killed => {
                self.gone.extend(0..80);
                daemon.kill();
            }
        }
        let daemon = self.bridge.start();
        daemon.wait_for_log("following the input");
        daemon
    }

    /// What could be read is there, and of the rest it is told what it was, to the byte.
    /// Gives the bytes of both.
    fn expect_delivered_or_told(&self, consumer: &Topic) -> (u64, u64) {
        let came: HashSet<u64> = consumer.numbers().into_iter().collect();
        let missing = self.files.iter().enumerate();
        let missing: BTreeMap<usize, (u64, u64)> =
            missing.filter_map(|(round, file)| Some((round, file.missing(&came)?))).collect();
        assert_eq!(missing.keys().copied().collect::<BTreeSet<_>>(), self.gone);
        let status = self.bridge.status();
        let told = status["ledger"]["lost"].as_array().unwrap().iter();
        let range = |it: &Value| (it["from"].as_u64().unwrap(), it["to"].as_u64().unwrap());
        let told: BTreeSet<_> = told.map(range).collect();
        assert_eq!(told, missing.values().copied().collect(), "what is missing is told");
        let lost: u64 = missing.values().map(|(from, to)| to - from).sum();
        let events = self.files.iter().map(|file| file.events.len()).sum::<usize>();
        println!(
            "{} of {events} came; {} files, {lost} bytes told as lost",
            came.len(),
            told.len()
        );
        let written: u64 = self.files.iter().map(|file| file.size).sum();
        (written - lost, lost)
    }
}

fn rotate_with_the_broker_away(broker: &Broker, end: Option<End>) {
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "20");
    bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "300");
    let files = vec![Written::default(); ROTATIONS + 2];
    let mut load = Load { bridge, files, gone: BTreeSet::new(), late: None };
    let mut oldest = load.bridge.append();
    oldest.write(load.files[0].line(9_999, &event(9_999)).as_bytes());
    let mut daemon = load.bridge.start();
    load.bridge.wait_until_settled();
    let base = Base::of(&daemon);
    broker.stop();

    load.rotate(0..ROTATIONS / 2);
    if end.is_some() {
        let mut live = load.bridge.append();
        load.append(&mut live, CUT, 0..10);
    }
    let held = load.wait_until_known(&daemon);
    assert_eq!(held.len(), HELD_MAX);
    load.delete(0..80, &held);
    if let Some(end) = end {
        daemon = load.cut_and_restart(daemon, end);
    } else {
        // Who has a file open that is deleted and held may still write to it.
        oldest.write(load.files[0].line(9_998, &event(9_998)).as_bytes());
    }
    load.rotate(ROTATIONS / 2..ROTATIONS);
    let held = load.wait_until_known(&daemon);
    load.delete(80..140, &held);
    let mut live = load.bridge.append();
    load.append(&mut live, ROTATIONS + 1, 0..10);

    broker.start_again();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let last = load.files[ROTATIONS + 1].events[9].0;
    wait_for("the last event", || {
        consumer.poll(Duration::from_millis(100));
        consumer.numbers().contains(&last).then_some(())
    });
    load.bridge.wait_until_settled();
    consumer.read_all();
    let bytes = load.expect_delivered_or_told(&consumer);
    expect_accounted(&load.bridge, daemon, &base, &mut consumer, bytes);
}

#[test]
fn in_06_in_20_200_rotations_and_deletions_while_the_broker_is_away_all_is_delivered_or_told() {
    rotate_with_the_broker_away(&Broker::start(), None);
}

#[test]
fn in_06_in_12_in_20_cut_and_stopped_amid_200_rotations_while_the_broker_is_away_all_is_delivered_or_told()
 {
    rotate_with_the_broker_away(&Broker::start(), Some(End::Stopped));
}

#[test]
fn in_06_in_12_in_20_cut_and_killed_amid_200_rotations_while_the_broker_is_away_all_is_delivered_or_told()
 {
    rotate_with_the_broker_away(&Broker::start(), Some(End::Killed));
}
