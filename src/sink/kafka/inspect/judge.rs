//! What the facts mean for the bridge. No I/O.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::settings::{Settings, Timestamp};
use crate::sink::finding::{Finding, Level, quoted};

/// Room in a message for what goes with a line.
const ROOM_BYTES: u64 = 16 << 10;
/// Kafka's own `max.message.bytes`.
const DEFAULT_MESSAGE_BYTES: u64 = 1_048_588;

/// The configuration of a topic or a broker.
pub(super) type Config = BTreeMap<String, String>;

/// What was seen.
pub(super) struct Facts {
    pub brokers: Vec<Broker>,
    pub topic: Topic,
}

#[derive(Clone)]
pub(super) struct Broker {
    pub id: i32,
    /// Where it says that it is.
    pub address: String,
    pub reached: Result<(), String>,
}

pub(super) enum Topic {
    /// With the configuration of a broker, if it may be seen.
    Missing(Result<Config, String>),
    Forbidden,
    Failed(String),
    There {
        partitions: Vec<Partition>,
        config: Result<Config, String>,
    },
}

#[derive(Clone)]
pub(super) struct Partition {
    pub id: i32,
    pub has_leader: bool,
    pub replicas: Vec<i32>,
    pub in_sync: usize,
}

/// Writes command lines of Kafka's own tools.
pub(super) struct Commands {
    /// The bootstrap servers.
    pub servers: String,
    topic: String,
    /// librdkafka's `security.protocol`.
    pub protocol: String,
    mechanism: String,
    user: String,
}

