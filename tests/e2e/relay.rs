//! The relay against a real Flask-SocketIO that misbehaves as told.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::relay::Relay;
use crate::support::{PATIENCE, events, wait_at_most, wait_for};

#[test]
fn si_01_an_app_that_starts_late_gets_everything_and_the_outage_is_told_once() {
    let relay = Relay::new();
    relay.bridge.append().events(0..1_000);
    let daemon = relay.bridge.start();
    daemon.wait_for_log("the app does not take events");
    let sink = relay.bridge.status()["sink"].clone();
    assert_eq!(sink["state"], "down", "{sink}");
    assert!(sink["reason"].as_str().is_some_and(|why| why.contains("refused")), "{sink}");
    assert_eq!(relay.bridge.checkpoint()["offset"], 0);
    let _app = relay.app(&[]);
    daemon.wait_for_log("the app takes events again");
    let log = daemon.log();
    assert!(log.len() <= 8, "{log:#?}");
    for told in ["the app does not take events", "the app takes events again"] {
        assert_eq!(log.iter().filter(|line| line.contains(told)).count(), 1, "{log:#?}");
    }
    relay.finish(daemon, 1_000);
}

#[test]
fn si_05_killed_every_two_seconds_nothing_is_missing_and_the_position_is_never_ahead() {
    const COUNT: u64 = 6_000;
    let relay = Relay::new();
    let mut app = relay.app(&[]);
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    let mut ends = BTreeMap::from([(0, 0)]);
    let mut input = relay.bridge.append();
    let (mut offset, mut before) = (0, 0);
    for block in 0..10 {
        for number in block * COUNT / 10..(block + 1) * COUNT / 10 {
            offset += events::event(number).len() as u64 + 1;
            ends.insert(offset, number + 1);
        }
        input.events(block * COUNT / 10..(block + 1) * COUNT / 10);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            // First the position, then what the app has acknowledged by then.
            let position = relay.bridge.checkpoint()["offset"].as_u64().unwrap_or(0);
            let below = ends.get(&position).copied().expect("the end of a line");
            let acknowledged: BTreeSet<u64> = relay.numbers("acknowledged").into_iter().collect();
            assert!((0..below).all(|number| acknowledged.contains(&number)), "ahead: {below}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        if block % 2 == 1 {
            // Not before this life of the app has taken something.
            wait_for("an acknowledgement", || {
                let taken = relay.numbers("acknowledged").len();
                (taken > before).then(|| before = taken)
            });
            drop(app);
            app = relay.app(&[]);
        }
    }
    relay.assert_reconnects_are_rare(began);
    relay.finish(daemon, COUNT);
}

/// Events go to an app that treats its first batches in this way.
#[track_caller]
fn misbehaves(arguments: &[&str]) {
    let relay = Relay::new();
    let _app = relay.app(&[&["--times", "2"], arguments].concat());
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..300);
    wait_for("batches", || (relay.noted("batch").len() >= 3).then_some(()));
    relay.assert_reconnects_are_rare(began);
    assert!(relay.noted("connect").len() >= 3, "each attempt has a connection of its own");
    relay.finish(daemon, 300);
}

#[test]
fn si_03_an_acknowledgement_that_never_comes() {
    misbehaves(&["--ack", "never"]);
}

#[test]
fn si_03_a_handler_that_raises() {
    misbehaves(&["--ack", "raise"]);
}

#[test]
fn si_04_an_acknowledgement_that_comes_late() {
    misbehaves(&["--ack", "late", "--late-ms", "2500"]);
}

#[test]
fn si_04_an_acknowledgement_of_an_earlier_attempt() {
    misbehaves(&["--ack", "foreign"]);
}

#[test]
fn si_14_an_acknowledgement_that_says_false() {
    misbehaves(&["--ack", "false"]);
}

#[test]
fn si_14_an_acknowledgement_that_is_empty() {
    misbehaves(&["--ack", "empty"]);
}

#[test]
fn si_02_si_15_acknowledgements_that_come_twice_and_noise_of_the_apps() {
    let relay = Relay::new();
    let _app = relay.app(&["--ack", "twice", "--noise"]);
    let mut daemon = relay.bridge.start();
    for block in 0..10 {
        relay.bridge.append().events(block * 20..(block + 1) * 20);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    relay.bridge.wait_until_settled();
    assert!(daemon.is_running());
    relay.finish(daemon, 200);
}

#[test]
fn si_15_garbage_of_the_apps_ends_at_most_the_connection() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_BATCH_MAX_EVENTS", "3");
    let _app = relay.app(&["--garbage", "15"]);
    relay.wait_for_app();
    let (mut daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..30);
    relay.bridge.wait_until_settled();
    assert!(daemon.is_running());
    let log = daemon.log();
    assert!(log.len() < 20, "{log:#?}");
    relay.assert_reconnects_are_rare(began);
    assert!(relay.noted("connect").len() > 3, "some of it ended the connection");
    relay.finish(daemon, 30);
}

