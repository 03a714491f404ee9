//! `check`: every problem of a configuration at once, what `--connect` tries, and the help texts.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use crate::support::broker::Broker;
use crate::support::daemon::Bridge;
use crate::support::wait_for;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

/// The lines before the row's own. The secrets are good, and must not show.
const BEFORE: &str = "KAFKA_SASL_PASSWORD='CANARY-password'\nKAFKA_SSL_KEY_PASSWORD='CANARY-key'\n\
    SOCKETIO_AUTH_TOKEN='CANARY-token'\nKAFKA_CONF_SSL_KEYSTORE_PASSWORD='CANARY-store'\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a `.env` that only its owner may read, and gives its path as problems show it.
fn write_env(bridge: &Bridge, content: &str) -> String {
    let path = bridge.env_file();
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_string_lossy().into_owned()
}

/// What is said about `key` at this place, with examples.
#[track_caller]
fn problem(output: &str, severity: &str, place: &str, key: &str) -> String {
    let begins = format!("{severity}: {place}{key}");
    let mut found = String::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(&begins) {
            found.push_str(line);
            found.extend(lines.next_if(|next| next.starts_with("    ")));
        }
    }
    assert!(!found.is_empty(), "no {begins:?} in:\n{output}");
    found
}

/// What `check` prints and `run` logs about this configuration, with their exit codes.
fn check_and_run(bridge: &Bridge) -> [(Option<i32>, String); 2] {
    ["check", "run"].map(|command| {
        let output = bridge.run(&[command]);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(!all.contains("CANARY"), "{command}: {all}");
        (output.status.code(), all)
    })
}

