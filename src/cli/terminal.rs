//! What is known of the terminal that answers are printed to.

use std::io::IsTerminal;

/// Whether standard output is a terminal that shows colours, and the user wants them.
pub(super) fn has_colors() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() && !is_dumb
}

/// How many characters a line of the terminal has; none if standard output is no terminal or does not say it.
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
