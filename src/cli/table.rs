//! Aligned columns; on a terminal, rows and words in the colour of their state.

use std::fmt;
use std::io::IsTerminal;

use comfy_table::{Cell, ContentArrangement, presets};

use crate::printable::escaped;

/// Codes of colours that every terminal knows.
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// A table of text.
#[derive(Debug)]
pub(super) struct Table {
    table: comfy_table::Table,
    /// The colour of each row.
    colors: Vec<Option<u8>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.iter().map(Cell::new));
        Self { table, colors: Vec::new() }
    }

    /// Adds a row about something that is in this state. Control characters of the cells are escaped.
    pub(super) fn row(&mut self, state: &str, cells: Vec<String>) {
        self.table.add_row(cells.into_iter().map(|cell| escaped(&cell).into_owned()));
        // What is as it should be needs no colour among rows.
        self.colors.push(color(state).filter(|color| *color != GREEN));
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = std::iter::once(&None);
        for (line, color) in self.table.lines().zip(heading.chain(&self.colors)) {
            // Without borders every line begins with a column's padding.
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
            writeln!(formatter, "{}", painted(line, *color))?;
        }
        Ok(())
    }
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
    let terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match color.filter(|_| terminal) {
        Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        None => text.to_owned(),
    }
}

/// What a run has said on its standard error output.
pub(super) fn warned(text: &str) -> String {
    painted(text, Some(RED))
}

/// What is said between the lines of an output.
pub(super) fn noted(text: &str) -> String {
    painted(text, Some(YELLOW))
}

/// A state's word, in the colour that it has for people.
pub(super) fn state(word: &str) -> String {
    painted(word, color(word))
}
