//! The order of the sink, with producers that the test plays itself.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;

use super::watch::STALLED;
use super::*;
use crate::domain::envelope::{EventTypes, Reason, Rejection, Verdict, validate};
use crate::domain::framing::LineBytes;
use crate::domain::position::Generation;

/// What a producer was asked to do.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Batch(usize),
    Connect(Purpose, u32),
    Send(Purpose, u32, u64),
    /// The same, without the event's time.
    SendNow(Purpose, u32, u64),
    Nudge,
    Purge(u32),
    Probe(u64),
}

struct FakeConnect {
    calls: Sender<Call>,
    full: Arc<AtomicBool>,
}

struct FakeProducer {
    purpose: Purpose,
    epoch: u32,
    calls: Sender<Call>,
    /// Whether there is no room for another record.
    full: Arc<AtomicBool>,
}

impl Connect for FakeConnect {
    fn connect(
        &self,
        purpose: Purpose,
        epoch: u32,
        batch: Option<usize>,
        _: &Reports,
    ) -> Result<Box<dyn Producer>, String> {
        if let Some(bytes) = batch {
            let _ = self.calls.send(Call::Batch(bytes));
        }
        let _ = self.calls.send(Call::Connect(purpose, epoch));
        let (calls, full) = (self.calls.clone(), Arc::clone(&self.full));
        Ok(Box::new(FakeProducer { purpose, epoch, calls, full }))
    }

    fn renew(&mut self, secrets: &[(String, String)]) -> Result<(), String> {
        if secrets.is_empty() { Err("nothing new".to_owned()) } else { Ok(()) }
    }
}

impl Producer for FakeProducer {
    fn send(&self, tag: u64, message: &Message) -> Result<(), SendError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(SendError::QueueFull);
        }
        let (purpose, epoch) = (self.purpose, self.epoch);
        let _ = self.calls.send(match message.event_time_ms {
            0 => Call::SendNow(purpose, epoch, tag),
            _ => Call::Send(purpose, epoch, tag),
        });
        Ok(())
    }

    fn nudge(&self) {
        let _ = self.calls.send(Call::Nudge);
    }

    fn purge(&self) {
        let _ = self.calls.send(Call::Purge(self.epoch));
    }

    fn probe(&self, question: u64) {
        let _ = self.calls.send(Call::Probe(question));
    }
}

/// A clock that the test turns on.
struct FakeClock(Mutex<Instant>);

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn unix_ms(&self) -> i64 {
        0
    }
}

struct Bench {
    sink: KafkaSink,
    reports: Reports,
    clock: Arc<FakeClock>,
    calls: Receiver<Call>,
    full: Arc<AtomicBool>,
    outcomes: Vec<(RecordId, Outcome)>,
}

fn bench() -> Bench {
    let (sender, calls) = channel();
    let reports = Reports::new(Box::new(|| ()));
    let clock = Arc::new(FakeClock(Mutex::new(Instant::now())));
    let full = Arc::new(AtomicBool::new(false));
    let connect = Box::new(FakeConnect { calls: sender, full: Arc::clone(&full) });
    let sink = KafkaSink::new(connect, clock.clone(), Some(16_384), reports.clone()).unwrap();
    let bench = Bench { sink, reports, clock, calls, full, outcomes: Vec::new() };
    assert_eq!(bench.calls(), [Call::Connect(Purpose::Flow, 0)]);
    bench
}

fn message(padding: usize) -> Message {
    let text = format!(
        r#"{{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{{}},"x":"{}"}}"#,
        "x".repeat(padding)
    );
    let line = LineBytes::standalone(text.as_bytes());
    let types = EventTypes::default();
    let Verdict::Valid(envelope) = validate(line.as_slice(), &types) else { panic!("invalid") };
    Message::new(&line, &envelope, Generation(1), 0, false)
}

fn too_large() -> Failure {
    Failure::Unacceptable(Rejection::new(Reason::TooLarge, "too large"))
}

fn transient() -> Failure {
    Failure::Transient("gone".to_owned())
}

impl Bench {
    fn calls(&self) -> Vec<Call> {
        self.calls.try_iter().collect()
    }