impl Commands {
    pub(super) fn new(settings: &Settings) -> Self {
        let property = |name: &str| {
            let found = settings.properties.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        Self {
            servers: property("bootstrap.servers").unwrap_or_default(),
            topic: settings.topic.clone(),
            protocol: property("security.protocol").unwrap_or_else(|| "plaintext".to_owned()),
            mechanism: property("sasl.mechanism").unwrap_or_default(),
            user: property("sasl.username").unwrap_or_else(|| "ANONYMOUS".to_owned()),
        }
    }

    pub(super) fn tool(&self, tool: &str, rest: &str) -> String {
        // The tools need a login and certificates of their own.
        let login = match self.protocol.as_str() {
            "plaintext" => "",
            _ => " --command-config admin.properties",
        };
        let servers = quoted(&self.servers);
        format!("{tool} --bootstrap-server {servers}{login} {rest}").trim_end().to_owned()
    }

    /// Who is wrong about the password, only the admin knows.
    pub(super) fn log_in(&self) -> String {
        let keys = "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD";
        let mut remedy = format!("mend {keys} in the configuration");
        if self.mechanism.starts_with("SCRAM") {
            let login = quoted(&format!("{}=[password=NEW]", self.mechanism));
            let rest = format!(
                "--alter --entity-type users --entity-name {} --add-config {login}",
                quoted(&self.user)
            );
            let _ = write!(
                remedy,
                ", or give the user a new password:\n{}",
                self.tool("kafka-configs", &rest)
            );
        }
        remedy
    }

    fn alter(&self, setting: &str) -> String {
        let rest = format!(
            "--alter --entity-type topics --entity-name {} --add-config {setting}",
            self.topic
        );
        self.tool("kafka-configs", &rest)
    }

    fn allow(&self, operations: &[&str]) -> String {
        let mut rest =
            format!("--add --allow-principal {}", quoted(&format!("User:{}", self.user)));
        for operation in operations {
            let _ = write!(rest, " --operation {operation}");
        }
        let _ = write!(rest, " --topic {}", self.topic);
        self.tool("kafka-acls", &rest)
    }

    fn create(&self, brokers: usize, settings: &Settings) -> String {
        let replicas = brokers.clamp(1, 3);
        let mut rest = format!(
            "--create --topic {} --partitions 5 --replication-factor {replicas}",
            self.topic
        );
        if replicas == 3 {
            rest.push_str(" --config min.insync.replicas=2");
        }
        if settings.timestamp == Timestamp::Event {
            rest.push_str(" --config retention.ms=-1");
        }
        let line_bytes = settings.max_line_bytes as u64;
        if line_bytes > DEFAULT_MESSAGE_BYTES {
            let _ = write!(rest, " --config max.message.bytes={}", line_bytes + ROOM_BYTES);
        }
        self.tool("kafka-topics", &rest)
    }

    /// Moves replicas of each partition to brokers in turn.
    fn replicate(&self, partitions: &[Partition], brokers: &[Broker]) -> String {
        let count = brokers.len().min(3);
        let ids: Vec<i32> = brokers.iter().map(|broker| broker.id).collect();
        let plan: Vec<_> = partitions
            .iter()
            .map(|partition| {
                let mut replicas = partition.replicas.clone();
                let start = partition.id.unsigned_abs() as usize;
                let others = ids.iter().cycle().skip(start % ids.len().max(1)).take(ids.len());
                for id in others {
                    if replicas.len() < count && !replicas.contains(id) {
                        replicas.push(*id);
                    }
                }
                serde_json::json!({"topic": self.topic, "partition": partition.id, "replicas": replicas})
            })
            .collect();
        let plan = serde_json::json!({"version": 1, "partitions": plan});
        let execute = "--execute --reassignment-json-file plan.json";
        format!(
            "echo {} >plan.json\n{}",
            quoted(&plan.to_string()),
            self.tool("kafka-reassign-partitions", execute)
        )
    }
}

/// What shows whether a name is known and its port open.
pub(super) fn look_at(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
    let host = quoted(host.trim_start_matches('[').trim_end_matches(']'));
    format!("getent hosts {host}; nc -vz {host} {port}")
}

impl Facts {
    /// What it means for a bridge with these settings.
    pub(super) fn judge(&self, settings: &Settings) -> Vec<Finding> {
        let commands = Commands::new(settings);
        let mut judge = Judge { settings, commands: &commands, findings: Vec::new() };
        judge.brokers(&self.brokers);
        match &self.topic {
            Topic::Missing(config) => judge.missing(self.brokers.len(), config),
            Topic::Forbidden => {
                let finding = judge.about(Level::Error, "this user is not allowed to write to it");
                judge.findings.push(finding.mended_by(commands.allow(&["Write", "Describe"])));
            }
            Topic::Failed(why) => {
                let finding = judge.about(Level::Error, why);
                let rest = format!("--describe --topic {}", settings.topic);
                judge.findings.push(finding.mended_by(commands.tool("kafka-topics", &rest)));
            }
            Topic::There { partitions, config } => {
                judge.partitions(partitions, &self.brokers);
                match config {
                    Ok(config) => judge.config(config, partitions),
                    Err(why) => {
                        let text = format!("{why}: cannot say how long it keeps events");
                        let finding = judge.about(Level::Warning, &text);
                        let remedy = commands.allow(&["DescribeConfigs"]);
                        judge.findings.push(finding.mended_by(remedy));
                    }
                }
            }
        }
        judge.findings
    }
}

struct Judge<'a> {
    settings: &'a Settings,
    commands: &'a Commands,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn about(&self, level: Level, text: &str) -> Finding {
        Finding::new(level, format_args!("topic {}: {text}", self.settings.topic))
    }

    fn say(&mut self, level: Level, text: &str) {
        self.findings.push(self.about(level, text));
    }

    /// Says what is wrong with a setting of the topic, and how to change it.
    fn setting(&mut self, level: Level, text: &str, setting: &str) {
        let remedy = self.commands.alter(setting);
        self.findings.push(self.about(level, text).mended_by(remedy));
    }

    fn brokers(&mut self, brokers: &[Broker]) {
        let protocol = &self.commands.protocol;
        let login = if protocol.starts_with("sasl") { ", the login is accepted" } else { "" };
        let count = counted(brokers.len(), "broker");
        let text = format!("broker: the cluster answers ({protocol}, {count}){login}");
        self.findings.push(Finding::new(Level::Ok, text));
        for Broker { id, address, reached } in brokers {
            if let Err(why) = reached {
                let text = format!(
                    "broker: broker {id} says that it is at {address} (its advertised.listeners): {why}"
                );
                self.findings.push(Finding::new(Level::Error, text).mended_by(look_at(address)));
            }
        }
    }

    fn missing(&mut self, brokers: usize, config: &Result<Config, String>) {
        let creates = match config {
            Ok(config)
                if config.get("auto.create.topics.enable").is_some_and(|on| on == "true") =>
            {
                let partitions = config.get("num.partitions").map_or("?", String::as_str);
                format!(
                    "; the broker would create it at the first event, with its defaults (partitions: {partitions})"
                )
            }
            Ok(_) => "; the broker does not create topics by itself".to_owned(),
            Err(why) => format!("; whether the broker would create it cannot be said: {why}"),
        };
        let remedy = self.commands.create(brokers, self.settings);
        let finding = self.about(Level::Error, &format!("does not exist{creates}"));
        self.findings.push(finding.mended_by(remedy));
    }

    fn partitions(&mut self, partitions: &[Partition], brokers: &[Broker]) {
        let (all, replicas) = (partitions.len(), replicas(partitions));
        let leaderless = partitions.iter().filter(|partition| !partition.has_leader).count();
        let topic = &self.settings.topic;
        if leaderless > 0 {
            let text = format!("{leaderless} of {all} partitions have no leader");
            let rest = format!("--describe --topic {topic} --unavailable-partitions");
            let finding = self.about(Level::Error, &text);
            self.findings.push(finding.mended_by(self.commands.tool("kafka-topics", &rest)));
        } else {
            let text = format!("{}, replication factor {replicas}", counted(all, "partition"));
            self.say(Level::Ok, &text);
        }
        if replicas < 2 && brokers.len() > 1 {
            let text = "has one replica: while its broker is down nothing is delivered, and what it \
                        had may be lost";
            let remedy = self.commands.replicate(partitions, brokers);
            self.findings.push(self.about(Level::Warning, text).mended_by(remedy));
        }
    }

    fn config(&mut self, config: &Config, partitions: &[Partition]) {
        let number = |name: &str| config.get(name).and_then(|text| text.parse::<i64>().ok());
        let appended =
            config.get("message.timestamp.type").is_some_and(|text| text == "LogAppendTime");
        let event_time = self.settings.timestamp == Timestamp::Event;
        if appended && event_time {
            let text =
                "the broker puts its own time in the place of the event's (message.timestamp.type)";
            self.setting(Level::Note, text, "message.timestamp.type=CreateTime");
        }
        let by_event = event_time && !appended;
        if let Some(retention) = number("retention.ms") {
            self.retention(retention, by_event);
        }
        let oldest = ["message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"];
        for name in oldest {
            if let Some(oldest) = number(name).filter(|oldest| by_event && *oldest < i64::MAX) {
                let text = format!(
                    "takes no event times older than {} ({name}): such events would carry the time of sending",
                    duration(oldest)
                );
                self.setting(Level::Warning, &text, &format!("{name}={}", i64::MAX));
            }
        }
        if let Some(bytes) = number("max.message.bytes").and_then(|n| u64::try_from(n).ok()) {
            self.size(bytes);
        }
        if config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            let text = "is compacted (cleanup.policy): of each user, only the last event is kept";
            self.setting(Level::Warning, text, "cleanup.policy=delete");
        }
        if let Some(wanted) = number("min.insync.replicas") {
            self.in_sync(usize::try_from(wanted).unwrap_or(0), partitions);
        }
    }

    fn retention(&mut self, retention: i64, by_event: bool) {
        if retention < 0 {
            self.say(Level::Ok, "keeps events without end");
        } else if by_event {
            let text = format!(
                "events older than {} vanish as soon as they arrive (retention.ms): records carry \
                 the event's own time (KAFKA_TIMESTAMP)",
                duration(retention)
            );
            self.setting(Level::Warning, &text, "retention.ms=-1");
        } else {
            self.say(Level::Ok, &format!("keeps events for {}", duration(retention)));
        }
    }

    fn size(&mut self, message_bytes: u64) {
        let line_bytes = self.settings.max_line_bytes as u64;
        if message_bytes >= line_bytes {
            let text = format!("takes messages of up to {message_bytes} bytes");
            return self.say(Level::Ok, &text);
        }
        let text = format!(
            "takes messages of up to {message_bytes} bytes (max.message.bytes), lines may have \
             {line_bytes} (BRIDGE_MAX_LINE_BYTES): what is between ends up in the rejects"
        );
        let setting = format!("max.message.bytes={}", line_bytes + ROOM_BYTES);
        self.setting(Level::Warning, &text, &setting);
    }

    fn in_sync(&mut self, wanted: usize, partitions: &[Partition]) {
        let replicas = replicas(partitions);
        if wanted > replicas {
            let text = format!(
                "wants {wanted} replicas in sync (min.insync.replicas), but has {replicas}: it \
                 takes no event"
            );
            let setting = format!("min.insync.replicas={}", replicas.max(1));
            return self.setting(Level::Error, &text, &setting);
        }
        let short = partitions.iter().filter(|p| p.has_leader && p.in_sync < wanted).count();
        if short > 0 {
            let text = format!(
                "{short} of {} partitions have fewer than {wanted} replicas in sync \
                 (min.insync.replicas) and take no event now",
                partitions.len()
            );
            let rest =
                format!("--describe --topic {} --under-min-isr-partitions", self.settings.topic);
            let finding = self.about(Level::Error, &text);
            self.findings.push(finding.mended_by(self.commands.tool("kafka-topics", &rest)));
        }
    }
}

