//! The relay and what stands between it and the app: certificates, proxies, a cut link.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::network::{Network, THERE};
use crate::support::relay::{Relay, free_port};
use crate::support::wait_for;

/// Passes everything on to the app, websockets too.
const PASS: &str = "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Host $host; \
                    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";

/// An nginx on a port of its own. What runs is killed when dropped.
struct Proxy {
    directory: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Proxy {
    /// One that the bridge goes to in the app's place.
    fn before(relay: &mut Relay, scheme: &str) -> Self {
        let directory = relay.bridge.directory().join("nginx");
        std::fs::create_dir(&directory).unwrap();
        let proxy = Self { directory, port: free_port(), running: None };
        relay.bridge.set("SOCKETIO_URL", &format!("{scheme}://127.0.0.1:{}", proxy.port));
        proxy
    }

    /// Starts it, or again: `apps` are ports, `server` stands in the server's block.
    fn serve(&mut self, apps: &[u16], server: &str) {
        self.stop();
        let mut config = String::from("daemon off; master_process off; events {} http {\n");
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(config, "{kind}_temp_path {};", self.file(kind).display());
        }
        let _ = writeln!(config, "access_log {};\nupstream app {{", self.file("access").display());
        for port in apps {
            let _ = writeln!(config, "server 127.0.0.1:{port} fail_timeout=1s;");
        }
        let ssl = if server.contains("ssl_certificate") { "ssl" } else { "" };
        let port = self.port;
        let _ = writeln!(config, "}} server {{ listen 127.0.0.1:{port} {ssl};\n{server} }} }}");
        std::fs::write(self.file("nginx.conf"), config).unwrap();
        let (errors, pid) = (self.file("errors"), self.file("pid"));
        let mut command = Command::new("nginx");
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("-c")
            .arg(self.file("nginx.conf"))
            .arg("-g")
            .arg(format!("pid {}; error_log {} info;", pid.display(), errors.display()))
            .arg("-e")
            .arg(&errors)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut running = command.spawn().expect("nginx");
        wait_for("nginx", || {
            assert!(running.try_wait().unwrap().is_none(), "{}", self.text("errors"));
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        self.running = Some(running);
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.file(file)).unwrap_or_default()
    }

    /// How often this stands in a log of it.
    fn count(&self, file: &str, text: &str) -> u64 {
        self.text(file).matches(text).count() as u64
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// At most one a second in the long run, which is five seconds here, and more than one.
#[track_caller]
fn assert_attempts_are_rare(began: Instant, mut count: impl FnMut() -> u64) {
    let times = wait_for("attempts for five seconds", || {
        let times = count();
        (times > 1 && began.elapsed() >= Duration::from_secs(5)).then_some(times)
    });
    let seconds = began.elapsed().as_secs();
    println!("{times} attempts in {seconds} s");
    assert!(times <= seconds + 1, "{times} attempts in {seconds} s");
}

/// The bridge meets this in the app's place. It says so with these words, keeps what there is, asks
/// at most once a second in the long run, and goes on when it is mended.
#[track_caller]
fn stands_in_the_way(server: &str, words: &[&str]) {
    let mut relay = Relay::new();
    let mut proxy = Proxy::before(&mut relay, "http");
    let users = proxy.file("users");
    std::fs::write(&users, "somebody:{PLAIN}CANARY\n").unwrap();
    proxy.serve(&[relay.port], &server.replace("USERS", &users.to_string_lossy()));
    // An app that nobody gets to, unless the fault is that there is none.
    let app = (!words[0].contains("502")).then(|| relay.app(&[]));
    relay.bridge.append().events(0..50);
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    relay.wait_for_reason(words[0]);
    let asked = "GET /socket.io/?EIO=4&transport=polling";
    assert_attempts_are_rare(began, || proxy.count("access", asked));
    daemon.wait_for_log(words[0]);
    let sink = relay.bridge.status()["sink"].clone();
    assert_eq!(sink["state"], "down", "{sink}");
    let output = relay.bridge.run(&["check", "--connect"]);
    assert_eq!(output.status.code(), Some(69));
    let check = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in words {
        assert!(sink["reason"].as_str().is_some_and(|why| why.contains(word)), "{word}: {sink}");
        assert!(check.contains(word), "{word}: {check}");
    }
    assert!(!(check + &sink.to_string() + &daemon.log().join("\n")).contains("CANARY"));
    assert_eq!(relay.bridge.checkpoint()["offset"], 0);
    assert!(relay.noted("batch").is_empty());
    proxy.serve(&[relay.port], &format!("location / {{ {PASS} }}"));
    let _app = app.unwrap_or_else(|| relay.app(&[]));
    daemon.wait_for_log("takes events again");
    relay.finish(daemon, 50);
    assert!(relay.bridge.rejects().is_empty());
}

#[test]
fn si_17_a_proxy_without_an_app_behind_it() {
    stands_in_the_way(
        &format!("location / {{ {PASS} }}"),
        &["502 Bad Gateway", "a proxy is there, and the app behind it is not"],
    );
}

#[test]
fn si_17_a_proxy_that_leads_elsewhere() {
    stands_in_the_way(
        "return 302 https://login.example/in?token=CANARY;",
        &["302 Found", "https://login.example", "SOCKETIO_URL"],
    );
}

#[test]
fn si_17_a_proxy_that_wants_a_login() {
    stands_in_the_way(
        &format!("location / {{ auth_basic app; auth_basic_user_file USERS; {PASS} }}"),
        &["401 Unauthorized", "wants a login"],
    );
}

#[test]
fn si_17_a_proxy_that_does_not_pass_websockets_on() {
    stands_in_the_way(
        "location / { proxy_pass http://app; }",
        &["400 Bad Request", "a proxy there has to pass websockets on"],
    );
}

/// A certificate authority of the test's own.
struct Authority(PathBuf);

impl Authority {
    fn new(directory: &Path) -> Self {
        let authority = Self(directory.to_owned());
        authority.openssl("req -x509 -KEY -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
        std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        authority
    }

    fn openssl(&self, arguments: &str) {
        let arguments =
            arguments.replace("-KEY", "-nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    }

    /// What nginx is told to serve with a certificate that ends after so many days.
    fn certificate(&self, name: &str, days: i32) -> String {
        self.openssl(&format!("req -KEY -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
             -extfile names -out {name}.pem"
        ));
        let path = |kind| self.0.join(format!("{name}.{kind}")).to_string_lossy().into_owned();
        format!(
            "ssl_certificate {}; ssl_certificate_key {};\nlocation / {{ {PASS} }}",
            path("pem"),
            path("key")
        )
    }
}

#[test]
fn si_17_a_certificate_that_is_expired_or_of_an_unknown_authority_and_then_a_good_one() {
    let mut relay = Relay::new();
    let mut proxy = Proxy::before(&mut relay, "https");
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let directory = relay.bridge.directory().join(name);
        std::fs::create_dir(&directory).unwrap();
        Authority::new(&directory)
    });
    let trusted = format!("SSL_CERT_FILE={}", ours.0.join("ca.pem").display());
    relay.bridge.wrapper = vec!["env".to_owned(), trusted];
    let _app = relay.app(&[]);
    relay.bridge.append().events(0..50);
    proxy.serve(&[relay.port], &ours.certificate("expired", -1));
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    let expired = "the app's certificate is not accepted: certificate has expired";
    relay.wait_for_reason(expired);
    daemon.wait_for_log(expired);
    let refused = "SSL_do_handshake() failed";
    assert_attempts_are_rare(began, || proxy.count("errors", refused));
    proxy.serve(&[relay.port], &theirs.certificate("unknown", 2));
    relay.wait_for_reason("not accepted: unable to get local issuer certificate");
    let output = relay.bridge.run(&["check", "--connect"]);
    let check = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(69), "{check}");
    assert!(check.contains("unable to get local issuer certificate"), "{check}");
    assert!(check.contains("update-ca-certificates"), "{check}");
    assert_eq!(relay.bridge.checkpoint()["offset"], 0);
    assert!(relay.noted("connect").is_empty());
    proxy.serve(&[relay.port], &ours.certificate("good", 2));
    daemon.wait_for_log("takes events again");
    relay.finish(daemon, 50);
}

#[test]
fn si_13_two_apps_behind_a_proxy_that_takes_turns_need_no_session_that_sticks() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_BATCH_MAX_EVENTS", "10");
    let mut proxy = Proxy::before(&mut relay, "http");
    let ports = [free_port(), free_port()];
    proxy.serve(&ports, &format!("location / {{ {PASS} }}"));
    let apps = ports.map(|port| {
        let port = port.to_string();
        relay.app(&["--port", &port, "--disconnect-every", "3"])
    });
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..60);
    relay.bridge.wait_until_settled();
    let [first, second] = apps;
    drop(first);
    relay.bridge.append().events(60..80);
    relay.bridge.wait_until_settled();
    drop(second);
    let used = |port: u16| relay.noted("batch").iter().any(|batch| batch["port"] == port);
    assert!(ports.into_iter().all(used), "{:?}", relay.noted("batch"));
    relay.finish(daemon, 80);
}

#[test]
fn si_10_a_link_that_is_cut_is_noticed_by_the_deadline_and_nothing_is_lost() {
    let mut relay = Relay::new();
    let network = Network::new();
    relay.bridge.set("SOCKETIO_URL", &format!("http://{THERE}:{}", relay.port));
    relay.bridge.wrapper = network.side(0);
    let _app = relay.app_under(&network.side(1), &["--host", THERE]);
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..100);
    relay.bridge.wait_until_settled();
    let before = relay.bridge.checkpoint()["offset"].clone();
    // Nothing says so: packets that go out are not answered any more.
    network.ip(1, "link set there down");
    relay.bridge.append().events(100..200);
    let began = Instant::now();
    relay.wait_for_reason("not acknowledged within 1500 ms");
    let noticed = began.elapsed();
    println!("noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
    // Nor does anybody say that nobody is there.
    wait_for("a connection that does not come about", || {
        let sink = relay.bridge.status()["sink"].clone();
        let why = sink["reason"].as_str()?;
        (!why.contains("not acknowledged") && sink["state"] == "down").then(|| println!("{why}"))
    });
    assert_eq!(relay.bridge.checkpoint()["offset"], before);
    network.ip(1, "link set there up");
    let began = Instant::now();
    daemon.wait_for_log("takes events again");
    println!("again after {:?}", began.elapsed());
    relay.finish(daemon, 200);
    assert!(relay.bridge.rejects().is_empty());
}
