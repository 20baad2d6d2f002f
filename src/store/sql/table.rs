//! The description of a table: its name, and one list of columns. Each column says in one place what it is called, what
//! is written to it, and what a value that was read from it means. The texts of statements, their parameters and the
//! reading of rows follow from this list, so they cannot disagree about the order of columns.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dialect::Update;
use super::row_reader::RowReader;
use super::value::Bind;

/// A column of a table whose rows stand for values of the type `T`. A row is read into a draft `D`, from which `T` is made
/// when all columns have been read.
pub(super) struct Column<T, D> {
    pub(super) name: &'static str,
    /// Writes the value of this column.
    pub(super) bind: fn(&T, &mut dyn Bind),
    /// Reads the value of this column into the draft.
    pub(super) read: fn(&mut RowReader, &mut D),
}

/// A list of columns, each as `"name": bind => read;`.
macro_rules! column_list {
    ($($name:literal: $bind:expr => $read:expr;)*) => {
        [$($crate::store::sql::table::Column { name: $name, bind: $bind, read: $read },)*]
    };
}

/// A section of a table: a reference to a [`column_list`].
macro_rules! columns {
    ($($column:tt)*) => { &$crate::store::sql::table::column_list!($($column)*) };
}

pub(super) use {column_list, columns};

/// Columns that are written together.
pub(super) type Section<T, D> = &'static [Column<T, D>];

/// A table.
pub(super) struct SqlTable<T: 'static, D: 'static> {
    pub(super) name: &'static str,
    /// From the columns that never change to those that change most often: an insert writes all sections, an update the
    /// last ones.
    pub(super) sections: &'static [Section<T, D>],
    /// All names in their order, for a `select`.
    select_list: OnceLock<String>,
}

impl<T, D> SqlTable<T, D> {
    pub(super) const fn new(name: &'static str, sections: &'static [Section<T, D>]) -> Self {
        Self { name, sections, select_list: OnceLock::new() }
    }

    /// The columns of all sections from the one of this number on.
    fn columns(&self, first: usize) -> impl Iterator<Item = &'static Column<T, D>> {
        self.sections.iter().skip(first).copied().flatten()
    }

    /// Their names.
    pub(super) fn names(&self, first: usize) -> Vec<&'static str> {
        self.columns(first).map(|column| column.name).collect()
    }

    /// All names, as a `select` lists them.
    pub(super) fn select_list(&self) -> &str {
        self.select_list.get_or_init(|| self.names(0).join(", "))
    }

    /// An update of the columns from a section on, of the row that these keys find.
    pub(super) fn update(&self, first: usize, keys: &'static [&'static str]) -> Update {
        Update { table: self.name, columns: self.names(first), keys, count_up: None, only: None }
    }

    /// The parameters of the columns from a section on.
    pub(super) fn bind(&self, first: usize, row: &T, to: &mut dyn Bind) {
        for column in self.columns(first) {
            (column.bind)(row, to);
        }
    }

    /// Reads all columns.
    pub(super) fn read(&self, reader: &mut RowReader, draft: &mut D) {
        self.sections.iter().for_each(|section| read_section(section, reader, draft));
    }
}

/// Reads the columns of one section.
pub(super) fn read_section<T, D>(section: Section<T, D>, reader: &mut RowReader, draft: &mut D) {
    for column in section {
        reader.start_column(column.name);
        (column.read)(reader, draft);
    }
}

/// A count as the store keeps it.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A value that was read from a row.
#[derive(Debug)]
pub(super) struct DecodedRow<T> {
    pub(super) value: T,
    /// Why no change can find the row: the fault of a column that changes use to find it.
    key_fault: Option<String>,
}

/// Whether a row that no change can find has been logged. The first one is logged as an error, the others as debug lines:
/// they are found again at every reading.
static IS_LOGGED: AtomicBool = AtomicBool::new(false);

impl<T> DecodedRow<T> {
    pub(super) fn new(value: T, reader: &RowReader) -> Self {
        Self { value, key_fault: reader.key_fault().map(str::to_owned) }
    }

    /// The value for the scheduler, which must be able to write the row. A row that no change can find is logged and left
    /// out.
    pub(super) fn writable(self) -> Option<T> {
        let Some(reason) = self.key_fault else { return Some(self.value) };
        if IS_LOGGED.swap(true, Ordering::Relaxed) {
            tracing::debug!(error = %reason, "a row of the store cannot be used, and is left alone");
        } else {
            tracing::error!(error = %reason, "a row of the store cannot be used, and is left alone");
        }
        None
    }
}
