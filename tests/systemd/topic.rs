//! What a topic holds, of a broker that is in a machine's network.

use std::process::Command;

use crate::machine::{Machine, text};
use crate::support::broker::Broker;
use crate::support::events::number;

/// Numbers and ids of the events, in the topic's order.
pub fn messages(machine: &Machine, broker: &Broker, topic: &str) -> Vec<(u64, String)> {
    let network = machine.network();
    let output = Command::new(&network[0])
        .args(&network[1..])
        .args(["kcat", "-C", "-e", "-q", "-b", &broker.bootstrap, "-t", topic, "-f", "%h\t%s\n"])
        .output()
        .expect("kcat");
    let message = |line: &str| {
        let (headers, value) = line.split_once('\t').expect("headers and a value");
        let id = headers.split(',').find_map(|header| header.strip_prefix("ce_id="));
        (number(value.as_bytes()), id.expect("an id").to_owned())
    };
    text(&output.stdout).lines().map(message).collect()
}
