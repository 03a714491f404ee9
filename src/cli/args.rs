//! The command line: what can be said, and the help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What can be said. The first sentence of the help is the package's description.
#[derive(Debug, Parser)]
#[command(name = "openalgo-bridge", version, about, long_about = None, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// Configuration file in .env format; may be repeated, of several the last that has a key counts
    #[arg(long = "env-file", value_name = "FILE", global = true)]
    pub env_files: Vec<PathBuf>,

    /// Use /etc/openalgo-bridge/NAME.env
    #[arg(long, value_name = "NAME", global = true)]
    pub instance: Option<String>,

    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str =
    "Without --env-file and --instance, the configuration is $BRIDGE_ENV_FILE, else \
/etc/openalgo-bridge/.env, else (run and check) ./.env.

Exit codes:
   0  done
   1  status --caught-up: not within the wait
  64  wrong usage
  65  invalid data
  69  the other side is unusable
  70  a second SIGTERM
  74  I/O error
  75  another process holds the state directory
  78  configuration
 101  a bug";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Follow the input and deliver; runs in the foreground until SIGTERM or SIGINT
    Run,
    /// Print every effective setting with its origin, and every problem at once
    Check(Check),
    /// Check the lines of a file against the envelope without delivering anything
    Validate(Validate),
    /// Print the JSON Schema (draft 2020-12) of the envelope
    Schema,
    /// Ask the running daemon how it is and how far behind
    Status(Status),
    /// Append a line of its own to the input, and report each hop with its time
    Probe(Probe),
    /// Follow the events, or the rejects, on a terminal; best effort
    Tap(Tap),
    /// Show or move the committed position
    Checkpoint(Checkpoint),
    /// Look at the lines that were refused, and send them again
    Rejects(Rejects),
    /// Print what completes commands and options in a shell
    Completions {
        /// The shell that reads it
        shell: Shell,
    },
    /// Print the manual page, as man reads it
    Man {
        /// Write the pages of all commands as files into DIR instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// The shells that the packages bring completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Also try the input, the state directory and the broker, and say how to mend what is wrong
    #[arg(long)]
    pub connect: bool,
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// One JSON object for each rejected line, and a summary
    #[arg(long)]
    pub json: bool,

    /// The file, or - for standard input
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,

    /// Wait until every complete line that is in the input now is settled; exit 1 if that takes too
    /// long or the input can't be read
    #[arg(long)]
    pub caught_up: bool,

    /// How long --caught-up waits
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, requires = "caught_up")]
    pub wait: f64,

    /// The daemon's status socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// Send the line to the sink too; else the daemon filters it
    #[arg(long)]
    pub through: bool,
}

#[derive(Debug, Args)]
pub(super) struct Tap {
    /// Follow what is refused instead
    #[arg(long)]
    pub rejects: bool,

    /// Only events of this type
    #[arg(long = "type", value_name = "T")]
    pub event_type: Option<String>,

    /// Only events of this user
    #[arg(long, value_name = "U")]
    pub user: Option<String>,

    /// Show passwords, tokens and the like in data as they are
    #[arg(long)]
    pub unmasked: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rejects {
    #[command(subcommand)]
    pub command: RejectsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum RejectsCommand {
    /// Print what was refused and why, oldest first
    List {
        /// The lines of the rejects files as they are
        #[arg(long)]
        json: bool,
        /// Also those that were delivered since
        #[arg(long)]
        all: bool,
    },
    /// Send refused lines again, through validation to the sink; the running daemon does it, or the next one
    #[command(group = clap::ArgGroup::new("which").required(true).args(["all", "ids"]))]
    Requeue {
        /// All that were not delivered since
        #[arg(long)]
        all: bool,
        /// Event ids, as `rejects list` prints them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(subcommand)]
    pub command: CheckpointCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointCommand {
    /// Print the committed position; can be asked at any time
    Show {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Go on at an offset of the live file; only while the daemon is stopped
    Set {
        /// Bytes; moved back to just after the LF before it
        #[arg(long, value_name = "N")]
        offset: u64,
    },
    /// Go on at the start of the live file; only while the daemon is stopped
    Reset,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }
}
