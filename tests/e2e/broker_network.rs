//! What lies between daemon and broker: a name that leads nowhere, or elsewhere, and a slow link.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::account::expect_nothing_wrong;
use crate::support::broker::Broker;
use crate::support::daemon::Bridge;
use crate::support::disk::done;
use crate::support::events;
use crate::support::network::{Network, THERE};
use crate::support::wait_for;

/// The broker's name, which only the hosts file of the daemon knows.
const NAME: &str = "kafka.test";

/// What a command runs under that takes `ours` for `/etc/{name}`.
fn with_etc(name: &str, ours: &Path) -> Vec<String> {
    let mount = format!("mount --bind \"$0\" /etc/{name} && exec \"$@\"");
    let words = ["unshare", "--mount", "sh", "-c", &mount, &ours.to_string_lossy()];
    words.map(str::to_owned).into()
}

/// A broker beyond a link, and what the daemon takes for `/etc/hosts`.
struct Site {
    bridge: Bridge,
    hosts: PathBuf,
    topic: String,
    // The broker ends before its network.
    broker: Broker,
    network: Network,
}

impl Site {
    fn new() -> Self {
        let network = Network::new();
        network.ip(1, "link set lo up");
        let broker = Broker::by_name(&network.side(1), NAME);
        let topic = Broker::unused_topic();
        let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
        let hosts = bridge.directory().join("hosts");
        fs::write(&hosts, "").unwrap();
        bridge.wrapper = [network.side(0), with_etc("hosts", &hosts)].concat();
        Self { bridge, hosts, topic, broker, network }
    }

    /// The name leads there from now on.
    fn name_leads_to(&self, address: &str) {
        fs::write(&self.hosts, format!("{address} {NAME}\n")).unwrap();
    }

    /// The numbers of the events in the topic, read from the daemon's side.
    fn numbers(&self) -> Vec<u64> {
        let words = &self.bridge.wrapper;
        let mut kcat = Command::new(&words[0]);
        kcat.args(&words[1..]).args(["kcat", "-C", "-e", "-q", "-o", "beginning"]);
        let text = done(kcat.args(["-b", &self.broker.bootstrap, "-t", &self.topic]));
        text.lines().map(|line| events::number(line.as_bytes())).collect()
    }
}

#[test]
fn ka_18_ka_24_a_name_without_an_address_a_slow_link_and_a_broker_that_moves_lose_nothing() {
    let mut site = Site::new();
    // Of what is on the way to the old address, nobody says that it will not arrive.
    site.bridge.set("KAFKA_CONF_SOCKET_TIMEOUT_MS", "4000");
    site.bridge.set("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", "4000");
    site.bridge.set("KAFKA_PRODUCER_COMPRESSION", "none");
    let bridge = &site.bridge;
    bridge.append().events(0..100);
    let daemon = bridge.start();
    println!("no address: {}", bridge.wait_until_down("resolve"));
    site.name_leads_to(THERE);
    bridge.wait_until_settled();

    site.network.tc(0, "qdisc add dev here root tbf rate 256kbit burst 16kb latency 400ms");
    bridge.append().events(100..600);
    let began = Instant::now();
    bridge.wait_until_settled();
    println!("slow: {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(4), "the link is not slow");
    let outages = daemon.log().iter().filter(|it| it.contains("does not take events")).count();
    assert_eq!(outages, 1, "slow is not down: {:#?}", daemon.log());
    site.network.tc(0, "qdisc del dev here root");

    site.network.ip(0, "address add 10.99.1.1/30 dev here");
    site.network.ip(1, "address add 10.99.1.2/30 dev there");
    site.name_leads_to("10.99.1.2");
    site.network.ip(1, &format!("address del {THERE}/30 dev there"));
    bridge.append().events(600..1_000);
    let began = Instant::now();
    bridge.wait_until_settled();
    println!("moved: {:?}", began.elapsed());
    let mut numbers = site.numbers();
    let repeated = numbers.len() - 1_000;
    numbers.dedup();
    println!("{repeated} came again");
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    expect_nothing_wrong(bridge, 1_000);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_24_a_nameserver_that_does_not_answer_holds_nobody_up() {
    let network = Network::new();
    // What is sent there arrives nowhere, and nobody says so.
    network.ip(0, &format!("neighbour add {THERE} lladdr 02:00:00:00:00:01 dev here"));
    let mut bridge = Bridge::to_kafka(&format!("{NAME}:9092"), "events");
    let resolver = bridge.directory().join("resolv.conf");
    fs::write(&resolver, format!("nameserver {THERE}\n")).unwrap();
    bridge.wrapper = [network.side(0), with_etc("resolv.conf", &resolver)].concat();
    bridge.append().events(0..10);
    let daemon = bridge.start();
    let in_flight = |count: u64| {
        wait_for("the lines to be out", || {
            (bridge.status()["sink"]["in_flight"] == count).then_some(())
        });
    };
    in_flight(10);
    let began = Instant::now();
    daemon.signal("HUP");
    daemon.wait_for_log("a new Kafka producer uses what was read again");
    bridge.append().events(10..20);
    in_flight(20);
    assert_eq!(daemon.stop(), 0);
    println!("read again, and stopped, within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "each question to it takes ten");
}