/// The key, the line of the row that it is on (0: nowhere), what is said or proposed.
type Row = (&'static str, &'static str, usize, &'static str);

const COMMON: [Row; 24] = [
    ("ORDER_EVENT_MODE=both", "ORDER_EVENT_MODE", 1, "not one of SOCKETIO, KAFKA"),
    ("BRIDGE_INPUT=~/x", "BRIDGE_INPUT", 1, "not expanded"),
    ("BRIDGE_INPUT=/srv/", "BRIDGE_INPUT", 1, "not a directory"),
    ("BRIDGE_INPUT='/s\tx'", "BRIDGE_INPUT", 1, "control character"),
    ("BRIDGE_START_AT=start", "BRIDGE_START_AT", 1, "not one of beginning, end"),
    ("BRIDGE_MAX_LINE_BYTES=1MiB", "BRIDGE_MAX_LINE_BYTES", 1, "number of bytes"),
    ("BRIDGE_MAX_LINE_BYTES=0", "BRIDGE_MAX_LINE_BYTES", 1, "example: BRIDGE_MAX_LINE_BYTES = "),
    (
        "BRIDGE_MAX_LINE_BYTES=9000000",
        "BRIDGE_MAX_LINE_BYTES",
        1,
        "example: BRIDGE_MAX_IN_FLIGHT_BYTES = '72000000'",
    ),
    ("BRIDGE_MAX_IN_FLIGHT=-1", "BRIDGE_MAX_IN_FLIGHT", 1, "out of range"),
    ("BRIDGE_EVENT_TYPES=a b", "BRIDGE_EVENT_TYPES", 1, "separated by commas"),
    ("BRIDGE_IGNORE_EVENT_TYPES=[]", "BRIDGE_IGNORE_EVENT_TYPES", 1, "separated by commas"),
    ("BRIDGE_CHECKPOINT_INTERVAL_MS=1s", "BRIDGE_CHECKPOINT_INTERVAL_MS", 1, "milliseconds"),
    ("BRIDGE_REJECTS_MAX_BYTES=x", "BRIDGE_REJECTS_MAX_BYTES", 1, "number of bytes"),
    ("BRIDGE_SHUTDOWN_TIMEOUT_MS=1.5", "BRIDGE_SHUTDOWN_TIMEOUT_MS", 1, "milliseconds"),
    ("BRIDGE_FIFO_JOURNAL_MAX_BYTES=1", "BRIDGE_FIFO_JOURNAL_MAX_BYTES", 1, "65536"),
    ("BRIDGE_HTTP_LISTEN=9820", "BRIDGE_HTTP_LISTEN", 1, "example: BRIDGE_HTTP_LISTEN = "),
    ("BRIDGE_LOG_LEVEL=loud", "BRIDGE_LOG_LEVEL", 1, "not one of error, warn"),
    ("BRIDGE_LOG_FORMAT=xml", "BRIDGE_LOG_FORMAT", 1, "not one of auto, text, json"),
    ("BRIDGE_INPT=/x", "BRIDGE_INPT", 1, "did you mean BRIDGE_INPUT?"),
    ("ORDER_EVENT_MODUS=KAFKA", "ORDER_EVENT_MODUS", 1, "did you mean ORDER_EVENT_MODE?"),
    ("A=1\n\nBRIDGE_COLOUR=red", "BRIDGE_COLOUR", 3, "is unknown"),
    (
        "BRIDGE_STATE_DIR=/s\nBRIDGE_INPUT=/s/rejects.jsonl",
        "BRIDGE_INPUT",
        2,
        "read what it writes",
    ),
    ("BRIDGE_INPUT='/x' y", "BRIDGE_INPUT", 1, "something behind the value"),
    ("export BRIDGE_LOG_LEVEL='info", "BRIDGE_LOG_LEVEL", 1, "not closed"),
];

const KAFKA: [Row; 27] = [
    ("KAFKA_BOOTSTRAP_SERVERS=a:1,b", "KAFKA_BOOTSTRAP_SERVERS", 1, "number 2 of 2"),
    ("KAFKA_BOOTSTRAP_SERVERS=u:CANARY@b:1", "KAFKA_BOOTSTRAP_SERVERS", 1, "KAFKA_SASL_USERNAME"),
    ("KAFKA_BOOTSTRAP_SERVERS=SSL://b:1", "KAFKA_BOOTSTRAP_SERVERS", 1, "KAFKA_SECURITY_PROTOCOL"),
    ("KAFKA_ORDER_EVENTS_TOPIC=a b", "KAFKA_ORDER_EVENTS_TOPIC", 1, "not a topic name"),
    ("KAFKA_PRODUCER_LINGER_MS=fast", "KAFKA_PRODUCER_LINGER_MS", 1, "milliseconds (0 to 900000)"),
    ("KAFKA_PRODUCER_BATCH_SIZE=16k", "KAFKA_PRODUCER_BATCH_SIZE", 1, "number of bytes"),
    ("KAFKA_PRODUCER_COMPRESSION=brotli", "KAFKA_PRODUCER_COMPRESSION", 1, "snappy"),
    ("KAFKA_PRODUCER_ACKS=1", "KAFKA_PRODUCER_ACKS", 1, "example: KAFKA_PRODUCER_ACKS = 'all'"),
    ("KAFKA_PRODUCER_RETRIES=many", "KAFKA_PRODUCER_RETRIES", 1, "number of retries"),
    ("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS=0", "KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", 1, "range"),
    ("KAFKA_HEADERS=maybe", "KAFKA_HEADERS", 1, "neither on nor off"),
    ("KAFKA_TIMESTAMP=later", "KAFKA_TIMESTAMP", 1, "not one of event, now"),
    ("KAFKA_SECURITY_PROTOCOL=tls", "KAFKA_SECURITY_PROTOCOL", 1, "sasl_ssl"),
    ("KAFKA_SASL_MECHANISM=GSSAPI", "KAFKA_SASL_MECHANISM", 1, "Kerberos is not built in"),
    ("KAFKA_SASL_PASSWORD_FILE=/no", "KAFKA_SASL_PASSWORD_FILE", 1, "stands beside"),
    ("KAFKA_CONF_SSL_KEY_PEM_FILE=/no", "KAFKA_CONF_SSL_KEY_PEM_FILE", 1, "No such file"),
    ("KAFKA_SASL_PASSWORD='CANARY-x' y", "KAFKA_SASL_PASSWORD", 1, "cannot be read"),
    ("KAFKA_SASL_PASWORD='CANARY-x'", "KAFKA_SASL_PASWORD", 1, "did you mean KAFKA_SASL_PASSWORD?"),
    (
        "KAFKA_SECURITY_PROTOCOL=sasl_ssl\nKAFKA_SASL_MECHANISM=PLAIN",
        "KAFKA_SASL_USERNAME",
        0,
        "is required",
    ),
    (
        "KAFKA_SSL_CA_LOCATION=/no\nKAFKA_SECURITY_PROTOCOL=ssl",
        "KAFKA_SSL_CA_LOCATION",
        1,
        "No such file",
    ),
    ("KAFKA_TOPIC=x", "KAFKA_TOPIC", 1, "did you mean KAFKA_ORDER_EVENTS_TOPIC?"),
    ("KAFKA_CONF_CLEINT_ID=x", "KAFKA_CONF_CLEINT_ID", 1, "mean KAFKA_CONF_CLIENT_ID?"),
    ("KAFKA_CONF_LINGER_MS=5", "KAFKA_CONF_LINGER_MS", 1, "use KAFKA_PRODUCER_LINGER_MS"),
    ("KAFKA_CONF_ENABLE_IDEMPOTENCE=0", "KAFKA_CONF_ENABLE_IDEMPOTENCE", 1, "order"),
    ("KAFKA_CONF_MESSAGE_TIMEOUT_MS=3", "KAFKA_CONF_MESSAGE_TIMEOUT_MS", 1, "never given up"),
    ("KAFKA_CONF_TRANSACTIONAL_ID=x", "KAFKA_CONF_TRANSACTIONAL_ID", 1, "no transactions"),
    (
        "KAFKA_CONF_SASL_OAUTHBEARER_CLIENT_SECRET=CANARY",
        "KAFKA_CONF_SASL_OAUTHBEARER_CLIENT_SECRET",
        1,
        "OIDC",
    ),
];

fn configuration(bridge: &Bridge, mode: &str, rows: &str) -> String {
    format!(
        "ORDER_EVENT_MODE={mode}\nBRIDGE_INPUT={}\nBRIDGE_STATE_DIR={}\n\
         KAFKA_BOOTSTRAP_SERVERS={NOBODY}\n{BEFORE}{rows}\n",
        bridge.input().display(),
        bridge.state().display(),
    )
}

/// Where the row's line is in [`configuration`].
fn place(file: &str, line: usize) -> String {
    let before = 4 + BEFORE.lines().count();
    if line == 0 { String::new() } else { format!("{file}:{}: ", before + line) }
}

#[test]
fn each_bad_setting_ends_check_and_run_with_78_its_place_and_its_remedy() {
    let bridge = Bridge::to_kafka(NOBODY, "nowhere");
    for (row, key, line, why) in COMMON.into_iter().chain(KAFKA) {
        let file = write_env(&bridge, &configuration(&bridge, "KAFKA", row));
        for (code, output) in check_and_run(&bridge) {
            assert_eq!(code, Some(78), "{row}: {output}");
            let problem = problem(&output, "error", &place(&file, line), key);
            assert!(problem.contains(why), "{row}: {problem}");
        }
    }
    assert!(!bridge.state().exists(), "nothing is made before the configuration is good");
}

#[test]
fn problems_of_kafka_are_only_warnings_on_the_way_back_from_it() {
    let bridge = Bridge::to_kafka(NOBODY, "nowhere");
    for (row, key, line, why) in KAFKA {
        let file = write_env(&bridge, &configuration(&bridge, "SOCKETIO", row));
        let output = bridge.run(&["check"]);
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{row}: {shown}");
        assert!(!shown.contains("CANARY"), "{shown}");
        let problem = problem(&shown, "warning", &place(&file, line), key);
        assert!(problem.contains(why), "{row}: {problem}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let bridge = Bridge::to_kafka(NOBODY, "nowhere");
    let mut seen = BTreeSet::new();
    // One row a key, and none that takes in the lines behind it.
    let alone = |(row, key, ..): &Row| {
        !row.contains('\n') && !row.ends_with("'info") && *key != "ORDER_EVENT_MODE"
    };
    let rows: Vec<Row> = COMMON.into_iter().chain(KAFKA).filter(alone).collect();
    let rows: Vec<Row> = rows.into_iter().filter(|(_, key, ..)| seen.insert(*key)).collect();
    assert!(rows.len() > 30, "{}", rows.len());
    let lines: Vec<&str> = rows.iter().map(|(row, ..)| *row).collect();
    let file = write_env(&bridge, &configuration(&bridge, "KAFKA", &lines.join("\n")));
    for (code, output) in check_and_run(&bridge) {
        assert_eq!(code, Some(78), "{output}");
        for (index, (_, key, ..)) in rows.iter().enumerate() {
            problem(&output, "error", &place(&file, index + 1), key);
        }
    }
}

/// `check --connect`: the exit code, and what it found, without the settings.
fn connect(bridge: &Bridge) -> (Option<i32>, String) {
    let output = bridge.run(&["check", "--connect"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(!stdout.contains("CANARY") && !stderr.contains("CANARY"), "{stdout}{stderr}");
    let found = stdout.split_once("the configuration is good\n").map(|(_, found)| found.to_owned());
    (output.status.code(), found.unwrap_or(stdout) + &stderr)
}

#[track_caller]
fn assert_green(bridge: &Bridge) -> String {
    let (code, found) = connect(bridge);
    assert_eq!(code, Some(0), "{found}");
    // There is no app here, and so no kit.
    let no_kit = "note: writer: no word from a kit: is the app running without it?";
    assert!(found.lines().all(|line| line.starts_with("ok: ") || line == no_kit), "{found}");
    found
}

/// Runs a printed command, given to Kafka's tool `tool`, against `bootstrap`.
#[track_caller]
fn execute(found: &str, tool: &str, bootstrap: &str) -> Output {
    let begins = format!("    kafka-{tool} --bootstrap-server {bootstrap} ");
    let mut lines = found.lines().filter_map(|line| line.strip_prefix(&begins));
    let arguments = lines.next().unwrap_or_else(|| panic!("no {begins:?} in:\n{found}"));
    let broker = tempfile::tempdir().unwrap();
    std::fs::write(broker.path().join("bootstrap"), bootstrap).unwrap();
    let output = Command::new(root().join("packaging/dev/kafka.sh"))
        .args([tool, &broker.path().to_string_lossy()])
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
    output
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn topics(bootstrap: &str) -> BTreeSet<String> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let metadata = client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn connect_is_green_before_and_while_a_bridge_runs_and_disturbs_nothing() {
    let broker = Broker::shared();
    let bridge = Bridge::to_kafka(&broker.bootstrap, &broker.topic(2));
    bridge.append().events(0..3);
    let found = assert_green(&bridge);
    assert!(found.contains("`run` creates it") && found.contains("2 partitions"), "{found}");
    assert!(!bridge.state().exists());

    let mut daemon = bridge.start();
    bridge.wait_until_settled();
    // With the commit that follows the last note, the daemon has nothing more to write.
    wait_for("the commit", || (bridge.checkpoint()["from"] == "checkpoint.json").then_some(()));
    let before = (names_in(&bridge.state()), bridge.checkpoint());
    let found = assert_green(&bridge);
    assert!(found.contains(&format!("a running bridge (pid {})", daemon.pid())), "{found}");
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    assert!(found.contains(&format!("the position is {size} ")), "{found}");
    assert_eq!((names_in(&bridge.state()), bridge.checkpoint()), before);
    assert!(daemon.is_running());
    assert_eq!(daemon.stop(), 0);
    assert!(!assert_green(&bridge).contains("a running bridge"));
}

#[test]
fn a_missing_topic_is_69_and_the_printed_command_creates_it_which_connect_never_does() {
    let broker = Broker::start();
    let bridge = Bridge::to_kafka(&broker.bootstrap, "from_nowhere");
    bridge.append();
    let before = topics(&broker.bootstrap);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(
        found.contains("error: topic from_nowhere: does not exist; the broker would"),
        "{found}"
    );
    assert_eq!(connect(&bridge).0, Some(69), "looking must not create it");
    assert_eq!(topics(&broker.bootstrap), before);
    execute(&found, "topics", &broker.bootstrap);
    assert!(assert_green(&bridge).contains("5 partitions"));
    let broker = Broker::without_auto_create();
    let bridge = Bridge::to_kafka(&broker.bootstrap, "from_nowhere");
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("the broker does not create topics by itself"), "{found}");
}

#[test]
fn settings_of_a_topic_that_would_cost_events_are_warned_of_and_the_printed_commands_mend_them() {
    let broker = Broker::shared();
    let topic = Broker::unused_topic();
    broker.create_topic(&topic, 1, &[("retention.ms", "604800000"), ("max.message.bytes", "5000")]);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.append();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    let warnings: Vec<&str> = found.split("warning: ").skip(1).collect();
    assert_eq!(warnings.len(), 2, "{found}");
    assert!(warnings[0].contains("older than 7 days vanish"), "{found}");
    assert!(warnings[1].contains("(max.message.bytes)"), "{found}");
    for warning in warnings {
        execute(warning, "configs", &broker.bootstrap);
    }
    assert_green(&bridge);
}

#[test]
fn a_broker_that_is_down_or_speaks_otherwise_is_69_without_a_secret() {
    let mut bridge = Bridge::to_kafka(NOBODY, "nowhere");
    bridge.append();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("error: broker: 127.0.0.1:1: cannot be reached: "), "{found}");

    bridge.set("KAFKA_BOOTSTRAP_SERVERS", "no-such-host.invalid:9092");
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("\n    getent hosts no-such-host.invalid"), "{found}");

    let broker = Broker::shared();
    bridge.set("KAFKA_BOOTSTRAP_SERVERS", &format!("{NOBODY},{}", broker.bootstrap));
    bridge.set("KAFKA_SECURITY_PROTOCOL", "ssl");
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("warning: broker: 127.0.0.1:1: "), "one of two is enough: {found}");
    assert!(found.contains("error: broker: ssl://") && found.contains("\n    openssl"), "{found}");

    bridge.set("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext");
    bridge.set("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512").set("KAFKA_SASL_USERNAME", "anna");
    bridge.set("KAFKA_SASL_PASSWORD", "CANARY-password");
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("handshake failed"), "{found}");
    assert!(found.contains("\n    mend KAFKA_SASL_MECHANISM"), "{found}");
}

/// A broker with a second listener, on which who logs in may do only what was granted.
struct Secured {
    directory: PathBuf,
    /// Where everything is allowed, without a login.
    open: String,
    /// Where a login is needed.
    guarded: String,
    _scratch: TempDir,
}

impl Secured {
    fn start() -> Self {
        let scratch = tempfile::Builder::new().prefix("bridge-kafka-").tempdir().unwrap();
        let directory = scratch.path().join("kafka");
        Self::kafka(&["start", &directory.to_string_lossy()]);
        Self::kafka(&["stop", &directory.to_string_lossy()]);
        let open = std::fs::read_to_string(directory.join("bootstrap")).unwrap().trim().to_owned();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let guarded = free.to_string();
        let file = directory.join("server.properties");
        let plain = std::fs::read_to_string(&file).unwrap();
        let all = plain.replace(
            &format!("PLAINTEXT://{open}"),
            &format!("PLAINTEXT://{open},GUARDED://{guarded}"),
        );
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let more = format!(
            "\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN\ninter.broker.listener.name=PLAINTEXT\n\
             listener.name.guarded.plain.sasl.jaas.config={login} user_anna=\"CANARY-password\";\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n"
        );
        std::fs::write(&file, all + &more).unwrap();
        Self::kafka(&["start", &directory.to_string_lossy()]);
        Self { directory, open, guarded, _scratch: scratch }
    }

    fn kafka(arguments: &[&str]) {
        let output = Command::new(root().join("packaging/dev/kafka.sh"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }

    /// Runs the printed `kafka-acls`, as the admin.
    #[track_caller]
    fn grant(&self, found: &str) {
        let begins = format!(
            "    kafka-acls --bootstrap-server {} --command-config admin.properties ",
            self.guarded
        );
        let mut lines = found.lines().filter_map(|line| line.strip_prefix(&begins));
        let arguments = lines.next().unwrap_or_else(|| panic!("no {begins:?} in:\n{found}"));
        let output = Command::new("java")
            .arg("-cp")
            .arg(root().join(".tools/kafka/libs/*"))
            .args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.open])
            .args(arguments.split(' '))
            .output()
            .unwrap();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{arguments}: {all}");
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        Self::kafka(&["stop", &self.directory.to_string_lossy()]);
    }
}

#[test]
fn a_wrong_password_and_missing_rights_are_told_and_the_printed_commands_grant_them() {
    let broker = Secured::start();
    let mut bridge = Bridge::to_kafka(&broker.guarded, "orders");
    bridge.append();
    bridge.set("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext").set("KAFKA_SASL_MECHANISM", "PLAIN");
    bridge.set("KAFKA_SASL_USERNAME", "anna").set("KAFKA_SASL_PASSWORD", "CANARY-wrong");
    write_env(&bridge, &std::fs::read_to_string(bridge.env_file()).unwrap());
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("error: broker: sasl_plaintext://"), "{found}");
    assert!(found.contains("\n    mend KAFKA_SASL_MECHANISM"), "{found}");

    bridge.set("KAFKA_SASL_PASSWORD", "CANARY-password");
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("the login is accepted"), "{found}");
    assert!(found.contains("error: topic orders: this user is not allowed"), "{found}");
    broker.grant(&found);

    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("does not exist; whether the broker would create it cannot"), "{found}");
    let to_open = found
        .replace(&broker.guarded, &broker.open)
        .replace(" --command-config admin.properties", "");
    execute(&to_open, "topics", &broker.open);

    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("warning: topic orders: not allowed to look: cannot say"), "{found}");
    broker.grant(&found);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("keeps events without end"), "{found}");
}