    fn publish(&mut self, count: u64) {
        let first = self.sink.first + self.sink.queue.len() as u64;
        (first..first + count).for_each(|id| self.sink.publish(RecordId(id), message(0)));
    }

    fn delivered(&self, tag: u64) {
        self.reports.post(Report::Delivered { tag });
    }

    fn failed(&self, epoch: u32, tag: u64, failure: Failure) {
        self.reports.post(Report::Failed { epoch, tag, failure });
    }

    /// The cluster answers, and knows of nothing that is wrong but perhaps this.
    fn answered_well(&self, question: u64, doubt: Option<&str>) {
        let answer = Ok(doubt.map(str::to_owned));
        self.reports.post(Report::Probed { question, answer });
    }

    /// The cluster does not answer well.
    fn answered(&self, question: u64, wrong: &str) {
        self.reports.post(Report::Probed { question, answer: Err(wrong.to_owned()) });
    }

    fn settle(&mut self) {
        self.sink.settle(&mut self.outcomes);
    }

    fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    fn settled(&self) -> Vec<(u64, &'static str)> {
        let name = |outcome: &Outcome| match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Refused(rejection) => rejection.reason.as_str(),
            Outcome::LeftOut => "left out",
        };
        self.outcomes.iter().map(|(id, outcome)| (id.0, name(outcome))).collect()
    }
}

use Purpose::{Alone, Flow};

#[test]
fn records_flow_in_order_and_acks_settle_them() {
    let mut bench = bench();
    bench.publish(3);
    assert_eq!(
        bench.calls(),
        [Call::Send(Flow, 0, 0), Call::Send(Flow, 0, 1), Call::Send(Flow, 0, 2)]
    );
    bench.sink.caught_up();
    bench.sink.caught_up();
    assert_eq!(bench.calls(), [Call::Nudge], "one nudge for what was sent");
    bench.delivered(2);
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.settled(), [(2, "delivered"), (0, "delivered")]);
    assert_eq!(bench.sink.health().in_flight, 2, "the window holds the gap");
}

#[test]
fn ka_07_a_full_queue_is_waited_for_and_the_same_record_goes_next() {
    let mut bench = bench();
    bench.publish(1);
    bench.full.store(true, Ordering::Relaxed);
    bench.publish(2);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Send(Flow, 0, 0)]);
    assert_eq!(bench.sink.deadline(), Some(bench.clock.now() + QUEUE_FULL_RETRY));
    bench.full.store(false, Ordering::Relaxed);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Send(Flow, 0, 1), Call::Send(Flow, 0, 2)]);
    assert!(bench.outcomes.is_empty(), "a full queue is no outcome");
}

#[test]
fn ka_08_the_records_of_a_refused_batch_go_alone_and_only_the_guilty_one_is_refused() {
    let mut bench = bench();
    for (id, padding) in [0, 0, 5_000, 0].into_iter().enumerate() {
        bench.sink.publish(RecordId(id as u64), message(padding));
    }
    bench.calls();
    bench.delivered(0);
    bench.failed(0, 1, too_large());
    bench.failed(0, 2, too_large());
    bench.failed(0, 3, transient());
    bench.settle();
    assert_eq!(
        bench.calls(),
        [Call::Purge(0), Call::Connect(Alone, 1), Call::Send(Alone, 1, 1)],
        "the first of the batch, and nothing behind it"
    );
    bench.delivered(1);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Send(Alone, 1, 2)]);
    bench.failed(1, 2, too_large());
    bench.settle();
    assert_eq!(bench.calls(), [Call::Connect(Flow, 1), Call::Send(Flow, 1, 3)]);
    assert_eq!(bench.settled(), [(0, "delivered"), (1, "delivered"), (2, "too_large")]);
}

fn bad_time() -> Failure {
    Failure::BadTime("invalid timestamp".to_owned())
}

#[test]
fn ka_28_an_event_whose_time_is_refused_goes_with_that_of_sending_and_so_do_others_as_old() {
    let mut bench = bench();
    bench.publish(2);
    bench.calls();
    bench.failed(0, 0, bad_time());
    bench.failed(0, 1, Failure::GivenBack);
    bench.settle();
    assert_eq!(
        bench.calls(),
        [Call::Purge(0), Call::Connect(Alone, 1), Call::Send(Alone, 1, 0)],
        "it may have been another one's in the batch"
    );
    bench.failed(1, 0, bad_time());
    bench.settle();
    assert_eq!(bench.calls(), [Call::SendNow(Alone, 1, 0)]);
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Connect(Flow, 1), Call::SendNow(Flow, 1, 1)]);
    assert_eq!(bench.settled(), [(0, "delivered")]);
}

