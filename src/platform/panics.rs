//! Panics on purpose: what becomes of one is for a test to see. A release build has none.

/// Panics if a test wants that of this place: where the environment names a directory in `PANIC_ON_PURPOSE`, and a
/// file of the place's name is in it. Its text is the message. It is removed first, so that the next start goes on.
///
/// # Panics
/// That is what it is for.
#[cfg(debug_assertions)]
pub fn on_purpose(place: &str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let wanted = || std::env::var_os("PANIC_ON_PURPOSE").map(PathBuf::from);
    let Some(directory) = DIRECTORY.get_or_init(wanted) else { return };
    let path = directory.join(place);
    let Ok(message) = std::fs::read_to_string(&path) else { return };
    if std::fs::remove_file(&path).is_err() {
        return;
    }
    panic!("{message}");
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn on_purpose(_: &str) {}
