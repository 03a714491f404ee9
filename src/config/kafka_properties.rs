//! The properties of librdkafka's producer, and what may be done with each of them.
//!
//! Taken from the `CONFIGURATION.md` of librdkafka 2.12.1, global and topic properties that are not
//! the consumer's alone, with its ranges: a typing error is then one of all problems at once, and
//! not the first one that librdkafka happens to stumble over.

use super::parse::Kind;
use super::suggest;

/// What the names of such keys begin with.
pub(super) const PREFIX: &str = "KAFKA_CONF_";

/// A property by librdkafka's name.
#[derive(Debug)]
pub(super) struct Property {
    /// As librdkafka writes it.
    pub name: &'static str,
    /// Who may set it.
    pub use_: Use,
}

/// Who may set a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// The user, with values of this kind.
    Free(Kind),
    /// The user, through this key.
    Own(&'static str),
    /// Nobody but the bridge; why.
    Refused(&'static str),
}

impl Property {
    /// Never printed.
    pub(super) fn is_secret(&self) -> bool {
        self.use_ == Use::Free(Kind::Secret)
    }

    /// The name of its key, `KAFKA_CONF_CLIENT_ID` for `client.id`.
    pub(super) fn key(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }
}

/// The property that `key` sets.
pub(super) fn find(key: &str) -> Option<&'static Property> {
    let typed = key.strip_prefix(PREFIX)?;
    PROPERTIES.iter().find(|property| {
        property.name.len() == typed.len()
            && property.name.bytes().zip(typed.bytes()).all(|(name, typed)| match name {
                b'.' => typed == b'_',
                name => typed == name.to_ascii_uppercase(),
            })
    })
}

/// The key that `key`, which sets no property, was most likely meant to be.
pub(super) fn meant(key: &str) -> Option<String> {
    let settable = PROPERTIES.iter().filter(|property| matches!(property.use_, Use::Free(_)));
    let keys: Vec<String> = settable.map(Property::key).collect();
    suggest::nearest(key, keys.iter().map(String::as_str)).map(str::to_owned)
}

const fn free(name: &'static str, kind: Kind) -> Property {
    Property { name, use_: Use::Free(kind) }
}

const fn own(name: &'static str, key: &'static str) -> Property {
    Property { name, use_: Use::Own(key) }
}

const fn refused(name: &'static str, why: &'static str) -> Property {
    Property { name, use_: Use::Refused(why) }
}

const ACKS: &str = "is always all: anything weaker could lose an event that counts as delivered";
const IDEMPOTENCE: &str = "is the bridge's: idempotence keeps retries from changing the order";
const KERBEROS: &str = "is for Kerberos, which is not built in";
const LOG_QUEUE: &str = "is the bridge's: librdkafka's log lines become its own";
const OIDC: &str = "is for OIDC, which is not built in";
const ORDER: &str = "is the bridge's: events of one key stay in the order of the file";
const PARTITIONER: &str =
    "is always murmur2_random, as in Java clients, so that a key stays in place";
const PLUGINS: &str = "loads code that the bridge cannot vouch for";
const POINTER: &str = "is a callback or a pointer of a program, not a text";
const QUEUE: &str =
    "is the bridge's: BRIDGE_MAX_IN_FLIGHT and BRIDGE_MAX_IN_FLIGHT_BYTES are the limits";
const READ_ONLY: &str = "only says what librdkafka was built with";
const REPORTS: &str = "is the bridge's: it needs a report for every event";
const RETRIED: &str = "is the bridge's: an event is tried again without end, never given up";
const SIGNALS: &str = "is the bridge's: signals are its own";
const SIZE: &str =
    "is the bridge's: it follows BRIDGE_MAX_LINE_BYTES, the broker decides beyond that";
const TRANSACTION: &str = "is the bridge's: it uses no transactions";
const WINDOWS: &str = "is for Windows";
const VERSIONS: &str = "is always on: idempotence needs to know what the broker can do";

