//! Aligned columns. On a terminal a table fits its width, and rows and words have the colour of their state; elsewhere
//! every cell is whole.

use std::fmt;
use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::printable::escaped;

// The codes of colours that every terminal has.
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
/// The widest padding of a cell where nothing is cut, in characters, so that one long cell does not move all other rows.
const PADDED_MAX: usize = 48;

/// A table of text.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Fit>,
    /// The headings and the rows.
    lines: Vec<TableLine>,
}

#[derive(Debug)]
struct TableLine {
    cells: Vec<String>,
    color: Option<u8>,
}

impl Table {
    /// A table with these headings, and how each column fits a narrow terminal.
    pub(super) fn new(columns: &[(&str, Fit)]) -> Self {
        let cells = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let columns = columns.iter().map(|(_, fit)| *fit).collect();
        Self { columns, lines: vec![TableLine { cells, color: None }] }
    }

    /// Adds a row in the colour of this state. Control characters of the cells are escaped.
    pub(super) fn row(&mut self, state: &str, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| escaped(cell.trim_end()).into_owned()).collect();
        // Rows that are in order have no colour.
        self.lines.push(TableLine { cells, color: color(state).filter(|color| *color != GREEN) });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.len() <= 1
    }

    /// The table for a terminal of this width, or as a whole.
    fn text(&self, terminal: Option<usize>) -> Vec<(String, Option<u8>)> {
        let widest = |index: usize, most: usize| {
            let cells = self.lines.iter().filter_map(|line| line.cells.get(index));
            cells.map(|cell| cell.width().min(most)).max().unwrap_or(0)
        };
        let columns = self.columns.iter().enumerate();
        let widths: Vec<Option<usize>> = match terminal {
            Some(terminal) => {
                let columns = columns.map(|(index, fit)| (*fit, widest(index, usize::MAX)));
                fitted(&columns.collect::<Vec<_>>(), terminal)
            }
            None => columns.map(|(index, _)| Some(widest(index, PADDED_MAX))).collect(),
        };
        let is_cut = terminal.is_some();
        self.lines.iter().map(|line| (line.text(&widths, is_cut), line.color)).collect()
    }
}

impl TableLine {
    /// The cells of the columns that are shown, each as wide as its column.
    fn text(&self, widths: &[Option<usize>], is_cut: bool) -> String {
        let shown = self.cells.iter().zip(widths);
        let cells = shown.filter_map(|(cell, width)| Some((cell, (*width)?)));
        let mut text = String::new();
        for (cell, width) in cells {
            text += &if is_cut { cut(cell, width) } else { cell.clone() };
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, color) in self.text(terminal_width()) {
            writeln!(formatter, "{}", painted(&line, color))?;
        }
        Ok(())
    }
}

/// The text, or as much of its beginning as fits, with a mark.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |letter: &char| {
        let taken = letter.width().unwrap_or(0);
        let has_room = taken <= room;
        room = room.saturating_sub(taken);
        has_room
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

fn color(state: &str) -> Option<u8> {
    match state {
        "active" | "succeeded" | "running" => Some(GREEN),
        "failed" | "timed_out" | "broken" | "lost" => Some(RED),
        "paused" | "pending" | "skipped" | "cancelled" | "draining" => Some(YELLOW),
        _ => None,
    }
}

fn painted(text: &str, color: Option<u8>) -> String {
    match color.filter(|_| has_colors()) {
        Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        None => text.to_owned(),
    }
}

/// A line of a run's standard error, in its colour.
pub(super) fn warned(text: &str) -> String {
    painted(text, Some(RED))
}

/// A note between the lines of an output, in its colour.
pub(super) fn noted(text: &str) -> String {
    painted(text, Some(YELLOW))
}

/// The word of a state, in its colour.
pub(super) fn state(word: &str) -> String {
    painted(word, color(word))
}

/// The characters between two columns.
const GAP: usize = 2;
/// The smallest width of a column that is cut.
const CUT_MIN: usize = 10;

/// What happens to a column if the terminal is too narrow for the whole table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It stays whole, so that its cells can be copied.
    Whole,
    /// Its long cells are cut.
    Cut,
    /// It is left out; the lowest number goes first.
    Drop(u8),
}

