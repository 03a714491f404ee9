//! A look at the cluster and the topic, and what it means for the bridge.
//!
//! It writes nothing and creates nothing: a producer's question for a topic would create it, so the
//! client that asks is told not to. What is seen are facts; what they mean is decided by
//! [`Facts::judge`], which does no I/O.

mod judge;

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use self::judge::{Broker, Commands, Config, Facts, Partition, Topic, look_at};
use super::settings::Settings;
use crate::sink::finding::{Finding, Level, quoted};

/// How long an address may take to be found and to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
/// How long the cluster may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// How long one question may take. After each, errors are looked at: a wrong password is no reason
/// to ask again.
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);

/// Looks at everything between here and the topic. Takes some seconds at most.
pub fn inspect(settings: &Settings) -> Vec<Finding> {
    let commands = Commands::new(settings);
    let addresses = commands.servers.split(',').map(str::to_owned).collect();
    let reached = reach_all(addresses);
    let nothing = reached.iter().all(|(_, reached)| reached.is_err());
    let level = if nothing { Level::Error } else { Level::Warning };
    let mut findings: Vec<Finding> = reached
        .iter()
        .map(|(address, reached)| match reached {
            Ok(()) => Finding::new(Level::Ok, format_args!("broker: {address} can be reached")),
            Err(why) => Finding::new(level, format_args!("broker: {address}: {why}"))
                .mended_by(look_at(address)),
        })
        .collect();
    if !nothing {
        match look(settings) {
            Ok(facts) => findings.extend(facts.judge(settings)),
            Err(trouble) => findings.push(trouble.finding(&commands)),
        }
    }
    findings
}

/// Connects to all at the same time, and to each name's addresses one after the other.
fn reach_all(addresses: Vec<String>) -> Vec<(String, Result<(), String>)> {
    let (sender, answers) = channel();
    for address in &addresses {
        let (address, sender) = (address.clone(), sender.clone());
        // Nobody can end a look-up of a name; one that takes too long is left alone.
        let spawned = std::thread::Builder::new().spawn(move || {
            let answer = reach(&address);
            let _ = sender.send((address, answer));
        });
        drop(spawned);
    }
    drop(sender);
    let deadline = Instant::now() + CONNECT_PATIENCE;
    let mut known = BTreeMap::new();
    while let Ok((address, answer)) =
        answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        known.insert(address, answer);
    }
    let silent = || Err(format!("no answer within {} s", CONNECT_PATIENCE.as_secs()));
    addresses
        .into_iter()
        .map(|address| {
            let answer = known.get(&address).cloned().unwrap_or_else(silent);
            (address, answer)
        })
        .collect()
}

fn reach(address: &str) -> Result<(), String> {
    let found = address.to_socket_addrs().map_err(|error| format!("unknown host: {error}"))?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for found in found {
        match TcpStream::connect_timeout(&found, CONNECT_PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(format!("cannot be reached: {failure}"))
}

/// What librdkafka says is wrong.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<(Option<RDKafkaErrorCode>, String)>>,
}

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let heard = (error.rdkafka_error_code(), reason.to_owned());
        let mut all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&heard) {
            all.push(heard);
        }
    }
}

impl ConsumerContext for Listener {}

/// Why the cluster did not answer.
struct Trouble {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl Trouble {
    /// That which asking again would not change, if there is such a one.
    fn of(listener: &Listener, silence: &KafkaError) -> (Self, bool) {
        let heard = listener.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_final =
            |code| matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL));
        // That all brokers are down follows from whatever else was said.
        let telling = heard.iter().find(|(code, _)| is_final(*code)).or_else(|| {
            heard.iter().find(|(code, _)| *code != Some(RDKafkaErrorCode::AllBrokersDown))
        });
        if let Some((code, reason)) = telling {
            return (Self { code: *code, reason: reason.clone() }, is_final(*code));
        }
        let seconds = ANSWER_PATIENCE.as_secs();
        let reason = format!("connected, but no answer within {seconds} s ({silence})");
        (Self { code: None, reason }, false)
    }

    fn finding(&self, commands: &Commands) -> Finding {
        let first = commands.servers.split(',').next().unwrap_or_default();
        let remedy = match self.code {
            Some(RDKafkaErrorCode::Authentication) => commands.log_in(),
            _ if commands.protocol.ends_with("ssl") => {
                format!("openssl s_client -connect {} </dev/null", quoted(first))
            }
            _ => commands.tool("kafka-broker-api-versions", ""),
        };
        Finding::new(Level::Error, format_args!("broker: {}", self.reason)).mended_by(remedy)
    }
}

