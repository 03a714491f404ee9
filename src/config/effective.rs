//! What counts, key by key, with where it was said: the list that `check` prints.

use std::collections::BTreeSet;
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

/// Keys that do not say what they said before. Of a secret, what it says does not matter, nor whether it
/// has a file of its own, but that it is there.
pub fn changed(before: &[Effective], after: &[Effective]) -> Vec<String> {
    let said = |list: &[Effective]| -> BTreeSet<(String, String)> {
        let said = list.iter().map(|one| match one.key.strip_suffix("_FILE") {
            Some(key) if one.shown == MASK => (key.to_owned(), MASK.to_owned()),
            _ => (one.key.clone(), one.shown.clone()),
        });
        // One that is empty is as one that is not there.
        said.filter(|(_, shown)| !shown.is_empty()).collect()
    };
    let (before, after) = (said(before), said(after));
    let mut keys: Vec<String> =
        before.symmetric_difference(&after).map(|(key, _)| key.clone()).collect();
    keys.dedup();
    keys
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(said: &[(&str, &str)]) -> Vec<Effective> {
        let origin = Origin::Environment;
        said.iter()
            .map(|(key, shown)| effective(key, (*shown).to_owned(), &origin, Scope::Common))
            .collect()
    }

    #[test]
    fn a_secret_changes_when_it_comes_or_goes_and_anything_else_with_what_it_says() {
        let before = list(&[("A", "1"), ("B", "2"), ("P", MASK), ("Q", "")]);
        assert_eq!(changed(&before, &before), [""; 0]);
        let after = list(&[("A", "1"), ("B", "3"), ("P_FILE", MASK), ("Q", MASK)]);
        assert_eq!(changed(&before, &after), ["B", "Q"]);
        assert_eq!(changed(&before, &list(&[("A", "1")])), ["B", "P"]);
    }
}