/// In the order of their names.
pub(super) const PROPERTIES: &[Property] = &[
    refused("acks", ACKS),
    free("allow.auto.create.topics", Kind::Switch),
    free("api.version.fallback.ms", Kind::Number(0, 604_800_000, "milliseconds")),
    refused("api.version.request", VERSIONS),
    free("api.version.request.timeout.ms", Kind::Number(1, 300_000, "milliseconds")),
    refused("background_event_cb", POINTER),
    free("batch.num.messages", Kind::Number(1, 1_000_000, "messages")),
    own("batch.size", "KAFKA_PRODUCER_BATCH_SIZE"),
    own("bootstrap.servers", "KAFKA_BOOTSTRAP_SERVERS"),
    free("broker.address.family", Kind::OneOf(&["any", "v4", "v6"])),
    free("broker.address.ttl", Kind::Number(0, 86_400_000, "milliseconds")),
    free("broker.version.fallback", Kind::Text),
    refused("builtin.features", READ_ONLY),
    free(
        "client.dns.lookup",
        Kind::OneOf(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"]),
    ),
    free("client.id", Kind::Text),
    free("client.rack", Kind::Text),
    refused("closesocket_cb", POINTER),
    own("compression.codec", "KAFKA_PRODUCER_COMPRESSION"),
    free("compression.level", Kind::Number(-1, 12, "")),
    own("compression.type", "KAFKA_PRODUCER_COMPRESSION"),
    refused("connect_cb", POINTER),
    free("connections.max.idle.ms", Kind::Number(0, 2_147_483_647, "milliseconds")),
    free(
        "debug",
        Kind::Flags(&[
            "generic",
            "broker",
            "topic",
            "metadata",
            "feature",
            "queue",
            "msg",
            "protocol",
            "cgrp",
            "security",
            "fetch",
            "interceptor",
            "plugin",
            "consumer",
            "admin",
            "eos",
            "mock",
            "assignor",
            "conf",
            "telemetry",
            "all",
        ]),
    ),
    refused("default_topic_conf", POINTER),
    refused("delivery.report.only.error", REPORTS),
    refused("delivery.timeout.ms", RETRIED),
    refused("dr_cb", POINTER),
    refused("dr_msg_cb", POINTER),
    refused("enable.gapless.guarantee", ORDER),
    refused("enable.idempotence", IDEMPOTENCE),
    free("enable.metrics.push", Kind::Switch),
    free("enable.random.seed", Kind::Switch),
    free("enable.sasl.oauthbearer.unsecure.jwt", Kind::Switch),
    free("enable.ssl.certificate.verification", Kind::Switch),
    refused("enabled_events", REPORTS),
    refused("error_cb", POINTER),
    refused("https.ca.location", OIDC),
    refused("https.ca.pem", OIDC),
    refused("interceptors", PLUGINS),
    refused("internal.termination.signal", SIGNALS),
    own("linger.ms", "KAFKA_PRODUCER_LINGER_MS"),
    free("log.connection.close", Kind::Switch),
    refused("log.queue", LOG_QUEUE),
    free("log.thread.name", Kind::Switch),
    refused("log_cb", POINTER),
    free("log_level", Kind::Number(0, 7, "")),
    refused("max.in.flight", IDEMPOTENCE),
    refused("max.in.flight.requests.per.connection", IDEMPOTENCE),
    free("message.copy.max.bytes", Kind::Number(0, 1_000_000_000, "bytes")),
    refused("message.max.bytes", SIZE),
    refused("message.send.max.retries", RETRIED),
    refused("message.timeout.ms", RETRIED),
    own("metadata.broker.list", "KAFKA_BOOTSTRAP_SERVERS"),
    free("metadata.max.age.ms", Kind::Number(1, 86_400_000, "milliseconds")),
    free(
        "metadata.recovery.rebootstrap.trigger.ms",
        Kind::Number(0, 2_147_483_647, "milliseconds"),
    ),
    free("metadata.recovery.strategy", Kind::OneOf(&["none", "rebootstrap"])),
    refused("msg_order_cmp", ORDER),
    refused("oauthbearer_token_refresh_cb", POINTER),
    refused("opaque", POINTER),
    refused("open_cb", POINTER),
    refused("partitioner", PARTITIONER),
    refused("partitioner_cb", PARTITIONER),
    refused("plugin.library.paths", PLUGINS),
    free("produce.offset.report", Kind::Switch),
    refused("queue.buffering.backpressure.threshold", QUEUE),
    refused("queue.buffering.max.kbytes", QUEUE),
    refused("queue.buffering.max.messages", QUEUE),
    own("queue.buffering.max.ms", "KAFKA_PRODUCER_LINGER_MS"),
    refused("queuing.strategy", ORDER),
    free("receive.message.max.bytes", Kind::Number(1_000, 2_147_483_647, "bytes")),
    free("reconnect.backoff.jitter.ms", Kind::Number(0, 3_600_000, "milliseconds")),
    free("reconnect.backoff.max.ms", Kind::Number(0, 3_600_000, "milliseconds")),
    free("reconnect.backoff.ms", Kind::Number(0, 3_600_000, "milliseconds")),
    refused("request.required.acks", ACKS),
    own("request.timeout.ms", "KAFKA_PRODUCER_REQUEST_TIMEOUT_MS"),
    refused("resolve_cb", POINTER),
    refused("retries", RETRIED),
    free("retry.backoff.max.ms", Kind::Number(1, 300_000, "milliseconds")),
    free("retry.backoff.ms", Kind::Number(1, 300_000, "milliseconds")),
    refused("sasl.kerberos.keytab", KERBEROS),
    refused("sasl.kerberos.kinit.cmd", KERBEROS),
    refused("sasl.kerberos.min.time.before.relogin", KERBEROS),
    refused("sasl.kerberos.principal", KERBEROS),
    refused("sasl.kerberos.service.name", KERBEROS),
    own("sasl.mechanism", "KAFKA_SASL_MECHANISM"),
    own("sasl.mechanisms", "KAFKA_SASL_MECHANISM"),
    refused("sasl.oauthbearer.assertion.algorithm", OIDC),
    refused("sasl.oauthbearer.assertion.claim.aud", OIDC),
    refused("sasl.oauthbearer.assertion.claim.exp.seconds", OIDC),
    refused("sasl.oauthbearer.assertion.claim.iss", OIDC),
    refused("sasl.oauthbearer.assertion.claim.jti.include", OIDC),
    refused("sasl.oauthbearer.assertion.claim.nbf.seconds", OIDC),
    refused("sasl.oauthbearer.assertion.claim.sub", OIDC),
    refused("sasl.oauthbearer.assertion.file", OIDC),
    refused("sasl.oauthbearer.assertion.jwt.template.file", OIDC),
    refused("sasl.oauthbearer.assertion.private.key.file", OIDC),
    refused("sasl.oauthbearer.assertion.private.key.passphrase", OIDC),
    refused("sasl.oauthbearer.assertion.private.key.pem", OIDC),
    refused("sasl.oauthbearer.client.credentials.client.id", OIDC),
    refused("sasl.oauthbearer.client.credentials.client.secret", OIDC),
    refused("sasl.oauthbearer.client.id", OIDC),
    refused("sasl.oauthbearer.client.secret", OIDC),
    free("sasl.oauthbearer.config", Kind::Secret),
    refused("sasl.oauthbearer.extensions", OIDC),
    refused("sasl.oauthbearer.grant.type", OIDC),
    refused("sasl.oauthbearer.metadata.authentication.type", OIDC),
    refused("sasl.oauthbearer.method", OIDC),
    refused("sasl.oauthbearer.scope", OIDC),
    refused("sasl.oauthbearer.token.endpoint.url", OIDC),
    own("sasl.password", "KAFKA_SASL_PASSWORD"),
    own("sasl.username", "KAFKA_SASL_USERNAME"),
    own("security.protocol", "KAFKA_SECURITY_PROTOCOL"),
    free("socket.blocking.max.ms", Kind::Number(1, 60_000, "milliseconds")),
    free("socket.connection.setup.timeout.ms", Kind::Number(1_000, 2_147_483_647, "milliseconds")),
    free("socket.keepalive.enable", Kind::Switch),
    free("socket.max.fails", Kind::Number(0, 1_000_000, "failures")),
    free("socket.nagle.disable", Kind::Switch),
    free("socket.receive.buffer.bytes", Kind::Number(0, 100_000_000, "bytes")),
    free("socket.send.buffer.bytes", Kind::Number(0, 100_000_000, "bytes")),
    free("socket.timeout.ms", Kind::Number(10, 300_000, "milliseconds")),
    refused("socket_cb", POINTER),
    refused("ssl.ca.certificate.stores", WINDOWS),
    own("ssl.ca.location", "KAFKA_SSL_CA_LOCATION"),
    free("ssl.ca.pem", Kind::Secret),
    own("ssl.certificate.location", "KAFKA_SSL_CERTIFICATE_LOCATION"),
    free("ssl.certificate.pem", Kind::Secret),
    refused("ssl.certificate.verify_cb", POINTER),
    free("ssl.cipher.suites", Kind::Text),
    free("ssl.crl.location", Kind::Text),
    free("ssl.curves.list", Kind::Text),
    free("ssl.endpoint.identification.algorithm", Kind::OneOf(&["none", "https"])),
    free("ssl.engine.id", Kind::Text),
    free("ssl.engine.location", Kind::Text),
    own("ssl.key.location", "KAFKA_SSL_KEY_LOCATION"),
    own("ssl.key.password", "KAFKA_SSL_KEY_PASSWORD"),
    free("ssl.key.pem", Kind::Secret),
    free("ssl.keystore.location", Kind::Text),
    free("ssl.keystore.password", Kind::Secret),
    free("ssl.providers", Kind::Text),
    free("ssl.sigalgs.list", Kind::Text),
    refused("ssl_ca", POINTER),
    refused("ssl_certificate", POINTER),
    refused("ssl_engine_callback_data", POINTER),
    refused("ssl_key", POINTER),
    free("statistics.interval.ms", Kind::Number(0, 86_400_000, "milliseconds")),
    refused("stats_cb", POINTER),
    free("sticky.partitioning.linger.ms", Kind::Number(0, 900_000, "milliseconds")),
    refused("throttle_cb", POINTER),
    free("topic.blacklist", Kind::Text),
    free("topic.metadata.propagation.max.ms", Kind::Number(0, 3_600_000, "milliseconds")),
    free("topic.metadata.refresh.fast.cnt", Kind::Number(0, 1_000, "attempts")),
    free("topic.metadata.refresh.fast.interval.ms", Kind::Number(1, 60_000, "milliseconds")),
    free("topic.metadata.refresh.interval.ms", Kind::Number(-1, 3_600_000, "milliseconds")),
    free("topic.metadata.refresh.sparse", Kind::Switch),
    refused("transaction.timeout.ms", TRANSACTION),
    refused("transactional.id", TRANSACTION),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_property_has_a_key_of_its_own() {
        let keys: BTreeSet<String> = PROPERTIES.iter().map(Property::key).collect();
        assert_eq!(keys.len(), PROPERTIES.len());
        for property in PROPERTIES {
            let found = find(&property.key()).map(|found| found.name);
            assert_eq!(found, Some(property.name));
        }
        assert!(find("KAFKA_CONF_").is_none() && find("KAFKA_CONF_client_id").is_none());
        assert!(find("CLIENT_ID").is_none() && find("KAFKA_CONF_TEST_MOCK_NUM_BROKERS").is_none());
    }

    #[test]
    fn a_mistyped_property_is_recognised() {
        let meant = |typed: &str| meant(typed);
        assert_eq!(meant("KAFKA_CONF_CLEINT_ID").as_deref(), Some("KAFKA_CONF_CLIENT_ID"));
        assert_eq!(meant("KAFKA_CONF_GROUP_ID"), None);
    }

    #[test]
    fn nothing_that_may_be_secret_is_printed() {
        for property in PROPERTIES {
            let Use::Free(kind) = property.use_ else { continue };
            let telling = ["password", "secret", "passphrase", ".pem", "oauthbearer.config"];
            let secret = telling.iter().any(|part| property.name.contains(part));
            assert_eq!(kind == Kind::Secret, secret, "{}", property.name);
        }
    }
}