/// Without root's right to pass by permissions.
fn as_mortal(bridge: &mut Bridge) {
    if rustix::process::geteuid().is_root() {
        let drop = "--bounding-set=-dac_override,-dac_read_search";
        bridge.wrapper = ["setpriv", drop].map(str::to_owned).to_vec();
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A bridge whose Kafka side is good, so that only what a test breaks is found.
fn good_bridge() -> Bridge {
    let broker = Broker::shared();
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &broker.topic(1));
    as_mortal(&mut bridge);
    bridge
}

#[test]
fn an_input_that_is_missing_is_a_warning_and_one_that_cannot_be_followed_is_69() {
    let bridge = good_bridge();
    let (input, directory) = (bridge.input(), bridge.input().parent().unwrap().to_owned());
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(
        found.contains(&format!("\n    sudo install -d -m 0755 -o APP {}", directory.display()))
    );
    std::fs::create_dir(&directory).unwrap();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("warning: input: ") && found.contains("does not exist yet"), "{found}");

    std::fs::create_dir(&input).unwrap();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("error: input: ") && found.contains("is a directory"), "{found}");
    std::fs::remove_dir(&input).unwrap();

    bridge.append();
    set_mode(&input, 0);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("may not read it\n    sudo setfacl -m u:"), "{found}");
    set_mode(&input, 0o600);
    set_mode(&directory, 0o300);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("may not list its directory"), "{found}");
    set_mode(&directory, 0);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    let refused = format!("may not pass {}\n    sudo setfacl -m u:", directory.display());
    assert!(found.contains(&refused), "{found}");
    set_mode(&directory, 0o700);
    assert_green(&bridge);
}

