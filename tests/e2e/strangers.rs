//! Who may connect, and those who may not or do not behave.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Bridge;
use crate::support::http::{POLLING, polling_session, request, request_with};
use crate::support::socketio::{Client, Standard};
use crate::support::{PATIENCE, free_port, poll, wait_for};

#[test]
fn a_token_lets_in_and_without_it_nobody_gets_a_byte() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_TOKEN", "s3cret-token");
    let daemon = bridge.start();
    let address = bridge.address();
    let mut right = Client::try_join(&address, r#"{"token":"s3cret-token"}"#, &[]).unwrap();
    for auth in ["", "{}", r#"{"token":"s3cret-tokem"}"#, r#"{"token":1}"#, "[]", "{"] {
        let refused = Client::try_join(&address, auth, &[]).err();
        assert!(refused.is_some_and(|why| why.contains("not authorised")), "{auth}");
    }
    let mut stranger = Client::open(&address, &[]).unwrap();
    // Other ways to ask for something.
    stranger.send("42[\"order_event\",{}]");
    stranger.send("420[\"order_event\",{}]");
    stranger.send("40/admin,{}");
    assert!(stranger.message(PATIENCE).unwrap().contains("Invalid namespace"));
    bridge.append().events(0..10);
    assert!(right.numbers(10).into_iter().eq(0..10));
    assert_eq!(stranger.message(Duration::from_millis(300)), None);
    let wrong = Standard::node(&address, "polling,websocket", &["--token", "wrong"]);
    assert!(wrong.wait_for("connect_error").to_string().contains("not authorised"));
    let node = Standard::node(&address, "polling,websocket", &["--token", "s3cret-token"]);
    node.wait_for("connected");
    bridge.append().events(10..12);
    node.wait_for_events(2);
    assert!(wrong.events().is_empty());
    assert_eq!(daemon.stop(), 0);
}

/// A session check: `Cookie: session=good` is a session, and it counts who asked.
fn session_check(asked: &Arc<AtomicUsize>, broken: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/session", listener.local_addr().unwrap());
    let (asked, broken) = (Arc::clone(asked), Arc::clone(broken));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut block = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut block) {
                    Ok(count) if count > 0 => request.extend_from_slice(&block[..count]),
                    _ => break,
                }
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let status = match request {
                _ if broken.load(Ordering::SeqCst) => "500 Internal Server Error",
                request if request.contains("cookie: session=good") => "204 No Content",
                _ => "401 Unauthorized",
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    url
}

