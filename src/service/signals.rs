//! SIGTERM and SIGINT stop the daemon; a second one ends it at once; SIGHUP has it read something again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The exit code after a second SIGTERM: what was in flight was not waited for.
const EX_SOFTWARE: i32 = 70;

/// Calls `on_reload` at SIGHUP, and `on_stop` at the first SIGTERM or SIGINT. From then on another one ends the process with
/// code 70 from within the signal handler, whatever the threads are doing.
///
/// # Errors
/// The system's, if a handler or the thread can't be installed.
pub fn listen(
    on_stop: impl Fn() + Send + 'static,
    on_reload: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset and sets it, the second finds it set.
        flag::register_conditional_shutdown(signal, EX_SOFTWARE, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            if signal == SIGHUP {
                on_reload();
            } else {
                on_stop();
            }
        }
    })?;
    Ok(())
}