#[test]
fn ka_28_the_others_of_a_batch_whose_times_were_refused_go_without_them_at_once() {
    let mut bench = bench();
    bench.publish(2);
    bench.failed(0, 0, bad_time());
    bench.failed(0, 1, bad_time());
    bench.settle();
    bench.failed(1, 0, bad_time());
    bench.settle();
    bench.calls();
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.calls(), [Call::SendNow(Alone, 1, 1)]);
}

#[test]
fn ka_28_where_no_time_is_accepted_the_event_waits_for_the_clocks_and_is_told() {
    let mut bench = bench();
    bench.publish(1);
    bench.calls();
    bench.failed(0, 0, bad_time());
    bench.settle();
    bench.failed(1, 0, bad_time());
    bench.settle();
    bench.failed(1, 0, bad_time());
    bench.settle();
    assert_eq!(bench.calls()[3..], [Call::SendNow(Alone, 1, 0)]);
    bench.pass(STALLED);
    bench.settle();
    // Once the clocks are right, its own time will do.
    assert!(bench.calls().contains(&Call::Send(Alone, 2, 0)));
    bench.answered_well(1, None);
    bench.settle();
    let health = bench.sink.health();
    assert_eq!(health.state, State::Down);
    assert!(health.reason.as_deref().unwrap_or_default().contains("the time of this machine"));
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.settled(), [(0, "delivered")]);
    bench.publish(1);
    assert!(bench.calls().contains(&Call::Send(Flow, 2, 1)));
}

#[test]
fn ka_31_once_a_size_was_refused_such_records_go_alone_without_breaking_the_flow() {
    let mut bench = bench();
    bench.sink.publish(RecordId(0), message(5_000));
    bench.failed(0, 0, too_large());
    bench.settle();
    bench.failed(1, 0, too_large());
    bench.settle();
    bench.calls();
    bench.publish(1);
    bench.sink.publish(RecordId(2), message(5_000));
    bench.publish(1);
    assert_eq!(
        bench.calls(),
        [Call::Connect(Flow, 1), Call::Send(Flow, 1, 1), Call::Nudge],
        "what is before it is hurried, what is behind it waits"
    );
    bench.delivered(1);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Send(Alone, 1, 2)]);
    bench.failed(1, 2, too_large());
    bench.settle();
    assert_eq!(bench.calls(), [Call::Send(Flow, 1, 3)]);
}

#[test]
fn ka_14_a_dead_producer_is_replaced_and_everything_unacknowledged_goes_again_in_order() {
    let mut bench = bench();
    bench.publish(3);
    bench.calls();
    bench.delivered(1);
    bench.reports.post(Report::Fatal { epoch: 0, reason: "out of order".to_owned() });
    bench.settle();
    assert_eq!(bench.calls(), [Call::Purge(0)]);
    bench.failed(0, 0, transient());
    bench.failed(0, 2, transient());
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert_eq!(
        bench.calls(),
        [Call::Connect(Flow, 1), Call::Send(Flow, 1, 0), Call::Send(Flow, 1, 2)]
    );
    bench.failed(0, 0, transient());
    bench.reports.post(Report::Fatal { epoch: 0, reason: "late news".to_owned() });
    bench.settle();
    assert_eq!(bench.calls(), [], "reports of the former producer are known");
    bench.delivered(0);
    bench.delivered(2);
    bench.settle();
    assert_eq!(bench.settled(), [(1, "delivered"), (0, "delivered"), (2, "delivered")]);
}

#[test]
fn records_that_never_come_back_are_not_waited_for_without_end() {
    let mut bench = bench();
    bench.publish(2);
    bench.calls();
    bench.failed(0, 0, transient());
    bench.settle();
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert_eq!(bench.calls(), [Call::Purge(0)], "record 1 may still come back");
    bench.pass(GIVE_BACK);
    bench.settle();
    assert_eq!(
        bench.calls(),
        [Call::Connect(Flow, 1), Call::Send(Flow, 1, 0), Call::Send(Flow, 1, 1), Call::Probe(1)]
    );
}

