//! The values that go into a database and come out of it: integers and text, and nothing else. So every database needs
//! only one way to write and one way to read each column.

use crate::clock::Timestamp;
use crate::store::StoreError;

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqlValue {
    /// A whole number: a count, or an instant in microseconds since the Unix epoch.
    Integer(Option<i64>),
    Text(Option<String>),
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Timestamp> for SqlValue {
    fn from(at: Timestamp) -> Self {
        Self::Integer(Some(at.timestamp_micros()))
    }
}

/// Takes the parameters of a statement, one after the other.
pub(super) trait Bind {
    fn integer(&mut self, number: Option<i64>);

    fn text(&mut self, text: Option<&str>);

    fn instant(&mut self, at: Option<Timestamp>) {
        self.integer(at.map(|at| at.timestamp_micros()));
    }
}

impl Bind for Vec<SqlValue> {
    fn integer(&mut self, number: Option<i64>) {
        self.push(SqlValue::Integer(number));
    }

    fn text(&mut self, text: Option<&str>) {
        // PostgreSQL keeps no NUL in text; what a command wrote may have one, and must not stop the ledger.
        self.push(SqlValue::Text(text.map(|text| text.replace('\0', "\u{fffd}"))));
    }
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    /// A value that this program never writes, such as bytes that are no text, or a fraction: as far as it can be shown.
    Other(String),
}

impl Cell {
    /// Reads a value of a database that does not tell text from bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Other(String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

/// A row, read column by column in the order of the statement.
#[derive(Debug)]
pub(super) struct SqlRow {
    cells: std::vec::IntoIter<Cell>,
}

impl SqlRow {
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self { cells: cells.into_iter() }
    }

    /// The bytes of all texts that have not been read yet.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |cell: &Cell| match cell {
            Cell::Text(text) | Cell::Other(text) => text.len(),
            Cell::Null | Cell::Integer(_) => 0,
        };
        self.cells.as_slice().iter().map(bytes).sum()
    }

    /// The next value, of whatever type. After the last one, it is null.
    pub(super) fn next(&mut self) -> Cell {
        self.cells.next().unwrap_or(Cell::Null)
    }

    fn missing(what: &str) -> StoreError {
        StoreError::Unusable(format!("a column holds no {what} where one is needed"))
    }

    pub(super) fn text_option(&mut self) -> Result<Option<String>, StoreError> {
        match self.cells.next() {
            Some(Cell::Text(text) | Cell::Other(text)) => Ok(Some(text)),
            Some(Cell::Null) => Ok(None),
            Some(Cell::Integer(_)) | None => Err(Self::missing("text")),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.text_option()?.ok_or_else(|| Self::missing("text"))
    }

    pub(super) fn integer_option(&mut self) -> Result<Option<i64>, StoreError> {
        match self.cells.next() {
            Some(Cell::Integer(number)) => Ok(Some(number)),
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(_) | Cell::Other(_)) | None => Err(Self::missing("number")),
        }
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        self.integer_option()?.ok_or_else(|| Self::missing("number"))
    }

    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let number = self.integer()?;
        let refuse = |_| StoreError::Unusable(format!("{number} is not a count"));
        u64::try_from(number).map_err(refuse)
    }

    pub(super) fn instant_option(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let instant = |micros| {
            Timestamp::from_timestamp_micros(micros).ok_or_else(|| {
                StoreError::Unusable(format!("{micros} is not an instant in microseconds"))
            })
        };
        self.integer_option()?.map(instant).transpose()
    }

    pub(super) fn instant(&mut self) -> Result<Timestamp, StoreError> {
        self.instant_option()?.ok_or_else(|| Self::missing("instant"))
    }
}
