//! A real Kafka of one node or several, started by the script that the demo uses too.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use super::wait_for;

const ANSWER: Duration = Duration::from_secs(5);

/// A broker of a test's own, or the one that the tests share.
pub struct Broker {
    /// Settings and data, and `pid`.
    pub directory: PathBuf,
    /// `host:port`.
    pub bootstrap: String,
    /// What it is started through.
    wrapper: Vec<String>,
    heap: &'static str,
    _scratch: Arc<TempDir>,
}

/// Enough for one broker, whatever a test does.
const HEAP: &str = "512m";
/// One of several is small: they run at once.
const SMALL_HEAP: &str = "192m";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/dev/kafka.sh")
}

/// `wrapper` is what the script is to run under, such as `nsenter -n`.
fn run_under(wrapper: &[String], arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut words = wrapper.iter().map(OsString::from).chain([script().into_os_string()]);
    let output = Command::new(words.next().expect("the script"))
        .args(words)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("kafka.sh can be started");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "kafka.sh {arguments:?}: {errors}");
    text
}

fn scratch() -> Arc<TempDir> {
    let scratch = tempfile::Builder::new().prefix("bridge-kafka-").tempdir();
    Arc::new(scratch.expect("scratch"))
}

impl Broker {
    /// A new broker that creates topics when they are first used.
    pub fn start() -> Self {
        Self::new(&[], true)
    }

    /// A new broker that creates topics only when told.
    pub fn without_auto_create() -> Self {
        Self::new(&[], false)
    }

    /// A new broker that is started through `wrapper`: words such as `nsenter -n`, which lead to
    /// another network.
    pub fn new(wrapper: &[String], auto_create: bool) -> Self {
        let scratch = scratch();
        let directory = scratch.path().join("kafka");
        stop_with_this_process(scratch.path(), std::slice::from_ref(&directory));
        let create = ("KAFKA_AUTO_CREATE", if auto_create { "true" } else { "false" });
        let bootstrap = run_under(wrapper, &["start", &directory.to_string_lossy()], &[create]);
        let wrapper = wrapper.to_owned();
        Self { directory, bootstrap, wrapper, heap: HEAP, _scratch: scratch }
    }

    /// A new broker with these settings beside the script's.
    pub fn with_settings(settings: &[&str]) -> Self {
        let broker = Self::formatted(1, &[], HEAP, settings).remove(0);
        broker.start_again();
        broker
    }

    /// A new broker that others know by this name. It listens at all addresses of the network that
    /// `wrapper` leads to.
    pub fn by_name(wrapper: &[String], name: &str) -> Self {
        let mut broker = Self::formatted(1, wrapper, HEAP, &[]).remove(0);
        let listeners = broker.setting("listeners=").replacen("127.0.0.1", "0.0.0.0", 1);
        let address = broker.bootstrap.replace("127.0.0.1", name);
        let advertised = format!("advertised.listeners=PLAINTEXT://{address}");
        broker.set(&[&listeners, &advertised]);
        broker.start_again();
        broker.bootstrap = address;
        broker
    }

    /// The nodes of a new cluster, ready to be started.
    fn formatted(
        nodes: usize,
        wrapper: &[String],
        heap: &'static str,
        settings: &[&str],
    ) -> Vec<Self> {
        let scratch = scratch();
        let directories: Vec<_> =
            (1..=nodes).map(|node| scratch.path().join(node.to_string())).collect();
        stop_with_this_process(scratch.path(), &directories);
        let arguments = ["cluster", &scratch.path().to_string_lossy(), &nodes.to_string()];
        run_under(wrapper, &arguments, &[("KAFKA_SETTINGS", &settings.join("\n"))]);
        let node = |directory: PathBuf| {
            let bootstrap = std::fs::read_to_string(directory.join("bootstrap"));
            let bootstrap = bootstrap.expect("an address").trim().to_owned();
            let (wrapper, scratch) = (wrapper.to_owned(), Arc::clone(&scratch));
            Self { directory, bootstrap, wrapper, heap, _scratch: scratch }
        };
        directories.into_iter().map(node).collect()
    }

    /// Adds settings, which the next start sees. The last of two lines with the same key counts.
    fn set(&self, settings: &[&str]) {
        let path = self.directory.join("server.properties");
        let mut file = OpenOptions::new().append(true).open(path).expect("its settings");
        writeln!(file, "{}", settings.join("\n")).expect("its settings");
    }

    /// The broker for all tests that do not disturb it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The line of its settings that begins like this.
    fn setting(&self, key: &str) -> String {
        let path = self.directory.join("server.properties");
        let text = std::fs::read_to_string(path).expect("its settings");
        text.lines().find(|line| line.starts_with(key)).expect("the setting").to_owned()
    }

    /// Has it listen at a second door, too, of a protocol such as `SASL_PLAINTEXT`, with these settings.
    /// Gives the address.
    pub fn with_door(&self, protocol: &str, settings: &[&str]) -> String {
        self.stop();
        let address = format!("127.0.0.1:{}", super::free_port());
        let more = |key: &str| format!("{},{protocol}://{address}", self.setting(key));
        let protocols = format!(
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{protocol}:{protocol}"
        );
        self.set(&[&more("listeners="), &more("advertised.listeners="), &protocols]);
        self.set(settings);
        self.start_again();
        address
    }

