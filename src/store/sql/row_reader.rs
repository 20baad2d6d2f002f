//! Reads the values of a row, column by column. A value that cannot be understood does not stop the reading: the first
//! fault is kept with the name of its column, and a harmless value takes the place of the faulty one. The caller marks
//! the job as broken, or the run as lost, with this fault as the reason.

use super::value::{Cell, SqlRow};
use crate::clock::Timestamp;

/// Characters of a faulty value that are shown.
const SHOWN_MAX: usize = 100;

/// A row that is being read. [`Self::start_column`] names the column whose value is read next.
#[derive(Debug)]
pub(super) struct RowReader {
    row: SqlRow,
    column: &'static str,
    /// The first value that was not understood.
    fault: Option<String>,
    /// The first one of a column that changes use to find this row. Such a row cannot be written.
    key_fault: Option<String>,
}

impl RowReader {
    pub(super) fn new(row: SqlRow) -> Self {
        Self { row, column: "", fault: None, key_fault: None }
    }

    pub(super) fn start_column(&mut self, name: &'static str) {
        self.column = name;
    }

    /// The first fault so far.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The first fault so far of a column that changes use to find this row.
    pub(super) fn key_fault(&self) -> Option<&str> {
        self.key_fault.as_deref()
    }

    /// Notes that the value of the current column is not understood.
    pub(super) fn refuse(&mut self, shown: &str) {
        if self.fault.is_none() {
            let shown: String = shown.chars().take(SHOWN_MAX).collect();
            let name = self.column;
            self.fault = Some(format!("the store's column {name} is not understood: {shown}"));
        }
    }

    fn refuse_word(&mut self, word: &str) {
        self.refuse(&format!("\"{word}\""));
    }

    pub(super) fn text_option(&mut self) -> Option<String> {
        match self.row.next() {
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

    /// Text that must be there; an empty text stands in for a faulty one.
    pub(super) fn text(&mut self) -> String {
        let text = self.text_option();
        text.unwrap_or_else(|| {
            self.refuse("null");
            String::new()
        })
    }

    pub(super) fn integer_option(&mut self) -> Option<i64> {
        match self.row.next() {
            Cell::Null => None,
            Cell::Integer(number) => Some(number),
            Cell::Text(shown) | Cell::Other(shown) => {
                self.refuse_word(&shown);
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

    /// A number that must be there; `instead` stands in for a faulty one.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, instead: T) -> T {
        let number = self.number_option();
        number.unwrap_or_else(|| {
            self.refuse("null");
            instead
        })
    }

    /// A number that says yes (1) or no (0); "no" stands in for a faulty one.
    pub(super) fn flag(&mut self) -> bool {
        match self.number(0_i64) {
            0 => false,
            1 => true,
            other => {
                self.refuse(&other.to_string());
                false
            }
        }
    }

    pub(super) fn instant_option(&mut self) -> Option<Timestamp> {
        let micros = self.integer_option()?;
        let instant = Timestamp::from_timestamp_micros(micros);
        if instant.is_none() {
            self.refuse(&micros.to_string());
        }
        instant
    }

    /// An instant that must be there; the Unix epoch stands in for a faulty one.
    pub(super) fn instant(&mut self) -> Timestamp {
        let instant = self.instant_option();
        instant.unwrap_or_else(|| {
            self.refuse("null");
            Timestamp::UNIX_EPOCH
        })
    }

    /// A word that `parse` knows; `instead` stands in for a faulty one.
    pub(super) fn word<T>(&mut self, parse: impl Fn(&str) -> Option<T>, instead: T) -> T {
        let word = self.text();
        parse(&word).unwrap_or_else(|| {
            self.refuse_word(&word);
            instead
        })
    }

    /// A word that `parse` knows, if there is one.
    pub(super) fn word_option<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let word = self.text_option()?;
        let known = parse(&word);
        if known.is_none() {
            self.refuse_word(&word);
        }
        known
    }

    /// Reads a column that changes use to find this row.
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
        let mut reader = RowReader::new(SqlRow::new(cells));
        reader.start_column("id");
        assert_eq!(reader.key(RowReader::text), "a");
        assert_eq!(reader.fault(), None);
        reader.start_column("attempt");
        assert_eq!(reader.number::<u32>(1), 1);
        reader.start_column("due_at");
        assert_eq!(reader.instant(), Timestamp::UNIX_EPOCH);
        reader.start_column("node");
        assert_eq!(reader.key(RowReader::text), "");
        assert_eq!(reader.fault(), Some("the store's column attempt is not understood: -1"));
        assert_eq!(reader.key_fault(), Some("the store's column node is not understood: null"));
    }

    #[test]
    fn null_where_a_word_must_be_is_named() {
        let mut reader = RowReader::new(SqlRow::new(vec![Cell::Null]));
        reader.start_column("coalesce_rule");
        assert_eq!(reader.word(|word| (word == "all").then_some(1), 2), 2);
        let fault = "the store's column coalesce_rule is not understood: null";
        assert_eq!(reader.fault(), Some(fault));
    }
}
