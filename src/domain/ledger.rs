//! Where every byte went: each byte that was read is in exactly one class.

use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Acknowledged by the sink.
    Delivered,
    /// Durably in the rejects.
    Rejected,
    /// Left out on purpose: its event type is on the ignore list.
    Filtered,
    /// Holds nothing.
    Blank,
}

/// A number of lines and their bytes, line ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lines += other.lines;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.lines -= other.lines;
    }
}

/// Amounts by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Acknowledged by the sink.
    pub delivered: Amount,
    /// Durably in the rejects.
    pub rejected: Amount,
    /// Left out on purpose.
    pub filtered: Amount,
    /// Nothing but line ends, spaces, a BOM, NULs.
    pub blank: Amount,
}

impl Ledger {
    /// Counts lines that reached their end: `skipped` of their bytes were no content.
    pub fn settle(&mut self, class: Class, amount: Amount, skipped: u64) {
        let amount = Amount { bytes: amount.bytes - skipped, ..amount };
        match class {
            Class::Delivered => self.delivered += amount,
            Class::Rejected => self.rejected += amount,
            Class::Filtered => self.filtered += amount,
            Class::Blank => self.blank += amount,
        }
        self.blank.bytes += skipped;
    }

    /// Everything that reached its end.
    pub fn settled(&self) -> Amount {
        let mut sum = self.delivered;
        sum += self.rejected;
        sum += self.filtered;
        sum += self.blank;
        sum
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.rejected += other.rejected;
        self.filtered += other.filtered;
        self.blank += other.blank;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_one_class() {
        let mut ledger = Ledger::default();
        ledger.settle(Class::Delivered, Amount { bytes: 103, lines: 1 }, 3);
        ledger.settle(Class::Blank, Amount { bytes: 1, lines: 1 }, 0);
        ledger.settle(Class::Rejected, Amount { bytes: 10, lines: 1 }, 0);
        assert_eq!(ledger.settled(), Amount { bytes: 114, lines: 3 });
        assert_eq!(ledger.delivered, Amount { bytes: 100, lines: 1 });
        assert_eq!(ledger.blank, Amount { bytes: 4, lines: 1 });
    }
}
