//! The relay's decisions, with a link that the test plays itself.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::watch::BLIP;
use super::*;
use crate::domain::acks::{AckTracker, Limits};
use crate::domain::envelope::{EventTypes, Verdict, validate};
use crate::domain::framing::LineBytes;
use crate::domain::position::Generation;
use crate::sink::State;

pub(super) fn message_of(text: &str, offset: u64) -> Message {
    let line = LineBytes::standalone(text.as_bytes());
    let types = EventTypes::default();
    let Verdict::Valid(envelope) = validate(line.as_slice(), &types) else { panic!("invalid") };
    Message::new(&line, &envelope, Generation(1), offset, false)
}

pub(super) fn message(number: u64, padding: usize) -> Message {
    let padding = "x".repeat(padding);
    let text = format!(
        r#"{{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{{"n":"{number:04}{padding}"}}}}"#
    );
    message_of(&text, number)
}

/// What the link was asked to do.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Connect(u64),
    Send { numbers: Vec<u64> },
    Close,
    Renew(String),
}

#[derive(Default)]
struct Played {
    calls: Vec<Call>,
    last: Value,
}

struct FakeLink(Arc<Mutex<Played>>);

impl Link for FakeLink {
    fn connect(&mut self, connection: u64) {
        self.0.lock().unwrap().calls.push(Call::Connect(connection));
    }

    fn send(&mut self, text: String) {
        let batch: Value = serde_json::from_str(&text).unwrap();
        let number = |event: &Value| event["data"]["n"].as_str().unwrap()[..4].parse().unwrap();
        let numbers = batch["events"].as_array().unwrap().iter().map(number).collect();
        let mut played = self.0.lock().unwrap();
        played.calls.push(Call::Send { numbers });
        played.last = batch;
    }

    fn close(&mut self) {
        self.0.lock().unwrap().calls.push(Call::Close);
    }

    fn renew(&mut self, token: &str) {
        self.0.lock().unwrap().calls.push(Call::Renew(token.to_owned()));
    }
}

struct FakeClock(Mutex<(Instant, i64)>);

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().0
    }

    fn unix_ms(&self) -> i64 {
        self.0.lock().unwrap().1
    }
}

struct Bench {
    sink: RelaySink,
    reports: Reports,
    clock: Arc<FakeClock>,
    played: Arc<Mutex<Played>>,
    records: AckTracker<()>,
    connection: u64,
    ids: Vec<RecordId>,
}

/// The time of the events of these tests.
const EVENT_MS: i64 = 1_769_682_645_000;

impl Bench {
    fn new(batch_max_events: usize, max_event_age: Option<Duration>) -> Self {
        let settings = Settings {
            target: Target::Url("http://app".to_owned()),
            namespace: "/bridge".to_owned(),
            auth_token: None,
            ack_timeout: Duration::from_secs(10),
            batch_max_events,
            max_event_age,
        };
        let clock = Arc::new(FakeClock(Mutex::new((Instant::now(), EVENT_MS))));
        let played = Arc::<Mutex<Played>>::default();
        let reports = Reports::new(Box::new(|| ()));
        let link = Box::new(FakeLink(Arc::clone(&played)));
        let sink = RelaySink::with(&settings, clock.clone(), link, reports.clone());
        let records = AckTracker::new(Limits { records: 1_000_000, bytes: 1 << 40 });
        Self { sink, reports, clock, played, records, connection: 0, ids: Vec::new() }
    }

