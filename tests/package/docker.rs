//! The recipe for an image and what goes beside the app's compose file, against what they name: the packages, the
//! units, the kit and the documents. There is no Docker here to run them.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn dockerfile() -> String {
    read("packaging/docker/Dockerfile")
}

fn compose() -> String {
    read("packaging/docker/docker-compose.override.yaml")
}

/// What stands behind the first line that begins so, blanks before it aside.
fn value(text: &str, name: &str) -> String {
    let mut lines = text.lines().map(str::trim_start);
    let found = lines.find_map(|line| line.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no line begins with {name}")).to_owned()
}

#[test]
fn one_user_in_the_recipe_the_override_and_the_documents() {
    let (dockerfile, documents) = (dockerfile(), read("docs/openalgo.md"));
    let user = value(&dockerfile, "USER ");
    let (uid, gid) = user.split_once(':').unwrap();
    assert_eq!(value(&compose(), "user: "), format!("\"{user}\""));
    assert_eq!(dockerfile.matches(&format!("-o {uid} -g {gid} ")).count(), 2, "events and state");
    assert!(documents.contains(&format!("install -D -m 640 -o {uid} .sample.env")));
    assert!(documents.contains(&format!("chown {uid} bridge")));
}

#[test]
fn the_recipe_takes_what_the_package_has_and_makes_what_is_mounted() {
    let (dockerfile, metadata) = (dockerfile(), read("Cargo.toml"));
    let taken: Vec<&str> = dockerfile
        .split("cp -a /package/")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    assert_eq!(taken.len(), 3);
    for path in taken {
        let found = metadata.lines().filter(|line| line.starts_with("  [\"target/package/stage/"));
        assert!(
            found.clone().any(|line| line.contains(&format!("\"target/package/stage/{path}"))),
            "{path}"
        );
    }
    for directory in
        ["/etc/openalgo-bridge", "/var/lib/openalgo-bridge", "/var/lib/openalgo-events"]
    {
        assert!(
            dockerfile.contains(&format!("/root-of-image{directory}\n"))
                || dockerfile.contains(&format!("/root-of-image{directory} ")),
            "{directory}"
        );
        assert!(compose().contains(&format!(":{directory}")), "{directory}");
    }
}

#[test]
fn the_override_names_the_defaults_and_the_kit() {
    let (compose, sample) = (compose(), read(".sample.env"));
    let input = value(&sample, "BRIDGE_INPUT = ");
    assert_eq!(value(&compose, "OPENALGO_BRIDGE_FILE: "), input.trim_matches('\''));
    let arguments = value(&read("packaging/openalgo/gunicorn.env"), "GUNICORN_CMD_ARGS=");
    assert_eq!(value(&compose, "GUNICORN_CMD_ARGS: "), arguments);
    let unit = value(&read("systemd/openalgo-bridge.service"), "TimeoutStopSec=");
    assert_eq!(value(&compose, "stop_grace_period: "), format!("{unit}s"));
}
