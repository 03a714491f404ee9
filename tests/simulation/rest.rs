//! Everything heals and comes to rest: then all that can be read must have arrived.

use std::path::Path;
use std::time::Duration;

use openalgo_bridge::pipeline::Event;
use openalgo_bridge::telemetry::snapshot::CaughtUp;

use crate::disk::INPUT;
use crate::world::World;

/// How long everything may take to come to rest once it is healed, in steps of virtual time.
const STEPS_TO_REST: usize = 400;

impl World {
    /// Everything heals; whatever can be read must arrive.
    pub(crate) fn quiesce(&mut self) {
        self.heal();
        for attempt in 0..3 {
            if self.daemon.is_none() {
                self.start();
                self.shared.model().now += Duration::from_secs(attempt);
            }
        }
        if self.daemon.is_none() {
            return self.shared.model().violate("V9", "no start succeeds any more".to_owned());
        }
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        if let Some(daemon) = &mut self.daemon {
            // Nobody need wait for the answer.
            let tell = CaughtUp::new(move || {
                let _ = answer.try_send(());
            });
            daemon.pipeline.on(Event::CaughtUpAsked(tell));
        }
        let asked = self.shared.model().lines_in_input();
        let mut told = false;
        let mut at_rest = 0;
        for step in 0..STEPS_TO_REST {
            if step % 20 == 19 {
                // What may be a copy that is still being made is read in the end.
                self.shared.model().now += Duration::from_mins(6);
            }
            let before = self.shared.model().trace;
            // Without hints: the timer alone must do.
            self.poll(500, false, true);
            if answered.try_recv().is_ok() {
                told = true;
                self.shared.model().check_caught_up(&asked);
            }
            if self.shared.model().violation.is_some() {
                return;
            }
            let rests = self.daemon.as_ref().is_some_and(|daemon| daemon.rests);
            let still = rests && self.shared.model().trace == before;
            self.shared.model().acknowledge(3, 0);
            at_rest = if still { at_rest + 1 } else { 0 };
            // Longer than the commit interval and the look at the path. What may be a copy that is still
            // being made takes minutes.
            let done = told && self.shared.model().missing().is_none();
            if at_rest >= 6 && (at_rest >= 30 || done) {
                break;
            }
        }
        let Some(daemon) = &self.daemon else { return };
        let snapshot = daemon.latest.get();
        let in_flight = daemon.pipeline.in_flight();
        let mut model = self.shared.model();
        if at_rest < 6 || in_flight > 0 || snapshot.state != "following" {
            let (state, reason) = (snapshot.state, &snapshot.reason);
            let text = format!("no rest: {state} {reason:?}, {in_flight} lines in flight");
            return model.violate("V9", text);
        }
        if !told {
            let text = "who asked when it has caught up got no answer".to_owned();
            return model.violate("V9", text);
        }
        model.check_rest(&snapshot);
    }

    fn heal(&mut self) {
        let mut model = self.shared.model();
        model.disk.faults.clear();
        model.disk.input_faults = [0; 3];
        model.disk.short_reads.clear();
        model.disk.directory_closed = false;
        model.disk.nodes.values_mut().for_each(|node| node.readable = true);
        model.broker.up = true;
        let missing = model.disk.input().is_none();
        if missing && model.disk.at(Path::new(INPUT)).is_some() {
            let _ = model.disk.remove(Path::new(INPUT));
        }
        drop(model);
        if missing {
            self.create_input(0);
        }
    }

    /// V15: a clean stop and a start with nothing new sends nothing and writes nothing.
    pub(crate) fn stop_and_start(&mut self) {
        self.quiesce();
        let held = self.shared.model().handles.len();
        // Who removed the state meanwhile has removed the position.
        let lost = self.shared.model().checkpoints.excused;
        self.stop();
        if !self.untouched || self.shared.model().violation.is_some() {
            return;
        }
        self.start();
        for _ in 0..4 {
            self.poll(700, true, true);
        }
        let mut model = self.shared.model();
        // Files that were moved away are given up by a start, which it writes down.
        // And where time went back, files from before the first start look new; also where somebody wrote to one
        // just before that, and there is nothing but that by which to know their order.
        let late = !model.config.births && model.counters.late_lines > 0;
        let same = held == 1 && !lost && !model.clock_jumped && !late;
        if same && (model.run_published > 0 || model.checkpoints.written > 0) {
            let text = format!(
                "after a clean stop {} lines were sent and {} checkpoints written",
                model.run_published, model.checkpoints.written
            );
            model.violate("V15", text);
        }
        model.counters.clean_stops_changing_nothing += u64::from(same);
    }
}