    fn publish(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let id = self.records.track((), 1);
            self.ids.push(id);
            self.sink.publish(id, message);
        }
    }

    /// A turn of the owner's; outcomes by the number of the event.
    fn turn(&mut self) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::new();
        self.sink.settle(&mut outcomes);
        self.sink.caught_up();
        self.sink.settle(&mut outcomes);
        let number = |id| self.ids.iter().position(|known| *known == id).unwrap();
        outcomes.into_iter().map(|(id, outcome)| (number(id), outcome)).collect()
    }

    fn say(&mut self, said: Said) -> Vec<(usize, Outcome)> {
        self.reports.post(Report { connection: self.connection, said });
        self.turn()
    }

    fn pass(&self, time: Duration) {
        let mut now = self.clock.0.lock().unwrap();
        now.0 += time;
        now.1 += i64::try_from(time.as_millis()).unwrap();
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.played.lock().unwrap().calls)
    }

    /// Waits as long as the sink wants to, and sees it connect.
    #[track_caller]
    fn connects(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        loop {
            self.turn();
            if let Some(Call::Connect(connection)) =
                self.calls().into_iter().find(|call| matches!(call, Call::Connect(_)))
            {
                self.connection = connection;
                return waited;
            }
            let until = self.sink.deadline().expect("it waits for ever");
            let step = until.saturating_duration_since(self.clock.now());
            let step = step.max(Duration::from_millis(1));
            self.pass(step);
            waited += step;
        }
    }

    #[track_caller]
    fn joins(&mut self) {
        self.connects();
        let settled = self.say(Said::Joined { max_payload: None });
        assert_eq!(settled, []);
    }

    fn batch_id(&self) -> String {
        self.played.lock().unwrap().last["batch_id"].as_str().unwrap().to_owned()
    }

    fn answer(&mut self, answer: &Value) -> Vec<(usize, Outcome)> {
        self.say(Said::Answered(json!([answer])))
    }

    fn acknowledge(&mut self) -> Vec<(usize, Outcome)> {
        let answer = json!({"batch_id": self.batch_id(), "ok": true});
        self.answer(&answer)
    }
}

fn messages(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Message> {
    numbers.map(|number| message(number, 0))
}

fn sent(numbers: std::ops::Range<u64>) -> Call {
    Call::Send { numbers: numbers.collect() }
}

fn delivered(numbers: std::ops::Range<usize>) -> Vec<(usize, Outcome)> {
    numbers.map(|number| (number, Outcome::Delivered)).collect()
}

#[test]
fn si_06_nothing_is_sent_before_the_app_lets_it_in_and_then_one_batch_at_a_time_in_order() {
    let mut bench = Bench::new(3, None);
    bench.publish(messages(0..5));
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.calls(), [Call::Connect(1)]);
    bench.connection = 1;
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.calls(), []);
    bench.say(Said::Joined { max_payload: None });
    assert_eq!(bench.calls(), [sent(0..3)]);
    bench.publish(messages(5..7));
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.calls(), [], "one is out");
    assert_eq!(bench.acknowledge(), delivered(0..3));
    assert_eq!(bench.calls(), [sent(3..6)]);
    assert_eq!(bench.acknowledge(), delivered(3..6));
    assert_eq!(bench.calls(), [sent(6..7)]);
    assert_eq!(bench.sink.health().in_flight, 1);
    assert_eq!(bench.acknowledge(), delivered(6..7));
    assert_eq!((bench.sink.health().state, bench.sink.health().retries), (State::Up, 0));
}

#[test]
fn what_is_read_in_one_turn_is_one_batch() {
    let mut bench = Bench::new(100, None);
    bench.joins();
    bench.publish(messages(0..50));
    assert_eq!(bench.calls(), []);
    assert!(bench.sink.deadline().is_some_and(|at| at <= bench.clock.now()));
    bench.turn();
    assert_eq!(bench.calls(), [sent(0..50)]);
    assert_eq!(bench.sink.deadline(), None);
}

#[test]
fn si_03_si_04_si_14_what_is_no_acknowledgement_makes_the_batch_go_again_over_a_fresh_connection() {
    for answer in [
        json!([]),
        json!([{"batch_id": "foreign", "ok": true}]),
        json!([{"batch_id": "OWN", "ok": false}]),
        json!([{}]),
    ] {
        let mut bench = Bench::new(1, None);
        bench.joins();
        bench.publish(messages(0..2));
        bench.turn();
        assert_eq!(bench.calls(), [sent(0..1)]);
        let first = bench.batch_id();
        let answer: Value =
            serde_json::from_str(&answer.to_string().replace("OWN", &first)).unwrap();
        assert_eq!(bench.say(Said::Answered(answer)), []);
        assert_eq!(bench.calls(), [Call::Close]);
        // A late one of the first attempt, on the connection that was given up, says nothing.
        let late = json!({"batch_id": first, "ok": true});
        assert_eq!(bench.answer(&late), []);
        bench.joins();
        assert_eq!(bench.calls(), [sent(0..1)]);
        assert_ne!(bench.batch_id(), first);
        // Nor does it on the new connection: that has to be given up, too.
        assert_eq!(bench.answer(&late), []);
        bench.joins();
        assert_eq!(bench.calls(), [sent(0..1)]);
        assert_eq!(bench.acknowledge(), delivered(0..1));
        assert_eq!(bench.sink.health().retries, 2);
    }
}