#[test]
fn a_stall_is_asked_about_and_told_as_trouble_until_something_is_acknowledged() {
    let mut bench = bench();
    bench.publish(1);
    bench.pass(STALLED);
    bench.settle();
    assert!(bench.calls().contains(&Call::Probe(1)));
    bench.answered(1, "topic t does not exist");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Down);
    assert_eq!(bench.sink.health().reason.as_deref(), Some("topic t does not exist"));
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Up);
}

#[test]
fn an_answer_that_an_acknowledgement_has_overtaken_is_no_trouble() {
    let mut bench = bench();
    bench.publish(1);
    bench.pass(STALLED);
    bench.settle();
    assert!(bench.calls().contains(&Call::Probe(1)));
    bench.delivered(0);
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Up);

    // Nor if it has not come when the next question is put.
    bench.publish(1);
    bench.pass(STALLED);
    bench.settle();
    assert!(bench.calls().contains(&Call::Probe(2)));
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Up);
    bench.answered(2, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Down);
}

#[test]
fn an_answer_that_comes_after_the_next_question_counts() {
    let mut bench = bench();
    bench.publish(1);
    for question in 1..=2 {
        bench.reports.post(Report::Trouble { epoch: 0, reason: "refused".to_owned() });
        bench.settle();
        bench.pass(STALLED);
        bench.settle();
        assert!(bench.calls().contains(&Call::Probe(question)));
    }
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Down);
}

#[test]
fn ka_11_what_former_secrets_led_to_is_no_trouble_of_the_new_ones() {
    let mut bench = bench();
    bench.publish(1);
    bench.reports.post(Report::Trouble { epoch: 0, reason: "wrong password".to_owned() });
    bench.settle();
    bench.pass(STALLED);
    bench.settle();
    assert!(bench.calls().contains(&Call::Probe(1)));
    bench.sink.renew(&secrets());
    bench.failed(0, 0, Failure::GivenBack);
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.calls().last(), Some(&Call::Send(Flow, 1, 0)));
    let health = bench.sink.health();
    assert_eq!((health.state, health.reason), (State::Up, None));
}

#[test]
fn batches_that_are_too_large_by_themselves_are_halved_once_their_records_passed_alone() {
    let mut bench = bench();
    bench.publish(2);
    bench.failed(0, 0, too_large());
    bench.failed(0, 1, too_large());
    bench.settle();
    bench.delivered(0);
    bench.settle();
    bench.delivered(1);
    bench.settle();
    bench.calls();
    bench.publish(1);
    assert_eq!(bench.calls(), [Call::Batch(8_192), Call::Connect(Flow, 1), Call::Send(Flow, 1, 2)]);
}

#[test]
fn a_complaint_is_told_only_if_nothing_is_acknowledged_after_it() {
    let mut bench = bench();
    let complaint = || Report::Trouble { epoch: 0, reason: "one broker is down".to_owned() };
    bench.publish(1);
    bench.reports.post(complaint());
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Degraded);
    bench.delivered(0);
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Up);
    bench.publish(1);
    bench.reports.post(complaint());
    bench.settle();
    bench.pass(STALLED);
    bench.settle();
    assert!(bench.calls().contains(&Call::Probe(1)));
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Down);
    assert_eq!(bench.sink.health().reason.as_deref(), Some("one broker is down"));
}

#[test]
fn ka_30_what_a_producer_ended_with_is_the_reason_while_nothing_is_acknowledged() {
    let mut bench = bench();
    bench.publish(2);
    for (epoch, failure) in [(0, "unsupported compression"), (1, "something else")] {
        bench.failed(epoch, 0, Failure::Transient(failure.to_owned()));
        bench.failed(epoch, 1, Failure::GivenBack);
        bench.settle();
        bench.pass(STALLED);
        bench.settle();
    }
    assert_eq!(bench.sink.health().state, State::Degraded);
    bench.answered_well(1, None);
    bench.settle();
    let health = bench.sink.health();
    let told = "the cluster answers, but acknowledges nothing: unsupported compression";
    assert_eq!((health.state, health.reason.as_deref()), (State::Down, Some(told)));
    bench.delivered(0);
    bench.failed(2, 1, Failure::GivenBack);
    bench.settle();
    let health = bench.sink.health();
    assert_eq!((health.state, health.reason), (State::Degraded, None), "it caused nothing");
}

