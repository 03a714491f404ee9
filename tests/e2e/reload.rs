//! SIGHUP: secrets are read again, and nothing is lost by it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::wait_for;

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn ka_11_a_wrong_password_is_mended_under_load_without_a_restart() {
    let broker = Broker::start();
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let users = format!(
        "listener.name.sasl_plaintext.plain.sasl.jaas.config={module} required \
         user_bridge=\"right-password\";"
    );
    let door = broker.with_door("SASL_PLAINTEXT", &["sasl.enabled.mechanisms=PLAIN", &users]);
    let topic = broker.topic(3);
    let mut bridge = Bridge::to_kafka(&door, &topic);
    let password = bridge.directory().join("password");
    write_secret(&password, "wrong-password");
    bridge.set("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    bridge.set("KAFKA_SASL_MECHANISM", "PLAIN");
    bridge.set("KAFKA_SASL_USERNAME", "bridge");
    bridge.set("KAFKA_SASL_PASSWORD_FILE", &password.to_string_lossy());
    let mut input = bridge.append();
    input.events(0..5_000);
    let daemon = bridge.start();
    wait_for("the wrong password in the status", || {
        let status = bridge.status();
        let reason = status["sink"]["reason"].as_str().unwrap_or_default().to_lowercase();
        (status["sink"]["state"] == "down" && reason.contains("auth")).then_some(())
    });
    input.events(5_000..10_000);
    write_secret(&password, "right-password");
    daemon.signal("HUP");
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(10_000);

    // And while everything is well and a good deal is out.
    for round in 2..6 {
        input.events(round * 5_000..(round + 1) * 5_000);
        daemon.signal("HUP");
    }
    bridge.wait_until_settled();
    let status = wait_for("the sink up", || {
        Some(bridge.status()).filter(|status| status["sink"]["state"] == "up")
    });
    assert_eq!(status["ledger"]["lines"]["delivered"], 30_000);
    assert_eq!(status["ledger"]["lines"]["rejected"], 0);
    assert_eq!(status["pid"], daemon.pid());
    let mut numbers = consumer.wait_for_events(30_000);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..30_000).collect::<Vec<_>>());
    let log = daemon.log_after_stop();
    assert!(log.contains("a new Kafka producer uses what was read again"), "{log}");
    assert!(!log.contains("-password"), "a password in the log: {log}");
}

/// A key and a certificate that vouches for itself.
fn certificate(directory: &Path, name: &str) -> (String, String) {
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
        .arg(format!("/CN={name}"))
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (fs::read_to_string(key).unwrap(), fs::read_to_string(certificate).unwrap())
}

#[test]
fn ka_13_a_certificate_that_was_replaced_is_read_again_under_the_same_name() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka("127.0.0.1:1", &topic);
    let (key, right) = certificate(bridge.directory(), "broker");
    let store = bridge.directory().join("broker.pem");
    fs::write(&store, key + &right).unwrap();
    let location = format!("ssl.keystore.location={}", store.display());
    let door = broker.with_door("SSL", &["ssl.keystore.type=PEM", &location]);
    let (_, wrong) = certificate(bridge.directory(), "another");
    let trusted = bridge.directory().join("trusted.pem");
    fs::write(&trusted, wrong).unwrap();
    bridge.set("KAFKA_BOOTSTRAP_SERVERS", &door);
    bridge.set("KAFKA_SECURITY_PROTOCOL", "SSL");
    bridge.set("KAFKA_SSL_CA_LOCATION", &trusted.to_string_lossy());
    bridge.append().events(0..1_000);
    let daemon = bridge.start();
    daemon.wait_for_log("certificate verify failed");
    fs::write(&trusted, "no certificate at all").unwrap();
    daemon.signal("HUP");
    // Whichever notices first: the check of all settings, or librdkafka.
    wait_for("a refusal of what is no certificate", || {
        let log = daemon.log().join("\n");
        let refused = ["nothing is read again", "the former stays in use"];
        refused.iter().any(|text| log.contains(text)).then_some(())
    });
    fs::write(&trusted, right).unwrap();
    daemon.signal("HUP");
    Topic::open(&broker.bootstrap, &topic).wait_for_events(1_000);
    bridge.wait_until_settled();
    assert_eq!(bridge.status()["pid"], daemon.pid());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pr_05_whatever_else_changed_is_named_and_a_broken_file_changes_nothing() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_TOKEN", "the-first-token");
    let daemon = bridge.start();
    daemon.wait_for_log("waiting for the input");
    bridge.set("SOCKETIO_AUTH_TOKEN", "the-second-token");
    bridge.set("BRIDGE_LOG_LEVEL", "debug");
    daemon.signal("HUP");
    daemon.wait_for_log("SIGHUP: secrets and certificates are read again");
    let named = daemon.wait_for_log("a changed setting needs a restart");
    assert!(named.contains("BRIDGE_LOG_LEVEL"), "{named}");
    bridge.set("BRIDGE_LOG_LEVEL", "loud");
    daemon.signal("HUP");
    daemon.wait_for_log("SIGHUP: nothing is read again");
    daemon.wait_for_log("BRIDGE_LOG_LEVEL = 'loud'");
    let log = daemon.log_after_stop();
    assert_eq!(log.matches("needs a restart").count(), 1, "{log}");
    assert!(!log.contains("-token"), "a token in the log: {log}");
}
