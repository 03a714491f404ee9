//! What is in a topic.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::events;
use super::{PATIENCE, wait_for};

const ANSWER: Duration = Duration::from_secs(10);

/// A record as it came back.
#[derive(Clone, Debug)]
pub struct Received {
    pub partition: i32,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// Reads a topic from its start.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    /// Everything read so far.
    pub records: Vec<Received>,
}

impl Topic {
    pub fn open(bootstrap: &str, name: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "none")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "10")
            .set("receive.message.max.bytes", "200000000")
            .create()
            .expect("a consumer");
        let topic = Self { consumer, name: name.to_owned(), records: Vec::new() };
        wait_for("the topic to exist", || topic.assign());
        topic
    }

    fn assign(&self) -> Option<()> {
        let metadata = self.consumer.fetch_metadata(Some(&self.name), ANSWER).ok()?;
        let partitions = metadata.topics().first().filter(|topic| topic.error().is_none())?;
        let mut list = TopicPartitionList::new();
        for partition in partitions.partitions() {
            list.add_partition_offset(&self.name, partition.id(), Offset::Beginning).ok()?;
        }
        (list.count() > 0).then(|| self.consumer.assign(&list).expect("an assignment"))
    }

    /// How many records the broker has.
    pub fn size(&self) -> u64 {
        let list = self.consumer.assignment().expect("an assignment");
        list.elements()
            .iter()
            .map(|partition| {
                let (low, high) = self
                    .consumer
                    .fetch_watermarks(&self.name, partition.partition(), ANSWER)
                    .expect("watermarks");
                (high - low) as u64
            })
            .sum()
    }

    /// Reads all that the broker has now.
    pub fn read_all(&mut self) -> &[Received] {
        let size = self.size() as usize;
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.records.len() < size {
            assert!(
                std::time::Instant::now() < deadline,
                "{} of {size} records",
                self.records.len()
            );
            self.poll(Duration::from_millis(100));
        }
        &self.records
    }

    /// Reads one more record, if it comes in time.
    pub fn poll(&mut self, timeout: Duration) -> Option<&Received> {
        let Ok(message) = self.consumer.poll(timeout)? else { return None };
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect()
        });
        self.records.push(Received {
            partition: message.partition(),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers,
        });
        self.records.last()
    }

    /// Waits until at least `count` different events are there, and gives the numbers of all
    /// records, in the order of their partitions.
    pub fn wait_for_events(&mut self, count: usize) -> Vec<u64> {
        let mut seen: HashSet<u64> =
            self.records.iter().map(|record| events::number(&record.payload)).collect();
        let enough = crate::support::poll(crate::support::PATIENCE, || {
            while let Some(record) = self.poll(Duration::from_millis(50)) {
                seen.insert(events::number(&record.payload));
                if seen.len() >= count {
                    break;
                }
            }
            (seen.len() >= count).then_some(())
        });
        if enough.is_none() {
            let missing = (0..count as u64).filter(|number| !seen.contains(number)).take(20);
            let missing: Vec<u64> = missing.collect();
            panic!("{} of {count} events came, missing {missing:?}", seen.len());
        }
        self.read_all();
        self.numbers()
    }

    /// The numbers of the events read so far.
    pub fn numbers(&self) -> Vec<u64> {
        self.records.iter().map(|record| events::number(&record.payload)).collect()
    }
}

/// Asserts that the first delivery of each event came in the order of the file, for each key.
#[track_caller]
pub fn assert_first_deliveries_in_order(records: &[Received]) {
    let mut seen = HashSet::new();
    let mut last = std::collections::HashMap::new();
    for record in records {
        let number = events::number(&record.payload);
        if seen.insert(number) {
            let before = last.insert(record.key.clone(), number);
            assert!(before < Some(number), "{number} was delivered after {before:?}");
        }
    }
}
