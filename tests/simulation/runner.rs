//! Runs scripts: one, many on all cores, and ever shorter ones until nothing can be left out.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::counters::Counters;
use crate::model::Violation;
use crate::script::{Op, Script};
use crate::world::World;

/// What came of a script.
pub(crate) struct Ran {
    pub(crate) violation: Option<Violation>,
    pub(crate) ops: u64,
    pub(crate) counters: Counters,
    pub(crate) trace: u64,
}

pub(crate) fn run(script: &Script, loud: bool) -> Ran {
    let mut world = World::new(script.config);
    world.shared.model().loud = loud;
    let mut ops = 0;
    let shared = world.shared.clone();
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        for op in &script.ops {
            if loud {
                println!("{op}");
            }
            world.apply(op);
            ops += 1;
            if world.shared.model().violation.is_some() {
                return;
            }
        }
        world.stop_and_start();
        world.quiesce();
    }));
    if ended.is_err() {
        let text = LAST_PANIC.with_borrow(Clone::clone);
        shared.model().violate("panic", text);
        // What it left behind may panic again.
        std::mem::forget(world);
    }
    let model = shared.model();
    let mut counters = model.counters;
    counters.state_errors += model.disk.state_errors;
    counters.inodes_reused += model.disk.inodes_reused;
    Ran { violation: model.violation.clone(), ops, counters, trace: model.trace }
}

thread_local! {
    static LAST_PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Panics of the daemon are findings, not news.
pub(crate) fn collect_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = std::thread::current().name().is_some_and(|name| name == THREAD);
            if ours {
                LAST_PANIC.with_borrow_mut(|text| *text = info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}

pub(crate) const THREAD: &str = "simulation";

/// The shortest script found that breaks the same rule.
pub(crate) fn shrink(script: &Script, rule: &str) -> Script {
    let breaks = |ops: &[Op]| {
        let candidate = Script { config: script.config, ops: ops.to_vec() };
        run(&candidate, false).violation.is_some_and(|violation| violation.rule == rule)
    };
    let mut ops = script.ops.clone();
    let mut chunk = ops.len().div_ceil(2).max(1);
    let mut runs = 0;
    loop {
        let mut at = 0;
        let before = ops.len();
        while at < ops.len() && runs < 5_000 {
            let mut without = ops.clone();
            without.drain(at..(at + chunk).min(ops.len()));
            runs += 1;
            if breaks(&without) {
                ops = without;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && (ops.len() == before || runs >= 5_000) {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    for at in 0..ops.len() {
        for number in 0..3 {
            let mut simpler = ops.clone();
            simpler[at].numbers[number] = 0;
            if simpler[at] != ops[at] && breaks(&simpler) {
                ops = simpler;
            }
        }
    }
    Script { config: script.config, ops }
}

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) seeds: u64,
    pub(crate) ops: u64,
    pub(crate) seconds: f64,
    pub(crate) counters: Counters,
    pub(crate) failures: u64,
}

impl Report {
    pub(crate) fn print(&self) {
        println!(
            "{} operations of {} seeds in {:.1} s, {} violations",
            self.ops, self.seeds, self.seconds, self.failures
        );
        for (name, count) in self.counters.named() {
            println!("  {count:>9} {name}");
        }
    }

    /// No rule was broken, and over a whole campaign nothing was left out (V16).
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.failures, 0, "seeds broke a rule");
        let never: Vec<_> = self.counters.named().into_iter().filter(|(_, n)| *n == 0).collect();
        assert!(never.is_empty() || self.seeds < SEEDS, "never happened: {never:?}");
    }
}

/// As many seeds from `first` on, or as many as there are until then, on all cores. A failure ends it.
pub(crate) fn campaign(first: u64, seeds: u64, until: Option<Instant>) -> Report {
    collect_panics();
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report::default());
    // Who asked for hours wants them, and every script that they give.
    let usual = if until.is_some() { u64::MAX } else { 1 };
    let most = number_from("SIMULATE_FAILURES").unwrap_or(usual);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = until.map_or(seed >= first + seeds, |until| Instant::now() >= until);
            if over {
                return;
            }
            let script = Script::from_seed(seed);
            let ran = run(&script, false);
            let failure = ran.violation.map(|violation| {
                let mut shrunk = shrink(&script, violation.rule);
                let again = run(&shrunk, false).violation;
                if again.is_none() {
                    shrunk = script;
                }
                let Violation { rule, text } = again.unwrap_or(violation);
                // At once: a run of hours may be broken off.
                println!("seed {seed}: {rule}: {text}\n{}", shrunk.to_text());
            });
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.seeds += 1;
            report.ops += ran.ops;
            report.counters.add(&ran.counters);
            report.failures += u64::from(failure.is_some());
            if report.failures >= most {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..cores {
            let thread = std::thread::Builder::new().name(THREAD.to_owned());
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.seconds = began.elapsed().as_secs_f64();
    report
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The first seed, how many, and until when instead.
pub(crate) fn seeds_to_run() -> (u64, u64, Option<Instant>) {
    let seeds = number_from("SIMULATE_SEEDS").unwrap_or(SEEDS);
    let first = number_from("SIMULATE_FROM").unwrap_or(0);
    let Some(hours) = number_from("SIMULATE_HOURS") else { return (first, seeds, None) };
    // Other seeds each time: those of every run are known to pass.
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    (now << 20, 0, Some(Instant::now() + Duration::from_secs(3_600 * hours)))
}

/// Each seed has 500 operations.
const SEEDS: u64 = 2_200;

/// What the environment asks for: one seed, or one script.
pub(crate) fn asked_for() -> Option<Script> {
    if let Some(seed) = number_from("SIMULATE_SEED") {
        return Some(Script::from_seed(seed));
    }
    let path = std::env::var_os("SIMULATE_SCRIPT")?;
    Some(Script::parse(&std::fs::read_to_string(path).unwrap()).unwrap())
}

/// With everything that happens.
pub(crate) fn replay_loudly(script: &Script) {
    collect_panics();
    // And with what the daemon says itself.
    let log = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    let log = log.with_writer(std::io::stdout).finish();
    let ran = tracing::subscriber::with_default(log, || run(script, true));
    println!("{} operations, trace {:016x}", ran.ops, ran.trace);
    if let Some(violation) = &ran.violation {
        let shrunk = shrink(script, violation.rule);
        println!("{}: {}\n{}", violation.rule, violation.text, shrunk.to_text());
    }
    assert_eq!(ran.violation, None);
}
