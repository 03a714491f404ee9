//! The package, upgraded and downgraded while events come in.
//!
//! It is put together here, of the binary that the tests run and the scripts and files that the real one has:
//! `packaging/package/try.sh` tries that one, whose build takes minutes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ends::check;
use crate::machine::{ENV_FILE, Machine, UNIT, repository};
use crate::rollback::{Load, TOPIC};
use crate::support::broker::Broker;
use crate::support::wait_for;
use crate::topic::messages;

/// What is in it, besides the binary.
const FILES: [(&str, &str); 5] = [
    (".sample.env", ENV_FILE),
    ("systemd/openalgo-bridge.service", "/usr/lib/systemd/system/openalgo-bridge.service"),
    ("systemd/openalgo-bridge@.service", "/usr/lib/systemd/system/openalgo-bridge@.service"),
    ("systemd/openalgo-bridge.sysusers", "/usr/lib/sysusers.d/openalgo-bridge.conf"),
    ("systemd/openalgo-bridge.tmpfiles", "/usr/lib/tmpfiles.d/openalgo-bridge.conf"),
];

/// Makes the package of a version. Each has another configuration, so that dpkg has to decide about that.
fn package(directory: &Path, version: &str) -> PathBuf {
    let tree = directory.join(version);
    let put = |from: &Path, to: &str, mode| {
        let to = tree.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).expect("room for it");
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    };
    put(Path::new(env!("CARGO_BIN_EXE_openalgo-bridge")), "/usr/bin/openalgo-bridge", 0o755);
    for (from, to) in FILES {
        put(&repository(from), to, 0o644);
    }
    for script in ["postinst", "postrm", "prerm"] {
        let from = repository("packaging/package/deb").join(script);
        put(&from, &format!("/DEBIAN/{script}"), 0o755);
    }
    let control = format!(
        "Package: openalgo-bridge\nVersion: {version}\nArchitecture: amd64\n\
         Maintainer: Nobody <nobody@invalid>\nDescription: a package for a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(tree.join("DEBIAN/conffiles"), format!("{ENV_FILE}\n")).unwrap();
    let sample = tree.join(ENV_FILE.trim_start_matches('/'));
    let text = fs::read_to_string(&sample).unwrap();
    fs::write(sample, format!("{text}# Of version {version}.\n")).unwrap();
    let file = directory.join(format!("{version}.deb"));
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "-b"])
        .args([&tree, &file])
        .output()
        .expect("dpkg-deb");
    assert!(built.status.success(), "{built:?}");
    file
}

fn install(machine: &Machine, package: &Path) {
    fs::copy(package, machine.path("/root/package.deb")).unwrap();
    let words = ["--force-confdef", "--force-confold", "-i", "/root/package.deb"];
    machine.succeed(&[&["env", "DEBIAN_FRONTEND=noninteractive", "dpkg"], &words[..]].concat());
}

#[test]
fn pr_17_upgraded_and_downgraded_under_load_every_line_comes_once_and_ids_go_on() {
    let machine = Machine::boot();
    let broker = Broker::new(&machine.network(), true);
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["0.1.0-1", "0.1.0-2"].map(|version| package(directory.path(), version));
    install(&machine, &old);
    machine.configure(
        ENV_FILE,
        &[
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", &broker.bootstrap),
            ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
        ],
    );
    let configuration = fs::read(machine.path(ENV_FILE)).unwrap();
    machine.append(0..1);
    machine.succeed(&["systemctl", "enable", "--now", UNIT]);
    machine.wait_until_delivered(1);
    let load = Load::from(&machine, 1);
    let delivered = || machine.status()["ledger"]["lines"]["delivered"].as_u64().unwrap();
    for package in [&new, &old, &new] {
        let (pid, before) = (machine.main_pid(UNIT), delivered());
        wait_for("events", || (delivered() > before + 100).then_some(()));
        install(&machine, package);
        assert_eq!(machine.property(UNIT, "ActiveState"), "active");
        assert_ne!(machine.main_pid(UNIT), pid, "the old binary still runs");
    }
    let version = machine.succeed(&["dpkg-query", "-f", "${Version}", "-W", "openalgo-bridge"]);
    assert_eq!(version, "0.1.0-2");
    assert_eq!(fs::read(machine.path(ENV_FILE)).unwrap(), configuration);
    let end = load.stop();
    machine.wait_until_delivered(end);
    let mut events: HashMap<u64, Vec<String>> = HashMap::new();
    for (number, id) in messages(&machine, &broker, TOPIC) {
        events.entry(number).or_default().push(id);
    }
    check(&events, end);
    let repeated = events.values().map(|ids| ids.len() - 1).sum::<usize>();
    eprintln!("measured: upgraded, downgraded and upgraded: {end} lines, {repeated} repeated");
    assert_eq!(repeated, 0, "what stops cleanly repeats nothing");
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);
}