fn look(settings: &Settings) -> Result<Facts, Trouble> {
    let failed = |error: KafkaError| Trouble { code: None, reason: in_words(&error) };
    let config = client_config(settings);
    let consumer = BaseConsumer::from_config_and_context(&config, Listener::default());
    let consumer: BaseConsumer<Listener> = consumer.map_err(failed)?;
    let admin = AdminClient::from_config_and_context(&config, DefaultClientContext);
    let admin: AdminClient<DefaultClientContext> = admin.map_err(failed)?;
    let metadata = ask(&consumer, &settings.topic)?;
    let nodes = metadata.brokers();
    let reached = reach_all(nodes.iter().map(|n| format!("{}:{}", n.host(), n.port())).collect());
    let brokers = nodes
        .iter()
        .zip(reached)
        .map(|(node, (address, reached))| Broker { id: node.id(), address, reached })
        .collect();
    let first = nodes.first().map_or(-1, rdkafka::metadata::MetadataBroker::id);
    let topic = match metadata.topics().first() {
        Some(topic) => topic_facts(topic, &admin, first),
        None => Topic::Failed("the cluster did not answer for it".to_owned()),
    };
    Ok(Facts { brokers, topic })
}

/// The error without the value that caused it, which may be a secret.
fn in_words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        other => other.to_string(),
    }
}

fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Error);
    config.set("client.id", "openalgo-bridge-check");
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    // The difference between looking and creating.
    config.set("allow.auto.create.topics", "false");
    config
}

fn ask(consumer: &BaseConsumer<Listener>, topic: &str) -> Result<Metadata, Trouble> {
    let deadline = Instant::now() + ANSWER_PATIENCE;
    loop {
        let silence = match consumer.fetch_metadata(Some(topic), QUESTION_PATIENCE) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // Errors wait in the queue of messages, of which there are none.
        while consumer.poll(Duration::from_millis(50)).is_some() {}
        let (trouble, is_final) = Trouble::of(consumer.context(), &silence);
        if is_final || Instant::now() >= deadline {
            return Err(trouble);
        }
    }
}

fn topic_facts(
    topic: &MetadataTopic,
    admin: &AdminClient<DefaultClientContext>,
    broker: i32,
) -> Topic {
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Topic::Missing(describe(admin, &ResourceSpecifier::Broker(broker)));
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => return Topic::Forbidden,
        Some(code) => return Topic::Failed(code.to_string()),
    }
    let partitions = topic.partitions().iter().map(|partition| Partition {
        id: partition.id(),
        has_leader: partition.leader() >= 0,
        replicas: partition.replicas().to_vec(),
        in_sync: partition.isr().len(),
    });
    let config = describe(admin, &ResourceSpecifier::Topic(topic.name()));
    Topic::There { partitions: partitions.collect(), config }
}

fn describe(
    admin: &AdminClient<DefaultClientContext>,
    what: &ResourceSpecifier<'_>,
) -> Result<Config, String> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_PATIENCE));
    let answer = futures_executor::block_on(admin.describe_configs([what], &options));
    let resources = answer.map_err(|error| error.to_string())?;
    let entries: Config = resources
        .into_iter()
        .flatten()
        .flat_map(|resource| resource.entries)
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect();
    // The binding drops the error of a single resource; what is left then is an empty list.
    if entries.is_empty() { Err("not allowed to look".to_owned()) } else { Ok(entries) }
}
