//! The default mode: the daemon is the Socket.IO server.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::http::{POLLING, polling_session, request, request_with};
use crate::support::socketio::{Client, Event, Standard, expected};
use crate::support::{PATIENCE, events, free_port, poll, wait_for};

#[test]
fn standard_clients_get_every_event_of_the_samples_in_order_with_the_text_of_the_line() {
    let samples = concat!(
        include_str!("../samples/openalgo-samples.jsonl"),
        include_str!("../samples/openalgo-samples-extra.jsonl")
    );
    let expected = expected(samples);
    assert!(expected.len() > 50, "{} events", expected.len());
    let name = |line: &str| {
        let envelope: serde_json::Value = serde_json::from_str(line).ok()?;
        envelope["event_type"].as_str().map(str::to_owned)
    };
    let types: BTreeSet<String> = samples.lines().filter_map(name).collect();
    let mut bridge = Bridge::socketio();
    bridge.set("BRIDGE_EVENT_TYPES", &types.into_iter().collect::<Vec<_>>().join(","));
    let daemon = bridge.start();
    let address = bridge.address();
    let clients = [
        ("node, polling", Standard::node(&address, "polling", &[])),
        ("node, websocket", Standard::node(&address, "websocket", &[])),
        ("node, upgrade", Standard::node(&address, "polling,websocket", &[])),
        ("python, polling", Standard::python(&address, "sync", "polling")),
        ("python, upgrade", Standard::python(&address, "sync", "polling,websocket")),
        ("python asyncio, websocket", Standard::python(&address, "asyncio", "websocket")),
        ("python asyncio, upgrade", Standard::python(&address, "asyncio", "polling,websocket")),
    ];
    for (_, client) in &clients {
        client.wait_for("connected");
    }
    wait_for("all clients", || (bridge.status()["sink"]["clients"] == clients.len()).then_some(()));
    bridge.append().write(samples.as_bytes());
    for (name, client) in &clients {
        assert_eq!(client.wait_for_events(expected.len()), expected, "{name}");
    }
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    assert_eq!(bridge.rejects().len(), 1, "the one whose data is a string");
}