#[test]
fn si_15_a_packet_that_the_client_panics_over_is_a_lost_connection_and_nothing_more() {
    const TIMES: usize = 3;
    let mut relay = Relay::new();
    // It is not this that notices: the connection's tasks are gone.
    relay.bridge.set("SOCKETIO_ACK_TIMEOUT_MS", "3600000");
    let _app = relay.app(&["--panics", &TIMES.to_string()]);
    relay.wait_for_app();
    let (mut daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..300);
    relay.bridge.wait_until_settled();
    assert!(daemon.is_running());
    // The client sometimes gets to an error before it gets to where it panics.
    let log = daemon.log();
    let told = "serving a connection panicked; the connection is lost";
    let panics = log.iter().filter(|line| line.contains(told)).count();
    assert!((1..=TIMES).contains(&panics), "{log:#?}");
    relay.assert_reconnects_are_rare(began);
    assert_eq!(relay.noted("connect").len(), TIMES + 1, "each was lost, and nothing else");
    relay.finish(daemon, 300);
}

#[test]
fn si_07_a_token_that_the_app_does_not_know_and_then_does() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_AUTH_TOKEN", "CANARY-token");
    relay.bridge.append().events(0..10);
    let app = relay.app(&["--token", "another"]);
    let daemon = relay.bridge.start();
    relay.wait_for_reason("no such token");
    assert_eq!(relay.bridge.status()["sink"]["state"], "down");
    let output = relay.bridge.run(&["check", "--connect"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("does not let the bridge in: no such token"), "{text}");
    assert_eq!(output.status.code(), Some(69));
    assert!(relay.noted("batch").is_empty());
    drop(app);
    let _app = relay.app(&["--token", "CANARY-token"]);
    daemon.wait_for_log("takes events again");
    let text = relay.bridge.run(&["check", "--connect"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("lets the bridge in with its token"), "{text}");
    assert!(!daemon.log().join("\n").contains("CANARY"));
    relay.finish(daemon, 10);
}

#[test]
fn si_08_a_namespace_that_the_app_does_not_have_and_then_does() {
    let relay = Relay::new();
    relay.bridge.append().events(0..10);
    let app = relay.app(&["--namespace", "/other"]);
    let daemon = relay.bridge.start();
    relay.wait_for_reason("the app does not let it in: Unable to connect");
    drop(app);
    let _app = relay.app(&[]);
    daemon.wait_for_log("takes events again");
    relay.finish(daemon, 10);
}

#[test]
fn si_09_an_app_that_disconnects_every_third_batch() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_BATCH_MAX_EVENTS", "50");
    let _app = relay.app(&["--disconnect-every", "3"]);
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..300);
    relay.bridge.wait_until_settled();
    relay.assert_reconnects_are_rare(began);
    assert!(relay.noted("connect").len() >= 3, "it came back after each disconnect");
    relay.finish(daemon, 300);
}

#[test]
fn si_10_si_11_an_app_that_stands_still_is_waited_for_in_flat_memory() {
    let relay = Relay::new();
    let app = relay.app(&[]);
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..10);
    relay.bridge.wait_until_settled();
    app.signal("STOP");
    // More than the in-flight limits hold.
    relay.bridge.append().events(10..40_000);
    let full = wait_for("the limit to be full", || {
        (relay.bridge.status()["state"] == "blocked").then(|| daemon.memory_kb("VmRSS"))
    });
    let until = Instant::now() + Duration::from_secs(25);
    let mut most = full;
    while Instant::now() < until {
        most = most.max(daemon.memory_kb("VmRSS"));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    println!("memory: {full} kB when full, {most} kB at most afterwards");
    assert!(most <= full + (5 << 10), "grew from {full} to {most} kB");
    app.signal("CONT");
    let began = Instant::now();
    let all = std::fs::metadata(relay.bridge.input()).unwrap().len();
    wait_at_most(2 * PATIENCE, "everything", || {
        (relay.bridge.checkpoint()["offset"].as_u64() == Some(all)).then_some(())
    });
    println!("the rest in {:?}", began.elapsed());
    relay.finish(daemon, 40_000);
}

