//! What a restart can't mend is not tried again, and the journal says what to do.

use std::fs;
use std::time::Duration;

use crate::machine::{ENV_FILE, Machine, UNIT};

/// Waits until the start has failed for good, with this code.
#[track_caller]
fn wait_for_the_failure(machine: &Machine, code: u64) {
    machine.wait_for_property(UNIT, "ActiveState", "failed");
    assert_eq!(machine.number(UNIT, "ExecMainStatus"), code);
    // Longer than it takes to be tried again: see the drop-in.
    std::thread::park_timeout(Duration::from_secs(1));
    assert_eq!(machine.property(UNIT, "ActiveState"), "failed");
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);
}

#[test]
fn pr_11_a_bad_setting_is_78_not_tried_again_and_the_journal_names_line_and_remedy() {
    let machine = Machine::with_bridge();
    machine.drop_in(UNIT, "RestartSec=50ms");
    machine.write_for_the_bridge(ENV_FILE, "# mine\nBRIDGE_LOG_LEVEL = 'loud'\n");
    assert!(!machine.systemctl("start", UNIT).status.success());
    wait_for_the_failure(&machine, 78);
    let journal = machine.journal(UNIT);
    for part in [&format!("{ENV_FILE}:2"), "BRIDGE_LOG_LEVEL", "loud", "BRIDGE_LOG_LEVEL = 'info'"]
    {
        assert!(journal.contains(part), "{part} in {journal}");
    }
    // Without the file, nothing is guessed.
    fs::remove_file(machine.path(ENV_FILE)).unwrap();
    assert!(!machine.systemctl("start", UNIT).status.success());
    wait_for_the_failure(&machine, 78);

    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.append(0..10);
    machine.start(UNIT);
    machine.wait_until_delivered(10);
}

#[test]
fn pr_11_ck_10_a_checkpoint_of_a_newer_version_is_refused_once_and_clearly() {
    let machine = Machine::with_bridge();
    machine.drop_in(UNIT, "RestartSec=50ms");
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.start(UNIT);
    machine.succeed(&["systemctl", "stop", UNIT]);
    let checkpoint = machine.path("/var/lib/openalgo-bridge/checkpoint.json");
    let newer = "{\"version\":999,\"position\":7}\n";
    fs::write(&checkpoint, newer).unwrap();
    assert!(!machine.systemctl("start", UNIT).status.success());
    wait_for_the_failure(&machine, 78);
    let journal = machine.journal(UNIT);
    for part in ["checkpoint.json: a newer version of the bridge wrote it", "install that one"] {
        assert!(journal.contains(part), "{part} in {journal}");
    }
    assert_eq!(fs::read_to_string(checkpoint).unwrap(), newer);
}