/// The replication factor, the least of all partitions.
fn replicas(partitions: &[Partition]) -> usize {
    partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// In the largest unit that is whole.
fn duration(milliseconds: i64) -> String {
    for (unit, name) in [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "s")]
    {
        if milliseconds > 0 && milliseconds % unit == 0 {
            let count = milliseconds / unit;
            return match name {
                "s" => format!("{count} s"),
                _ => counted(usize::try_from(count).unwrap_or(0), name),
            };
        }
    }
    format!("{milliseconds} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            topic: "t".to_owned(),
            headers: true,
            timestamp: Timestamp::Event,
            max_line_bytes: 1 << 20,
            max_records: 10,
            properties: vec![("bootstrap.servers".to_owned(), "b:1".to_owned())],
        }
    }

    fn brokers(count: i32) -> Vec<Broker> {
        (1..=count).map(|id| Broker { id, address: format!("b{id}:1"), reached: Ok(()) }).collect()
    }

    fn partition(id: i32, replicas: &[i32], in_sync: usize) -> Partition {
        Partition { id, has_leader: true, replicas: replicas.to_vec(), in_sync }
    }

    fn config(changes: &[(&str, &str)]) -> Config {
        let defaults = [
            ("retention.ms", "-1"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "1"),
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
        ];
        let all = defaults.iter().chain(changes);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn there(partitions: Vec<Partition>, config: Config) -> Facts {
        let topic = Topic::There { partitions, config: Ok(config) };
        Facts { brokers: brokers(1), topic }
    }

    /// What is not as it should be.
    fn wrong(facts: &Facts, settings: &Settings) -> Vec<Finding> {
        let findings = facts.judge(settings).into_iter();
        findings.filter(|finding| finding.level != Level::Ok).collect()
    }

    #[track_caller]
    fn only(facts: &Facts, settings: &Settings, level: Level, text: &str, remedy: &str) {
        let wrong = wrong(facts, settings);
        let [finding] = wrong.as_slice() else { panic!("{text}: {wrong:?}") };
        assert_eq!(finding.level, level, "{finding}");
        assert!(finding.text.contains(text), "{finding}");
        assert!(finding.remedy.as_deref().unwrap_or_default().contains(remedy), "{finding}");
    }

    #[test]
    fn a_topic_made_for_it_is_good() {
        let facts = there(vec![partition(0, &[1], 1)], config(&[]));
        let texts: Vec<String> = facts.judge(&settings()).iter().map(Finding::to_string).collect();
        assert_eq!(
            texts,
            [
                "ok: broker: the cluster answers (plaintext, 1 broker)",
                "ok: topic t: 1 partition, replication factor 1",
                "ok: topic t: keeps events without end",
                "ok: topic t: takes messages of up to 1048588 bytes",
            ]
        );
    }

    #[test]
    fn what_a_topics_settings_mean() {
        use Level::{Error, Note, Warning};
        let alter = "kafka-configs --bootstrap-server b:1 --alter --entity-type topics --entity-name t --add-config ";
        for (key, value, level, text, setting) in [
            ("retention.ms", "604800000", Warning, "older than 7 days vanish", "retention.ms=-1"),
            ("retention.ms", "86400000", Warning, "than 1 day vanish", "retention.ms=-1"),
            ("retention.ms", "1500", Warning, "than 1500 ms vanish", "retention.ms=-1"),
            ("max.message.bytes", "1000", Warning, "up to 1000 bytes", "max.message.bytes=1064960"),
            ("cleanup.policy", "compact", Warning, "only the last event", "cleanup.policy=delete"),
            ("cleanup.policy", "compact,delete", Warning, "compacted", "cleanup.policy=delete"),
            ("min.insync.replicas", "2", Error, "but has 1", "min.insync.replicas=1"),
            (
                "message.timestamp.before.max.ms",
                "3600000",
                Warning,
                "older than 1 hour",
                "message.timestamp.before.max.ms=9223372036854775807",
            ),
            (
                "message.timestamp.difference.max.ms",
                "61000",
                Warning,
                "older than 61 s",
                "message.timestamp.difference.max.ms=9223372036854775807",
            ),
            (
                "message.timestamp.type",
                "LogAppendTime",
                Note,
                "its own time",
                "message.timestamp.type=CreateTime",
            ),
        ] {
            let facts = there(vec![partition(0, &[1], 1)], config(&[(key, value)]));
            only(&facts, &settings(), level, text, &format!("{alter}{setting}"));
        }
    }

    #[test]
    fn retention_by_another_time_than_the_events_takes_nothing_at_once() {
        let short = ("retention.ms", "1000");
        let bounded = ("message.timestamp.before.max.ms", "1000");
        let facts = there(vec![partition(0, &[1], 1)], config(&[short, bounded]));
        let by_now = Settings { timestamp: Timestamp::Now, ..settings() };
        assert_eq!(wrong(&facts, &by_now), []);
        let appended = ("message.timestamp.type", "LogAppendTime");
        let facts = there(vec![partition(0, &[1], 1)], config(&[short, bounded, appended]));
        only(&facts, &settings(), Level::Note, "its own time", "CreateTime");
    }

    #[test]
    fn what_partitions_and_replicas_mean() {
        let leaderless = Partition { has_leader: false, ..partition(1, &[1], 0) };
        let facts = there(vec![partition(0, &[1], 1), leaderless], config(&[]));
        only(
            &facts,
            &settings(),
            Level::Error,
            "1 of 2 partitions have no leader",
            "--unavailable-",
        );

        let two = ("min.insync.replicas", "2");
        let partitions = vec![partition(0, &[1, 2, 3], 3), partition(1, &[1, 2, 3], 1)];
        let facts = Facts { brokers: brokers(3), ..there(partitions, config(&[two])) };
        only(&facts, &settings(), Level::Error, "1 of 2 partitions have fewer", "--under-min-isr-");

        let partitions = vec![partition(0, &[1], 1), partition(1, &[3], 1)];
        let facts = Facts { brokers: brokers(3), ..there(partitions, config(&[])) };
        let plan = r#"[{"partition":0,"replicas":[1,2,3],"topic":"t"},{"partition":1,"replicas":[3,2,1],"topic":"t"}]"#;
        only(&facts, &settings(), Level::Warning, "one replica", plan);
    }

    #[test]
    fn a_topic_that_is_missing_forbidden_or_hidden() {
        use Level::{Error, Warning};
        let auto = |on: &str, partitions: &str| {
            let pairs = [("auto.create.topics.enable", on), ("num.partitions", partitions)];
            Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
        };
        let not_allowed = || Err("not allowed to look".to_owned());
        let create = "kafka-topics --bootstrap-server b:1 --create --topic t --partitions 5 --replication-factor 1 --config retention.ms=-1";
        let allow =
            "kafka-acls --bootstrap-server b:1 --add --allow-principal User:ANONYMOUS --operation ";
        let hidden =
            Topic::There { partitions: vec![partition(0, &[1], 1)], config: not_allowed() };
        for (topic, level, text, remedy) in [
            (Topic::Missing(auto("true", "7")), Error, "(partitions: 7)", create),
            (Topic::Missing(auto("false", "7")), Error, "not create topics by itself", create),
            (Topic::Missing(not_allowed()), Error, "cannot be said: not allowed to look", create),
            (Topic::Forbidden, Error, "not allowed to write", &format!("{allow}Write")),
            (Topic::Failed("why".to_owned()), Error, "why", "--describe --topic t"),
            (hidden, Warning, "cannot say how long", &format!("{allow}DescribeConfigs --topic t")),
        ] {
            only(&Facts { brokers: brokers(1), topic }, &settings(), level, text, remedy);
        }
    }

    #[test]
    fn the_line_that_creates_a_topic_follows_the_cluster_and_the_settings() {
        let mut settings = settings();
        settings.properties.push(("security.protocol".to_owned(), "sasl_ssl".to_owned()));
        settings.max_line_bytes = 5_000_000;
        settings.timestamp = Timestamp::Now;
        assert_eq!(
            Commands::new(&settings).create(5, &settings),
            "kafka-topics --bootstrap-server b:1 --command-config admin.properties --create \
             --topic t --partitions 5 --replication-factor 3 --config min.insync.replicas=2 \
             --config max.message.bytes=5016384"
        );
    }

    #[test]
    fn a_broker_that_names_an_address_nobody_can_reach_is_an_error() {
        let mut facts = there(vec![partition(0, &[1], 1)], config(&[]));
        facts.brokers[0].reached = Err("unknown host: x".to_owned());
        only(
            &facts,
            &settings(),
            Level::Error,
            "b1:1 (its advertised.listeners)",
            "getent hosts b1",
        );
    }
}
