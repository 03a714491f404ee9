//! The rollback as `OpenAlgo` types it: the app's own `.env`, and `systemctl restart openalgo`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::machine::{ENV_FILE, INPUT, Machine, UNIT, repository};
use crate::rollback::{Drill, TOPIC, Tail};
use crate::start::client;
use crate::support::broker::Broker;
use crate::support::events::event;
use crate::support::socketio::Event;
use crate::support::wait_for;
use crate::topic::messages;

const APP_ENV_FILE: &str = "/opt/openalgo/.env";
const KIT: &str = "/usr/share/openalgo-bridge/openalgo";

/// What setup.sh takes for the app: its lines are numbered by what is in the file.
fn app_unit(name: &str, user: &str) -> String {
    format!(
        "[Service]\nUser={user}\nWorkingDirectory=/opt/{name}\nExecStart=/opt/{name}/gunicorn app:app\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

fn app() -> String {
    let line = event(424_242).replace("424242", "%d");
    format!(
        "#!/bin/sh\nfile=$OPENALGO_BRIDGE_FILE\numask 027\ntouch \"$file\"\nnext=$(wc -l <\"$file\")\n\
         while true; do printf '{line}\\n' $next >>\"$file\"; next=$((next + 1)); sleep 0.02; done\n"
    )
}

fn install(machine: &Machine, name: &str, user: &str, app_settings: &str) {
    let home = format!("/opt/{name}");
    for directory in [&home, KIT] {
        fs::create_dir_all(machine.path(directory)).unwrap();
    }
    for file in ["setup.sh", "gunicorn.conf.py", "gunicorn.env"] {
        let kit = repository("packaging/openalgo").join(file);
        fs::copy(kit, machine.path(KIT).join(file)).unwrap();
    }
    let write = |path: &Path, text: &str, mode| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&machine.path(&format!("{home}/gunicorn")), &app(), 0o755);
    let unit = machine.path(&format!("/etc/systemd/system/{name}.service"));
    write(&unit, &app_unit(name, user), 0o644);
    write(&machine.path(&format!("{home}/.env")), app_settings, 0o600);
    machine.succeed(&["chown", user, &format!("{home}/.env")]);
}

/// Runs setup.sh, and then what its last line says.
fn set_up(machine: &Machine, daemons: &str) {
    let said = machine.succeed(&["bash", &format!("{KIT}/setup.sh")]);
    let then = said.lines().last().and_then(|line| line.strip_prefix("Then: ")).expect("a command");
    assert!(then.contains(&format!("systemctl enable {daemons} && ")), "{said}");
    machine.succeed(&["sh", "-ec", then]);
}

/// The drill, with the app running, which is the load.
fn drill() -> Drill {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    // As its sample has it, and the app's file says otherwise.
    let topic = ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC);
    machine.configure(ENV_FILE, &[("ORDER_EVENT_MODE", "socketio"), topic]);
    let settings = format!(
        "APP_KEY = 'canary'  # and much more\nORDER_EVENT_MODE = 'KAFKA'\nKAFKA_BOOTSTRAP_SERVERS = '{}'\n",
        broker.bootstrap
    );
    install(&machine, "openalgo", "www-data", &settings);
    set_up(&machine, UNIT);
    let page = client(&machine);
    Drill { machine, broker, page, typed: (APP_ENV_FILE, "openalgo") }
}

