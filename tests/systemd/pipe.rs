//! A named pipe and its keeper: whatever becomes of the daemon, writers see no error and no line is lost.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::{ENV_FILE, Machine, NO_BROKER, UNIT};
use crate::panics;
use crate::support::broker::Broker;
use crate::support::events::event;
use crate::support::wait_for;
use crate::topic::messages;

const KEEPER: &str = "openalgo-bridge-pipe.service";
const PIPE: &str = "/var/lib/openalgo-events/order_events.pipe";
const TOPIC: &str = "orders";

/// How often the daemon is killed: before the sink goes away, while it is away, and afterwards.
const KILLS: [u32; 3] = [20, 10, 20];

/// How long the sink is away, at least.
const OUTAGE: Duration = Duration::from_mins(1);

/// Lines of each writer have numbers of their own: this many times its own, and up.
const NUMBERS: u64 = 1_000_000;

/// As the README has it: the directory is the app's, and the keeper runs before anyone writes.
fn with_keeper() -> Machine {
    let machine = Machine::with_bridge();
    machine.succeed(&["chown", "daemon", "/var/lib/openalgo-events"]);
    machine.succeed(&["systemctl", "enable", "--now", KEEPER]);
    machine
}

/// Opens the pipe as an app does that will not wait: without a reader, that is `ENXIO`.
fn writer(path: &PathBuf) -> File {
    // O_NONBLOCK
    let opened = OpenOptions::new().write(true).custom_flags(0o4000).open(path);
    drop(opened.expect("no writer finds the pipe without a reader"));
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Writes lines from `first` on, each by one call. Rust ignores `SIGPIPE`: what would kill a program is an error.
fn write(file: &mut File, number: u64) {
    file.write_all(format!("{}\n", event(number)).as_bytes()).expect("no writer sees an error");
}

/// Threads that write until they are told to stop; half of them open the pipe for each line.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(machine: &Machine, begin: &[u64]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |(index, begin): (usize, &u64)| {
            let (path, stop) = (machine.path(PIPE), Arc::clone(&stop));
            let mut next = *begin;
            std::thread::spawn(move || {
                let mut file = writer(&path);
                while !stop.load(Ordering::Relaxed) {
                    if index % 2 == 1 {
                        file = writer(&path);
                    }
                    write(&mut file, index as u64 * NUMBERS + next);
                    next += 1;
                    // Their pace.
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                next
            })
        };
        let threads = begin.iter().enumerate().map(thread).collect();
        Self { stop, threads }
    }

    /// Where each would go on.
    fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("no writer fails")).collect()
    }
}

/// Writes a thousand lines of the first writer: more than a pipe holds that nobody has made larger.
fn write_a_thousand(machine: &Machine, written: &mut [u64]) {
    let (path, first) = (machine.path(PIPE), written[0]);
    written[0] += 1_000;
    let thread = std::thread::spawn(move || {
        let mut file = writer(&path);
        (first..first + 1_000).for_each(|number| write(&mut file, number));
    });
    wait_for("room in the pipe", || thread.is_finished().then_some(()));
    thread.join().expect("no writer fails");
}

/// Kills the daemon as often, each time once systemd has started it again and it is ready.
#[track_caller]
fn kill(machine: &Machine, times: u32, killed: &mut u64) {
    for _ in 0..times {
        machine.succeed(&["systemctl", "kill", "--signal=SIGKILL", UNIT]);
        *killed += 1;
        machine.wait_for_restarts(UNIT, *killed);
    }
}

