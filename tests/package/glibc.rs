//! The check that the binary of the packages runs on older systems. `make package` asks it about that binary.

use std::process::{Command, Output};

fn ask(binary: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/package/glibc.sh");
    Command::new(script).arg(binary).output().unwrap()
}

/// What cargo builds here is linked to this system's OpenSSL, and on most systems needs a newer glibc too.
#[test]
fn a_binary_for_this_system_alone_is_refused() {
    let output = ask(env!("CARGO_BIN_EXE_openalgo-bridge"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("must run with 2.31") || said.contains("libssl"), "{said}");
}

#[test]
fn what_is_no_program_is_refused() {
    for path in ["Cargo.toml", "/nonexistent"] {
        assert!(!ask(path).status.success(), "{path}");
    }
}