#[test]
fn the_apps_session_lets_in_and_an_answer_holds_for_a_while() {
    let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_URL", &session_check(&asked, &broken));
    let daemon = bridge.start();
    let address = bridge.address();
    let good = [("Cookie", "session=good; theme=dark")];
    let join = |headers: &[(&str, &str)]| Client::try_join(&address, "", headers).map(drop);
    assert_eq!(join(&good).unwrap_err(), "closed", "a standard client tries again only then");
    daemon.wait_for_log("SOCKETIO_AUTH_URL can't be asked");
    broken.store(false, Ordering::SeqCst);
    let mut client = Client::try_join(&address, "", &good).unwrap();
    let count = asked.load(Ordering::SeqCst);
    join(&good).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), count, "it was asked again");
    assert!(join(&[("Cookie", "session=bad")]).unwrap_err().contains("not authorised"));
    assert_eq!(asked.load(Ordering::SeqCst), count + 1);
    assert!(join(&[]).unwrap_err().contains("not authorised"));
    assert_eq!(asked.load(Ordering::SeqCst), count + 1, "asked about a client that shows nothing");
    bridge.append().events(0..3);
    assert_eq!(client.numbers(3), [0, 1, 2]);
    let log = daemon.log().join("\n");
    assert!(!log.contains("session=") && !log.contains("/session"), "{log}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn without_token_and_session_only_this_machines_own_names_are_answered() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_CORS_ORIGINS", "https://listed.example");
    let daemon = bridge.start();
    let address = bridge.address();
    let with = |host: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {POLLING} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for own in ["localhost", "localhost:5055", "127.0.0.1:1", "[::1]:5055", "listed.example"] {
        assert!(with(own).starts_with("HTTP/1.1 200"), "{own}");
    }
    // A name of somebody else's that leads here: its page would be of the same origin.
    for other in ["evil.example:5055", "evil.example", "localhost.evil.example", ""] {
        assert!(with(other).starts_with("HTTP/1.1 403"), "{other}");
    }
    assert_eq!(daemon.stop(), 0);
    bridge.set("SOCKETIO_AUTH_TOKEN", "t0ken");
    let daemon = bridge.start();
    let answer = request(&bridge.address(), "GET", POLLING, "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pages_of_other_origins_may_connect_only_if_they_are_listed() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_CORS_ORIGINS", "https://a.example, http://b.example:8080/");
    let daemon = bridge.start();
    let address = bridge.address();
    let with = |origin: &str| request(&address, "GET", POLLING, &format!("Origin: {origin}\r\n"));
    for listed in ["https://a.example", "http://b.example:8080"] {
        let answer = with(listed).to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("access-control-allow-origin: {listed}\r\n")), "{answer}");
        assert!(answer.contains("access-control-allow-credentials: true"), "{answer}");
    }
    let own = with(&format!("http://{address}"));
    assert!(own.starts_with("HTTP/1.1 200") && !own.contains("access-control"), "{own}");
    for other in
        ["https://evil.example", "http://a.example", "https://a.example.evil.example", "null"]
    {
        assert!(with(other).starts_with("HTTP/1.1 403"), "{other}");
        let refused = Client::open(&address, &[("Origin", other)]).err();
        assert!(refused.is_some_and(|why| why.contains("403")), "{other} over websocket");
    }
    let preflight = request(&address, "OPTIONS", POLLING, "Origin: https://a.example\r\n");
    assert!(preflight.starts_with("HTTP/1.1 204"), "{preflight}");
    bridge.append().events([0]);
    assert_eq!(daemon.stop(), 0);

    bridge.set("SOCKETIO_CORS_ORIGINS", "*");
    let daemon = bridge.start();
    let answer = request(&bridge.address(), "GET", POLLING, "Origin: https://any.example\r\n");
    assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
    assert!(
        !answer.contains("allow-credentials"),
        "cookies must not be lent to any page: {answer}"
    );
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn odd_and_hostile_clients_do_not_hold_up_the_others() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_MAX_CLIENTS", "20");
    let daemon = bridge.start();
    let address = bridge.address();
    let mut good = Client::join(&address);
    // Half a request, or nothing at all.
    let half_open: Vec<TcpStream> = (0..1_000)
        .filter_map(|number| {
            let mut stream = TcpStream::connect(&address).ok()?;
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /socket.io/?EIO=4&transport=poll");
            }
            Some(stream)
        })
        .collect();
    // The first ones are taken, the rest waits in the kernel for them to time out.
    let mut input = bridge.append();
    let began = Instant::now();
    input.events(0..100);
    assert!(good.numbers(100).into_iter().eq(0..100));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(half_open);
    let oversized = "42[\"x\",\"".to_owned() + &"y".repeat(200_000) + "\"]";
    for hostile in
        [oversized.as_str(), "", "9", "4", "49", "4\u{0}", "40{", "0", "6", "bAAAA", "\u{1e}"]
    {
        let mut client = wait_for("a session", || Client::open(&address, &[]).ok());
        client.send(hostile);
        client.send("40");
    }
    let clients: Vec<_> =
        std::iter::repeat_with(|| Client::try_join(&address, "", &[])).take(30).collect();
    let refused = clients.iter().filter_map(|client| client.as_ref().err());
    assert!(refused.clone().count() >= 10, "only {} of 30 are too many", refused.clone().count());
    assert!(refused.clone().all(|why| why == "closed"), "{:?}", refused.collect::<Vec<_>>());
    input.events(100..200);
    assert!(good.numbers(100).into_iter().eq(100..200));
    let log = daemon.log();
    assert!(log.len() < 20 && !log.join("\n").contains("panicked"), "{log:#?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn refusals_that_nobody_reads_do_not_fill_memory() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_TOKEN", "t0ken");
    let daemon = bridge.start();
    let address = bridge.address();
    let wanted = format!("40/{}", "a".repeat(60_000));
    for connect in [wanted.as_str(), "40/x,", "40{}"] {
        let mut client = Client::open(&address, &[]).unwrap();
        for _ in 0..500 {
            client.send(connect);
        }
        assert!(
            poll(PATIENCE, || client.is_closed().then_some(())).is_some(),
            "it may go on asking"
        );
    }
    let peak = daemon.memory_kb("VmHWM");
    assert!(peak <= 48 << 10, "{peak} kB");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_session_of_the_app_counts_on_its_own_pages_and_not_on_every_page() {
    let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_URL", &session_check(&asked, &broken));
    bridge.set("SOCKETIO_CORS_ORIGINS", "*");
    let daemon = bridge.start();
    let address = bridge.address();
    // What a browser sends for a websocket that another page opens.
    let with = |origin: &str| {
        let headers = [("Origin", origin), ("Cookie", "session=good")];
        Client::try_join(&address, "", &headers).map(drop)
    };
    assert!(with("https://evil.example").unwrap_err().contains("not authorised"));
    with(&format!("http://{address}")).unwrap();
    Client::try_join(&address, "", &[("Cookie", "session=good")]).unwrap();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn connect_tries_port_and_session_check_and_disturbs_no_running_bridge() {
    let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_LISTEN", &format!("127.0.0.1:{}", free_port()));
    bridge.set("SOCKETIO_AUTH_URL", &session_check(&asked, &broken));
    bridge.append();
    let connect = |bridge: &Bridge| {
        let output = bridge.run(&["check", "--connect"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(
        found.contains("is free") && found.contains("does not let in who shows no session"),
        "{found}"
    );
    let daemon = bridge.start();
    let mut client =
        Client::try_join(&bridge.address(), "", &[("Cookie", "session=good")]).unwrap();
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("the running bridge listens there"), "{found}");
    bridge.append().events(0..3);
    assert_eq!(client.numbers(3), [0, 1, 2]);
    assert_eq!(daemon.stop(), 0);

    broken.store(true, Ordering::SeqCst);
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("it answers 500") && found.contains("    curl -i"), "{found}");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    bridge.set("SOCKETIO_LISTEN", &busy.local_addr().unwrap().to_string());
    let (code, found) = connect(&bridge);
    assert_eq!(code, Some(69), "{found}");
    assert!(found.contains("    sudo ss -ltnp 'sport = :"), "{found}");
}

/// Opens a session over polling, if it is let.
fn is_let_in(address: &str) -> bool {
    request(address, "GET", POLLING, "").starts_with("HTTP/1.1 200")
}

#[test]
fn sessions_that_never_join_make_room_for_those_that_do() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_TOKEN", "t0ken").set("SOCKETIO_MAX_CLIENTS", "3");
    let daemon = bridge.start();
    let address = bridge.address();
    let token = r#"{"token":"t0ken"}"#;
    let mut first = Client::try_join(&address, token, &[]).unwrap();
    // More than there are places, all within the time that each may take to join.
    let began = Instant::now();
    assert!((0..400).all(|_| is_let_in(&address)), "a session is refused for want of a place");
    let mut second = Client::try_join(&address, token, &[]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "too slow to show anything");
    bridge.append().events(0..10);
    for client in [&mut first, &mut second] {
        assert!(client.numbers(10).into_iter().eq(0..10));
    }
    daemon.wait_for_log("too many sessions");
    let told = daemon.log().iter().filter(|line| line.contains("too many")).count();
    assert_eq!(told, 1, "it is told once a minute");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn silent_connections_make_room_for_clients() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_MAX_CLIENTS", "3");
    let daemon = bridge.start();
    let address = bridge.address();
    // All places but a few, taken again and again as they are lost.
    let mut silent: Vec<TcpStream> = Vec::new();
    let began = Instant::now();
    for round in 0..3 {
        silent.extend((0..600).map(|_| TcpStream::connect(&address).unwrap()));
        let mut client = Client::join(&address);
        bridge.append().events([round]);
        assert_eq!(client.numbers(1), [round]);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "they were timed out, not ended");
    daemon.wait_for_log("too many connections");
    drop(silent);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn many_connections_of_one_session_are_asked_about_once_and_few_at_a_time() {
    const AT_ONCE: usize = 8;
    let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let now = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/session", listener.local_addr().unwrap());
    let counters = (Arc::clone(&asked), Arc::clone(&most));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let ((asked, most), now) = (counters.clone(), Arc::clone(&now));
            std::thread::spawn(move || {
                asked.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // An app that takes its time: the other questions come meanwhile, or wait.
                std::thread::sleep(Duration::from_millis(100));
                now.fetch_sub(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(
                    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            });
        }
    });
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_AUTH_URL", &url);
    let daemon = bridge.start();
    let address = bridge.address();
    let join = |cookie: String| {
        let address = address.clone();
        std::thread::spawn(move || {
            Client::try_join(&address, "", &[("Cookie", &cookie)]).map(drop).unwrap();
        })
    };
    let join_all = |cookies: Vec<String>| {
        let joining: Vec<_> = cookies.into_iter().map(join).collect();
        for thread in joining {
            thread.join().unwrap();
        }
    };
    join_all((0..30).map(|number| format!("session={number}")).collect());
    assert_eq!(asked.load(Ordering::SeqCst), 30);
    assert!(most.load(Ordering::SeqCst) <= AT_ONCE, "{most:?} at once");
    // Those that are asked about at once may not know of each other yet; the others wait.
    join_all(vec!["session=same".to_owned(); 30]);
    let same = asked.load(Ordering::SeqCst) - 30;
    assert!(same <= AT_ONCE, "asked {same} times about one session");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_id_that_clients_are_told_is_not_the_one_that_their_session_hangs_on() {
    let bridge = Bridge::socketio();
    let daemon = bridge.start();
    let address = bridge.address();
    let id = polling_session(&address);
    let target = format!("{POLLING}&sid={id}");
    assert!(request_with(&address, "POST", &target, "", "40").starts_with("HTTP/1.1 200"));
    let answer = wait_for("the welcome", || {
        Some(request(&address, "GET", &target, "")).filter(|answer| answer.contains("40{"))
    });
    assert!(!answer.contains(&id), "who sees the public id could speak for the client: {answer}");
    assert_eq!(daemon.stop(), 0);
}