#[test]
fn si_05_what_was_out_when_the_connection_broke_goes_again_first_and_in_order() {
    let mut bench = Bench::new(2, None);
    bench.joins();
    bench.publish(messages(0..5));
    bench.turn();
    assert_eq!(bench.acknowledge(), delivered(0..2));
    bench.calls();
    assert_eq!(bench.say(Said::Lost("gone".to_owned())), []);
    bench.publish(messages(5..6));
    bench.joins();
    let mut settled = Vec::new();
    let mut numbers = Vec::new();
    for _ in 0..8 {
        for call in bench.calls() {
            let Call::Send { numbers: more } = call else { panic!("{call:?}") };
            numbers.extend(more);
            settled.extend(bench.acknowledge());
        }
    }
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert_eq!(settled, delivered(2..6));
}

#[test]
fn an_acknowledgement_that_comes_twice_counts_once() {
    let mut bench = Bench::new(1, None);
    bench.joins();
    bench.publish(messages(0..2));
    bench.turn();
    let answer = json!({"batch_id": bench.batch_id(), "ok": true});
    assert_eq!(bench.answer(&answer), delivered(0..1));
    assert_eq!(bench.calls(), [sent(0..1), sent(1..2)]);
    assert_eq!(bench.answer(&answer), [], "it is of another batch now");
    assert_eq!(bench.calls(), [Call::Close]);
}

#[test]
fn what_the_app_refuses_is_refused_and_unknown_ids_are_not_minded() {
    let mut bench = Bench::new(3, None);
    bench.joins();
    bench.publish(messages(0..3));
    bench.turn();
    let id = message(1, 0).event_id().to_string();
    let refused = json!([id, "0000000000000009:0:00000000"]);
    let answer = json!({"batch_id": bench.batch_id(), "ok": true, "refused": refused});
    let settled = bench.answer(&answer);
    let reasons: Vec<_> = settled
        .iter()
        .map(|(number, outcome)| match outcome {
            Outcome::Refused(rejection) => (*number, Some(rejection.reason)),
            _ => (*number, None),
        })
        .collect();
    assert_eq!(reasons, [(0, None), (1, Some(Reason::Refused)), (2, None)]);
}

#[test]
fn si_12_one_that_is_too_large_alone_is_refused_and_its_neighbours_go() {
    let mut bench = Bench::new(100, None);
    bench.joins();
    bench.publish([message(0, 0), message(1, 1_000_000), message(2, 0)]);
    let settled = bench.turn();
    let [(1, Outcome::Refused(rejection))] = &settled[..] else { panic!("{settled:?}") };
    assert_eq!(rejection.reason, Reason::TooLarge);
    assert_eq!(bench.calls(), [Call::Send { numbers: vec![0, 2] }]);
    assert_eq!(bench.acknowledge().len(), 2);
}

#[test]
fn si_12_an_app_that_takes_less_than_it_should_gets_smaller_batches() {
    let mut bench = Bench::new(64, None);
    bench.publish(messages(0..64));
    bench.joins();
    let mut sizes = Vec::new();
    while sizes.last() != Some(&8) {
        let calls = bench.calls();
        let [Call::Send { numbers }] = &calls[..] else { panic!("{calls:?}") };
        sizes.push(numbers.len());
        bench.say(Said::Lost("too large for it".to_owned()));
        bench.joins();
    }
    assert_eq!(sizes, [64, 32, 16, 8]);
    bench.acknowledge();
    bench.acknowledge();
    let calls = bench.calls();
    assert!(
        matches!(&calls[..], [_, Call::Send { numbers }, _] if numbers.len() == 5),
        "{calls:?}"
    );
}

