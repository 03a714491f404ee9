//! `schema`: the envelope for other programs.

use super::{Exit, print};
use crate::domain::envelope::{EventTypes, json_schema};

/// Prints the schema with the default lists: it reads no configuration.
pub(super) fn schema() -> Exit {
    print(json_schema(&EventTypes::default()))
}
