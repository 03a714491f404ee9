//! What a start finds in the state directory.

use std::io;

use tracing::{error, info, warn};

use super::Start;
use crate::checkpoint::store::{StateError, Store};

impl Start {
    /// Reads the checkpoint; copies that are damaged are put aside, so that none is taken for good.
    ///
    /// # Errors
    /// Why the position, which may be there, can't be known.
    pub fn find(store: &Store) -> Result<Self, StateError> {
        match store.load() {
            Ok(loaded) => {
                for (name, damage) in &loaded.damaged {
                    warn!(file = name, %damage, "a copy of the checkpoint is damaged; a valid one is used");
                    quarantine(store, name);
                }
                let checkpoint = loaded.checkpoint.map(Box::new);
                Ok(checkpoint.map_or(Self::First, Self::From))
            }
            Err(error @ StateError::Unreadable { .. }) => {
                error!(%error, "the position is lost: the input is read from its start, events may be repeated");
                for name in store.copies() {
                    quarantine(store, name);
                }
                Ok(Self::Unreadable)
            }
            Err(error) => Err(error),
        }
    }
}

fn quarantine(store: &Store, name: &str) {
    match store.quarantine(name) {
        Ok(aside) => info!(aside = %aside.display(), "put aside"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(file = name, %error, "cannot put a damaged file aside"),
    }
}
