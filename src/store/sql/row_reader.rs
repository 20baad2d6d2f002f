//! The columns of a row, read by name and in order. A value that cannot be understood spoils its own
//! row only: it is noted, with its column, and something harmless stands in for it.

use crate::clock::Timestamp;

use super::value::{Cell, SqlRow};

/// Characters of a value that are shown in a note.
const SHOWN_MAX: usize = 100;

/// A row, and the names of its columns in their order.
#[derive(Debug)]
pub(super) struct RowReader<'n> {
    row: SqlRow,
    names: std::str::Split<'n, &'static str>,
    name: &'n str,
    /// The first value that was not understood.
    fault: Option<String>,
    /// The same of a column that tells this row from others.
    key_fault: Option<String>,
}

impl<'n> RowReader<'n> {
    /// A row of a statement that selects these columns, with a comma and a space between them.
    pub(super) fn new(row: SqlRow, names: &'n str) -> Self {
        Self { row, names: names.split(", "), name: "", fault: None, key_fault: None }
    }

    /// What was not understood so far.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Why a change cannot name this row.
    pub(super) fn key_fault(&self) -> Option<&str> {
        self.key_fault.as_deref()
    }

    /// Notes that the column that was read last is not understood.
    pub(super) fn refuse(&mut self, shown: &str) {
        if self.fault.is_none() {
            let shown: String = shown.chars().take(SHOWN_MAX).collect();
            let name = self.name;
            self.fault = Some(format!("the store's column {name} is not understood: {shown}"));
        }
    }

    fn next(&mut self) -> Cell {
        self.name = self.names.next().unwrap_or_default();
        self.row.next()
    }

    pub(super) fn text_option(&mut self) -> Option<String> {
        match self.next() {
            Cell::Null => None,
            Cell::Text(text) => Some(text),
            Cell::Integer(number) => {
                self.refuse(&number.to_string());
                None
            }
            Cell::Other(shown) => {
                self.refuse(&shown);
                Some(shown)
            }
        }
    }

    /// Text that must be there; else an empty one stands in.
    pub(super) fn text(&mut self) -> String {
        let text = self.text_option();
        text.unwrap_or_else(|| {
            self.refuse("null");
            String::new()
        })
    }

    pub(super) fn integer_option(&mut self) -> Option<i64> {
        match self.next() {
            Cell::Null => None,
            Cell::Integer(number) => Some(number),
            Cell::Text(shown) | Cell::Other(shown) => {
                self.refuse(&format!("\"{shown}\""));
                None
            }
        }
    }

    /// A number in the range of its type.
    pub(super) fn number_option<T: TryFrom<i64>>(&mut self) -> Option<T> {
        let number = self.integer_option()?;
        let fitting = T::try_from(number).ok();
        if fitting.is_none() {
            self.refuse(&number.to_string());
        }
        fitting
    }

    /// The same where it must be there; else `instead` stands in.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, instead: T) -> T {
        let number = self.number_option();
        number.unwrap_or_else(|| {
            self.refuse("null");
            instead
        })
    }

    pub(super) fn instant_option(&mut self) -> Option<Timestamp> {
        let micros = self.integer_option()?;
        let instant = Timestamp::from_timestamp_micros(micros);
        if instant.is_none() {
            self.refuse(&micros.to_string());
        }
        instant
    }

    /// An instant that must be there; else the first one of the calendar stands in.
    pub(super) fn instant(&mut self) -> Timestamp {
        let instant = self.instant_option();
        instant.unwrap_or_else(|| {
            self.refuse("null");
            Timestamp::UNIX_EPOCH
        })
    }

    /// A word of a list; else `instead` stands in.
    pub(super) fn word<T>(&mut self, parse: impl Fn(&str) -> Option<T>, instead: T) -> T {
        let word = self.text();
        parse(&word).unwrap_or_else(|| {
            self.refuse(&format!("\"{word}\""));
            instead
        })
    }

    /// The same where there may be none.
    pub(super) fn word_option<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let word = self.text_option()?;
        let known = parse(&word);
        if known.is_none() {
            self.refuse(&format!("\"{word}\""));
        }
        known
    }

    /// Reads a column that tells this row from others.
    pub(super) fn key<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.fault.take();
        let value = read(self);
        if self.key_fault.is_none() {
            self.key_fault.clone_from(&self.fault);
        }
        self.fault = before.or_else(|| self.fault.take());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_understood_is_named() {
        let cells = vec![
            Cell::Text("a".to_owned()),
            Cell::Integer(-1),
            Cell::Text("soon".to_owned()),
            Cell::Null,
        ];
        let mut columns = RowReader::new(SqlRow::new(cells), "id, attempt, due_at, node");
        assert_eq!(columns.key(RowReader::text), "a");
        assert_eq!(columns.fault(), None);
        assert_eq!(columns.number::<u32>(1), 1);
        assert_eq!(columns.instant(), Timestamp::UNIX_EPOCH);
        assert_eq!(columns.key(RowReader::text), "");
        assert_eq!(columns.fault(), Some("the store's column attempt is not understood: -1"));
        assert_eq!(columns.key_fault(), Some("the store's column node is not understood: null"));
    }

    #[test]
    fn null_where_something_must_be_is_named() {
        let mut columns = RowReader::new(SqlRow::new(vec![Cell::Null]), "coalesce_rule");
        assert_eq!(columns.word(|word| (word == "all").then_some(1), 2), 2);
        assert_eq!(
            columns.fault(),
            Some("the store's column coalesce_rule is not understood: null")
        );
    }
}
