//! What the Kafka sink is told, and what librdkafka is told in turn.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::Purpose;

/// What the sink needs to know.
#[derive(Clone)]
pub struct Settings {
    /// Where records go.
    pub topic: String,
    /// Whether `CloudEvents` headers are added.
    pub headers: bool,
    /// Which time a record carries.
    pub timestamp: Timestamp,
    /// The longest line in bytes.
    pub max_line_bytes: usize,
    /// The most records in flight.
    pub max_records: usize,
    /// The admin's properties, by librdkafka's names.
    pub properties: Vec<(String, String)>,
}

/// Which time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// The event's own; one in the future or before 1970 becomes now.
    Event,
    /// The time of sending.
    Now,
}

/// Why librdkafka does not accept the settings. Never holds a value: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Room for framing around a line, so that only the broker says too large.
const OVERHEAD_BYTES: usize = 1 << 20;
/// librdkafka's upper bound of `message.max.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_000_000_000;

/// Properties that the guarantee rests on. They come last, so nothing overrides them.
const GUARANTEE: [(&str, &str); 6] = [
    ("acks", "all"),
    // An expired message would be a lost one: the file is the buffer, there is no hurry.
    ("message.timeout.ms", "0"),
    // A topic that is not known yet is waited for as long as librdkafka can; where the broker says
    // that it does not exist, the records come back and are sent again.
    ("topic.metadata.propagation.max.ms", "3600000"),
    // As Java clients partition, so that a user's events stay together across producers.
    ("partitioner", "murmur2_random"),
    ("delivery.report.only.error", "false"),
    ("max.in.flight.requests.per.connection", "5"),
];

/// Properties that are only better defaults.
const DEFAULTS: [(&str, &str); 5] = [
    ("client.id", "openalgo-bridge"),
    // A half-open connection is found by the kernel.
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "5000"),
    ("log.connection.close", "false"),
    // The batch is limited by its bytes.
    ("batch.num.messages", "1000000"),
];

impl Settings {
    /// The configured size of a batch in bytes.
    pub fn batch_bytes(&self) -> Option<usize> {
        let (_, value) = self.properties.iter().find(|(key, _)| key == "batch.size")?;
        value.parse().ok()
    }

    /// Whether librdkafka has to look where this system keeps its authorities: the OpenSSL that is `bundled` was
    /// built elsewhere, and would look where they are on no system.
    fn looks_for_authorities(&self, bundled: bool) -> bool {
        let encrypted = |(key, value): &(String, String)| {
            key == "security.protocol" && value.to_ascii_lowercase().ends_with("ssl")
        };
        bundled
            && self.properties.iter().any(encrypted)
            && !self.properties.iter().any(|(key, _)| key.starts_with("ssl.ca."))
    }

    /// librdkafka's configuration for a producer.
    pub(super) fn client_config(&self, purpose: Purpose) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in DEFAULTS {
            config.set(key, value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        for (key, value) in GUARANTEE {
            config.set(key, value);
        }
        if self.looks_for_authorities(cfg!(feature = "bundled")) {
            config.set("ssl.ca.location", "probe");
        }
        // Key and headers repeat pieces of the line: together at most the line twice more.
        let message_max = self
            .max_line_bytes
            .saturating_mul(3)
            .saturating_add(OVERHEAD_BYTES)
            .min(MESSAGE_MAX_BYTES);
        config.set("message.max.bytes", message_max.to_string());
        // Our own limits are reached first; a full queue in librdkafka would only cost order.
        config.set("queue.buffering.max.messages", (self.max_records + 1_000).to_string());
        config.set("queue.buffering.max.kbytes", i32::MAX.to_string());
        match purpose {
            Purpose::Flow => {
                config.set("enable.idempotence", "true");
                config.set("enable.gapless.guarantee", "true");
            }
            Purpose::Alone => {
                // One record at a time has no order to keep, and its failure must not be fatal.
                config.set("enable.idempotence", "false");
                config.set("linger.ms", "0");
                config.set("retries", i32::MAX.to_string());
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(properties: &[(&str, &str)]) -> Settings {
        Settings {
            topic: String::new(),
            headers: true,
            timestamp: Timestamp::Event,
            max_line_bytes: 1,
            max_records: 1,
            properties: properties.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        }
    }

    #[test]
    fn a_bundled_openssl_looks_for_the_authorities_that_nobody_named() {
        for (properties, looks) in [
            (&[("security.protocol", "ssl")][..], true),
            (&[("security.protocol", "SASL_SSL")], true),
            (&[("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")], false),
            (&[("security.protocol", "ssl"), ("ssl.ca.pem", "-----BEGIN")], false),
            (&[("security.protocol", "plaintext")], false),
            (&[], false),
        ] {
            assert_eq!(with(properties).looks_for_authorities(true), looks, "{properties:?}");
            assert!(!with(properties).looks_for_authorities(false));
        }
    }
}