/// The width of each column; none for a column that is left out. `columns` holds how each may fit and the width of its
/// cells. If even the remaining columns do not fit, the lines are longer than the terminal.
fn fitted(columns: &[(Fit, usize)], terminal: usize) -> Vec<Option<usize>> {
    let least = |(fit, width): (Fit, usize)| match fit {
        Fit::Cut => width.min(CUT_MIN),
        Fit::Whole | Fit::Drop(_) => width,
    };
    let mut rank: Vec<u8> = columns.iter().filter_map(|(fit, _)| rank_of(*fit)).collect();
    rank.sort_unstable();
    // As few columns as possible are left out: those up to this rank.
    let taken = |dropped: Option<u8>| {
        let shown = columns.iter().filter(|(fit, _)| is_shown(*fit, dropped));
        shown.map(|column| least(*column) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    let choices = std::iter::once(None).chain(rank.iter().copied().map(Some));
    let fits = choices.clone().find(|dropped| taken(*dropped) <= terminal);
    let dropped = fits.unwrap_or(rank.last().copied());
    // The columns that may be cut share the remaining width, and narrow ones take no more than they need.
    let mut room = terminal.saturating_sub(taken(dropped));
    let mut cut: Vec<usize> = (0..columns.len()).collect();
    cut.retain(|index| columns.get(*index).is_some_and(|(fit, _)| *fit == Fit::Cut));
    cut.sort_by_key(|index| columns.get(*index).map(|(_, width)| *width));
    let mut widths: Vec<Option<usize>> =
        columns.iter().map(|column| is_shown(column.0, dropped).then(|| least(*column))).collect();
    for (position, index) in cut.iter().enumerate() {
        let sharing = cut.len() - position;
        let (Some((_, whole)), Some(Some(width))) = (columns.get(*index), widths.get_mut(*index))
        else {
            continue;
        };
        let more = (whole - *width).min(room / sharing);
        *width += more;
        room -= more;
    }
    widths
}

fn rank_of(fit: Fit) -> Option<u8> {
    match fit {
        Fit::Drop(rank) => Some(rank),
        Fit::Whole | Fit::Cut => None,
    }
}

/// Whether a column is shown where those up to this rank are left out.
fn is_shown(fit: Fit, dropped: Option<u8>) -> bool {
    rank_of(fit).is_none_or(|rank| dropped.is_none_or(|dropped| rank > dropped))
}

/// Whether standard output is a terminal that shows colours, and the user wants them.
fn has_colors() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() && !is_dumb()
}

/// A text that takes the place of all that a terminal shows, as many lines as there is room for. A terminal that cannot do
/// that shows it after the rest.
pub(super) fn screen(text: &str) -> String {
    const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";
    let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_row);
    let room = usize::from(rows).saturating_sub(2);
    let lines = text.lines().count();
    let mut shown = text.to_owned();
    if room > 0 && lines > room {
        shown = text.lines().take(room).collect::<Vec<_>>().join("\n");
        shown += &noted(&format!("\n… {} more lines", lines - room));
    }
    if is_dumb() { shown } else { format!("{CLEAR}{shown}") }
}

/// Whether the terminal only prints.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// The width of the terminal in characters. None: standard output is no terminal, or its width is unknown.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::Fit::{Cut, Drop, Whole};
    use super::*;

    #[test]
    fn a_cell_is_cut_by_the_room_that_its_letters_take() {
        let cases = [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
        ];
        for (text, width, shown) in cases {
            assert_eq!(cut(text, width), shown);
            assert!(shown.width() <= width, "{shown}");
        }
    }

    #[test]
    fn outside_of_a_terminal_every_cell_is_whole_and_one_long_cell_moves_no_other_row() {
        let mut table = Table::new(&[("A", Cut), ("B", Drop(1)), ("C", Whole)]);
        let long = "x".repeat(100);
        table.row("", vec![long.clone(), "1".to_owned(), "end".to_owned()]);
        table.row("", vec!["y\n".to_owned(), "2".to_owned(), "日".to_owned()]);
        let lines = |terminal| -> Vec<String> {
            table.text(terminal).into_iter().map(|(line, _)| line).collect()
        };
        let whole = lines(None);
        assert_eq!(whole[1], format!("{long}  1  end"));
        assert_eq!(whole[2], format!("y{}2  日", " ".repeat(PADDED_MAX + 1)));
        assert_eq!(lines(Some(20))[1], format!("{}…  1  end", "x".repeat(11)));
        assert_eq!(lines(Some(17))[1], format!("{}…  end", "x".repeat(11)));
        assert_eq!(lines(Some(17))[0], format!("A{}C", " ".repeat(13)));
    }

    #[test]
    fn columns_give_way_only_as_far_as_they_must() {
        let columns = [(Whole, 36), (Cut, 20), (Drop(2), 9), (Drop(1), 30), (Cut, 100)];
        let cases = [
            (300, [Some(36), Some(20), Some(9), Some(30), Some(100)]),
            // The longest column is cut first, then both are.
            (150, [Some(36), Some(20), Some(9), Some(30), Some(47)]),
            (103, [Some(36), Some(10), Some(9), Some(30), Some(10)]),
            (102, [Some(36), Some(20), Some(9), None, Some(31)]),
            (72, [Some(36), Some(10), Some(9), None, Some(11)]),
            (70, [Some(36), Some(15), None, None, Some(15)]),
            // What is to be copied is whole in any terminal.
            (20, [Some(36), Some(10), None, None, Some(10)]),
        ];
        for (terminal, widths) in cases {
            assert_eq!(fitted(&columns, terminal), widths, "{terminal}");
        }
        assert_eq!(fitted(&[], 80), []);
    }
}
