//! The rollback drill: one line of `.env` and a restart, and the next event comes out of the other side.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::{ENV_FILE, INPUT, Machine, UNIT, measured};
use crate::start::client;
use crate::support::broker::Broker;
use crate::support::events::{Appender, event, number};
use crate::support::socketio::{Event, Standard};
use crate::support::wait_for;
use crate::topic::messages;

pub const TOPIC: &str = "orders";

/// From the edited line to the first event, the client's own pauses of up to 7.5 s included.
const TO_SOCKETIO: Duration = Duration::from_secs(10);
const TO_KAFKA: Duration = Duration::from_secs(5);

/// An app that appends a line every few milliseconds until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    pub fn from(machine: &Machine, first: u64) -> Self {
        let (path, stop) = (machine.path(INPUT), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut input = Appender::open(&path);
            let mut next = first;
            while !stopped.load(Ordering::Relaxed) {
                input.events([next]);
                next += 1;
                // The load, a hundred lines a second.
                std::thread::park_timeout(Duration::from_millis(10));
            }
            next
        });
        Self { stop, thread }
    }

    /// The number that would come next.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A consumer of the topic's new events, whose last number is known as soon as it comes.
pub struct Tail {
    child: Child,
    last: Arc<Mutex<Option<u64>>>,
}

