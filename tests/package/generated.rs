//! Completions and manual pages, as the programs read them that they are made for.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// An environment in which any look at a configuration would fail.
fn bridge(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_openalgo-bridge"))
        .args(arguments)
        .env("BRIDGE_ENV_FILE", "/nonexistent")
        .env("ORDER_EVENT_MODE", "neither")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    output
}

fn run_with_input(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn bash_completes_commands_and_options() {
    let mut script = bridge(&["completions", "bash"]).stdout;
    script.extend_from_slice(
        b"\nCOMP_WORDS=(openalgo-bridge status --ca); COMP_CWORD=2\n\
          _openalgo__bridge openalgo-bridge --ca status; echo \"${COMPREPLY[*]}\"\n\
          COMP_WORDS=(openalgo-bridge check); COMP_CWORD=1\n\
          _openalgo__bridge openalgo-bridge check openalgo-bridge; echo \"${COMPREPLY[*]}\"\n",
    );
    let output = run_with_input("bash", &["-u"], &script);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "--caught-up\ncheck checkpoint\n");
}

#[test]
fn every_shell_has_its_completions_and_no_other_is_known() {
    for (shell, begins) in [
        ("bash", "_openalgo__bridge()"),
        ("zsh", "#compdef openalgo-bridge"),
        ("fish", "# Print an"),
    ] {
        let script = String::from_utf8(bridge(&["completions", shell]).stdout).unwrap();
        assert!(script.starts_with(begins), "{shell}: {script}");
    }
    let unknown = Command::new(env!("CARGO_BIN_EXE_openalgo-bridge"))
        .args(["completions", "tcsh"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(64));
}

#[test]
fn the_manual_page_of_the_program_is_what_man_gets_without_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    bridge(&["man", "--dir", dir.path().to_str().unwrap()]);
    let written = std::fs::read(dir.path().join("openalgo-bridge.1")).unwrap();
    assert_eq!(written, bridge(&["man"]).stdout);
}
