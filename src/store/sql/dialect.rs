//! What differs between the databases in the text of a statement, and nothing more.

use super::value::SqlValue;

/// How a database wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

impl Dialect {
    /// The placeholder of the parameter of that number, from 1.
    pub(super) fn placeholder(self, number: usize) -> String {
        match self {
            Self::Sqlite | Self::MySql => "?".to_owned(),
            Self::Postgres => format!("${number}"),
        }
    }

    /// This many placeholders after the first `before`.
    fn placeholders(self, before: usize, count: usize) -> String {
        let list: Vec<String> =
            (1..=count).map(|number| self.placeholder(before + number)).collect();
        list.join(", ")
    }

    /// Inserts rows of these columns.
    pub(super) fn insert(self, table: &str, columns: &[&str], rows: usize) -> String {
        let names = columns.join(", ");
        format!("insert into {table} ({names}) values {}", self.tuples(columns.len(), rows))
    }

    /// Inserts rows, or overwrites their columns where the key exists already.
    pub(super) fn upsert(
        self,
        table: &str,
        keys: &[&str],
        columns: &[&str],
        rows: usize,
    ) -> String {
        self.or_update(&self.insert(table, columns, rows), keys, columns)
    }

    /// Makes an insert of these columns overwrite them where the key exists already.
    pub(super) fn or_update(self, insert: &str, keys: &[&str], columns: &[&str]) -> String {
        let others = columns.iter().filter(|column| !keys.contains(column));
        let set = |value: fn(&str) -> String| {
            others.map(|column| format!("{column} = {}", value(column))).collect::<Vec<_>>()
        };
        match self {
            Self::Sqlite | Self::Postgres => {
                let set = set(|column| format!("excluded.{column}")).join(", ");
                format!("{insert} on conflict ({}) do update set {set}", keys.join(", "))
            }
            Self::MySql => {
                let set = set(|column| format!("values({column})")).join(", ");
                format!("{insert} on duplicate key update {set}")
            }
        }
    }

    /// Deletes the row of these keys.
    pub(super) fn delete(self, table: &str, keys: &[&str]) -> String {
        format!("delete from {table} where {}", self.pairs(keys, 0).join(" and "))
    }

    /// Deletes the rows of these keys.
    pub(super) fn delete_all(self, table: &str, key: &str, rows: usize) -> String {
        format!("delete from {table} where {key} in ({})", self.placeholders(0, rows))
    }

    /// Each name with its placeholder, after the first `before`.
    fn pairs(self, names: &[&str], before: usize) -> Vec<String> {
        let numbered = (before + 1..).zip(names);
        numbered.map(|(number, name)| format!("{name} = {}", self.placeholder(number))).collect()
    }

    fn tuples(self, columns: usize, rows: usize) -> String {
        let tuple = |row: usize| format!("({})", self.placeholders(row * columns, columns));
        (0..rows).map(tuple).collect::<Vec<_>>().join(", ")
    }

    /// Overwrites columns of the rows that have these keys. A row's parameters are its columns, then its keys.
    pub(super) fn update(self, update: &Update<'_>, rows: usize) -> String {
        let Update { table, columns, keys, count_up, only } = update;
        let counted = count_up.map(|column| format!("{column} = {table}.{column} + 1"));
        let only = only.map(|only| format!(" and {only}")).unwrap_or_default();
        if rows == 1 {
            let set: Vec<String> = self.pairs(columns, 0).into_iter().chain(counted).collect();
            let keys = self.pairs(keys, columns.len()).join(" and ");
            return format!("update {table} set {} where {keys}{only}", set.join(", "));
        }
        // Two names may be the same column: its value and its key.
        let values = columns.iter().map(|column| format!("v_{column}"));
        let names: Vec<String> = values.chain(keys.iter().map(|key| format!("k_{key}"))).collect();
        let matching: Vec<String> =
            keys.iter().map(|key| format!("{table}.{key} = new.k_{key}")).collect();
        let matching = matching.join(" and ");
        let set = |prefix: &str| {
            let set = columns.iter().map(|column| format!("{prefix}{column} = new.v_{column}"));
            let counted = counted.iter().map(|counted| format!("{prefix}{counted}"));
            set.chain(counted).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Sqlite | Self::Postgres => {
                let tuples = self.tuples(names.len(), rows);
                format!(
                    "with new ({}) as (values {tuples}) update {table} set {} from new where {matching}{only}",
                    names.join(", "),
                    set("")
                )
            }
            Self::MySql => {
                let first: Vec<String> = names.iter().map(|name| format!("? as {name}")).collect();
                let more = format!(" union all select {}", self.placeholders(0, names.len()));
                format!(
                    "update {table} join (select {}{}) as new on {matching} set {} where true{only}",
                    first.join(", "),
                    more.repeat(rows - 1),
                    set(&format!("{table}."))
                )
            }
        }
    }
}

