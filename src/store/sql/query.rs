//! Statements that are put together with their parameters.

use super::dialect::Dialect;
use super::value::{SqlRow, SqlValue};

/// A statement with its parameters.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) text: String,
    pub(super) values: Vec<SqlValue>,
    /// Reading ends with the row with which the texts reach this many bytes.
    pub(super) bytes_max: usize,
    dialect: &'static dyn Dialect,
}

impl Query {
    pub(super) fn new(dialect: &'static dyn Dialect, text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new(), bytes_max: usize::MAX, dialect }
    }

    /// Appends text.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a parameter.
    pub(super) fn bind(&mut self, value: impl Into<SqlValue>) -> &mut Self {
        self.values.push(value.into());
        let placeholder = self.dialect.placeholder(self.values.len());
        self.push(&placeholder)
    }

    /// Appends a list of parameters in brackets. An empty list matches nothing.
    pub(super) fn list<'a>(&mut self, items: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.push("(");
        for (number, item) in items.into_iter().enumerate() {
            self.push(if number == 0 { "" } else { ", " }).bind(item);
        }
        if self.text.ends_with('(') {
            self.push("null");
        }
        self.push(")")
    }

    /// Appends `column not in (…)`. An empty list excludes nothing.
    pub(super) fn none_of<'a>(
        &mut self,
        column: &str,
        items: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return self.push("true");
        }
        self.push(column).push(" not in ").list(items)
    }

    /// Ends the reading with the row with which the texts reach this many bytes.
    pub(super) fn bytes_max(&mut self, bytes: usize) -> &mut Self {
        self.bytes_max = bytes;
        self
    }

    /// Appends `limit`.
    pub(super) fn limit(&mut self, limit: usize) -> &mut Self {
        self.push(" limit ").bind(i64::try_from(limit).unwrap_or(i64::MAX))
    }
}

/// A statement that writes, and how many rows it must write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) query: Query,
    /// The number of rows that it must write, if that matters.
    pub(super) rows: Option<u64>,
    /// What someone else has changed, if it does not write them.
    pub(super) conflict: String,
}

impl Write {
    /// A statement that may write any number of rows.
    pub(super) fn any(query: Query) -> Self {
        Self { query, rows: None, conflict: String::new() }
    }

    /// Whether it needs no transaction: of several rows, it may write some and not find the others.
    pub(super) fn is_whole(&self) -> bool {
        self.rows.is_none_or(|rows| rows == 1)
    }
}

/// A connection on which queries are executed. The databases of `dialect` implement it.
pub(super) trait SqlConnection: Send {
    /// Executes a statement, and says how many rows it has written.
    fn execute_query(
        &mut self,
        query: Query,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads rows one after the other, so that no more of them are held than the query wants.
    fn fetch_rows(
        &mut self,
        query: Query,
    ) -> impl Future<Output = Result<Vec<SqlRow>, sqlx::Error>> + Send;

    /// Executes a statement without parameters.
    fn set(
        &mut self,
        setting: &'static str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::dialect::mysql::MySql;
    use crate::store::sql::dialect::postgres::Postgres;

    #[test]
    fn an_empty_list_holds_nothing() {
        let mut query = Query::new(&Postgres, "a in ");
        query.list([]).push(" or b in ").list(["x", "y"]).limit(3);
        assert_eq!(query.text, "a in (null) or b in ($1, $2) limit $3");
        assert_eq!(query.values.len(), 3);
    }

    #[test]
    fn an_empty_list_excludes_nothing() {
        let mut query = Query::new(&MySql, "");
        query.none_of("a", []).push(" and ").none_of("b", ["x", "y"]);
        assert_eq!(query.text, "true and b not in (?, ?)");
    }
}