#[test]
fn a_client_that_is_there_before_a_backlog_of_100_000_lines_gets_every_one_whatever_its_pace() {
    const LINES: usize = 100_000;
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let address = bridge.address();
    let joined: Vec<Client> = (0..3).map(|_| Client::join(&address)).collect();
    bridge.append().events(0..LINES as u64);
    let readers: Vec<_> = joined
        .into_iter()
        .zip([0, 1, 20])
        .map(|(mut client, pause_ms)| {
            std::thread::spawn(move || {
                let mut numbers = Vec::new();
                while numbers.len() < LINES {
                    numbers.extend(client.numbers((LINES - numbers.len()).min(1_000)));
                    // A slower reader, which is what is tested here.
                    std::thread::park_timeout(Duration::from_millis(pause_ms));
                }
                numbers
            })
        })
        .collect();
    for (number, reader) in readers.into_iter().enumerate() {
        assert!(
            reader.join().expect("a reader").into_iter().eq(0..LINES as u64),
            "reader {number}"
        );
    }
    bridge.wait_until_settled();
    assert_eq!(bridge.status()["sink"]["delivered_to_nobody"], 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_client_that_stops_reading_delays_the_others_once_and_is_disconnected() {
    const BLOCKS: u64 = 60;
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_CLIENT_TIMEOUT_MS", "1000");
    let daemon = bridge.start();
    let address = bridge.address();
    let mut silent = Client::join(&address);
    let mut reader = Client::join(&address);
    wait_for("both clients", || (bridge.status()["sink"]["clients"] == 2).then_some(()));
    // Much more than a buffer and the kernel hold.
    let mut input = bridge.append();
    for block in 0..BLOCKS {
        let lines: String = (block * 100..(block + 1) * 100)
            .map(|number| events::padded_event(number, 10_000) + "\n")
            .collect();
        input.write(lines.as_bytes());
    }
    let began = Instant::now();
    let numbers = reader.numbers(BLOCKS as usize * 100);
    assert!(numbers.iter().copied().eq(0..BLOCKS * 100));
    println!("{} MB to the reader in {:?}", BLOCKS, began.elapsed());
    daemon.wait_for_log("left its full buffer unread");
    let sink = bridge.status()["sink"].clone();
    assert_eq!((&sink["clients"], &sink["clients_given_up"]), (&1.into(), &1.into()));
    let peak = daemon.memory_kb("VmHWM");
    assert!(peak <= 96 << 10, "{peak} kB");
    assert!(poll(PATIENCE, || silent.is_closed().then_some(())).is_some(), "it is still connected");
    // It may come back.
    let mut again = Client::join(&address);
    input.events([7]);
    assert_eq!(again.numbers(1), [7]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn sigterm_writes_the_buffers_out() {
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let mut client = Client::join(&bridge.address());
    let lines: String =
        (0..1_000).map(|number| events::padded_event(number, 3_000) + "\n").collect();
    bridge.append().write(lines.as_bytes());
    bridge.wait_until_settled();
    let stopping = std::thread::spawn(move || daemon.stop());
    assert!(client.numbers(1_000).into_iter().eq(0..1_000));
    assert_eq!(stopping.join().unwrap(), 0);
    assert!(client.is_closed());
}

#[test]
fn after_a_restart_events_wait_for_a_client_that_reconnects_with_default_delays() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LISTEN", &format!("127.0.0.1:{}", free_port()));
    let daemon = bridge.start();
    let client = Standard::node(&bridge.address(), "polling,websocket", &[]);
    client.wait_for("connected");
    let mut input = bridge.append();
    input.events(0..10);
    client.wait_for_events(10);
    assert_eq!(daemon.stop(), 0);
    input.events(10..20);
    let daemon = bridge.start();
    let numbers: Vec<u64> = client.wait_for_events(20).iter().map(Event::number).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn with_nobody_there_events_wait_for_the_grace_and_then_go_to_nobody_and_are_counted() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_START_GRACE_MS", "1500");
    bridge.append().events(0..10);
    let began = Instant::now();
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
    assert_eq!(bridge.status()["sink"]["delivered_to_nobody"], 10);
    let mut client = Client::join(&bridge.address());
    bridge.append().events(10..12);
    assert_eq!(client.numbers(2), [10, 11], "a client gets what is read after it joined");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_stop_before_anyone_was_there_leaves_the_events_to_the_next_start_at_once() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_START_GRACE_MS", "60000").set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "60000");
    bridge.append().events(0..10);
    let daemon = bridge.start();
    bridge.address();
    wait_for("the lines to be read and wait", || {
        (bridge.status()["ledger"]["lines"]["pending"] == 10).then_some(())
    });
    let began = Instant::now();
    let log = daemon.log_after_stop();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(log.contains("left to the next start"), "{log}");
    assert_eq!(bridge.checkpoint()["offset"], 0);
    let daemon = bridge.start();
    assert!(Client::join(&bridge.address()).numbers(10).into_iter().eq(0..10));
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_busy_port_is_an_alarm_and_events_wait_until_it_is_free() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LISTEN", &address).set("SOCKETIO_START_GRACE_MS", "5000");
    bridge.append().events(0..10);
    let daemon = bridge.start();
    daemon.wait_for_log("cannot listen for Socket.IO clients");
    let status = bridge.status();
    assert_eq!(
        (&status["sink"]["state"], &status["listen"]["socketio"]),
        (&"down".into(), &().into())
    );
    wait_for("the lines to be read and wait", || {
        (bridge.status()["ledger"]["lines"]["pending"] == 10).then_some(())
    });
    drop(busy);
    daemon.wait_for_log("Socket.IO clients can connect");
    assert!(Client::join(&address).numbers(10).into_iter().eq(0..10));
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn old_events_are_left_out_when_catching_up_and_live_ones_never() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_MAX_EVENT_AGE_SECONDS", "3600");
    // The events are of January 2026.
    bridge.append().events(0..10);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    let lines = bridge.status()["ledger"]["lines"].clone();
    assert_eq!((&lines["filtered"], &lines["delivered"]), (&10.into(), &0.into()));
    let mut client = Client::join(&bridge.address());
    bridge.append().events(10..12);
    assert_eq!(client.numbers(2), [10, 11]);
    assert_eq!(daemon.stop(), 0);

    // What comes while nobody can connect is caught up with too.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    bridge.set("SOCKETIO_LISTEN", &busy.local_addr().unwrap().to_string());
    let daemon = bridge.start();
    daemon.wait_for_log("cannot listen for Socket.IO clients");
    bridge.append().events(12..20);
    wait_for("the old lines to be left out", || {
        (bridge.status()["ledger"]["lines"]["filtered"] == 18).then_some(())
    });
    drop(busy);
    let mut client = Client::join(&bridge.address());
    // Until the owner knows that the port is open, what comes counts as having come before.
    wait_for("the sink up", || (bridge.status()["sink"]["state"] == "up").then_some(()));
    bridge.append().events([20]);
    assert_eq!(client.numbers(1), [20], "old events came after the port was busy");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn sigterm_waits_for_the_answer_that_a_polling_client_is_reading() {
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let address = bridge.address();
    let id = polling_session(&address);
    let target = format!("{POLLING}&sid={id}");
    assert!(request_with(&address, "POST", &target, "", "40").starts_with("HTTP/1.1 200"));
    wait_for("the client", || (bridge.status()["sink"]["clients"] == 1).then_some(()));
    let _ping_and_welcome = request(&address, "GET", &target, "");
    for number in 0..4 {
        bridge.append().write((events::padded_event(number, 800_000) + "\n").as_bytes());
    }
    bridge.wait_until_settled();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    // Not one byte is read before the daemon is through with everything but this.
    let stopping = std::thread::spawn(move || daemon.log_after_stop());
    std::thread::park_timeout(Duration::from_millis(300));
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let log = stopping.join().unwrap();
    assert_eq!(answer.matches("\"orderid\"").count(), 4, "{} bytes: {log}", answer.len());
    // The end of the session may be in the same answer.
    let events = answer.strip_suffix("\u{1e}1").unwrap_or(&answer);
    assert!(events.ends_with("}]"), "the last event is cut");
}

#[test]
fn the_live_page_shows_each_event_and_asks_for_nothing_from_elsewhere() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LIVE_PAGE", "on");
    let daemon = bridge.start();
    let browser = Standard::browser(&bridge.address(), &[]);
    browser.wait_for("connected");
    let samples = include_str!("../samples/openalgo-samples.jsonl");
    let hostile = r#"{"event_type":"order_notification","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{"symbol":"<img src=x onerror=alert(1)>","status":"info","message":"</script><b>"}}"#;
    let content = format!("{samples}{hostile}\n");
    bridge.append().write(content.as_bytes());
    let expected: Vec<String> = expected(&content).into_iter().map(|event| event.name).collect();
    let shown = || {
        let lines = browser.lines();
        let names = lines.iter().filter_map(|line| line["event"].as_str().map(str::to_owned));
        Some(names.collect::<Vec<_>>()).filter(|names| names.len() >= expected.len())
    };
    assert_eq!(wait_for("all events on the page", shown), expected);
    let odd =
        |line: &serde_json::Value| line.get("console_error").or(line.get("request")).is_some();
    let odd: Vec<_> = browser.lines().into_iter().filter(odd).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_live_page_is_only_for_reading_and_paths_that_begin_like_it_are_free() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LIVE_PAGE", "on").set("SOCKETIO_PATH", "/livefeed/");
    let daemon = bridge.start();
    let address = bridge.address();
    let status = |method: &str, path: &str| {
        request(&address, method, path, "").lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(status("GET", "/live"), "HTTP/1.1 200 OK");
    assert_eq!(status("HEAD", "/live"), "HTTP/1.1 200 OK");
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(status(method, "/live"), "HTTP/1.1 405 Method Not Allowed", "{method}");
    }
    let query = POLLING.strip_prefix("/socket.io/").unwrap();
    assert_eq!(status("GET", &format!("/livefeed/{query}")), "HTTP/1.1 200 OK");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn append_to_client_is_well_below_100_ms_at_the_95th_percentile() {
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let mut client = Client::join(&bridge.address());
    let mut input = bridge.append();
    let mut latencies: Vec<Duration> = (0..200)
        .map(|number| {
            let written = Instant::now();
            input.events([number]);
            assert_eq!(client.numbers(1), [number]);
            written.elapsed()
        })
        .collect();
    latencies.sort_unstable();
    println!(
        "append to client: p50 {:?}, p95 {:?}, p99 {:?}",
        latencies[100], latencies[190], latencies[198]
    );
    assert!(latencies[190] < Duration::from_millis(100), "{:?}", latencies[190]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn switching_between_kafka_and_socketio_under_load_leaves_no_line_out_and_repeats_none() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LISTEN", &format!("127.0.0.1:{}", free_port()));
    bridge.set("KAFKA_BOOTSTRAP_SERVERS", &broker.bootstrap);
    bridge.set("KAFKA_ORDER_EVENTS_TOPIC", &topic);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (mut input, ended, count) = (bridge.append(), Arc::clone(&stop), Arc::clone(&written));
    let appender = std::thread::spawn(move || {
        while !ended.load(Ordering::SeqCst) {
            let next = count.load(Ordering::SeqCst) as u64;
            input.events(next..next + 20);
            count.fetch_add(20, Ordering::SeqCst);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    let settled = |bridge: &Bridge| bridge.checkpoint()["offset"].as_u64().unwrap_or_default();
    let mut client: Option<Standard> = None;
    // Back and forth twice, each time on the line that the admin edits.
    for mode in ["KAFKA", "SOCKETIO", "KAFKA", "SOCKETIO", "KAFKA"] {
        bridge.set("ORDER_EVENT_MODE", mode);
        let before = settled(&bridge);
        let daemon = bridge.start();
        if mode == "SOCKETIO" {
            let address = bridge.address();
            client.get_or_insert_with(|| Standard::node(&address, "polling,websocket", &[]));
        }
        wait_for("some thousand lines in this mode", || {
            (settled(&bridge) > before + 500_000).then_some(())
        });
        let log = daemon.log_after_stop();
        assert!(log.contains("stopped: everything that was read is settled"), "{mode}: {log}");
    }
    stop.store(true, Ordering::SeqCst);
    appender.join().unwrap();
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);

    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    let in_kafka = consumer.numbers();
    let in_socketio: Vec<u64> = client.unwrap().events().iter().map(Event::number).collect();
    println!("{} in Kafka, {} over Socket.IO", in_kafka.len(), in_socketio.len());
    let mut all = [in_kafka.clone(), in_socketio.clone()].concat();
    all.sort_unstable();
    assert!(!in_kafka.is_empty() && !in_socketio.is_empty());
    let written = written.load(Ordering::SeqCst) as u64;
    assert!(all.into_iter().eq(0..written), "a line is in neither, or in both");
    let switches = bridge.checkpoint()["mode_switches"].clone();
    assert_eq!(switches.as_array().map(Vec::len), Some(4), "{switches}");
}

#[test]
fn a_client_that_joins_while_it_goes_over_to_websocket_gets_what_comes_meanwhile() {
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let address = bridge.address();
    let id = polling_session(&address);
    let target = format!("{POLLING}&sid={id}");
    let mut client = Client::connect(&address, &format!("&sid={id}"), &[]).unwrap();
    let joined = request_with(&address, "POST", &target, "", "40");
    assert!(joined.starts_with("HTTP/1.1 200"), "{joined}");
    wait_for("the client", || (bridge.status()["sink"]["clients"] == 1).then_some(()));
    bridge.append().events([0]);
    bridge.wait_until_settled();
    client.send("2probe");
    assert_eq!(client.message(PATIENCE).as_deref(), Some("3probe"));
    client.send("5");
    assert!(client.message(PATIENCE).is_some_and(|text| text.starts_with("40")));
    assert_eq!(client.event(Duration::from_secs(10)).map(|event| event.number()), Some(0));
    assert_eq!(daemon.stop(), 0);
}