#[test]
fn ka_06_what_the_cluster_has_too_few_of_is_the_reason_while_nothing_is_acknowledged() {
    let mut bench = bench();
    let few = Some("partition 0 has 1 of 3 replicas in sync");
    bench.publish(1);
    bench.reports.post(Report::Trouble { epoch: 0, reason: "one broker is down".to_owned() });
    bench.settle();
    bench.pass(Duration::from_secs(2));
    bench.settle();
    bench.answered_well(1, few);
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Degraded, "it is not for long");
    bench.pass(STALLED);
    bench.settle();
    bench.answered_well(2, few);
    bench.settle();
    let health = bench.sink.health();
    let told = "the cluster answers, but acknowledges nothing: \
                partition 0 has 1 of 3 replicas in sync";
    assert_eq!((health.state, health.reason.as_deref()), (State::Down, Some(told)));
}

#[test]
fn the_cause_of_an_outage_is_told_and_stays_until_there_is_another_one() {
    let mut bench = bench();
    bench.publish(1);
    let mut asked = |complaints: &[&str], answer: Result<Option<String>, String>| {
        for reason in complaints {
            bench.reports.post(Report::Trouble { epoch: 0, reason: (*reason).to_owned() });
        }
        bench.settle();
        bench.pass(STALLED);
        bench.settle();
        let Some(Call::Probe(question)) = bench.calls().pop() else { panic!("no question") };
        bench.reports.post(Report::Probed { question, answer });
        bench.settle();
        bench.sink.health().reason.expect("a reason")
    };
    let silent = || Err("transport failure".to_owned());
    assert_eq!(asked(&["1/1 brokers are down", "refused", "again"], silent()), "refused");
    assert_eq!(asked(&[], silent()), "refused");
    assert_eq!(asked(&["timed out"], silent()), "timed out");
    let missing = "topic t does not exist";
    assert_eq!(asked(&[], Err(missing.to_owned())), missing);
    assert_eq!(asked(&[], silent()), "transport failure");
}

#[test]
fn a_record_that_is_out_alone_without_an_answer_is_asked_about_too() {
    let mut bench = bench();
    bench.publish(1);
    bench.failed(0, 0, too_large());
    bench.settle();
    assert_eq!(bench.calls().last(), Some(&Call::Send(Alone, 1, 0)));
    bench.pass(STALLED);
    bench.settle();
    assert_eq!(bench.calls(), [Call::Probe(1)]);
    bench.answered(1, "timed out");
    bench.settle();
    assert_eq!(bench.sink.health().state, State::Down);
}

#[test]
fn a_deadline_that_has_passed_is_always_due() {
    let mut bench = bench();
    bench.publish(2);
    for _ in 0..6 {
        bench.reports.post(Report::Fatal { epoch: bench.sink.epoch, reason: "dead".to_owned() });
        bench.settle();
        bench.pass(GIVE_BACK / 2);
        for _ in 0..20 {
            bench.settle();
            let deadline = bench.sink.deadline().unwrap();
            assert!(deadline > bench.clock.now(), "would spin");
            bench.pass(deadline - bench.clock.now());
        }
    }
}