#[test]
fn si_12_what_is_too_large_follows_from_what_the_app_says_when_it_lets_the_bridge_in() {
    let mut bench = Bench::new(100, None);
    bench.publish([message(0, 0), message(1, 50_000), message(2, 0)]);
    bench.connects();
    let joined = |bytes| Said::Joined { max_payload: Some(bytes) };
    let settled = bench.say(joined(40_000));
    let [(1, Outcome::Refused(rejection))] = &settled[..] else { panic!("{settled:?}") };
    assert_eq!(rejection.reason, Reason::TooLarge);
    assert_eq!(bench.calls(), [Call::Send { numbers: vec![0, 2] }]);
    bench.acknowledge();
    // The app was started again with another limit.
    bench.say(Said::Lost("gone".to_owned()));
    bench.publish([message(3, 50_000), message(4, 2_000_000)]);
    bench.connects();
    assert_eq!(bench.say(joined(5_000_000)), []);
    assert_eq!(bench.calls(), [Call::Send { numbers: vec![3, 4] }]);
}

#[test]
fn si_12_an_event_that_goes_unacknowledged_alone_again_and_again_is_named() {
    let mut bench = Bench::new(4, None);
    bench.publish(messages(0..4));
    let named = |bench: &Bench| {
        let reason = bench.sink.health().reason.unwrap_or_default();
        reason.split_once("the event ").map(|(_, text)| text.split_once(' ').unwrap().0.to_owned())
    };
    let id = |number| Some(message(number, 0).event_id().to_string());
    // In a batch with others, and while the app does not let it in, it is not its fault.
    for _ in 0..2 {
        bench.joins();
        bench.say(Said::Lost("gone".to_owned()));
        assert_eq!(named(&bench), None);
    }
    for times in 1..=4 {
        bench.connects();
        assert_eq!(bench.say(Said::Lost("refused".to_owned())), []);
        assert_eq!(named(&bench), None);
        bench.joins();
        assert_eq!(bench.calls(), [sent(0..1)]);
        bench.say(Said::Lost("gone".to_owned()));
        assert_eq!(named(&bench), if times < 3 { None } else { id(0) });
    }
    assert_eq!(bench.sink.health().state, State::Down);
    // It got through after all; the next one begins from nothing.
    bench.joins();
    assert_eq!(bench.acknowledge(), delivered(0..1));
    assert_eq!(named(&bench), None);
    bench.say(Said::Lost("gone".to_owned()));
    assert_eq!(named(&bench), None);
    for _ in 0..3 {
        bench.joins();
        bench.say(Said::Lost("gone".to_owned()));
    }
    assert_eq!(named(&bench), id(1));
}

