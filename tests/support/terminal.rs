//! A terminal that a test makes, for programs that behave differently in one.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal: the side of its keyboard and screen, and the side of the programs in it.
pub fn terminal() -> (File, File) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (keyboard.into(), terminal.into())
}

/// Everything that is written to a terminal until no program has it open any more.
pub fn screen(mut keyboard: File) -> String {
    let mut said = Vec::new();
    // The end is an error here, EIO.
    drop(keyboard.read_to_end(&mut said));
    String::from_utf8_lossy(&said).into_owned()
}

/// Starts a program in a terminal of its own with lines of this many characters.
pub fn start_in_terminal(mut command: Command, columns: u16) -> (Child, File) {
    let (keyboard, terminal) = terminal();
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    command.stdin(terminal.try_clone().unwrap());
    command.stdout(terminal.try_clone().unwrap()).stderr(terminal);
    (command.spawn().unwrap(), keyboard)
}

/// What a program shows in a terminal with lines of this many characters, until it ends.
pub fn shown_in_terminal(command: Command, columns: u16) -> String {
    let (mut child, keyboard) = start_in_terminal(command, columns);
    let said = screen(keyboard);
    child.wait().unwrap();
    said
}
