//! Everything at once while the broker is away: rotated, deleted, cut, and the daemon ended in the middle.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use crate::files::{lines, wait_until_seen};
use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::wait_for;

#[test]
fn in_06_in_12_in_20_cut_and_restarted_amid_rotations_while_the_broker_is_away_all_is_delivered_or_told()
 {
    let broker = Broker::start();
    for killed in [false, true] {
        let topic = broker.topic(1);
        let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
        bridge.set("BRIDGE_MAX_IN_FLIGHT", "20");
        bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "300");
        bridge.append().events([9_999]);
        let daemon = bridge.start();
        bridge.wait_until_settled();
        broker.stop();
        let directory = bridge.input().parent().unwrap().to_owned();
        let rotated =
            |round: u64| directory.join(format!("order_events.jsonl-20260129-{round:06}"));
        let rotate = |round: u64| {
            bridge.append().write(lines(round * 10..round * 10 + 10).as_bytes());
            fs::rename(bridge.input(), rotated(round)).unwrap();
        };
        (0..30).for_each(rotate);
        bridge.append().events(300..310);
        wait_for("all files to be open", || {
            (bridge.status()["input"]["held_files"] == 31).then_some(())
        });
        wait_until_seen(&bridge);
        (0..5).for_each(|round| fs::remove_file(rotated(round)).unwrap());
        fs::write(bridge.input(), "").unwrap();
        if killed {
            daemon.kill();
        } else {
            assert_eq!(daemon.stop(), 0);
        }
        bridge.append().events(315..320);
        fs::rename(bridge.input(), rotated(31)).unwrap();
        (32..36).for_each(rotate);
        bridge.append().events(360..370);
        let daemon = bridge.start();
        broker.start_again();
        let mut consumer = Topic::open(&broker.bootstrap, &topic);
        wait_for("the last event", || {
            consumer.poll(Duration::from_millis(100));
            consumer.numbers().contains(&369).then_some(())
        });
        bridge.wait_until_settled();
        consumer.read_all();
        let came: HashSet<u64> = consumer.numbers().into_iter().collect();
        let written = (0..310).chain(315..370);
        let missing: Vec<u64> = written.filter(|number| !came.contains(number)).collect();
        let bytes: usize = missing.iter().map(|number| lines([*number]).len()).sum();
        println!("killed: {killed}, {} of 365 missing, {bytes} bytes", missing.len());
        // What was cut before it was read; after a kill, also what was in deleted files.
        let may_be_missing = |number: &u64| (300..310).contains(number) || (killed && *number < 50);
        assert!(missing.iter().all(may_be_missing), "{missing:?}");
        assert!(!missing.is_empty(), "some was to be lost");
        let ledger = bridge.status()["ledger"]["bytes"].clone();
        assert_eq!(ledger["lost"], bytes, "killed: {killed}: what is missing is told, {ledger}");
        let sum = ["delivered", "rejected", "filtered", "blank", "pending"];
        let sum: u64 = sum.iter().map(|class| ledger[*class].as_u64().unwrap()).sum();
        assert_eq!(ledger["read"], sum, "{ledger}");
        assert_eq!(daemon.stop(), 0);
    }
}