impl Tail {
    pub fn of(machine: &Machine, broker: &Broker) -> Self {
        let network = machine.network();
        let mut child = Command::new(&network[0])
            .args(&network[1..])
            // Without -E it ends when a broker that a test holds does not answer.
            .args(["kcat", "-C", "-E", "-u", "-q", "-b", &broker.bootstrap, "-t", TOPIC])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kcat");
        let last = Arc::new(Mutex::new(None));
        let (shared, output) = (Arc::clone(&last), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                *shared.lock().unwrap() = Some(number(line.as_bytes()));
            }
        });
        Self { child, last }
    }

    pub fn last(&self) -> Option<u64> {
        *self.last.lock().unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine with a broker and a browser's page, so to say, that is left open all the time.
pub struct Drill {
    pub machine: Machine,
    pub broker: Broker,
    pub page: Standard,
    /// Which file is edited, and which unit is restarted then.
    pub typed: (&'static str, &'static str),
}

impl Drill {
    /// In Kafka mode, with the page trying in vain.
    pub fn start(more: &[(&str, &str)]) -> Self {
        let machine = Machine::with_bridge();
        let broker = Broker::new(&machine.network(), true);
        let servers = broker.bootstrap.clone();
        let settings = [
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", &servers),
            ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
        ];
        machine.configure(ENV_FILE, &[&settings, more].concat());
        machine.append(0..1);
        machine.start(UNIT);
        machine.wait_until_delivered(1);
        let page = client(&machine);
        Self { machine, broker, page, typed: (ENV_FILE, UNIT) }
    }

    /// Changes a line of the `.env`, as with an editor: nothing else of it.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.machine.path(self.typed.0);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Waits until the page has tried in vain so often that its pauses have become long.
    pub fn wait_for_long_pauses(&self) {
        let failed = |lines: &[serde_json::Value]| {
            lines.iter().rev().take_while(|line| line.get("connect_error").is_some()).count()
        };
        wait_for("the client to try seldom", || (failed(&self.page.lines()) >= 4).then_some(()));
    }

    /// To Socket.IO and until the page has its next event.
    #[track_caller]
    pub fn to_socketio(&self, what: &str) {
        let before = self.page.events().len();
        let began = Instant::now();
        self.edit("'KAFKA'", "'SOCKETIO'");
        self.machine.succeed(&["systemctl", "restart", self.typed.1]);
        let restarted = began.elapsed();
        wait_for("the next event", || (self.page.events().len() > before).then_some(()));
        let took = began.elapsed();
        measured(&format!("to SOCKETIO, {what}, the restart alone"), restarted);
        measured(&format!("to SOCKETIO, {what}, from edit to first event"), took);
        assert!(took < TO_SOCKETIO, "{what}: {took:?}");
    }

    /// To Kafka and until the topic has its next event.
    #[track_caller]
    pub fn to_kafka(&self, tail: &Tail) {
        let before = tail.last();
        let began = Instant::now();
        self.edit("'SOCKETIO'", "'KAFKA'");
        self.machine.succeed(&["systemctl", "restart", self.typed.1]);
        wait_for("the next message", || (tail.last() > before).then_some(()));
        let took = began.elapsed();
        measured("to KAFKA, from edit to first event", took);
        assert!(took < TO_KAFKA, "{took:?}");
    }

    fn unsettled(&self) -> usize {
        unsettled(&self.machine)
    }

    /// Each line below `end`, but for those in `lost`, is in a sink, and in both are no more than a stop said;
    /// the page got them in order. Gives how many are in both.
    #[track_caller]
    pub fn expect_in_one_of_both(&self, end: u64, lost: &BTreeSet<u64>) -> usize {
        caught_up(&self.machine);
        let shown: Vec<u64> = self.page.events().iter().map(Event::number).collect();
        assert!(shown.is_sorted_by(|a, b| a < b), "the page: {shown:?}");
        in_one_of_both(&self.machine, &self.broker, &shown.into_iter().collect(), end, lost)
    }
}

fn caught_up(machine: &Machine) {
    machine.succeed(&["openalgo-bridge", "status", "--caught-up", "--wait", "60"]);
}

/// How many lines the daemon said that it left unsettled, over all of its stops.
pub fn unsettled(machine: &Machine) -> usize {
    let journal = machine.journal(UNIT);
    let ends: Vec<&str> = journal
        .lines()
        .filter(|line| line.contains("stopped at the deadline: lines in flight"))
        .collect();
    let count = |line: &&str| -> usize {
        let (_, count) = line.split_once("in_flight=").expect("how many");
        count.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(journal.contains("stopped: everything that was read is settled") || !ends.is_empty());
    ends.iter().map(count).sum()
}

/// Once it has caught up: each line below `end`, but for those in `lost`, was `shown` or is in the topic, and both
/// are no more than a stop said. Gives how many are both.
#[track_caller]
pub fn in_one_of_both(
    machine: &Machine,
    broker: &Broker,
    shown: &BTreeSet<u64>,
    end: u64,
    lost: &BTreeSet<u64>,
) -> usize {
    caught_up(machine);
    let messages = messages(machine, broker, TOPIC);
    let in_topic: BTreeSet<u64> = messages.iter().map(|(number, _)| *number).collect();
    let seen: BTreeSet<u64> = shown.union(&in_topic).copied().collect();
    let missing: BTreeSet<u64> = (0..end).filter(|number| !seen.contains(number)).collect();
    assert_eq!(&missing, lost, "in neither");
    let both = shown.intersection(&in_topic).count();
    // What is twice in the topic, for the same reason.
    let twice = messages.len() - in_topic.len();
    let unsettled = unsettled(machine);
    eprintln!(
        "measured: {end} lines, {} shown, {} in the topic, {both} in both, {twice} twice in the topic, {unsettled} unsettled at stops",
        shown.len(),
        in_topic.len()
    );
    assert!(both + twice <= unsettled, "{both} in both, {twice} twice, {unsettled} unsettled");
    both
}

#[test]
fn rolled_back_under_load_and_forth_again_no_line_is_missing_or_repeated() {
    let drill = Drill::start(&[]);
    let tail = Tail::of(&drill.machine, &drill.broker);
    let load = Load::from(&drill.machine, 1);
    for round in 1..=3 {
        wait_for("messages", || (tail.last() > Some(10)).then_some(()));
        drill.wait_for_long_pauses();
        drill.to_socketio(&format!("round {round}"));
        let shown = drill.page.events().len();
        drill.page.wait_for_events(shown + 100);
        assert_eq!(drill.machine.status()["sink"]["delivered_to_nobody"], 0);
        drill.to_kafka(&tail);
    }
    let end = load.stop();
    drill.expect_in_one_of_both(end, &BTreeSet::new());
    assert_eq!(drill.unsettled(), 0);
}

#[test]
fn pr_03_rolled_back_with_the_broker_dead_and_its_setting_broken_no_line_is_missing() {
    let drill = Drill::start(&[]);
    let load = Load::from(&drill.machine, 1);
    drill.wait_for_long_pauses();
    drill.broker.stop();
    wait_for("the outage", || (drill.machine.status()["sink"]["state"] == "down").then_some(()));
    drill.to_socketio("the broker dead");

    // What is wrong with the other mode is a warning; in its own it ends the start.
    let broker = format!("'{}'", drill.broker.bootstrap);
    drill.edit(&broker, "'not an address'");
    drill.edit("'SOCKETIO'", "'KAFKA'");
    assert!(!drill.machine.systemctl("restart", UNIT).status.success());
    drill.machine.wait_for_property(UNIT, "ActiveState", "failed");
    assert_eq!(drill.machine.number(UNIT, "ExecMainStatus"), 78);
    drill.wait_for_long_pauses();
    drill.to_socketio("KAFKA_BOOTSTRAP_SERVERS broken");
    assert!(drill.machine.journal(UNIT).contains("KAFKA_BOOTSTRAP_SERVERS = 'not an address'"));

    drill.broker.start_again();
    let end = load.stop();
    drill.expect_in_one_of_both(end, &BTreeSet::new());
}

#[test]
fn in_12_rolled_back_with_the_file_cut_while_the_broker_is_dead_what_was_read_comes_and_the_rest_is_told()
 {
    let drill = Drill::start(&[("BRIDGE_MAX_IN_FLIGHT", "10")]);
    drill.wait_for_long_pauses();
    drill.broker.stop();
    // More than is read at once.
    drill.machine.append(1..3_000);
    let size = fs::metadata(drill.machine.path(INPUT)).unwrap().len();
    wait_for("the size to be known", || {
        let status = drill.machine.status();
        (status["input"]["size"] == size && status["sink"]["state"] == "down").then_some(())
    });
    fs::write(drill.machine.path(INPUT), format!("{}\n", event(3_000))).unwrap();
    let load = Load::from(&drill.machine, 3_001);
    drill.to_socketio("the file cut, the broker dead");
    let end = load.stop();
    drill.broker.start_again();

    let last = || drill.page.events().last().map(Event::number);
    wait_for("the last event", || (last() == Some(end - 1)).then_some(()));
    let shown: BTreeSet<u64> = drill.page.events().iter().map(Event::number).collect();
    let read = (1..3_000).take_while(|number| shown.contains(number)).count() as u64;
    assert!(read > 10 && read < 2_998, "{read} of them were read");
    drill.expect_in_one_of_both(end, &(1 + read..3_000).collect());
    // To the byte: what came, the line that was torn by the cut, the rest.
    let ledger = drill.machine.status()["ledger"].clone();
    let length = |numbers: std::ops::Range<u64>| {
        numbers.map(|number| event(number).len() as u64 + 1).sum::<u64>()
    };
    let lost = &ledger["lost"][0];
    assert_eq!(lost["to"], size, "{ledger}");
    let torn = lost["from"].as_u64().unwrap() - length(0..1 + read);
    assert!(torn < length(1 + read..2 + read), "{ledger}");
    assert_eq!(ledger["bytes"]["rejected"], torn, "{ledger}");
    assert_eq!(ledger["bytes"]["delivered"], length(0..1 + read) + length(3_000..end), "{ledger}");
    eprintln!(
        "measured: the file cut: {read} of 2999 lines came, {torn} bytes torn, {} lost",
        ledger["bytes"]["lost"]
    );
    assert!(drill.machine.journal(UNIT).contains("what was kept of a file that is gone is read"));
}
