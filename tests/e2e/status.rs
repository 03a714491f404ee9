//! `status`, `rejects list`, `checkpoint`: what an admin asks.

use serde_json::Value;

use crate::http::readiness_at;
use crate::support::broker::Broker;
use crate::support::daemon::Bridge;
use crate::support::events::event;
use crate::support::wait_for;

fn json(bridge: &Bridge, arguments: &[&str]) -> Value {
    let output = bridge.run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {errors}"))
}

fn code(bridge: &Bridge, arguments: &[&str]) -> Option<i32> {
    bridge.run(arguments).status.code()
}

#[test]
fn status_adds_up_to_the_byte_and_knows_when_the_bridge_has_caught_up() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    assert_eq!(code(&bridge, &["status"]), Some(69), "no daemon");
    let mut input = bridge.append();
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    input.events(0..100);
    input.write(b"broken\n\n \n");
    input.write(event(0).replace("order_event", "order_update").as_bytes());
    input.write(b"\nunfinished");
    assert_eq!(code(&bridge, &["status", "--caught-up", "--wait", "30"]), Some(0));

    let status = json(&bridge, &["status", "--json"]);
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    let bytes = &status["ledger"]["bytes"];
    let sum: u64 = ["delivered", "rejected", "filtered", "blank", "pending"]
        .iter()
        .map(|class| bytes[class].as_u64().unwrap())
        .sum();
    assert_eq!(bytes["read"], size);
    assert_eq!(sum, size);
    let lines = &status["ledger"]["lines"];
    for (class, count) in
        [("delivered", 100), ("rejected", 1), ("filtered", 1), ("blank", 2), ("pending", 1)]
    {
        assert_eq!(lines[class], count, "{class} of {lines}");
    }
    assert_eq!(bytes["pending"], "unfinished".len());
    assert_eq!((&status["state"], &status["sink"]["state"]), (&"following".into(), &"up".into()));
    assert_eq!(status["pid"], daemon.pid());

    broker.stop();
    input.write(b" line\n");
    input.events(100..110);
    assert_eq!(code(&bridge, &["status", "--caught-up", "--wait", "1"]), Some(1));
    wait_for("the sink to be down", || {
        (json(&bridge, &["status", "--json"])["sink"]["state"] == "down").then_some(())
    });
    let socket = bridge.state().join("status.sock");
    let (ready, why) = readiness_at(&socket);
    assert!(ready == 503 && why.starts_with("sink: kafka is down: "), "{ready}: {why}");
    broker.start_again();
    assert_eq!(code(&bridge, &["status", "--caught-up", "--wait", "60"]), Some(0));
    assert_eq!(readiness_at(&socket), (200, "ready\n".to_owned()));
    let status = json(&bridge, &["status", "--json"]);
    assert_eq!(status["ledger"]["lines"]["delivered"], 110);
    assert_eq!(status["ledger"]["bytes"]["pending"], 0);
    assert_eq!(status["input"]["lag_bytes"], 0);
    assert_eq!(daemon.stop(), 0);

    // The sums go on after a restart.
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    input.events(110..120);
    assert_eq!(code(&bridge, &["status", "--caught-up"]), Some(0));
    let status = json(&bridge, &["status", "--json"]);
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    assert_eq!(status["ledger"]["bytes"]["read"], size);
    assert_eq!(status["ledger"]["lines"]["delivered"], 120);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn status_says_blocked_and_waiting_with_the_reason() {
    let mut bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "5");
    let daemon = bridge.start();
    daemon.wait_for_log("waiting for the input");
    let status = json(&bridge, &["status", "--json"]);
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"waiting_for_input".into(), &"missing".into())
    );
    bridge.append().events(0..20);
    wait_for("the state to be blocked", || {
        let status = json(&bridge, &["status", "--json"]);
        (status["state"] == "blocked" && status["reason"] == "sink").then_some(())
    });
    let text = bridge.run(&["status"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("blocked: sink"));
}

