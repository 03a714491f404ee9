//! What counts, key by key, with where it was said: the list that `check` prints.

use std::fmt;

use super::keys::{self, KEYS, Named};
use super::problem::{MASK, Origin, Scope, shown_text};
use super::settings::Mode;
use super::values::Values;
use super::vars::Variables;

/// One key and what counts for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    /// As in a file; for a secret from a file of its own, `<KEY>_FILE`.
    pub key: String,
    /// As it was written, safe to print; secrets and credentials are masked. Empty: there is none.
    pub shown: String,
    /// Where it was said.
    pub origin: Origin,
    /// Whose key it is; that of the other mode is there only if it was given.
    pub scope: Scope,
}

/// `KEY = 'value'  (origin)`.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = '{}'  ({})", self.key, self.shown, self.origin)
    }
}

/// In the order of the table, then the properties of librdkafka by name. Unknown keys and those
/// without a value of their own are not in it.
pub(super) fn list(variables: &Variables, values: &Values, mode: Option<Mode>) -> Vec<Effective> {
    let given = |name: &str| variables.get(name).filter(|given| given.text.is_some());
    let mut list = Vec::new();
    for key in KEYS {
        let file_key = keys::file_key(key.name);
        let from_file = if key.is_secret() { given(&file_key) } else { None };
        if let Some(given) = given(key.name) {
            let shown = keys::shown_value(key.name, given.text.as_deref().unwrap_or_default());
            list.push(effective(key.name, shown, &given.origin, key.scope));
        } else if from_file.is_none() {
            let counts = key.scope == Scope::Common || mode.map(Mode::scope) == Some(key.scope);
            if counts && !key.ignored {
                let shown = shown_text(values.default_of(key));
                list.push(effective(key.name, shown, &values.origin(key.name), key.scope));
            }
        }
        if let Some(given) = from_file {
            list.push(effective(&file_key, MASK.to_owned(), &given.origin, key.scope));
        }
    }
    for (name, given) in variables {
        let Some(text) = &given.text else { continue };
        if let Some(Named::Property(_) | Named::PropertyFile(_)) = keys::find(name) {
            let shown = keys::shown_value(name, text);
            list.push(effective(name, shown, &given.origin, Scope::Kafka));
        }
    }
    list
}

fn effective(key: &str, shown: String, origin: &Origin, scope: Scope) -> Effective {
    Effective { key: key.to_owned(), shown, origin: origin.clone(), scope }
}