/// What an update is made of.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub(super) table: &'a str,
    /// Columns that are written.
    pub(super) columns: &'a [&'a str],
    /// Columns that tell which row it is.
    pub(super) keys: &'a [&'a str],
    /// A column that counts the writes.
    pub(super) count_up: Option<&'a str>,
    /// What must hold of the row beside its keys.
    pub(super) only: Option<&'a str>,
}

/// A statement that is put together, with its parameters.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) text: String,
    pub(super) values: Vec<SqlValue>,
    /// The row with which the texts reach this many bytes is the last one that is read.
    pub(super) bytes_max: usize,
    dialect: Dialect,
}

impl Query {
    pub(super) fn new(dialect: Dialect, text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new(), bytes_max: usize::MAX, dialect }
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a parameter.
    pub(super) fn bind(&mut self, value: impl Into<SqlValue>) -> &mut Self {
        self.values.push(value.into());
        let placeholder = self.dialect.placeholder(self.values.len());
        self.push(&placeholder)
    }

    /// Adds a list of parameters in brackets. An empty one is a list that nothing is in.
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

    /// Adds that a column is none of these; of none at all, every one is.
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

    /// Ends the list of rows after this many.
    pub(super) fn limit(&mut self, limit: usize) -> &mut Self {
        self.push(" limit ").bind(i64::try_from(limit).unwrap_or(i64::MAX))
    }
}

/// A statement that writes, and what it must have done.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) query: Query,
    /// Rows that it must have written, if that matters.
    pub(super) rows: Option<u64>,
    /// What was changed by someone else if it did not.
    pub(super) conflict: String,
}

impl Write {
    /// Whether it can be told without a transaction: of several rows some may be there and some not.
    pub(super) fn is_whole(&self) -> bool {
        self.rows.is_none_or(|rows| rows == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(dialect: Dialect, rows: usize) -> String {
        let update = Update {
            table: "t",
            columns: &["a", "b"],
            keys: &["id", "b"],
            count_up: Some("n"),
            only: Some("t.state = 'x'"),
        };
        dialect.update(&update, rows)
    }

    #[test]
    fn an_update_of_one_row_is_plain_in_every_dialect() {
        let plain =
            "update t set a = ?, b = ?, n = t.n + 1 where id = ? and b = ? and t.state = 'x'";
        assert_eq!(update(Dialect::Sqlite, 1), plain);
        assert_eq!(update(Dialect::MySql, 1), plain);
        assert_eq!(
            update(Dialect::Postgres, 1),
            "update t set a = $1, b = $2, n = t.n + 1 where id = $3 and b = $4 and t.state = 'x'"
        );
    }

    #[test]
    fn an_update_of_several_rows_joins_them() {
        assert_eq!(
            update(Dialect::Postgres, 2),
            "with new (v_a, v_b, k_id, k_b) as (values ($1, $2, $3, $4), ($5, $6, $7, $8)) update t set \
             a = new.v_a, b = new.v_b, n = t.n + 1 from new where t.id = new.k_id and t.b = new.k_b and t.state = 'x'"
        );
        assert_eq!(
            update(Dialect::MySql, 2),
            "update t join (select ? as v_a, ? as v_b, ? as k_id, ? as k_b union all select ?, ?, ?, ?) as new \
             on t.id = new.k_id and t.b = new.k_b set t.a = new.v_a, t.b = new.v_b, t.n = t.n + 1 \
             where true and t.state = 'x'"
        );
    }

    #[test]
    fn an_empty_list_holds_nothing() {
        let mut query = Query::new(Dialect::Postgres, "a in ");
        query.list([]).push(" or b in ").list(["x", "y"]).limit(3);
        assert_eq!(query.text, "a in (null) or b in ($1, $2) limit $3");
        assert_eq!(query.values.len(), 3);
    }

    #[test]
    fn everything_is_none_of_nothing() {
        let mut query = Query::new(Dialect::MySql, "");
        query.none_of("a", []).push(" and ").none_of("b", ["x", "y"]);
        assert_eq!(query.text, "true and b not in (?, ?)");
    }
}
