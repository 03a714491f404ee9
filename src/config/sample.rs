//! The text of `.sample.env`, from the table of keys.

use std::fmt::Write as _;

use super::keys::{KEYS, Key};
use super::problem::Scope;

const HEAD: &str = "\
# openalgo-bridge: settings. The place of this file is /etc/openalgo-bridge/.env, mode 0640 (it may
# hold passwords). After a change: openalgo-bridge check
# It is read as OpenAlgo reads its own .env. What stands here wins over the process environment; a
# key that is empty or missing takes its default, which is the value shown here.
";

const SECRETS: &str = "\
# Each password, token and key can also be given as a file: KAFKA_SASL_PASSWORD_FILE = '/path'.
";

const PROPERTIES: &str = "\
# Any other producer property of librdkafka, with _ for its dots; not those that carry the guarantee.
# KAFKA_CONF_CLIENT_ID = 'rdkafka'
";

/// What `.sample.env` says: the ten keys that matter with their defaults, every other one commented
/// out, a sentence each. A test holds the file to it.
pub fn sample_env() -> String {
    let mut text = HEAD.to_owned();
    for key in KEYS.iter().filter(|key| key.open) {
        add(&mut text, key);
    }
    for (scope, title) in [
        (Scope::Common, "Bridge, for experts"),
        (Scope::Kafka, "Kafka, for experts"),
        (Scope::SocketIo, "Socket.IO, for experts"),
    ] {
        let _ = writeln!(text, "\n# ---- {title} ----");
        if scope == Scope::Kafka {
            text.push_str(SECRETS);
        }
        for key in KEYS.iter().filter(|key| !key.open && key.scope == scope) {
            add(&mut text, key);
        }
        if scope == Scope::Kafka {
            let _ = write!(text, "\n{PROPERTIES}");
        }
    }
    text
}

fn add(text: &mut String, key: &Key) {
    let comment = if key.open { "" } else { "# " };
    let (meaning, name, default) = (key.meaning, key.name, key.default);
    // Writing into a String never fails.
    let _ = writeln!(text, "\n# {meaning}\n{comment}{name} = '{default}'");
}