#[test]
fn rolled_back_by_the_apps_own_file_and_a_restart_of_the_app() {
    let drill = drill();
    let machine = &drill.machine;
    machine.wait_for_property(UNIT, "ActiveState", "active");
    wait_for("the topic", || {
        (machine.status()["ledger"]["lines"]["delivered"].as_u64() > Some(10)).then_some(())
    });
    let tail = Tail::of(machine, &drill.broker);
    wait_for("messages", || (tail.last() > Some(10)).then_some(()));
    drill.wait_for_long_pauses();
    let pid = machine.main_pid(UNIT);
    drill.to_socketio("typed as the app's");
    assert_ne!(machine.main_pid(UNIT), pid);
    drill.page.wait_for_events(100);
    drill.to_kafka(&tail);

    // Who says otherwise is named, by `run` and by `check`.
    let counts = ":2: ORDER_EVENT_MODE = 'KAFKA': /etc/openalgo-bridge/.env:1 has another one; this, of the later file, counts";
    let journal = machine.journal(UNIT);
    assert!(journal.contains(&format!("openalgo.env{counts}")), "{journal}");
    let files = ["--env-file", ENV_FILE, "--env-file", APP_ENV_FILE];
    let checked = machine.succeed(&[&["openalgo-bridge"], &files[..], &["check"]].concat());
    assert!(checked.contains(&format!("warning: {APP_ENV_FILE}{counts}")), "{checked}");
    assert!(!journal.contains("canary"));

    // A mistake stops the daemon, not the app; mended, the same command has it back.
    drill.edit("# and much more", "\nBRIDGE_LOG_LEVEL = 'loud'");
    machine.succeed(&["systemctl", "restart", "openalgo"]);
    machine.wait_for_property(UNIT, "ActiveState", "failed");
    assert_eq!(machine.property("openalgo", "ActiveState"), "active");
    drill.edit("loud", "info");
    machine.succeed(&["systemctl", "restart", "openalgo"]);
    machine.wait_for_property(UNIT, "ActiveState", "active");

    machine.succeed(&["systemctl", "stop", "openalgo"]);
    machine.wait_for_property(UNIT, "ActiveState", "inactive");
    machine.start("openalgo");
    machine.wait_for_property(UNIT, "ActiveState", "active");

    // Without the drop-ins the daemon is on its own again.
    machine.succeed(&["bash", &format!("{KIT}/setup.sh"), "--undo"]);
    machine.succeed(&["systemctl", "daemon-reload"]);
    machine.succeed(&["systemctl", "stop", "openalgo"]);
    assert_eq!(machine.property(UNIT, "ActiveState"), "active");
    let text = fs::read_to_string(machine.path(INPUT)).unwrap();
    drill.expect_in_one_of_both(text.lines().count() as u64, &BTreeSet::new());
    machine.succeed(&["systemctl", "restart", UNIT]);
    assert_eq!(machine.status()["mode"], "SOCKETIO");
}

/// Two apps of two users, as install-multi.sh has them, each with a daemon of its own.
const INSTANCES: [(&str, &str, &str, &str); 2] = [
    ("openalgo1", "www-data", "127.0.0.1:5055", "127.0.0.1:9821"),
    ("openalgo2", "daemon", "127.0.0.1:5056", "127.0.0.1:9822"),
];

fn events_of(name: &str) -> String {
    format!("/var/lib/openalgo-events/{name}/order_events.jsonl")
}

fn daemon_of(name: &str) -> String {
    format!("openalgo-bridge@{name}.service")
}

/// Both apps and both daemons running, the first in Kafka mode, by its app's own file.
fn drill_of_instances() -> Drill {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    for (name, user, socketio, http) in INSTANCES {
        let settings = [
            ("BRIDGE_INPUT", events_of(name)),
            ("SOCKETIO_LISTEN", socketio.to_owned()),
            ("BRIDGE_HTTP_LISTEN", http.to_owned()),
            ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC.to_owned()),
        ];
        let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
        machine.configure(&format!("/etc/openalgo-bridge/{name}.env"), &settings);
        install(&machine, name, user, "APP_KEY = 'canary'\n");
    }
    let lines =
        format!("ORDER_EVENT_MODE = 'KAFKA'\nKAFKA_BOOTSTRAP_SERVERS = '{}'\n", broker.bootstrap);
    fs::write(machine.path("/opt/openalgo1/.env"), lines).unwrap();
    set_up(&machine, &INSTANCES.map(|(name, ..)| daemon_of(name)).join(" "));
    let page = client(&machine);
    Drill { machine, broker, page, typed: ("/opt/openalgo1/.env", "openalgo1") }
}

