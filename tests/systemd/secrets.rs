//! Secrets come in through systemd's credentials, and nothing secret goes out by the journal.

use std::fs;

use crate::machine::{ENV_FILE, INPUT, Machine, UNIT, text};
use crate::support::events::event;
use crate::support::wait_for;

const PASSWORD: &str = "canary-of-the-password";
const PAYLOAD: &str = "canary-of-a-payload";

/// Events that hold it: a good one, one that is refused, one that is no JSON.
fn lines() -> String {
    let good = event(1).replace("\"note\":\"", &format!("\"note\":\"{PAYLOAD}"));
    let bad = good.replace("order_event", PAYLOAD);
    let password = good.replace("order_event", "password_change");
    format!("{good}\n{bad}\n{password}\n{{\"{PAYLOAD}\n")
}

#[test]
fn sec_02_sec_03_no_secret_and_no_payload_in_journal_status_and_command_line() {
    let machine = Machine::with_bridge();
    fs::write(machine.path("/etc/openalgo-bridge/kafka-password"), PASSWORD).unwrap();
    let root_alone = ["chmod", "600", "/etc/openalgo-bridge/kafka-password"];
    machine.succeed(&root_alone);
    machine.drop_in(
        UNIT,
        "LoadCredential=kafka-password:/etc/openalgo-bridge/kafka-password\nRestartSec=50ms",
    );
    machine.configure(
        ENV_FILE,
        &[
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9"),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", "bridge"),
            ("KAFKA_SASL_PASSWORD_FILE", "${CREDENTIALS_DIRECTORY}/kafka-password"),
            ("BRIDGE_LOG_LEVEL", "trace"),
        ],
    );
    machine.append_lines(INPUT, &lines());
    machine.start(UNIT);
    wait_for("the bad lines", || {
        (machine.status()["ledger"]["lines"]["rejected"] == 2).then_some(())
    });
    wait_for("the outage in the status", || {
        machine.status_line(UNIT).contains("sink down").then_some(())
    });
    // What it says when it is stuck, killed, and told what it can't use.
    machine.succeed(&["systemctl", "kill", "--signal=SIGABRT", UNIT]);
    machine.wait_for_restarts(UNIT, 1);
    let pid = machine.main_pid(UNIT);
    let seen = [
        ("journal", machine.succeed(&["journalctl", "--no-pager", "-o", "export"])),
        ("status", text(&machine.run(&["systemctl", "status", "-l", "--no-pager", UNIT]).stdout)),
        ("properties", machine.succeed(&["systemctl", "show", UNIT])),
        ("command line", fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap()),
        ("environment", fs::read_to_string(format!("/proc/{pid}/environ")).unwrap()),
        ("status.json", machine.status().to_string()),
    ];
    for (what, text) in seen {
        assert!(text.len() > 20, "{what} is empty");
        assert!(!text.contains(PASSWORD) && !text.contains(PAYLOAD), "{what}: {text}");
    }
    assert!(machine.journal(UNIT).contains("status=6/ABRT"), "{}", machine.journal(UNIT));
    // No core, by whatever name.
    assert_eq!(machine.property(UNIT, "LimitCORE"), "0");
    assert!(!machine.journal(UNIT).contains("dumped core"));
    // The canaries would be found: the payload is where it belongs.
    let rejects =
        fs::read_to_string(machine.path("/var/lib/openalgo-bridge/rejects.jsonl")).unwrap();
    assert!(rejects.contains(PAYLOAD));
}
