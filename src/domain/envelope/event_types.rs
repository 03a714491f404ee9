//! Which event types pass, which are left out on purpose, and which of the two apply without
//! configuration.

/// The allow-list of an installation that sets none: what `OpenAlgo`'s order page listens to
/// (contract, section 2, `BRIDGE_EVENT_TYPES`).
pub const DEFAULT_EVENT_TYPES: &[&str] = &[
    "order_event",
    "analyzer_update",
    "order_notification",
    "master_contract_download",
    "password_change",
];

/// The ignore list of an installation that sets none: every other event that `OpenAlgo` emits, so
/// that an unknown type is always news (contract, section 2, `BRIDGE_IGNORE_EVENT_TYPES`).
pub const DEFAULT_IGNORED_EVENT_TYPES: &[&str] = &[
    "modify_order_event",
    "cancel_order_event",
    "close_position_event",
    "order_update",
    "gtt_event",
    "force_logout",
    "active_sessions_update",
    "pending_order_created",
    "pending_order_updated",
    "app_mode_changed",
    "cache_loaded",
    "download_progress",
    "scalping_sl_update",
    "historify_progress",
    "historify_job_complete",
    "historify_job_paused",
    "historify_job_cancelled",
    "historify_schedule_created",
    "historify_schedule_updated",
    "historify_schedule_deleted",
    "historify_schedule_execution_started",
    "whatsapp_qr",
    "whatsapp_pair_code",
    "whatsapp_paired",
    "whatsapp_pair_status",
    "whatsapp_status",
];

/// The type of the lines that `openalgo-bridge probe` appends. They need no place on a list: they are filtered,
/// but for those whose `data.through` is there, as `true`.
pub const PROBE: &str = "bridge_probe";

/// Which event types pass, and which are left out on purpose. A type on both lists passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventTypes {
    /// Short (five names by default), so a linear search beats hashing.
    allowed: Vec<String>,
    ignored: Vec<String>,
}

/// What the two lists say about one event type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Allowed,
    Ignored,
    Probe,
    Unknown,
}

impl EventTypes {
    /// Takes the allow-list and the ignore list as configured.
    pub fn new(allowed: Vec<String>, ignored: Vec<String>) -> Self {
        Self { allowed, ignored }
    }

    /// The types that pass, as configured.
    pub fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// The types that are counted as filtered unless they also are on the allow-list, as
    /// configured.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    pub(super) fn class(&self, event_type: &str) -> Class {
        let lists = |list: &[String]| list.iter().any(|name| name == event_type);
        if lists(&self.allowed) {
            Class::Allowed
        } else if event_type == PROBE {
            Class::Probe
        } else if lists(&self.ignored) {
            Class::Ignored
        } else {
            Class::Unknown
        }
    }
}

impl Default for EventTypes {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        Self::new(owned(DEFAULT_EVENT_TYPES), owned(DEFAULT_IGNORED_EVENT_TYPES))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(types: &EventTypes, event_type: &str, expected: Class) {
        assert_eq!(types.class(event_type), expected, "{event_type:?}");
    }

    #[test]
    fn the_allow_list_wins_over_the_ignore_list() {
        let types = EventTypes::new(
            vec!["both".into(), "only_allowed".into()],
            vec!["both".into(), "only_ignored".into()],
        );
        check(&types, "both", Class::Allowed);
        check(&types, "only_allowed", Class::Allowed);
        check(&types, "only_ignored", Class::Ignored);
        check(&types, "Both", Class::Unknown);
        check(&types, "", Class::Unknown);
        check(&types, PROBE, Class::Probe);
        check(&EventTypes::new(vec![PROBE.into()], vec![]), PROBE, Class::Allowed);
        check(&EventTypes::new(vec![], vec![PROBE.into()]), PROBE, Class::Probe);
    }

    #[test]
    fn the_default_lists_share_no_name_and_repeat_none() {
        let names: Vec<_> = DEFAULT_EVENT_TYPES.iter().chain(DEFAULT_IGNORED_EVENT_TYPES).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(names.len(), 31);
    }
}
