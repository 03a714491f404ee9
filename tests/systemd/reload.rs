//! `systemctl reload`.

use crate::machine::{ENV_FILE, Machine, UNIT};
use crate::support::wait_for;

const PASSWORD_FILE: &str = "/etc/openalgo-bridge/password";

fn configure(machine: &Machine, level: &str) {
    machine.configure(
        ENV_FILE,
        &[
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9"),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", "bridge"),
            ("KAFKA_SASL_PASSWORD_FILE", PASSWORD_FILE),
            ("BRIDGE_LOG_LEVEL", level),
        ],
    );
}

#[test]
fn pr_05_a_reload_reads_secrets_again_and_the_same_process_goes_on() {
    let machine = Machine::with_bridge();
    machine.write_for_the_bridge(PASSWORD_FILE, "canary-one");
    configure(&machine, "info");
    machine.append(0..100);
    machine.start(UNIT);
    let pid = machine.main_pid(UNIT);
    let said = |text: &str| {
        wait_for(text, || machine.journal(UNIT).contains(text).then_some(()));
    };
    machine.write_for_the_bridge(PASSWORD_FILE, "canary-two");
    machine.succeed(&["systemctl", "reload", UNIT]);
    said("SIGHUP: secrets and certificates are read again");
    said("a new Kafka producer uses what was read again");
    assert!(!machine.journal(UNIT).contains("needs a restart"));
    // A mistake stops nothing that runs.
    configure(&machine, "loud");
    machine.succeed(&["systemctl", "reload", UNIT]);
    said("SIGHUP: nothing is read again: the configuration is wrong");
    said(&format!("{ENV_FILE}:7"));
    assert_eq!(machine.property(UNIT, "ActiveState"), "active");
    assert_eq!(machine.main_pid(UNIT), pid);
    assert_eq!(machine.status()["ledger"]["lines"]["pending"], 100);
    assert!(!machine.journal(UNIT).contains("canary"), "{}", machine.journal(UNIT));
}