/// `check --connect` and `run` end the same way.
#[track_caller]
fn assert_both_78(bridge: &Bridge, why: &str) {
    let (code, found) = connect(bridge);
    assert_eq!(code, Some(78), "{found}");
    assert!(found.contains("error: state directory: ") && found.contains(why), "{found}");
    let check = bridge.run(&["check"]);
    assert_eq!(check.status.code(), Some(78), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains("error: state directory: "), "{}", text(&check.stdout));
    let run = bridge.run(&["run"]);
    assert_eq!(run.status.code(), Some(78), "{}", text(&run.stderr));
}

#[test]
fn a_state_directory_that_stops_run_is_78() {
    let mut bridge = good_bridge();
    bridge.append();
    let state = bridge.state();
    set_mode(bridge.directory(), 0o500);
    assert_both_78(&bridge, "may not create it");
    set_mode(bridge.directory(), 0o700);
    std::fs::write(&state, "").unwrap();
    assert_both_78(&bridge, "is not a directory");
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    set_mode(&state, 0o500);
    assert_both_78(&bridge, "cannot write to it");
    set_mode(&state, 0o700);
    std::fs::write(state.join("checkpoint.json"), "{\"version\":999,\"position\":1}\n").unwrap();
    assert_both_78(&bridge, "a newer version of the bridge wrote it (format 999");
    assert_eq!(std::fs::metadata(state.join("checkpoint.json")).unwrap().len(), 29);
    std::fs::remove_file(state.join("checkpoint.json")).unwrap();

    let script = format!(
        "mount --bind {0} {0} && mount -o remount,ro,bind {0} && exec \"$@\"",
        state.display()
    );
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    bridge.wrapper = ["unshare", namespace, "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    assert_both_78(&bridge, "Read-only file system");
}

#[test]
fn a_state_directory_that_does_not_stop_run_is_only_told_of() {
    let bridge = good_bridge();
    bridge.append();
    let state = bridge.state();
    std::fs::create_dir(&state).unwrap();
    set_mode(&state, 0o755);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains(&format!("\n    sudo chmod 0700 {}", state.display())), "{found}");
    set_mode(&state, 0o700);
    std::fs::write(state.join("checkpoint.json"), "garbage\n").unwrap();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("warning: state directory: ") && found.contains("repeated"), "{found}");
    assert_eq!(std::fs::read(state.join("checkpoint.json")).unwrap(), b"garbage\n");
    assert_eq!(names_in(&state).len(), 1);
}

