//! A real one-node Kafka, started by the script that the demo uses too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;

/// A broker of a test's own, or the one that the tests share.
pub struct Broker {
    /// Settings and data, and `pid`.
    pub directory: PathBuf,
    /// `host:port`.
    pub bootstrap: String,
    /// What it is started through.
    wrapper: Vec<String>,
    _scratch: TempDir,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/dev/kafka.sh")
}

/// `wrapper` is what the script is to run under, such as `nsenter -n`.
fn run_under(wrapper: &[String], arguments: &[&str], auto_create: bool) -> String {
    let mut words = wrapper.iter().map(OsString::from).chain([script().into_os_string()]);
    let output = Command::new(words.next().expect("the script"))
        .args(words)
        .args(arguments)
        .env("KAFKA_AUTO_CREATE", auto_create.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("kafka.sh can be started");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "kafka.sh {arguments:?}: {errors}");
    text
}

fn run(arguments: &[&str], auto_create: bool) -> String {
    run_under(&[], arguments, auto_create)
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
        let scratch = tempfile::Builder::new().prefix("bridge-kafka-").tempdir().expect("scratch");
        let directory = scratch.path().join("kafka");
        stop_with_this_process(scratch.path(), &directory);
        let bootstrap = run_under(wrapper, &["start", &directory.to_string_lossy()], auto_create);
        Self { directory, bootstrap, wrapper: wrapper.to_owned(), _scratch: scratch }
    }

    /// The broker for all tests that do not disturb it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Has it listen at a second door, too, of a protocol such as `SASL_PLAINTEXT`, with these settings.
    /// Gives the address.
    pub fn with_door(&self, protocol: &str, settings: &[&str]) -> String {
        self.stop();
        let path = self.directory.join("server.properties");
        let mut text = std::fs::read_to_string(&path).expect("its settings");
        let address = format!("127.0.0.1:{}", super::free_port());
        let more = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).expect("the setting");
            format!("{line},{protocol}://{address}")
        };
        let protocols = format!(
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{protocol}:{protocol}"
        );
        let lines = [more("listeners="), more("advertised.listeners="), protocols];
        // The last of two lines with the same key counts.
        for line in lines.iter().map(String::as_str).chain(settings.iter().copied()) {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(&path, text).expect("its settings");
        self.start_again();
        address
    }

    /// Stops it; what it holds stays.
    pub fn stop(&self) {
        run(&["stop", &self.directory.to_string_lossy()], true);
    }

    /// Starts it again, on the same port with the same data.
    pub fn start_again(&self) {
        run_under(&self.wrapper, &["start", &self.directory.to_string_lossy()], true);
    }

    /// A topic name that no other test uses.
    pub fn unused_topic() -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("events-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a topic with settings such as `("max.message.bytes", "1000")`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()
            .expect("an admin client");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results =
            futures_executor::block_on(admin.create_topics([&topic], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the topic is created");
        }
    }

    /// A new topic.
    pub fn topic(&self, partitions: i32) -> String {
        let name = Self::unused_topic();
        self.create_topic(&name, partitions, &[]);
        name
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        run(&["stop", &self.directory.to_string_lossy()], true);
    }
}

/// Ends the broker when the test process is gone, however it went: a static is never dropped, and
/// a test may be killed.
fn stop_with_this_process(scratch: &Path, directory: &Path) {
    let watch =
        "while kill -0 \"$1\" 2>/dev/null; do sleep 0.5; done; \"$2\" stop \"$3\"; rm -rf \"$4\"";
    let watcher = Command::new("setsid")
        .args(["sh", "-c", watch, "sh", &std::process::id().to_string()])
        .arg(script())
        .arg(directory)
        .arg(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // It outlives this process: nobody waits for it.
    drop(watcher.expect("a shell"));
}