#[test]
fn si_12_batches_stay_below_the_packet_limit_and_one_too_large_alone_is_put_aside() {
    let relay = Relay::new();
    let _app = relay.app(&[]);
    let daemon = relay.bridge.start();
    let lines: String = (0..40)
        .map(|number| {
            events::padded_event(number, if number == 20 { 950_000 } else { 90_000 }) + "\n"
        })
        .collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    let numbers = relay.numbers("acknowledged");
    assert!(numbers.into_iter().eq((0..40).filter(|number| *number != 20)));
    let sizes: Vec<u64> = relay.noted("batch").iter().filter_map(|b| b["size"].as_u64()).collect();
    assert!(sizes.iter().all(|size| *size < 900_000), "{sizes:?}");
    let rejects = relay.bridge.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0]["reason"], "too_large");
    assert_eq!(relay.noted("connect").len(), 1, "no connection was lost over it");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn si_12_an_app_with_a_smaller_limit_is_asked_for_it_and_what_is_larger_alone_is_put_aside() {
    let relay = Relay::new();
    let _app = relay.app(&["--max-packet", "300000"]);
    let daemon = relay.bridge.start();
    let size = |number| if number == 20 { 280_000 } else { 50_000 };
    let lines: String =
        (0..40).map(|number| events::padded_event(number, size(number)) + "\n").collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    let numbers = relay.numbers("acknowledged");
    assert!(numbers.into_iter().eq((0..40).filter(|number| *number != 20)));
    let sizes: Vec<u64> = relay.noted("batch").iter().filter_map(|b| b["size"].as_u64()).collect();
    assert!(sizes.iter().all(|size| *size < 270_000), "{sizes:?}");
    assert!(sizes.iter().any(|size| *size > 200_000), "{sizes:?}");
    assert_eq!(relay.noted("connect").len(), 1, "no connection was lost over it");
    let rejects = relay.bridge.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0]["reason"], "too_large");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn si_12_an_app_that_does_not_say_its_smaller_limit_gets_smaller_batches() {
    let relay = Relay::new();
    let _app = relay.app(&["--max-packet", "300000", "--websocket-only"]);
    let daemon = relay.bridge.start();
    let lines: String = (0..40).map(|number| events::padded_event(number, 50_000) + "\n").collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    assert!(relay.noted("connect").len() > 1, "it was not too much at first");
    relay.finish(daemon, 40);
}

#[test]
fn si_12_an_event_that_nothing_gets_past_is_named_and_never_given_up() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_BATCH_MAX_EVENTS", "4");
    let app = relay.app(&["--max-packet", "300000", "--websocket-only"]);
    relay.wait_for_app();
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    let first = events::event(0) + "\n";
    let lines = first.clone() + &events::padded_event(1, 400_000) + "\n" + &events::event(2) + "\n";
    relay.bridge.append().write(lines.as_bytes());
    relay.wait_for_reason("all others wait behind it");
    let sink = relay.bridge.status()["sink"].clone();
    let why = sink["reason"].as_str().unwrap();
    assert!(why.contains(&format!(":{}:", first.len())) && why.contains("(400"), "{why}");
    assert_eq!(sink["state"], "down");
    daemon.wait_for_log("all others wait behind it");
    assert_eq!(relay.bridge.checkpoint()["offset"].as_u64(), Some(first.len() as u64));
    assert!(relay.bridge.rejects().is_empty(), "it may be the app's fault");
    relay.assert_reconnects_are_rare(began);
    drop(app);
    let _app = relay.app(&[]);
    daemon.wait_for_log("takes events again");
    relay.finish(daemon, 3);
}

/// A line with this text between the braces of `data`, behind the number.
fn line_of(number: u64, data: &str) -> String {
    format!(
        r#"{{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{{"orderid":"{number}","action":"BUY",{data}}}}}"#
    ) + "\n"
}

