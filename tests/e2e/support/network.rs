//! A network of a test's own, whose links can be cut and slowed down.

use std::process::{Child, Command, Stdio};

use super::wait_for;

/// Two network namespaces and the link between them. They are gone when nothing holds them: each is
/// held by a process that ends with its standard input, and so with this one, however it goes.
pub struct Network([Child; 2]);

pub const HERE: &str = "10.99.0.1";
pub const THERE: &str = "10.99.0.2";

impl Network {
    /// With an address on each side.
    pub fn new() -> Self {
        let network = Self([(); 2].map(|()| {
            let mut command = Command::new("unshare");
            command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
            command.spawn().expect("unshare")
        }));
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        for holder in &network.0 {
            let path = format!("/proc/{}/ns/net", holder.id());
            wait_for("a namespace of its own", || {
                std::fs::read_link(&path).is_ok_and(|theirs| theirs != ours).then_some(())
            });
        }
        let there = network.0[1].id();
        network.ip(0, &format!("link add name here type veth peer name there netns {there}"));
        for (side, name, address) in [(0, "here", HERE), (1, "there", THERE)] {
            network.ip(side, &format!("address add {address}/30 dev {name}"));
            network.ip(side, &format!("link set {name} up"));
        }
        network
    }

    /// What a command runs under to be on that side.
    pub fn side(&self, side: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.0[side].id())]
    }

    /// The ip tool on that side.
    #[track_caller]
    pub fn ip(&self, side: usize, arguments: &str) {
        self.run(side, "ip", arguments);
    }

    /// The tc tool on that side, which makes a link slow.
    #[track_caller]
    pub fn tc(&self, side: usize, arguments: &str) {
        self.run(side, "tc", arguments);
    }

    #[track_caller]
    fn run(&self, side: usize, program: &str, arguments: &str) {
        let words = self.side(side);
        let mut command = Command::new(&words[0]);
        let command = command.arg(&words[1]).arg(program).args(arguments.split(' '));
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments}: {errors}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