    fn script(&self, command: &str, arguments: &[&str]) {
        let options = format!("-Xmx{} -XX:+UseSerialGC -XX:TieredStopAtLevel=1", self.heap);
        let directory = self.directory.to_string_lossy();
        let words = [&[command, &*directory], arguments].concat();
        run_under(&self.wrapper, &words, &[("KAFKA_JAVA_OPTS", &options)]);
    }

    /// Stops it; what it holds stays.
    pub fn stop(&self) {
        self.script("stop", &[]);
    }

    /// The same, without a word to anybody.
    pub fn kill(&self) {
        self.script("kill", &[]);
    }

    /// Starts it again, on the same port with the same data.
    pub fn start_again(&self) {
        self.script("start", &[]);
    }

    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        let pid = std::fs::read_to_string(self.directory.join("pid")).expect("it was started");
        let words = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        String::from_utf8_lossy(&words).contains("kafka.Kafka")
    }

    /// The kafka-configs tool.
    pub fn configs(&self, arguments: &[&str]) {
        self.script("configs", arguments);
    }

    /// Sends it a signal by name: with STOP it is there and does not answer, until CONT.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.directory.join("pid")).expect("it runs");
        let status = Command::new("kill").args(["-s", name, pid.trim()]).status().expect("kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// A topic name that no other test uses.
    pub fn unused_topic() -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("events-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).create().expect("an admin client")
    }

    /// Creates a topic with settings such as `("max.message.bytes", "1000")`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.create_replicated_topic(name, partitions, 1, settings);
    }

    fn create_replicated_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = self.admin();
        let created = created.create_topics([&topic], &AdminOptions::new());
        all_done(block_on(created).expect("the broker answers"));
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let admin = self.admin();
        let deleted = admin.delete_topics(&[name], &AdminOptions::new());
        all_done(block_on(deleted).expect("the broker answers"));
    }

    /// Has a topic have that many partitions, which is more than it has.
    pub fn add_partitions(&self, topic: &str, partitions: usize) {
        let (admin, more) = (self.admin(), NewPartitions::new(topic, partitions));
        let added = admin.create_partitions([&more], &AdminOptions::new());
        all_done(block_on(added).expect("the broker answers"));
    }

    /// A new topic.
    pub fn topic(&self, partitions: i32) -> String {
        let name = Self::unused_topic();
        self.create_topic(&name, partitions, &[]);
        name
    }
}

#[track_caller]
fn all_done(results: Vec<TopicResult>) {
    for result in results {
        result.expect("it is done");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nobody needs what it holds any more. What it was started through may be gone.
        run_under(&[], &["kill", &self.directory.to_string_lossy()], &[]);
    }
}

/// Several brokers, all of them controllers too: a majority of them has to live.
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

impl Cluster {
    /// A new one of three nodes that soon notice when one of them is gone.
    pub fn start() -> Self {
        let settings = ["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"];
        let cluster = Self { nodes: Broker::formatted(3, &[], SMALL_HEAP, &settings) };
        cluster.start_again(|_| true);
        cluster
    }

    /// Starts nodes again, all at once: most of them are needed before one counts as started.
    pub fn start_again(&self, which: impl Fn(usize) -> bool) {
        std::thread::scope(|scope| {
            for (_, node) in self.nodes.iter().enumerate().filter(|(index, _)| which(*index)) {
                scope.spawn(|| node.start_again());
            }
        });
    }

    /// The addresses of all.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<&str> = self.nodes.iter().map(|node| node.bootstrap.as_str()).collect();
        addresses.join(",")
    }

    /// A new topic that each node has, and that takes a record if two of them do.
    pub fn topic(&self, partitions: i32) -> String {
        let name = Broker::unused_topic();
        let settings = [("min.insync.replicas", "2")];
        self.nodes[0].create_replicated_topic(&name, partitions, 3, &settings);
        name
    }

    /// The leader of a topic's partition 0, once there is one and all replicas are in sync.
    pub fn healthy_leader(&self, topic: &str) -> usize {
        let mut config = ClientConfig::new();
        let config = config.set("bootstrap.servers", self.bootstrap());
        let client: BaseConsumer = config.create().expect("a client");
        wait_for("all replicas to be in sync", || {
            let metadata = client.fetch_metadata(Some(topic), ANSWER).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            let healthy = partitions.iter().all(|it| it.leader() > 0 && it.isr().len() == 3);
            let leader = partitions.first().filter(|_| healthy)?.leader();
            usize::try_from(leader - 1).ok()
        })
    }
}

/// Ends the brokers when the test process is gone, however it went: a static is never dropped, and
/// a test may be killed.
fn stop_with_this_process(scratch: &Path, directories: &[PathBuf]) {
    let watch = "test=$1; script=$2; scratch=$3; shift 3; \
                 while kill -0 \"$test\" 2>/dev/null; do sleep 0.5; done; \
                 for directory; do \"$script\" kill \"$directory\"; done; rm -rf \"$scratch\"";
    let watcher = Command::new("setsid")
        .args(["sh", "-c", watch, "sh", &std::process::id().to_string()])
        .arg(script())
        .arg(scratch)
        .args(directories)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // It outlives this process: nobody waits for it.
    drop(watcher.expect("a shell"));
}