#[test]
fn si_15_what_the_apps_decoder_can_not_read_is_put_aside_and_does_not_hold_up_the_others() {
    let relay = Relay::new();
    let _app = relay.app(&[]);
    let daemon = relay.bridge.start();
    let digits = |count| "7".repeat(count);
    // The envelope is the first level, `data` the second.
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels - 2), "]".repeat(levels - 2));
    let data = [
        format!("\"n\":{}", digits(100)),
        format!("\"n\":{}", digits(101)),
        format!("\"n\":-{}", digits(99)),
        format!("\"n\":[1,-{}]", digits(100)),
        format!("\"n\":{}.5e{}", digits(5_000), digits(5)),
        format!("\"n\":{}", digits(5_000)),
        format!("\"n\":{}", nested(128)),
        r#""n":"\ud800","_placeholder":true,"num":7"#.to_owned(),
    ];
    let lines: String =
        data.iter().enumerate().map(|(number, data)| line_of(number as u64, data)).collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    assert_eq!(relay.numbers("acknowledged"), [0, 2, 4, 6, 7]);
    let rejects = relay.bridge.rejects();
    assert!(rejects.iter().all(|reject| reject["reason"] == "refused"), "{rejects:?}");
    let offsets: Vec<_> = rejects.iter().map(|reject| reject["offset"].as_u64()).collect();
    let offset =
        |count: usize| lines.split_inclusive('\n').take(count).map(str::len).sum::<usize>();
    assert_eq!(offsets, [1, 3, 5].map(|number| Some(offset(number) as u64)));
    assert_eq!(relay.noted("connect").len(), 1, "no connection was lost over it");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn data_reaches_the_app_with_the_text_of_its_line() {
    let relay = Relay::new();
    let raw = relay.bridge.directory().join("raw");
    let _app = relay.app(&["--raw", raw.to_str().unwrap()]);
    let daemon = relay.bridge.start();
    let odd = [
        r#""price":1.10,"a":1e3,"b":1E+03,"c":-0,"d":-0.0,"e":12345678901234567890.10"#,
        r#""z":1,"a":2,"z":3,"m":{"b":1,"a":[1,{"y":0,"x":0}]}"#,
        r#""s":"\u0041\/\n\ud83d\ude00\ud800 A/ 😀","":"","k\u0065y":null"#,
        r#""sp" : [ 1 , 2 ] ,	"t":true, "big":1e400, "emp":{ }"#,
    ];
    let lines: String =
        odd.iter().enumerate().map(|(number, data)| line_of(number as u64, data)).collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    let raw = std::fs::read_to_string(raw).unwrap();
    let mut packets = raw.as_str();
    for line in lines.lines() {
        let data = line.split_once("\"data\":").unwrap().1.strip_suffix('}').unwrap();
        let expected = format!(",\"data\":{data}}}");
        let at = packets.find(&expected).unwrap_or_else(|| panic!("no {expected} in {packets}"));
        packets = &packets[at + expected.len()..];
    }
    relay.finish(daemon, odd.len() as u64);
}

#[test]
fn while_the_app_was_away_old_events_are_left_out_and_counted_and_new_ones_are_not() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_MAX_EVENT_AGE_SECONDS", "3600");
    // What is sent again is catching up, too.
    relay.bridge.set("SOCKETIO_ACK_TIMEOUT_MS", "30000");
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap().stdout;
    let now = String::from_utf8(now).unwrap();
    let fresh = |number| line_of(number, "\"x\":1").replace("2026-01-29T10:30:45Z", now.trim());
    let daemon = relay.bridge.start();
    relay.wait_for_reason("refused");
    let mut input = relay.bridge.append();
    input.events(0..50);
    input.write((fresh(50) + &fresh(51)).as_bytes());
    let app = relay.app(&[]);
    relay.bridge.wait_until_settled();
    assert_eq!(relay.numbers("batch"), [50, 51]);
    // It has caught up: what comes now is live, however old it says it is.
    input.events(52..60);
    relay.bridge.wait_until_settled();
    drop(app);
    relay.wait_for_reason("refused");
    input.events(60..70);
    input.write(fresh(70).as_bytes());
    let _app = relay.app(&[]);
    relay.bridge.wait_until_settled();
    let acknowledged = relay.numbers("acknowledged");
    assert!(acknowledged.iter().copied().eq((50..60).chain(70..71)), "{acknowledged:?}");
    let lines = relay.bridge.status()["ledger"]["lines"].clone();
    assert_eq!((&lines["filtered"], &lines["delivered"]), (&json!(60), &json!(11)));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_the_app_refuses_is_put_aside() {
    let relay = Relay::new();
    let _app = relay.app(&["--refuse-every", "10"]);
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..100);
    relay.bridge.wait_until_settled();
    let rejects = relay.bridge.rejects();
    assert_eq!(rejects.len(), 10);
    assert!(rejects.iter().all(|line| line["reason"] == "refused"));
    let refused: Vec<_> = rejects.iter().map(|line| line["line"].as_str().unwrap()).collect();
    let refused: Vec<_> = refused.iter().map(|line| events::number(line.as_bytes())).collect();
    assert!(refused.into_iter().eq((0..100).step_by(10)), "others than those it named");
    relay.finish(daemon, 100);
}

#[test]
fn a_stock_install_that_listens_on_a_socket_file_is_reached() {
    let mut relay = Relay::new();
    let path = relay.bridge.directory().join("app.sock");
    let path = path.to_str().unwrap();
    relay.bridge.set("SOCKETIO_URL", &format!("unix:{path}"));
    relay.bridge.append().events(0..500);
    let daemon = relay.bridge.start();
    let sink = wait_for("the reason", || {
        let sink = relay.bridge.status()["sink"].clone();
        sink["reason"].as_str().is_some_and(|why| why.contains("app.sock")).then_some(sink)
    });
    assert_ne!(sink["state"], "up");
    let app = relay.app(&["--unix", path]);
    relay.bridge.wait_until_settled();
    drop(app);
    std::fs::remove_file(path).unwrap();
    let _app = relay.app(&["--unix", path]);
    relay.bridge.append().events(500..1_000);
    relay.finish(daemon, 1_000);
}
