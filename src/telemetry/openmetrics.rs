//! The text of a page of metrics, in two dialects with the same names and values.
//!
//! `OpenMetrics` for who asks for it, as Prometheus does; for everyone else, `promtool check metrics`
//! among them, the older text format, in which a counter's family is named as its samples are.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::domain::latency::Latencies;

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenMetrics,
    Text,
}

impl Dialect {
    /// What a client that sends this `Accept` understands best.
    pub(super) fn of(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A page that is being written, family by family.
pub(super) struct Page {
    dialect: Dialect,
    text: String,
}

/// A family whose samples come next.
pub(super) struct Family<'a> {
    page: &'a mut Page,
    /// Of its samples.
    name: String,
}

impl Page {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::with_capacity(16 << 10) }
    }

    /// What only grows while the process lives. `name` is that of the family, without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        let samples = format!("{name}_total");
        match self.dialect {
            Dialect::OpenMetrics => self.head(name, "counter", help),
            Dialect::Text => self.head(&samples, "counter", help),
        }
        Family { page: self, name: samples }
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.head(name, "gauge", help);
        Family { page: self, name: name.to_owned() }
    }

    /// What is always 1, for its labels. `name` is without `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str) -> Family<'_> {
        let samples = format!("{name}_info");
        match self.dialect {
            Dialect::OpenMetrics => self.head(name, "info", help),
            Dialect::Text => self.head(&samples, "gauge", help),
        }
        Family { page: self, name: samples }
    }

    /// Durations.
    pub(super) fn histogram(&mut self, name: &str, help: &str, of: &Latencies) {
        self.head(name, "histogram", help);
        let mut buckets = Family { page: &mut *self, name: format!("{name}_bucket") };
        for (bound, count) in of.buckets() {
            // As OpenMetrics has it, `1.0` and not `1`, in both dialects: they name the same series.
            let bound = bound.map_or("+Inf".to_owned(), |us| {
                format!("{:?}", Duration::from_micros(us).as_secs_f64())
            });
            buckets = buckets.sample(&[("le", &bound)], count);
        }
        let (whole, rest) = (of.sum_us() / 1_000_000, of.sum_us() % 1_000_000);
        let _ = writeln!(self.text, "{name}_sum {whole}.{rest:06}\n{name}_count {}", of.count());
    }

    /// The whole text.
    pub(super) fn end(mut self) -> String {
        // A comment in the older format.
        self.text.push_str("# EOF\n");
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let unit = ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')));
        if let (Dialect::OpenMetrics, Some(unit)) = (self.dialect, unit) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }
}

impl Family<'_> {
    /// Adds a sample with these labels.
    pub(super) fn sample(self, labels: &[(&str, &str)], value: impl Display) -> Self {
        let text = &mut self.page.text;
        text.push_str(&self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{name}=\"", if index == 0 { '{' } else { ',' });
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }

    /// Adds the only sample.
    pub(super) fn value(self, value: impl Display) {
        self.sample(&[], value);
    }

    /// Adds a sample for each state, 1 for the one that holds.
    pub(super) fn states(mut self, label: &str, states: &[&str], holds: &str) {
        for state in states {
            self = self.sample(&[(label, state)], u8::from(*state == holds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(dialect: Dialect) -> String {
        let mut latencies = Latencies::default();
        latencies.observe(1_500_000);
        let mut page = Page::new(dialect);
        page.info("build", "Who.").sample(&[("version", "1\"2\\3\n")], 1);
        page.counter("read_bytes", "Read.").value(7);
        page.gauge("state", "How.").states("state", &["up", "down"], "down");
        page.histogram("took_seconds", "Long.", &latencies);
        page.end()
    }

    #[test]
    fn a_page_in_openmetrics_names_families_and_units() {
        let text = page(Dialect::OpenMetrics);
        let start = "# HELP build Who.\n# TYPE build info\nbuild_info{version=\"1\\\"2\\\\3\\n\"} 1\n\
                     # HELP read_bytes Read.\n# TYPE read_bytes counter\n# UNIT read_bytes bytes\n\
                     read_bytes_total 7\n\
                     # HELP state How.\n# TYPE state gauge\nstate{state=\"up\"} 0\n\
                     state{state=\"down\"} 1\n\
                     # HELP took_seconds Long.\n# TYPE took_seconds histogram\n\
                     # UNIT took_seconds seconds\ntook_seconds_bucket{le=\"0.001\"} 0\n";
        assert!(text.starts_with(start), "{text}");
        let end = "took_seconds_bucket{le=\"+Inf\"} 1\ntook_seconds_sum 1.500000\n\
                   took_seconds_count 1\n# EOF\n";
        assert!(text.contains("{le=\"1.0\"} 0\n") && text.contains("{le=\"2.5\"} 1\n"), "{text}");
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn the_older_format_has_the_same_samples_under_the_names_of_their_families() {
        let samples = |text: String| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let text = page(Dialect::Text);
        assert!(text.contains("# TYPE read_bytes_total counter\n"), "{text}");
        assert!(text.contains("# TYPE build_info gauge\n"), "{text}");
        assert!(!text.contains("# UNIT"), "{text}");
        assert_eq!(samples(text), samples(page(Dialect::OpenMetrics)));
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Dialect::of(prometheus), Dialect::OpenMetrics);
        assert_eq!(Dialect::of("*/*"), Dialect::Text);
        assert_eq!(Dialect::of(""), Dialect::Text);
    }
}
