//! A process on a poor machine: one processor, few descriptors, no environment, and a directory full of files.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::files::{lines, setup};
use crate::support::account::ticks;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::http::get;
use crate::support::socketio::Client;
use crate::support::{free_port, or_in_soak, wait_for};

fn words(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

/// How long it stands still. Ten minutes before a release: sessions and connections have expired by then.
fn pause() -> Duration {
    or_in_soak(Duration::from_secs(3), Duration::from_mins(10))
}

#[test]
fn pr_06_paused_while_its_file_is_rotated_and_written_it_goes_on_and_loses_nothing() {
    let setup = setup();
    let daemon = setup.deliver(0..100);
    daemon.signal("STOP");
    setup.bridge.append().events(100..200);
    fs::rename(setup.bridge.input(), setup.bridge.input().with_extension("jsonl.1")).unwrap();
    setup.bridge.append().events(200..300);
    let since = Instant::now();
    wait_for_at_least(since + pause());
    daemon.signal("CONT");
    setup.bridge.append().events(300..400);
    setup.expect(&(0..400).collect::<Vec<_>>());
    wait_for("the sink up", || (setup.bridge.status()["sink"]["state"] == "up").then_some(()));
    assert_eq!(daemon.stop(), 0);
}

/// Time itself is the condition.
fn wait_for_at_least(until: Instant) {
    while let Some(rest) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(rest);
    }
}

#[test]
fn pr_08_out_of_descriptors_it_does_not_spin_and_goes_on_as_soon_as_there_are_some() {
    let mut bridge = Bridge::socketio();
    let monitor = format!("127.0.0.1:{}", free_port());
    bridge.set("BRIDGE_HTTP_LISTEN", &monitor);
    bridge.wrapper = words("prlimit --nofile=64:64");
    bridge.append().events([0]);
    let daemon = bridge.start();
    let address = bridge.address();
    let mut client = Client::join(&address);
    assert_eq!(client.numbers(1), [0]);
    let flood = |address: &str| -> Vec<TcpStream> {
        (0..100).map(|_| TcpStream::connect(address).unwrap()).collect()
    };
    let floods = (flood(&address), flood(&monitor));
    daemon.wait_for_log("cannot take a connection");
    // What is open goes on.
    bridge.append().events([1]);
    assert_eq!(client.numbers(1), [1]);
    // What has to be opened waits.
    fs::rename(bridge.input(), bridge.input().with_extension("jsonl.1")).unwrap();
    bridge.append().events([2]);
    let (since, before) = (Instant::now(), ticks(&daemon));
    wait_for_at_least(since + Duration::from_secs(3));
    let spent = ticks(&daemon) - before;
    assert!(spent <= 150, "{spent} hundredths of a second in three seconds");
    drop(floods);
    assert_eq!(client.numbers(1), [2]);
    wait_for("ready", || (get(&monitor, "/readyz").code == 200).then_some(()));
    assert!(daemon.log().len() < 60, "{} log lines", daemon.log().len());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pr_18_pr_19_one_processor_a_small_stack_and_no_environment_are_enough() {
    let mut setup = setup();
    setup.bridge.wrapper = words("env -i taskset -c 0 prlimit --stack=262144");
    let deep = format!(
        r#"{{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{{"n":{}1{}}}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    setup.bridge.append().write((deep.clone() + "\n").as_bytes());
    setup.bridge.append().write(
        (deep.replace("[1]", &format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))) + "\n")
            .as_bytes(),
    );
    setup.bridge.append().events(0..20_000);
    let daemon = setup.bridge.start();
    setup.bridge.wait_until_settled();
    let status = setup.bridge.status();
    assert_eq!(status["ledger"]["lines"]["delivered"], 20_001);
    assert_eq!(status["ledger"]["lines"]["rejected"], 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pr_21_beside_16_000_rotated_files_it_starts_and_follows_rotations_at_once() {
    const FILES: u64 = 16_000;
    let setup = setup();
    let beside =
        |name: &str| setup.bridge.input().with_file_name(format!("order_events.jsonl{name}"));
    for number in 0..FILES {
        fs::write(beside(&format!("-2025{number:05}")), lines([number])).unwrap();
        // Some are being packed.
        if number % 4 == 0 {
            fs::write(beside(&format!("-2025{number:05}.gz")), "half").unwrap();
        }
    }
    let mut topic = Topic::open(&setup.broker.bootstrap, &setup.topic);
    let mut spent = 0;
    let mut written = 0;
    let mut append = || {
        if written > 0 {
            fs::rename(setup.bridge.input(), beside(&format!("-2026{written:05}"))).unwrap();
        }
        setup.bridge.append().events([written]);
        written += 1;
        written
    };
    for _ in 0..3 {
        let before = append();
        let daemon = setup.bridge.start();
        topic.wait_for_events(before as usize);
        topic.wait_for_events(append() as usize);
        setup.bridge.wait_until_settled();
        spent += ticks(&daemon);
        assert_eq!(daemon.stop(), 0);
    }
    assert_eq!(topic.numbers(), (0..written).collect::<Vec<_>>());
    assert!(spent < 500, "{spent} hundredths of a second");
}

#[test]
fn sec_06_sec_11_what_stands_in_a_line_names_no_file_no_topic_and_no_metric() {
    let mut setup = setup();
    let monitor = format!("127.0.0.1:{}", free_port());
    setup.bridge.set("BRIDGE_HTTP_LISTEN", &monitor);
    let long = format!("canary{}", "x".repeat(300));
    let hostile = [
        "../../canary",
        "/etc/canary",
        r"canary\u0000",
        r#"canary\n{a=\"b\"} 1"#,
        r#"canary\",x=\""#,
        &long,
    ];
    for word in hostile {
        for (kind, user, source, member) in [
            ("order_event", word, "s", "n"),
            ("order_event", "u", word, "n"),
            ("order_event", "u", "s", word),
            (word, "u", "s", "n"),
        ] {
            let line = format!(
                r#"{{"event_type":"{kind}","timestamp":"2026-01-29T10:30:45Z","user_id":"{user}","source":"{source}","data":{{"{member}":1}}}}"#
            );
            setup.bridge.append().write((line + "\n").as_bytes());
        }
    }
    let daemon = setup.bridge.start();
    setup.bridge.wait_until_settled();
    let lines = setup.bridge.status()["ledger"]["lines"].clone();
    let count = |what: &str| lines[what].as_u64().unwrap();
    assert_eq!(count("delivered") + count("rejected"), 4 * hostile.len() as u64, "{lines}");
    assert!(
        count("delivered") >= hostile.len() as u64 && count("rejected") >= hostile.len() as u64
    );
    for page in ["/metrics", "/status.json"] {
        let page = get(&monitor, page);
        assert_eq!(page.code, 200);
        assert!(!page.body.contains("canary"), "{}", page.body);
    }
    let mut known: Vec<String> = fs::read_dir(setup.bridge.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    known.sort();
    assert!(!known.iter().any(|name| name.contains("canary")), "{known:?}");
    assert!(!daemon.log_after_stop().contains("canary"));
}
