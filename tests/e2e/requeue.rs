//! Rejected lines that are sent again: asked for durably, delivered under their own names, counted apart.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::files::{Setup, lines, setup};
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::events::event;
use crate::support::wait_for;

/// An event of a type that only a later configuration lets pass.
fn later(number: u64) -> String {
    event(number).replace("order_event", "margin_event")
}

const LATER: &str = "order_event,margin_event";

fn requeue(bridge: &Bridge, arguments: &[&str]) -> (i32, String) {
    let output = bridge.run(&[&["rejects", "requeue"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn listed(bridge: &Bridge, arguments: &[&str]) -> String {
    let output = bridge.run(&[&["rejects", "list"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn requeued(bridge: &Bridge) -> (u64, u64) {
    let ledger = bridge.status()["ledger"]["requeued"].clone();
    (ledger["lines"].as_u64().unwrap(), ledger["outstanding"].as_u64().unwrap())
}

/// `count` lines are rejected, and the configuration that would let them pass is there.
fn with_rejects(count: u64) -> (Setup, Vec<Value>) {
    let mut setup = setup();
    let text: String = (0..count).map(|number| later(number) + "\n").collect();
    setup.bridge.append().write(text.as_bytes());
    setup.bridge.append().events([1_000_000]);
    let daemon = setup.bridge.start();
    setup.expect(&[1_000_000]);
    assert_eq!(daemon.stop(), 0);
    let rejects = setup.bridge.rejects();
    assert_eq!(rejects.len() as u64, count);
    setup.bridge.set("BRIDGE_EVENT_TYPES", LATER);
    (setup, rejects)
}

#[test]
fn all_rejects_are_sent_again_by_the_running_daemon_under_their_own_names_and_counted_apart() {
    let (setup, rejects) = with_rejects(20);
    let daemon = setup.bridge.start();
    setup.bridge.append().events([1_000_001]);
    setup.expect(&[1_000_000, 1_000_001]);
    let before = setup.bridge.status()["ledger"].clone();
    let one = rejects[3]["id"].as_str().unwrap();
    let (exit, said) = requeue(&setup.bridge, &[one, "0000000000000000:0:00000000"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("1 lines will be sent again"), "{said}");
    assert!(said.contains("0000000000000000:0:00000000: no such reject, skipped"), "{said}");
    setup.expect(&[1_000_000, 1_000_001, 3]);
    wait_for("it to be noted", || (requeued(&setup.bridge) == (1, 0)).then_some(()));
    wait_for("the request to be gone", || {
        (!listed(&setup.bridge, &[]).contains("sent again soon")).then_some(())
    });
    let (_, said) = requeue(&setup.bridge, &[one]);
    assert!(said.contains("delivered, skipped"), "{said}");
    let (exit, said) = requeue(&setup.bridge, &["--all"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("19 lines will be sent again"), "{said}");
    let again = (0..20).filter(|number| *number != 3);
    setup.expect(&[1_000_000, 1_000_001, 3].into_iter().chain(again).collect::<Vec<_>>());
    wait_for("all to be noted", || (requeued(&setup.bridge) == (20, 0)).then_some(()));
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    let came = consumer.read_all();
    let ids: HashSet<String> = came.iter().filter_map(|record| record.header("ce_id")).collect();
    assert!(rejects.iter().all(|reject| ids.contains(reject["id"].as_str().unwrap())));
    let after = setup.bridge.status()["ledger"].clone();
    assert_eq!((&after["bytes"], &after["lines"]), (&before["bytes"], &before["lines"]));
    assert!(listed(&setup.bridge, &[]).contains("0 rejects: none; 20 delivered since"));
    assert_eq!(listed(&setup.bridge, &["--all"]).matches("delivered since").count(), 21);
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    assert_eq!(requeued(&setup.bridge), (20, 0), "over a restart");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_is_refused_again_is_open_again() {
    let (mut setup, _) = with_rejects(3);
    setup.bridge.set("BRIDGE_EVENT_TYPES", "order_event");
    let daemon = setup.bridge.start();
    for _ in 0..2 {
        let (exit, said) = requeue(&setup.bridge, &["--all"]);
        assert_eq!(exit, 0);
        assert!(said.contains("3 lines will be sent again"), "{said}");
        wait_for("all to be refused", || {
            let text = listed(&setup.bridge, &[]);
            (text.contains("3 rejects: 3 unknown_event_type") && !text.contains("soon"))
                .then_some(())
        });
    }
    assert_eq!(requeued(&setup.bridge), (0, 0));
    setup.expect(&[1_000_000]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn asked_for_while_the_daemon_is_stopped_they_go_with_the_next_start_whoever_asked() {
    let (setup, _) = with_rejects(5);
    let (exit, said) = requeue(&setup.bridge, &["--all"]);
    assert_eq!(exit, 0, "{said}");
    let (_, said) = requeue(&setup.bridge, &["--all"]);
    assert!(said.contains("0 lines will be sent again"), "asked for already: {said}");
    let owner = fs::metadata(setup.bridge.state()).unwrap().uid();
    let requests = fs::read_dir(setup.bridge.state().join("requeue")).unwrap().flatten();
    assert!(requests.map(|file| file.metadata().unwrap().uid()).all(|uid| uid == owner));
    assert!(listed(&setup.bridge, &[]).contains("sent again soon"));
    let daemon = setup.bridge.start();
    setup.expect(&[1_000_000].into_iter().chain(0..5).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn killed_in_the_middle_of_sending_them_again_nothing_is_lost_and_one_request_at_most_is_repeated()
{
    let (setup, _) = with_rejects(400);
    for _ in 0..5 {
        let daemon = setup.bridge.start();
        requeue(&setup.bridge, &["--all"]);
        daemon.kill();
    }
    let daemon = setup.bridge.start();
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(401);
    wait_for("all to be noted", || (requeued(&setup.bridge).1 == 0).then_some(()));
    consumer.read_all();
    let distinct: HashSet<u64> = consumer.numbers().into_iter().collect();
    assert_eq!(distinct.len(), 401);
    println!("{} came, of 401", consumer.numbers().len());
    assert!(listed(&setup.bridge, &[]).contains("0 rejects: none"));
    let repeated = consumer.numbers().len();
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    setup.bridge.append().events([1_000_001]);
    consumer.wait_for_events(402);
    consumer.read_all();
    assert_eq!(consumer.numbers().len(), repeated + 1, "a clean start repeats none");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_line_of_which_the_beginning_was_kept_is_read_again_from_its_file_or_is_65() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_MAX_LINE_BYTES", "8192");
    let long =
        event(7).replace("\"data\":{", &format!("\"data\":{{\"pad\":\"{}\",", "x".repeat(9000)));
    setup.bridge.append().write(format!("{long}\n").as_bytes());
    let daemon = setup.bridge.start();
    wait_for("the reject", || (setup.bridge.rejects().len() == 1).then_some(()));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.rejects()[0]["line_truncated"], true);
    setup.bridge.set("BRIDGE_MAX_LINE_BYTES", "16384");
    let content = fs::read(setup.bridge.input()).unwrap();
    fs::write(setup.bridge.input(), lines(0..200)).unwrap();
    let (exit, said) = requeue(&setup.bridge, &["--all"]);
    assert_eq!(exit, 65, "{said}");
    assert!(said.contains("only its beginning was kept"), "{said}");
    fs::write(setup.bridge.input(), content).unwrap();
    let (exit, said) = requeue(&setup.bridge, &["--all"]);
    assert_eq!(exit, 0, "{said}");
    let daemon = setup.bridge.start();
    setup.expect(&[7]);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    assert_eq!(consumer.read_all()[0].payload, long.as_bytes());
    assert_eq!(daemon.stop(), 0);
}