#[test]
fn status_of_another_state_directory_is_69() {
    let bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    let daemon = bridge.start();
    daemon.wait_for_log("waiting for the input");
    let socket = bridge.state().join("status.sock");
    let other = Bridge::to_kafka("127.0.0.1:1", "nobody");
    let output = other.run(&["status", "--socket", &socket.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn rejects_list_shows_each_line_once_with_its_reason() {
    let broker = Broker::shared();
    let bridge = Bridge::to_kafka(&broker.bootstrap, &broker.topic(1));
    assert_eq!(code(&bridge, &["rejects", "list"]), Some(0));
    bridge.append().write(b"broken\n[1]\n");
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    // As a crash before the checkpoint leaves it: the same line again.
    let file = bridge.state().join("rejects.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let first = text.lines().next().unwrap();
    std::fs::write(&file, format!("{text}{first}\n")).unwrap();
    let output = bridge.run(&["rejects", "list", "--json"]);
    let listed: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let reasons: Vec<_> = listed.iter().map(|entry| entry["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["not_json", "not_an_object"]);
    let text = bridge.run(&["rejects", "list"]);
    assert!(
        String::from_utf8_lossy(&text.stderr).contains("2 rejects: 1 not_an_object, 1 not_json")
    );
    std::fs::write(&file, "damaged\n").unwrap();
    assert_eq!(code(&bridge, &["rejects", "list"]), Some(65));
}

#[test]
fn checkpoint_set_and_reset_move_the_position_of_a_stopped_daemon() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let none = json(&bridge, &["checkpoint", "show", "--json"]);
    assert_eq!(
        (&none["generation"], &none["offset"], &none["from"]),
        (&Value::Null, &0.into(), &"none".into())
    );
    assert_eq!(code(&bridge, &["checkpoint", "set", "--offset", "5"]), Some(69), "no input");
    bridge.append().events(0..3);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(code(&bridge, &["checkpoint", "set", "--offset", "0"]), Some(75), "a daemon runs");
    assert_eq!(daemon.stop(), 0);
    let before = bridge.checkpoint();
    let line = event(0).len() as u64 + 1;

    let output = bridge.run(&["checkpoint", "set", "--offset", &(line + 7).to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("moved back") && text.contains(&format!("repeats {} bytes", 2 * line)),
        "{text}"
    );
    let after = bridge.checkpoint();
    assert_eq!((&after["offset"], &after["generation"]), (&line.into(), &before["generation"]));
    assert_eq!(code(&bridge, &["checkpoint", "set", "--offset", "99999999"]), Some(64));

    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    let mut consumer = crate::support::consumer::Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    assert_eq!(consumer.numbers(), [0, 1, 2, 1, 2]);
    let ids: Vec<_> =
        consumer.records.iter().map(|record| record.header("ce_id").unwrap()).collect();
    assert_eq!((&ids[1], &ids[2]), (&ids[3], &ids[4]), "the same line has the same id");

    assert_eq!(code(&bridge, &["checkpoint", "reset"]), Some(0));
    let reset = bridge.checkpoint();
    assert_eq!((&reset["offset"], &reset["generation"]), (&0.into(), &before["generation"]));
}

#[test]
fn ck_08_an_unreadable_checkpoint_is_65_for_show_and_a_fresh_read_for_run() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.append().events(0..3);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    for name in
        ["checkpoint.json", "checkpoint.prev.json", "checkpoint.note.0", "checkpoint.note.1"]
    {
        let path = bridge.state().join(name);
        if path.exists() {
            std::fs::write(path, "garbage").unwrap();
        }
    }
    assert_eq!(code(&bridge, &["checkpoint", "show"]), Some(65));
    let daemon = bridge.start();
    daemon.wait_for_log("the position is lost");
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    let mut consumer = crate::support::consumer::Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    assert_eq!(consumer.numbers(), [0, 1, 2, 0, 1, 2], "duplicates, never loss");
    assert!(bridge.state().join("checkpoint.json.corrupt-1").exists());
}
