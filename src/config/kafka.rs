//! What Kafka needs to be told: a topic, and properties by librdkafka's names.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;

use super::keys;
use super::problem::{MASK, Origin, Problem, Scope, Severity};
use super::settings::problem;
use super::values::Values;

/// Which time a message gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventTimestamp {
    /// That of the event.
    Event,
    /// That of its delivery.
    Now,
}

/// One property for librdkafka. Printed, it never shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// librdkafka's name for it.
    pub key: String,
    /// Checked as far as librdkafka's documentation says what it takes. Has no NUL.
    pub value: String,
    /// The value must not be printed.
    pub secret: bool,
    /// Where it was set.
    pub origin: Origin,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.secret { MASK } else { &self.value };
        write!(f, "{} = {value:?} ({})", self.key, self.origin)
    }
}

/// What is for Kafka alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaSettings {
    /// `KAFKA_ORDER_EVENTS_TOPIC`, a legal name.
    pub topic: String,
    /// `KAFKA_HEADERS`.
    pub headers: bool,
    /// `KAFKA_TIMESTAMP`.
    pub timestamp: EventTimestamp,
    /// What the user may decide: servers, batches, security and `KAFKA_CONF_…`. Each name once; none
    /// of those that carry the guarantee, which the sink adds.
    pub properties: Vec<Property>,
}

/// Keys that are handed to librdkafka, with its names. Those without value are left out.
const HANDED_ON: [(&str, &str); 13] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "bootstrap.servers"),
    ("KAFKA_PRODUCER_COMPRESSION", "compression.codec"),
    ("KAFKA_PRODUCER_BATCH_SIZE", "batch.size"),
    ("KAFKA_PRODUCER_LINGER_MS", "linger.ms"),
    ("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", "request.timeout.ms"),
    ("KAFKA_SECURITY_PROTOCOL", "security.protocol"),
    ("KAFKA_SASL_MECHANISM", "sasl.mechanism"),
    ("KAFKA_SASL_USERNAME", "sasl.username"),
    ("KAFKA_SASL_PASSWORD", "sasl.password"),
    ("KAFKA_SSL_CA_LOCATION", "ssl.ca.location"),
    ("KAFKA_SSL_CERTIFICATE_LOCATION", "ssl.certificate.location"),
    ("KAFKA_SSL_KEY_LOCATION", "ssl.key.location"),
    ("KAFKA_SSL_KEY_PASSWORD", "ssl.key.password"),
];

const SASL_KEYS: [&str; 3] = ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"];

const SSL_KEYS: [&str; 4] = [
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_SSL_KEY_PASSWORD",
];

/// The settings; `None`: something is wrong, which [`check`] has reported.
pub(super) fn build(values: &Values) -> Option<KafkaSettings> {
    let handed_on = HANDED_ON.iter().filter_map(|&(name, property)| {
        Some(Property {
            key: property.to_owned(),
            value: values.get(name)?,
            secret: !keys::is_printable(name),
            origin: values.origin(name),
        })
    });
    let others = values.properties.iter().map(|(property, value)| Property {
        key: property.name.to_owned(),
        value: value.text.clone(),
        secret: property.is_secret(),
        origin: value.origin.clone(),
    });
    Some(KafkaSettings {
        topic: values.get("KAFKA_ORDER_EVENTS_TOPIC")?,
        headers: values.get("KAFKA_HEADERS")? == "true",
        timestamp: match values.get("KAFKA_TIMESTAMP")?.as_str() {
            "now" => EventTimestamp::Now,
            _ => EventTimestamp::Event,
        },
        properties: handed_on.chain(others).collect(),
    })
}

/// What keys mean to each other. `chosen`: this is the mode, so what it requires has to be there.
pub(super) fn check(values: &Values, chosen: bool, problems: &mut Vec<Problem>) {
    let mut check = Check { values, problems };
    if chosen && values.get("KAFKA_BOOTSTRAP_SERVERS").is_none() {
        check.missing("KAFKA_BOOTSTRAP_SERVERS", "is required in KAFKA mode");
    }
    if let Some(retries) = values.number::<u64>("KAFKA_PRODUCER_RETRIES")
        && retries != i32::MAX as u64
    {
        let why = "has no effect: what may heal is tried again without end";
        check.warn("KAFKA_PRODUCER_RETRIES", why);
    }
    // A protocol that is not one has been reported, and nothing can be said about what it needs.
    if let Some(protocol) = values.get("KAFKA_SECURITY_PROTOCOL") {
        check.sasl(&protocol);
        check.ssl(&protocol);
    }
    for name in &SSL_KEYS[..3] {
        check.readable(name);
    }
}

