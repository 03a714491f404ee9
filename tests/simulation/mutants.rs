//! A simulator that finds nothing may be blind: the daemon makes mistakes on purpose, and each is found.

use openalgo_bridge::platform::mutants::{Mutant, make};

use crate::model::Violation;
use crate::runner::{THREAD, collect_panics, run};
use crate::script::Script;

/// How many operations may pass before a mistake is found.
const MUTANTS: [(Mutant, u64); 16] = [
    (Mutant::CheckpointAhead, 10_000),
    (Mutant::AckOfAnotherLife, 10_000),
    (Mutant::MarkUnchecked, 10_000),
    (Mutant::InodeAlone, 10_000),
    (Mutant::TailCommitted, 10_000),
    (Mutant::TailForgotten, 10_000),
    (Mutant::FailureDropped, 10_000),
    (Mutant::RejectUnwritten, 10_000),
    (Mutant::SavedUnsynced, 10_000),
    (Mutant::NameUnsynced, 10_000),
    (Mutant::CommitGivenUp, 100_000),
    (Mutant::NewFileFirst, 10_000),
    (Mutant::OldFileClosed, 10_000),
    (Mutant::LossUntold, 10_000),
    (Mutant::NoLimit, 10_000),
    (Mutant::SecondLifeUnnamed, 10_000),
];

#[test]
fn every_mistake_made_on_purpose_is_found() {
    for (mutant, most) in MUTANTS {
        let (ops, found) = hunt(mutant, most);
        let found = found.unwrap_or_else(|| panic!("{mutant:?}: not found in {ops} operations"));
        println!("{mutant:?}: {} after {ops} operations: {}", found.rule, found.text);
    }
}

/// Lets the daemon make a mistake, until a rule is broken: after how many operations, and which.
fn hunt(mutant: Mutant, most: u64) -> (u64, Option<Violation>) {
    collect_panics();
    let mut ops = 0;
    let hunt = || {
        make(Some(mutant));
        let mut found = None;
        for seed in 0.. {
            let ran = run(&Script::from_seed(seed), false);
            ops += ran.ops;
            found = ran.violation;
            if found.is_some() || ops >= most {
                break;
            }
        }
        found
    };
    let found = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        thread.spawn_scoped(scope, hunt).unwrap().join().unwrap()
    });
    (ops, found)
}