/// The sink is away for a minute in which the daemon is killed again and again, in equal steps.
fn kill_while_the_sink_is_down(machine: &Machine, broker: &Broker, killed: &mut u64) {
    broker.stop();
    let began = Instant::now();
    let delivered = |machine: &Machine| {
        let status = wait_for("the outage", || {
            let status = machine.status();
            (status["sink"]["state"] == "down").then_some(status)
        });
        status["ledger"]["lines"]["delivered"].as_u64().unwrap()
    };
    let before = delivered(machine);
    for step in 1..=KILLS[1] {
        kill(machine, 1, killed);
        let until = OUTAGE * step / KILLS[1];
        wait_for("the step's end", || (began.elapsed() >= until).then_some(()));
    }
    // A kill forgets what the last checkpoint had not counted yet.
    assert!(delivered(machine) <= before, "the sink was not away all the time");
    broker.start_again();
}

fn caught_up(machine: &Machine) {
    machine.succeed(&["openalgo-bridge", "status", "--caught-up", "--wait", "60"]);
}

/// All came, first deliveries of each writer in order. Gives how many came again.
#[track_caller]
fn expect_all(machine: &Machine, broker: &Broker, written: &[u64]) -> usize {
    caught_up(machine);
    let messages = messages(machine, broker, TOPIC);
    // A topic keeps the order of a user's events, and in its one partition, of all.
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, _) in &messages {
        let expected = next.entry(number / NUMBERS).or_default();
        assert!(number % NUMBERS <= *expected, "{number} comes before {expected}");
        *expected += u64::from(number % NUMBERS == *expected);
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), written);
    let ledger = &machine.status()["ledger"];
    assert_eq!(ledger["bytes"]["lost"], 0, "{ledger}");
    assert_eq!(ledger["bytes"]["rejected"], 0, "{ledger}");
    assert_eq!(ledger["bytes"]["read"], ledger["bytes"]["delivered"], "{ledger}");
    assert_eq!(ledger["lines"]["delivered"], written.iter().sum::<u64>(), "{ledger}");
    messages.len() - usize::try_from(written.iter().sum::<u64>()).unwrap()
}

/// Who was stopped, or can't start, is left alone by what waits in the pipe.
#[track_caller]
fn expect_left_alone(machine: &Machine, state: &str) {
    let restarts = machine.number(UNIT, "NRestarts");
    for _ in 0..20 {
        std::thread::park_timeout(Duration::from_millis(100));
        assert_eq!(machine.property(UNIT, "ActiveState"), state);
    }
    assert_eq!(machine.number(UNIT, "NRestarts"), restarts);
}

fn to_kafka(broker: &Broker) -> [(&str, &str); 4] {
    [
        ("BRIDGE_INPUT", PIPE),
        ("ORDER_EVENT_MODE", "KAFKA"),
        ("KAFKA_BOOTSTRAP_SERVERS", &broker.bootstrap),
        ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
    ]
}

