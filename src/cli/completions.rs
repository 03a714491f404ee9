//! `completions`: what makes a shell complete commands and options, from their definitions.

use clap::CommandFactory as _;

use super::args::{Arguments, Shell};
use super::{Exit, print_raw};

/// Prints the script for that shell: it reads no configuration.
pub(super) fn completions(shell: Shell) -> Exit {
    print_raw(&script(shell))
}

fn script(shell: Shell) -> Vec<u8> {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => generated(clap_complete::Shell::Zsh),
        Shell::Fish => generated(clap_complete::Shell::Fish),
    }
}

fn generated(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), env!("CARGO_PKG_NAME"), &mut script);
    script
}

/// `clap_complete` (4.6.11) takes the hyphen in the program's name for one between commands, and then looks for
/// the commands of another program: none would have its options completed.
fn bash() -> Vec<u8> {
    let script = generated(clap_complete::Shell::Bash);
    String::from_utf8_lossy(&script)
        .replace("openalgo__subcmd__bridge__subcmd__", "openalgo__bridge__subcmd__")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["checkpoint", "caught-up", "rejects"] {
                assert!(script.contains(word), "{shell:?}: {word}");
            }
        }
    }
}
