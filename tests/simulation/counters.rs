//! What really happened: a campaign in which a fault never struck shows nothing of it (V16).

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: u64),* }

        impl Counters {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    delivered,
    repeated,
    sent_again,
    refused,
    left_out,
    rejected,
    filtered_and_blank,
    commits,
    notes,
    commits_failed,
    rejects_failed,
    rejects_rotated,
    starts_first,
    starts_resumed,
    starts_unreadable,
    starts_refused,
    starts_behind_a_commit,
    copies_damaged,
    kills,
    kills_within_a_write,
    power_cuts,
    clean_stops,
    clean_stops_changing_nothing,
    turns_without_room,
    turns_reading_several_files,
    hints_lost,
    short_reads,
    input_errors,
    state_errors,
    cuts_noticed,
    cut_and_told,
    moved_away_told,
    closed_after_quiet,
    moved_back,
    late_lines,
    written_where_replaced,
    unterminated_last_lines,
    resumed_from_a_copy,
    resumed_from_what_was_kept,
    resumed_after_a_rotation_while_down,
    unseen_life_opened,
    cut_to_its_tail,
    waited_for_a_place,
    inodes_reused,
    waited_for_input,
    quiescences,
}
