//! A cluster of three whose nodes come and go: first deliveries keep their order, and nothing is lost.

use std::time::Instant;

use crate::support::account::expect_all_delivered;
use crate::support::broker::Cluster;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::load::Load;
use crate::support::{or_in_soak, wait_for};

/// How often leaders are killed, and all nodes restarted.
fn rounds() -> usize {
    or_in_soak(1, 10)
}

/// The leader is gone without a word; another one takes over, and it comes back.
fn kill_the_leader(cluster: &Cluster, bridge: &Bridge, topic: &str) {
    let leader = cluster.healthy_leader(topic);
    let began = Instant::now();
    cluster.nodes[leader].kill();
    bridge.wait_until_past_all_of_now();
    println!("leader {leader} killed: {:?} until its successor had all", began.elapsed());
    cluster.nodes[leader].start_again();
}

fn restart_one_after_the_other(cluster: &Cluster, bridge: &Bridge, topic: &str) {
    for node in &cluster.nodes {
        cluster.healthy_leader(topic);
        let began = Instant::now();
        node.stop();
        bridge.wait_until_past_all_of_now();
        node.start_again();
        bridge.wait_until_past_all_of_now();
        println!("restarted in {:?}", began.elapsed());
    }
}

/// Two of three go, so that a record would be on one alone. It waits, says so, and goes on by itself.
fn leave_one_alone(cluster: &Cluster, bridge: &Bridge, daemon: &Daemon, topic: &str) {
    cluster.healthy_leader(topic);
    cluster.nodes[1].stop();
    cluster.nodes[2].stop();
    bridge.wait_until_down("acknowledges nothing: partition 0 has 1 of 3 replicas in sync");
    let told = daemon.log().iter().filter(|line| line.contains("takes events again")).count();
    let position = bridge.checkpoint()["offset"].clone();
    cluster.start_again(|node| node != 0);
    wait_for("word that it takes events again", || {
        let log = daemon.log();
        let now = log.iter().filter(|line| line.contains("takes events again")).count();
        (now > told).then_some(())
    });
    bridge.wait_until_past_all_of_now();
    assert_ne!(bridge.checkpoint()["offset"], position);
}

#[test]
fn ka_04_ka_05_ka_06_leaders_killed_nodes_restarted_and_one_left_alone_lose_and_reorder_nothing() {
    let cluster = Cluster::start();
    let topic = cluster.topic(2);
    let bridge = Bridge::to_kafka(&cluster.bootstrap(), &topic);
    let load = Load::start(&bridge, 0);
    let daemon = bridge.start();
    bridge.wait_until_past_all_of_now();
    for _ in 0..rounds() {
        kill_the_leader(&cluster, &bridge, &topic);
        kill_the_leader(&cluster, &bridge, &topic);
        restart_one_after_the_other(&cluster, &bridge, &topic);
    }
    leave_one_alone(&cluster, &bridge, &daemon, &topic);
    let count = load.stop();
    expect_all_delivered(&bridge, &cluster.bootstrap(), &topic, count);
    assert_eq!(daemon.stop(), 0);
}