#[test]
fn each_of_two_apps_restarts_and_rolls_back_its_own_daemon_and_not_the_other_one() {
    let drill = drill_of_instances();
    let machine = &drill.machine;
    let status = |name: &str| machine.status_of(&["--instance", name]);
    let delivered = |name: &str| status(name)["ledger"]["lines"]["delivered"].as_u64().unwrap();
    for (name, mode) in [("openalgo1", "KAFKA"), ("openalgo2", "SOCKETIO")] {
        machine.wait_for_property(&daemon_of(name), "ActiveState", "active");
        assert_eq!(status(name)["mode"], mode);
        assert_eq!(status(name)["input"]["path"], events_of(name));
        wait_for("events", || (delivered(name) > 10).then_some(()));
    }
    let tail = Tail::of(machine, &drill.broker);
    wait_for("messages", || (tail.last() > Some(10)).then_some(()));

    // One is rolled back by its app's own file, and forth again; the other never notices.
    let pids = || INSTANCES.map(|(name, ..)| machine.main_pid(&daemon_of(name)));
    let before = pids();
    drill.wait_for_long_pauses();
    drill.to_socketio("typed as an instance of the app");
    drill.page.wait_for_events(100);
    drill.to_kafka(&tail);
    let after = pids();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);

    // A mistake of one stops its daemon alone, and neither app.
    drill.edit("'KAFKA'", "'KAFKA'\nBRIDGE_LOG_LEVEL = 'loud'");
    machine.succeed(&["systemctl", "restart", "openalgo1"]);
    machine.wait_for_property(&daemon_of("openalgo1"), "ActiveState", "failed");
    let journal = machine.journal(&daemon_of("openalgo1"));
    assert!(journal.contains("/openalgo.env:2"), "{journal}");
    assert_eq!(machine.property("openalgo1", "ActiveState"), "active");
    assert_eq!(machine.main_pid(&daemon_of("openalgo2")), before[1]);
    drill.edit("loud", "info");
    machine.succeed(&["systemctl", "restart", "openalgo1"]);
    machine.wait_for_property(&daemon_of("openalgo1"), "ActiveState", "active");
    assert!(!machine.journal("openalgo-bridge*").contains("canary"));

    // Stopped and started with its app; and on its own without the drop-ins.
    machine.succeed(&["systemctl", "stop", "openalgo2"]);
    machine.wait_for_property(&daemon_of("openalgo2"), "ActiveState", "inactive");
    machine.start("openalgo2");
    machine.wait_for_property(&daemon_of("openalgo2"), "ActiveState", "active");
    machine.succeed(&["bash", &format!("{KIT}/setup.sh"), "--undo"]);
    machine.succeed(&["systemctl", "daemon-reload"]);
    for (name, ..) in INSTANCES {
        machine.succeed(&["systemctl", "stop", name]);
        assert_eq!(machine.property(&daemon_of(name), "ActiveState"), "active");
        let words =
            ["openalgo-bridge", "--instance", name, "status", "--caught-up", "--wait", "60"];
        machine.succeed(&words);
        let lines = fs::read_to_string(machine.path(&events_of(name))).unwrap().lines().count();
        assert_eq!(delivered(name), lines as u64, "{name}");
    }

    // Every stop was a clean one: each line of the first is on one side, and once.
    let lines = delivered("openalgo1");
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let in_topic = messages(machine, &drill.broker, TOPIC).into_iter().map(|(number, _)| number);
    for number in drill.page.events().iter().map(Event::number).chain(in_topic) {
        *seen.entry(number).or_default() += 1;
    }
    assert!(seen.keys().copied().eq(0..lines), "{seen:?}");
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}
