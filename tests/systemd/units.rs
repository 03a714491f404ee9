//! What the units say, and what comes with them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::machine::{ENV_FILE, INPUT, Machine, NO_BROKER, UNIT, repository, text};

fn unit(name: &str) -> Vec<String> {
    let text = fs::read_to_string(repository("systemd").join(name)).unwrap();
    let settings = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    settings.map(str::to_owned).collect()
}

#[test]
fn sec_12_the_units_are_valid_and_their_exposure_is_at_most_1_5() {
    let machine = Machine::with_bridge();
    for unit in [UNIT, "openalgo-bridge@one.service"] {
        let output = machine.run(&["systemd-analyze", "verify", unit]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{unit}: {said}");
    }
    for unit in [UNIT, "openalgo-bridge@.service"] {
        let file = format!("/usr/lib/systemd/system/{unit}");
        let analyze = |threshold| {
            machine.run(&["systemd-analyze", "security", "--offline=yes", threshold, &file])
        };
        let output = analyze("--threshold=15");
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        eprintln!("{}", said.lines().last().unwrap_or_default());
        assert!(!analyze("--threshold=1").status.success(), "the threshold is none");
    }
}

#[test]
fn the_template_is_the_unit_but_for_names() {
    let (one, many) = (unit("openalgo-bridge.service"), unit("openalgo-bridge@.service"));
    let difference = |from: &[String], to: &[String]| {
        let to: BTreeSet<&String> = to.iter().collect();
        from.iter().filter(|line| !to.contains(line)).cloned().collect::<Vec<_>>()
    };
    let names = [
        "Description=OpenAlgo order events to Kafka or Socket.IO (%i)",
        "ExecStart=/usr/bin/openalgo-bridge --instance %i run",
        "StateDirectory=openalgo-bridge/%i",
        "RuntimeDirectory=openalgo-bridge/%i",
    ];
    assert_eq!(difference(&many, &one), names);
    assert_eq!(difference(&one, &many).len(), names.len());
    assert_eq!(one.len(), many.len());
}

#[test]
fn the_unit_waits_longer_for_the_end_than_the_daemon_takes_for_it() {
    let seconds = |name: &str| -> u64 {
        let unit = unit("openalgo-bridge.service");
        let value = unit.iter().find_map(|line| line.strip_prefix(name));
        value.unwrap().parse().unwrap()
    };
    let sample = fs::read_to_string(repository(".sample.env")).unwrap();
    let drain =
        sample.lines().find_map(|line| line.strip_prefix("# BRIDGE_SHUTDOWN_TIMEOUT_MS = '"));
    let drain: u64 = drain.unwrap().trim_end_matches('\'').parse().unwrap();
    assert!(seconds("TimeoutStopSec=") * 1000 >= drain * 2, "{drain}");
    // Alive is who turned within the last five seconds; that must not be what the watchdog is about.
    assert!(seconds("WatchdogSec=") >= 30);
}

#[test]
fn the_events_directory_is_made_once_and_stays_whose_it_is() {
    let machine = Machine::with_bridge();
    let directory = machine.path("/var/lib/openalgo-events");
    let facts = || {
        let there = fs::metadata(&directory).unwrap();
        (there.permissions().mode() & 0o7777, there.uid(), there.gid())
    };
    let made = facts();
    assert_eq!((made.0, made.1), (0o2750, 0));
    let group = machine.succeed(&["getent", "group", "openalgo-bridge"]);
    assert_eq!(group.trim(), format!("openalgo-bridge:x:{}:", made.2));
    let user = machine.succeed(&["getent", "passwd", "openalgo-bridge"]);
    assert!(user.trim().ends_with(":/var/lib/openalgo-bridge:/usr/sbin/nologin"), "{user}");

    // As the kit does for the app's user, or for several apps.
    machine.succeed(&["chown", "daemon:daemon", "/var/lib/openalgo-events"]);
    machine.succeed(&["chmod", "755", "/var/lib/openalgo-events"]);
    let given = facts();
    assert_ne!(given, made);
    machine.succeed(&["systemd-sysusers"]);
    machine.succeed(&["systemd-tmpfiles", "--create"]);
    assert_eq!(facts(), given);
}

#[test]
fn an_outage_never_rotates_undelivered_events_away() {
    let machine = Machine::with_bridge();
    // The snippet waits for 30 s; whoever is behind for good is as far behind at once.
    let snippet = fs::read_to_string(machine.path("/etc/logrotate.d/openalgo-bridge")).unwrap();
    assert!(snippet.contains("--wait 30"));
    let snippet = snippet.replace("--wait 30", "--wait 1");
    fs::write(machine.path("/etc/logrotate.d/openalgo-bridge"), snippet).unwrap();
    let rotate = || machine.run(&["logrotate", "--force", "/etc/logrotate.d/openalgo-bridge"]);
    let files = || {
        let files = fs::read_dir(machine.path("/var/lib/openalgo-events")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let before = BTreeSet::from(["order_events.jsonl".to_owned()]);
    machine.append(0..10);
    assert!(!rotate().status.success(), "without a daemon");
    assert_eq!(files(), before);

    machine.configure(ENV_FILE, &NO_BROKER);
    machine.start(UNIT);
    assert!(!rotate().status.success(), "without a broker");
    assert_eq!(files(), before);

    // The events get through.
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.succeed(&["systemctl", "restart", UNIT]);
    machine.wait_until_delivered(10);
    let output = rotate();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files(), BTreeSet::from(["order_events.jsonl.1".to_owned()]));
    machine.append_to(INPUT, 10..20);
    let read = || machine.status()["ledger"]["lines"]["delivered"].as_u64();
    crate::support::wait_for("the new file", || (read() == Some(20)).then_some(()));
}
