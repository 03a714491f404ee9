//! `probe` and `tap`: what an admin types to see that it works.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::fifo::Pipe;
use crate::files::{lines, setup};
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::events::event;
use crate::support::wait_for;

fn probe(bridge: &Bridge, arguments: &[&str]) -> (i32, String) {
    let output = bridge.run(&[&["probe"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_probe_passes_every_hop_and_reaches_the_sink_only_if_it_is_to() {
    let setup = setup();
    let daemon = setup.deliver(0..3);
    let (exit, said) = probe(&setup.bridge, &[]);
    assert_eq!(exit, 0, "{said}");
    for hop in ["input  ", "daemon  ", "sink  ", "checkpoint  ", "filtered, as probes are", " ms"] {
        assert!(said.contains(hop), "{hop} in {said}");
    }
    let (exit, said) = probe(&setup.bridge, &["--through"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("kafka acknowledged it"), "{said}");
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    let types: Vec<_> =
        consumer.read_all().iter().filter_map(|record| record.header("ce_type")).collect();
    assert_eq!(types, ["order_event", "order_event", "order_event", "bridge_probe"]);
    assert!(setup.bridge.rejects().is_empty());
    assert_eq!(setup.bridge.status()["ledger"]["lines"]["filtered"], 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_probe_appends_nothing_where_it_could_not_come_through() {
    let setup = setup();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    let (exit, said) = probe(&setup.bridge, &[]);
    assert_eq!(exit, 69, "{said}");
    assert!(!setup.bridge.input().exists(), "it never creates the file");
    let torn = lines(0..2) + "{\"torn\":";
    setup.bridge.append().write(torn.as_bytes());
    let (exit, said) = probe(&setup.bridge, &[]);
    assert_eq!(exit, 69, "{said}");
    assert!(said.contains("its last line has no end"), "{said}");
    assert_eq!(daemon.stop(), 0);
    let (exit, said) = probe(&setup.bridge, &[]);
    assert_eq!(exit, 69, "{said}");
    assert!(said.contains("no daemon answers"), "{said}");
    assert_eq!(fs::read_to_string(setup.bridge.input()).unwrap(), torn);
}

#[test]
fn a_probe_goes_through_a_named_pipe_and_says_when_the_sink_is_down() {
    let setup = setup();
    let _pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("reading the named pipe");
    let (exit, said) = probe(&setup.bridge, &["--through"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("kafka acknowledged it"), "{said}");
    assert_eq!(daemon.stop(), 0);
    let mut down = Bridge::to_kafka("127.0.0.1:9", "none");
    down.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "50");
    down.append().events([0]);
    let daemon = down.start();
    wait_for("the sink to be down", || (down.status()["sink"]["state"] == "down").then_some(()));
    let (exit, said) = probe(&down, &[]);
    assert_eq!(exit, 69, "{said}");
    assert!(said.contains("sink kafka down"), "{said}");
    daemon.kill();
}

struct Tap {
    child: Child,
    lines: Receiver<String>,
}

impl Tap {
    /// Starts, and waits until it follows.
    fn start(bridge: &Bridge, arguments: &[&str]) -> Self {
        let mut child = bridge
            .command(&[], &[&["tap"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut first = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("following"), "{first}");
        Self { child, lines }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tap_shows_events_and_rejects_as_they_come_with_secrets_masked() {
    let setup = setup();
    let daemon = setup.deliver(0..3);
    setup.bridge.append().write(b"broken\n");
    wait_for("a reject", || (setup.bridge.rejects().len() == 1).then_some(()));
    let (events, rejects) =
        (Tap::start(&setup.bridge, &[]), Tap::start(&setup.bridge, &["--rejects"]));
    // What was written before linemux looked is not shown: written again until it does.
    let secret = event(7).replace("\"data\":{", "\"data\":{\"password\":\"hunter2\",");
    let shown_by = |tap: &Tap, text: &str| {
        wait_for(&format!("{text} to be shown"), || {
            setup.bridge.append().write(format!("{secret}\nbroken\n").as_bytes());
            let lines =
                std::iter::from_fn(|| tap.lines.recv_timeout(Duration::from_millis(200)).ok());
            lines.take(20).find(|line| line.contains(text))
        })
    };
    let shown = shown_by(&events, "order_event");
    assert!(shown.contains("\"password\":\"***\""), "{shown}");
    shown_by(&events, "(6 bytes that are no event: not_json)");
    shown_by(&rejects, "not_json");
    assert_eq!(daemon.stop(), 0);
    // With its directory goes what it could turn for.
    fs::remove_dir_all(setup.bridge.input().parent().unwrap()).unwrap();
    let mut events = events;
    wait_for("tap to end", || events.child.try_wait().unwrap());
}