struct Check<'a> {
    values: &'a Values,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn error(&mut self, name: &str, why: &str) {
        self.problems.push(problem(self.values, name, Scope::Kafka, why.to_owned()));
    }

    fn warn(&mut self, name: &str, why: &str) {
        let problem = problem(self.values, name, Scope::Kafka, why.to_owned());
        self.problems.push(problem.with_severity(Severity::Warning).with_example(None));
    }

    /// Nothing is said twice about a value that is there but faulty.
    fn missing(&mut self, name: &str, why: &str) {
        if !self.values.was_given(name) {
            self.error(name, why);
        }
    }

    fn sasl(&mut self, protocol: &str) {
        if !protocol.starts_with("sasl_") {
            for name in SASL_KEYS.into_iter().filter(|name| self.values.given(name).is_some()) {
                let why = format!(
                    "has no effect while KAFKA_SECURITY_PROTOCOL is {protocol}; with a login it is \
                     sasl_ssl or sasl_plaintext"
                );
                self.warn(name, &why);
            }
            return;
        }
        self.missing(
            "KAFKA_SASL_MECHANISM",
            "is required: KAFKA_SECURITY_PROTOCOL asks for a login",
        );
        match self.values.get("KAFKA_SASL_MECHANISM").as_deref() {
            None => {}
            Some("OAUTHBEARER") => {
                let jwt = self.values.property("enable.sasl.oauthbearer.unsecure.jwt");
                if jwt.is_none_or(|jwt| jwt.text != "true") {
                    let why = "needs a token, and the only source that is built in is that of \
                               KAFKA_CONF_ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT = 'true'";
                    self.error("KAFKA_SASL_MECHANISM", why);
                }
            }
            Some(mechanism) => {
                let why = format!("is required: KAFKA_SASL_MECHANISM is {mechanism}");
                self.missing("KAFKA_SASL_USERNAME", &why);
                self.missing(
                    "KAFKA_SASL_PASSWORD",
                    &format!("{why} (KAFKA_SASL_PASSWORD_FILE will do)"),
                );
                if (protocol, mechanism) == ("sasl_plaintext", "PLAIN") {
                    let why = "sends the password over the network as it is, for anyone to read; \
                               sasl_ssl does not";
                    self.warn("KAFKA_SECURITY_PROTOCOL", why);
                }
            }
        }
    }

    fn ssl(&mut self, protocol: &str) {
        let values = self.values;
        let has_property = |name| values.property(name).is_some();
        if !matches!(protocol, "ssl" | "sasl_ssl") {
            for name in SSL_KEYS.into_iter().filter(|name| values.given(name).is_some()) {
                let why = format!("has no effect while KAFKA_SECURITY_PROTOCOL is {protocol}");
                self.warn(name, &why);
            }
            return;
        }
        let (certificate, key) = ("KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION");
        let has_certificate = values.was_given(certificate) || has_property("ssl.certificate.pem");
        let has_key = values.was_given(key) || has_property("ssl.key.pem");
        if has_certificate && !has_key {
            self.missing(key, "is required: there is a certificate, but no key for it");
        } else if has_key && !has_certificate {
            self.missing(certificate, "is required: there is a key, but no certificate for it");
        }
        if values.was_given("KAFKA_SSL_KEY_PASSWORD") && !has_key {
            self.warn("KAFKA_SSL_KEY_PASSWORD", "has no effect: there is no key");
        }
        if values.was_given("KAFKA_SSL_CA_LOCATION") && has_property("ssl.ca.pem") {
            self.error(
                "KAFKA_SSL_CA_LOCATION",
                "stands beside KAFKA_CONF_SSL_CA_PEM; take one out",
            );
        }
        if has_property("ssl.keystore.location") && !has_property("ssl.keystore.password") {
            let why = "is required: there is a keystore";
            let name = "KAFKA_CONF_SSL_KEYSTORE_PASSWORD";
            self.problems.push(Problem::about(name, Scope::Kafka, &Origin::Default, why));
        }
        for (name, off) in [
            ("enable.ssl.certificate.verification", "false"),
            ("ssl.endpoint.identification.algorithm", "none"),
        ] {
            if let Some(value) = values.property(name).filter(|value| value.text == off) {
                let key = format!("KAFKA_CONF_{}", name.to_ascii_uppercase().replace('.', "_"));
                let why = "lets anyone pose as the broker";
                let problem = Problem::about(&key, Scope::Kafka, &value.origin, why);
                self.problems.push(problem.with_severity(Severity::Warning));
            }
        }
    }

    /// A certificate that can't be read would stop librdkafka with less to go by.
    fn readable(&mut self, name: &str) {
        let Some(path) = self.values.given(name).map(|value| value.text.clone()) else { return };
        if name == "KAFKA_SSL_CA_LOCATION" {
            // librdkafka's word for: look in the usual places.
            if path == "probe" || fs::read_dir(&path).is_ok() {
                return;
            }
        }
        let read = File::open(&path).and_then(|mut file| file.read(&mut [0]));
        if let Err(error) = read {
            self.error(name, &format!("cannot be read: {error}"));
        }
    }
}