proptest! {
    /// A broker that appends batches in order, refuses some records, and breaks connections.
    #[test]
    fn ka_31_first_deliveries_are_in_order_and_only_the_poison_is_refused(
        poison in proptest::collection::btree_set(0_u64..60, 0..8),
        cuts in proptest::collection::vec(0_u8..10, 400),
    ) {
        const RECORDS: u64 = 60;
        let mut bench = bench();
        for tag in 0..RECORDS {
            // Some of the poison shows by its size, some does not.
            let padding = if poison.contains(&tag) { tag % 3 * 200 } else { tag % 5 * 10 };
            bench.sink.publish(RecordId(tag), message(padding as usize));
        }
        let mut appended: Vec<u64> = Vec::new();
        let mut queued: Vec<(Purpose, u32, u64)> = Vec::new();
        let mut dead: BTreeSet<u32> = BTreeSet::new();
        let mut cuts = cuts.into_iter().chain(std::iter::repeat(9));
        let mut rounds = 0;
        while bench.outcomes.len() < RECORDS as usize {
            rounds += 1;
            prop_assert!(rounds < 5_000, "no progress");
            for call in bench.calls() {
                match call {
                    Call::Send(purpose, epoch, tag) => queued.push((purpose, epoch, tag)),
                    Call::Purge(epoch) => {
                        for (_, epoch, tag) in queued.extract_if(.., |(_, e, _)| *e == epoch) {
                            bench.failed(epoch, tag, transient());
                        }
                    }
                    _ => {}
                }
            }
            let batch_size = queued.len().min(7);
            let batch: Vec<_> = queued.drain(..batch_size).collect();
            let cut = cuts.next().unwrap_or(9);
            let broken = batch.first().is_some_and(|(purpose, epoch, _)| *purpose == Flow && dead.contains(epoch));
            let refused = batch.iter().any(|(_, _, tag)| poison.contains(tag));
            for (purpose, epoch, tag) in batch {
                if broken || (cut == 0 && purpose == Flow) {
                    dead.insert(epoch);
                    bench.failed(epoch, tag, transient());
                } else if refused {
                    if purpose == Flow { dead.insert(epoch); }
                    bench.failed(epoch, tag, too_large());
                } else if cut == 1 && purpose == Flow {
                    // Appended, but the answer is lost: a duplicate later.
                    appended.push(tag);
                    dead.insert(epoch);
                    bench.failed(epoch, tag, transient());
                } else {
                    appended.push(tag);
                    bench.delivered(tag);
                }
            }
            bench.settle();
            bench.pass(Duration::from_secs(1));
        }
        let mut seen = BTreeSet::new();
        let firsts: Vec<u64> = appended.into_iter().filter(|tag| seen.insert(*tag)).collect();
        let expected: Vec<u64> = (0..RECORDS).filter(|tag| !poison.contains(tag)).collect();
        prop_assert_eq!(firsts, expected);
        let refused: BTreeSet<u64> = bench.settled().into_iter()
            .filter(|(_, outcome)| *outcome == "too_large").map(|(id, _)| id).collect();
        prop_assert_eq!(refused, poison);
    }
}

fn secrets() -> Secrets {
    Secrets { kafka: vec![("sasl.password".to_owned(), "new".to_owned())], auth_token: None }
}

#[test]
fn ka_11_secrets_that_are_read_again_are_used_by_the_next_producer() {
    let mut bench = bench();
    bench.publish(1);
    bench.delivered(0);
    bench.settle();
    bench.calls();
    // Nothing is out: nothing has to come back.
    bench.sink.renew(&secrets());
    assert_eq!(bench.calls(), []);
    bench.publish(1);
    assert_eq!(bench.calls(), [Call::Connect(Flow, 1), Call::Send(Flow, 1, 1)]);
}

#[test]
fn ka_11_what_is_out_when_secrets_are_read_again_goes_again_in_order() {
    let mut bench = bench();
    bench.publish(3);
    bench.calls();
    bench.sink.renew(&secrets());
    assert_eq!(bench.calls(), [Call::Purge(0)]);
    // The first had arrived, the others come back.
    bench.delivered(0);
    bench.failed(0, 1, transient());
    bench.failed(0, 2, transient());
    bench.settle();
    assert_eq!(
        bench.calls(),
        [Call::Connect(Flow, 1), Call::Send(Flow, 1, 1), Call::Send(Flow, 1, 2)]
    );
    bench.delivered(1);
    bench.delivered(2);
    bench.settle();
    assert_eq!(bench.settled(), [(0, "delivered"), (1, "delivered"), (2, "delivered")]);
}

#[test]
fn ka_11_what_librdkafka_does_not_accept_changes_nothing() {
    let mut bench = bench();
    bench.publish(1);
    bench.calls();
    bench.sink.renew(&Secrets::default());
    bench.publish(1);
    assert_eq!(bench.calls(), [Call::Send(Flow, 0, 1)]);
}