fn bare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_openalgo-bridge")).args(arguments).output().unwrap()
}

#[test]
fn each_command_says_what_it_does() {
    let output = bare(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for promised in ["at least once", "--env-file", "--instance", "Exit codes:"] {
        assert!(help.contains(promised), "{promised}: {help}");
    }
    let commands: Vec<(&str, &str)> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().split_once("  "))
        .collect();
    for (command, does) in [
        ("run", "foreground"),
        ("check", "every problem at once"),
        ("validate", "without delivering"),
        ("schema", "JSON Schema"),
        ("checkpoint", "committed position"),
    ] {
        let (_, about) = commands.iter().find(|(known, _)| *known == command).unwrap();
        assert!(about.contains(does), "{command}: {about}");
    }
    for (command, about) in commands {
        let output = bare(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = text(&output.stdout);
        assert!(help.contains(about.trim()) && help.contains("Usage: "), "{command}: {help}");
    }
    for subcommand in ["show", "set", "reset"] {
        let output = bare(&["checkpoint", subcommand, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{subcommand}");
        assert!(text(&output.stdout).contains("Usage: "), "{subcommand}");
    }
    assert!(text(&bare(&["check", "--help"]).stdout).contains("how to mend"));
}

#[test]
fn wrong_usage_is_64_and_the_version_is_that_of_the_package() {
    let wrong: [&[&str]; 7] = [
        &[],
        &["--bogus"],
        &["bogus"],
        &["check", "--conect"],
        &["checkpoint"],
        &["checkpoint", "set"],
        &["checkpoint", "set", "--offset", "x"],
    ];
    for arguments in wrong {
        let output = bare(arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {errors}");
        assert!(errors.contains("--help"), "{arguments:?}: {errors}");
    }
    assert!(text(&bare(&["check", "--conect"]).stderr).contains("--connect"));
    let output = bare(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).trim(), concat!("openalgo-bridge ", env!("CARGO_PKG_VERSION")));
}
