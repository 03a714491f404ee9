//! Mistakes on purpose, one at a time: a test that claims to find mistakes has to find each of these.
//!
//! A release build can't make any: [`makes`] is `false` there, and what asks it disappears.

/// A mistake that a daemon like this one could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The checkpoint counts the oldest line that is not settled as settled.
    CheckpointAhead,
    /// An acknowledgement moves the newest life of the input, whichever it is of.
    AckOfAnotherLife,
    /// The bytes before the position are not compared.
    MarkUnchecked,
    /// A start goes on where the inode is the same, whatever else is not.
    InodeAlone,
    /// Half a line counts as settled as soon as it is read.
    TailCommitted,
    /// The unterminated line of a file that is over is dropped.
    TailForgotten,
    /// A record that the sink refused counts as delivered.
    FailureDropped,
    /// A rejected line counts as settled before it is durable.
    RejectUnwritten,
    /// The checkpoint is renamed into place without fsync.
    SavedUnsynced,
    /// The directory is not synced after that.
    NameUnsynced,
    /// A checkpoint that could not be written is not tried again.
    CommitGivenUp,
    /// The new file is read before the one that it replaced.
    NewFileFirst,
    /// A file that was moved away is closed at once.
    OldFileClosed,
    /// What is lost is not recorded.
    LossUntold,
    /// There is always room for one more line.
    NoLimit,
    /// The life after a cut is named as if it were the first of its inode.
    SecondLifeUnnamed,
}

#[cfg(debug_assertions)]
thread_local! {
    static MADE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Lets this thread, and no other, make a mistake from now on; none: no more.
#[cfg(debug_assertions)]
pub fn make(mutant: Option<Mutant>) {
    MADE.set(mutant);
}

/// Whether this thread makes that mistake.
#[cfg(debug_assertions)]
pub fn makes(mutant: Mutant) -> bool {
    MADE.get() == Some(mutant)
}

/// No.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn makes(_: Mutant) -> bool {
    false
}
