//! The rollback as `OpenAlgo` types it: the app's own `.env`, and `systemctl restart openalgo`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::machine::{ENV_FILE, INPUT, Machine, UNIT, repository};
use crate::rollback::{Drill, TOPIC, Tail};
use crate::start::client;
use crate::support::broker::Broker;
use crate::support::events::event;
use crate::support::wait_for;

const APP_ENV_FILE: &str = "/opt/openalgo/.env";
const KIT: &str = "/usr/share/openalgo-bridge/openalgo";

/// What setup.sh takes for the app: its lines are numbered by what is in the file.
const APP_UNIT: &str = "\
[Service]
User=www-data
WorkingDirectory=/opt/openalgo
ExecStart=/opt/openalgo/gunicorn app:app
[Install]
WantedBy=multi-user.target
";

fn app() -> String {
    let line = event(424_242).replace("424242", "%d");
    format!(
        "#!/bin/sh\nfile=$OPENALGO_BRIDGE_FILE\numask 027\ntouch \"$file\"\nnext=$(wc -l <\"$file\")\n\
         while true; do printf '{line}\\n' $next >>\"$file\"; next=$((next + 1)); sleep 0.02; done\n"
    )
}

fn install(machine: &Machine, app_settings: &str) {
    for directory in ["/opt/openalgo", KIT] {
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
    write(&machine.path("/opt/openalgo/gunicorn"), &app(), 0o755);
    write(&machine.path("/etc/systemd/system/openalgo.service"), APP_UNIT, 0o644);
    write(&machine.path(APP_ENV_FILE), app_settings, 0o600);
    machine.succeed(&["chown", "www-data", APP_ENV_FILE]);
}

/// Runs setup.sh, and then what its last line says.
fn set_up(machine: &Machine) {
    let said = machine.succeed(&["bash", &format!("{KIT}/setup.sh")]);
    let then = said.lines().last().and_then(|line| line.strip_prefix("Then: ")).expect("a command");
    assert!(then.contains("systemctl enable openalgo-bridge.service"), "{said}");
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
    install(&machine, &settings);
    set_up(&machine);
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
