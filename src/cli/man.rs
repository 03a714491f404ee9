//! `man`: the manual pages, from the definitions of the commands.

use std::path::Path;
use std::{fs, io};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::Arguments;
use super::{Exit, complain, print_raw};

/// What the definitions do not say, at the end of the program's own page.
const FILES: &str = r".SH FILES
.TP
/etc/openalgo\-bridge/.env
The settings, in the dialect of python\-dotenv; each is described there.
.TP
/etc/openalgo\-bridge/NAME.env
Those of an instance.
.TP
/var/lib/openalgo\-events/order_events.jsonl
The events, one JSON object a line.
.TP
/var/lib/openalgo\-bridge/
The position that is kept, and rejects.jsonl, the lines that were refused.
.SH SEE ALSO
/usr/share/doc/openalgo\-bridge/README.md, systemctl(1), journalctl(1)
";

/// Prints the page of the program, or writes that and one for each command: it reads no configuration.
pub(super) fn man(dir: Option<&Path>) -> Exit {
    let mut command = Arguments::command();
    // Gives each command its full name, and the options that hold for all.
    command.build();
    let Some(dir) = dir else {
        return match page(&command) {
            Ok(page) => print_raw(&page),
            Err(error) => complain(&error, Exit::Io),
        };
    };
    match write_pages(&command, dir) {
        Ok(()) => Exit::Ok,
        Err(error) => complain(&format!("{}: {error}", dir.display()), Exit::Io),
    }
}

fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    fs::write(dir.join(Man::new(command.clone()).get_filename()), page(command)?)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, dir))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_help() {
        page.extend_from_slice(b".SH NOTES\n");
        for line in notes.to_string().lines() {
            // A line that begins with a blank is kept as it is.
            page.extend_from_slice(line.replace('-', "\\-").as_bytes());
            page.push(b'\n');
        }
        page.extend_from_slice(FILES.as_bytes());
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(man(Some(dir.path())), Exit::Ok);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let program = read("openalgo-bridge.1");
        for text in
            ["Kafka or Socket.IO", "\\-\\-env\\-file", "SEE ALSO", "openalgo\\-bridge\\-run(1)"]
        {
            assert!(program.contains(text), "{text} in {program}");
        }
        assert!(read("openalgo-bridge-checkpoint-set.1").contains("\\-\\-offset"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        assert_eq!(man(Some(Path::new("/nonexistent"))), Exit::Io);
    }
}