#[test]
fn fi_06_fi_10_killed_stopped_and_not_startable_no_writer_sees_an_error_and_no_line_is_lost() {
    let machine = with_keeper();
    let broker = Broker::new(&machine.network(), true);
    machine.configure(ENV_FILE, &to_kafka(&broker));
    machine.drop_in(UNIT, &panics::allowed());
    // Before the daemon is there for the first time.
    let writers = Writers::start(&machine, &[0; 5]);
    machine.start(UNIT);
    let mut killed = 0;
    kill(&machine, KILLS[0], &mut killed);
    kill_while_the_sink_is_down(&machine, &broker, &mut killed);
    kill(&machine, KILLS[2], &mut killed);
    // And by a mistake of ours in the thread that moves its bytes.
    panics::panic_at(&machine, "pipe", &[]);
    machine.wait_for_restarts(UNIT, killed + 1);
    assert_eq!(panics::told(&machine), ["pipe"]);
    let mut written = writers.stop();
    let repeated = expect_all(&machine, &broker, &written);
    eprintln!("measured: {killed} kills: {written:?} lines, {repeated} repeated");

    machine.succeed(&["systemctl", "stop", UNIT]);
    write_a_thousand(&machine, &mut written);
    expect_left_alone(&machine, "inactive");
    machine.start(UNIT);
    let repeated = expect_all(&machine, &broker, &written);

    machine.write_for_the_bridge(ENV_FILE, "BRIDGE_LOG_LEVEL = 'loud'\n");
    assert!(!machine.systemctl("restart", UNIT).status.success());
    machine.wait_for_property(UNIT, "ActiveState", "failed");
    write_a_thousand(&machine, &mut written);
    expect_left_alone(&machine, "failed");
    assert_eq!(machine.number(UNIT, "ExecMainStatus"), 78);
    // Not even if the keeper is killed, or restarted, while nobody else holds the pipe.
    machine.succeed(&["systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", KEEPER]);
    machine.wait_for_restarts(KEEPER, 1);
    write_a_thousand(&machine, &mut written);
    machine.succeed(&["systemctl", "restart", KEEPER]);
    machine.configure(ENV_FILE, &to_kafka(&broker));
    machine.start(UNIT);
    assert_eq!(expect_all(&machine, &broker, &written), repeated, "a clean stop repeats nothing");

    // The keeper alone.
    let writers = Writers::start(&machine, &written);
    for _ in 0..5 {
        machine.succeed(&["systemctl", "restart", KEEPER]);
    }
    // All of it, with the child that holds the pipe when it is restarted: the daemon holds it, too.
    for (restarts, signal) in
        (1..).zip(["--signal=SIGTERM", "--signal=SIGKILL", "--signal=SIGKILL"])
    {
        machine.succeed(&["systemctl", "kill", signal, KEEPER]);
        machine.wait_for_restarts(KEEPER, restarts);
    }
    let written = writers.stop();
    assert_eq!(expect_all(&machine, &broker, &written), repeated);
    eprintln!("measured: in all {} lines, {repeated} repeated", written.iter().sum::<u64>());
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);
}

#[test]
fn fi_10_the_keeper_makes_the_pipe_for_the_app_and_holds_whichever_stands_there() {
    let machine = with_keeper();
    let path = machine.path(PIPE);
    let made = fs::metadata(&path).unwrap();
    let directory = fs::metadata(path.parent().unwrap()).unwrap();
    assert!(made.file_type().is_fifo());
    assert_eq!(made.mode() & 0o7777, 0o660);
    // The app's user, which is in no group of ours, and the daemon's group.
    assert_eq!((made.uid(), made.gid()), (directory.uid(), directory.gid()));
    assert_ne!(made.uid(), 0);
    assert_eq!(machine.succeed(&["systemctl", "is-enabled", KEEPER]).trim(), "enabled");

    // It holds as much as pipes may, though no daemon has opened it yet.
    let mut full = OpenOptions::new().write(true).custom_flags(0o4000).open(&path).unwrap();
    let held: usize = std::iter::from_fn(|| full.write(&[b'x'; 4096]).ok()).sum();
    assert_eq!(held, 1 << 20);

    // A pipe that takes its place is held soon; one that is removed is made again.
    fs::remove_file(&path).unwrap();
    wait_for("another pipe", || fs::metadata(&path).ok().filter(|it| it.file_type().is_fifo()));
    machine.wait_for_property(KEEPER, "ActiveState", "active");
    drop(writer(&path));

    // Something else is neither held nor touched, and is told.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine\n").unwrap();
    wait_for("what the keeper says", || {
        machine.journal(KEEPER).contains("is no named pipe that the user").then_some(())
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");

    // Elsewhere, by the template.
    let elsewhere = "/var/lib/openalgo-events/an other.pipe";
    let template = "--template=openalgo-bridge-pipe@.service";
    let unit = machine.succeed(&["systemd-escape", "--path", template, elsewhere]);
    machine.succeed(&["systemctl", "enable", "--now", unit.trim()]);
    drop(writer(&machine.path(elsewhere)));

    // Nothing of all this has started a daemon.
    machine.configure(ENV_FILE, &NO_BROKER);
    assert_eq!(machine.property(UNIT, "ActiveState"), "inactive");
}