#[test]
fn si_01_connections_begin_ever_further_apart_and_at_least_a_second() {
    let mut bench = Bench::new(10, None);
    bench.publish(messages(0..1));
    assert_eq!(bench.connects(), Duration::ZERO);
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.say(Said::Lost("refused".to_owned()));
        waits.push(bench.connects().as_millis());
    }
    assert_eq!(waits[..4], [1_000; 4]);
    assert_eq!(waits[4..], [1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    // One that acknowledges and goes away at once does not get more of them.
    for _ in 0..3 {
        bench.say(Said::Joined { max_payload: None });
        bench.acknowledge();
        bench.publish([message(0, 0)]);
        bench.turn();
        bench.say(Said::Lost("gone".to_owned()));
        assert_eq!(bench.connects().as_millis(), 1_000);
    }
    // After one that was steady, the next comes soon.
    bench.say(Said::Joined { max_payload: None });
    bench.pass(STEADY);
    bench.say(Said::Lost("gone".to_owned()));
    assert_eq!(bench.connects().as_millis(), 100);
}

#[test]
fn si_07_si_08_an_app_that_does_not_let_it_in_is_down_with_its_reason_and_asked_again_slowly() {
    let mut bench = Bench::new(10, None);
    bench.publish(messages(0..1));
    bench.connects();
    bench.say(Said::Refused("no such token".to_owned()));
    let health = bench.sink.health();
    assert_eq!(health.state, State::Down);
    assert!(health.reason.unwrap().contains("no such token"));
    assert_eq!(health.since_ms, Some(EVENT_MS));
    assert_eq!(bench.connects(), REFUSED_AGAIN);
    bench.say(Said::Joined { max_payload: None });
    assert_eq!(bench.sink.health().state, State::Down, "nothing was acknowledged yet");
    assert_eq!(bench.acknowledge(), delivered(0..1));
    assert_eq!(bench.sink.health().state, State::Up);
}

#[test]
fn an_outage_is_one_that_lasts() {
    let mut bench = Bench::new(10, None);
    bench.joins();
    bench.say(Said::Lost("gone".to_owned()));
    assert_eq!(bench.sink.health().state, State::Degraded);
    bench.joins();
    assert_eq!(bench.sink.health().state, State::Up, "there is nothing to send");
    bench.say(Said::Lost("gone".to_owned()));
    bench.pass(BLIP);
    bench.turn();
    assert_eq!(bench.sink.health().state, State::Down);
}

#[test]
fn while_catching_up_old_events_are_left_out_and_live_ones_are_not() {
    let mut bench = Bench::new(10, Some(Duration::from_mins(1)));
    // The first connection has begun before anything could be late.
    bench.joins();
    bench.pass(Duration::from_mins(2));
    bench.turn();
    bench.publish(messages(0..1));
    bench.turn();
    assert_eq!(bench.acknowledge(), delivered(0..1), "it is live, whatever its time says");
    bench.publish(messages(1..2));
    bench.turn();
    bench.say(Said::Lost("gone".to_owned()));
    bench.publish(messages(2..3));
    bench.connects();
    let settled = bench.say(Said::Joined { max_payload: None });
    assert_eq!(settled, [(1, Outcome::LeftOut), (2, Outcome::LeftOut)]);
    bench.calls();
    bench.publish(messages(3..4));
    bench.turn();
    assert_eq!(bench.acknowledge(), delivered(3..4), "it has caught up");
}

#[test]
fn what_comes_after_the_app_is_back_is_live_although_nothing_else_was_read() {
    let mut bench = Bench::new(1, Some(Duration::from_mins(1)));
    bench.joins();
    bench.pass(Duration::from_mins(2));
    bench.say(Said::Lost("gone".to_owned()));
    let mut outcomes = Vec::new();
    // As the owner does it: reading came to its end while the app was away, and says so once.
    bench.publish(messages(0..1));
    bench.connects();
    let joined = |bench: &mut Bench, outcomes: &mut Vec<_>| {
        let said = Said::Joined { max_payload: None };
        bench.reports.post(Report { connection: bench.connection, said });
        bench.sink.settle(outcomes);
    };
    joined(&mut bench, &mut outcomes);
    bench.publish(messages(1..2));
    bench.sink.settle(&mut outcomes);
    assert!(matches!(outcomes[..], [(_, Outcome::LeftOut)]), "{outcomes:?}");
    assert_eq!(bench.acknowledge(), delivered(1..2));
    // It did not come to its end: what is read next was there before.
    bench.say(Said::Lost("gone".to_owned()));
    bench.connects();
    bench.publish(messages(2..3));
    outcomes.clear();
    joined(&mut bench, &mut outcomes);
    bench.publish(messages(3..4));
    bench.sink.settle(&mut outcomes);
    assert!(matches!(outcomes[..], [(_, Outcome::LeftOut), (_, Outcome::LeftOut)]), "{outcomes:?}");
}

#[test]
fn si_07_a_token_that_is_read_again_is_shown_at_once() {
    let mut bench = Bench::new(10, None);
    bench.publish(messages(0..1));
    bench.connects();
    bench.say(Said::Refused("no such token".to_owned()));
    bench.calls();
    bench.sink.renew(&Secrets { auth_token: Some("new".to_owned()), ..Secrets::default() });
    assert_eq!(bench.calls(), [Call::Renew("new".to_owned())]);
    assert!(bench.connects() <= APART, "it does not wait as after a refusal");
    bench.say(Said::Joined { max_payload: None });
    assert_eq!(bench.acknowledge(), delivered(0..1));
}
