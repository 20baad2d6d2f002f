//! What each kind of database does in its own way. There is one file for each of them, and everything else asks it through
//! [`Dialect`]; what a database server needs in addition is [`ServerDatabase`](super::server::ServerDatabase).
//!
//! A new database is a file here, a line in `url.rs`, and its migrations.

pub(super) mod mysql;
pub(super) mod postgres;
pub(super) mod sqlite;

use std::fmt::Debug;

use sqlx::error::DatabaseError;

/// What differs in the text of statements, in the schema and in the errors.
///
/// The methods that have a body follow the standard as `SQLite` and `PostgreSQL` understand it.
pub(super) trait Dialect: Debug + Send + Sync {
    /// The migrations in their order, each with its name. Their numbers begin with 1.
    fn migrations(&self) -> &'static [(&'static str, &'static str)];

    /// The question which of these tables exist, where tables would be created. `names` is a list of literals.
    fn existing_tables(&self, names: &str) -> String;

    /// The codes of its errors. A file has none: the connection that writes it has errors of its own kind.
    fn errors(&self) -> &'static ErrorTables {
        const NONE: ErrorCodes = ErrorCodes { states: &[], numbers: &[] };
        &ErrorTables {
            passing: NONE,
            denied: NONE,
            refused_value: NONE,
            whole_server: NONE,
            missing_table: NONE,
        }
    }

    /// The number of an error, if the database has its own numbers in addition to the codes of the standard.
    fn error_number(&self, _error: &dyn DatabaseError) -> Option<u16> {
        None
    }

    /// An error in words for a person.
    fn error_text(&self, error: &dyn DatabaseError) -> String {
        error.message().to_owned()
    }

    /// The placeholder of the parameter of this number, from 1.
    fn placeholder(&self, _number: usize) -> String {
        "?".to_owned()
    }

    /// The type to which a whole number is cast.
    fn integer_type(&self) -> &'static str;

    /// The beginning of a search for a text in a column: the text follows as a parameter, then `)`. The search gives the
    /// place of the text, from 1.
    fn position_in(&self, column: &str) -> String;

    /// The table of the jobs in the query that claims jobs.
    fn claimed_jobs(&self) -> &'static str {
        "jobs"
    }

    /// What follows an insert so that it overwrites these columns where the keys exist already.
    fn on_conflict(&self, keys: &[&str], columns: &[&str]) -> String {
        let set: Vec<String> =
            columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        format!("on conflict ({}) do update set {}", keys.join(", "), set.join(", "))
    }

    /// An update of several rows by one statement. A row's parameters are its columns, then its keys.
    fn update_rows(&self, update: &Update, rows: usize) -> String {
        let JoinedUpdate { names, matching, only } = update.joined();
        let (table, tuples) =
            (update.table, tuples(&|number| self.placeholder(number), names.len(), rows));
        format!(
            "with new ({}) as (values {tuples}) update {table} set {} from new where {matching}{only}",
            names.join(", "),
            update.assignments("")
        )
    }
}

/// Codes of errors: SQLSTATEs, or how they begin, and the numbers of a database that has its own.
#[derive(Debug)]
pub(super) struct ErrorCodes {
    pub(super) states: &'static [&'static str],
    pub(super) numbers: &'static [u16],
}

/// Errors by what they mean for the store.
#[derive(Debug)]
pub(super) struct ErrorTables {
    /// The server cannot be used now: it is starting, stopping, out of connections, memory or disk, takes no writes, or has
    /// a fault of its own.
    pub(super) passing: ErrorCodes,
    /// The user lacks a right.
    pub(super) denied: ErrorCodes,
    /// The database refuses a value, and would refuse it again.
    pub(super) refused_value: ErrorCodes,
    /// The server takes no writes, ends, or cannot be reached by the proxy before it: all connections may be affected.
    pub(super) whole_server: ErrorCodes,
    /// A table does not exist.
    pub(super) missing_table: ErrorCodes,
}

impl dyn Dialect + '_ {
    /// Whether an error is one of these.
    pub(super) fn is_one_of(&self, error: &dyn DatabaseError, codes: &ErrorCodes) -> bool {
        self.error_number(error).is_some_and(|number| codes.numbers.contains(&number))
            || error
                .code()
                .is_some_and(|code| codes.states.iter().any(|start| code.starts_with(start)))
    }

    /// This many placeholders, the first one of this number.
    fn placeholders(&self, first: usize, count: usize) -> String {
        placeholders(&|number| self.placeholder(number), first, count)
    }

    /// Each name with its placeholder, the first one of this number.
    fn pairs(&self, names: &[&str], first: usize) -> Vec<String> {
        let numbered = (first..).zip(names);
        numbered.map(|(number, name)| format!("{name} = {}", self.placeholder(number))).collect()
    }

    /// Inserts rows of these columns.
    pub(super) fn insert(&self, table: &str, columns: &[&str], rows: usize) -> String {
        let tuples = tuples(&|number| self.placeholder(number), columns.len(), rows);
        format!("insert into {table} ({}) values {tuples}", columns.join(", "))
    }

    /// Inserts rows, or overwrites their columns where the keys exist already.
    pub(super) fn upsert(
        &self,
        table: &str,
        keys: &[&str],
        columns: &[&str],
        rows: usize,
    ) -> String {
        self.or_update(&self.insert(table, columns, rows), keys, columns)
    }

    /// Makes an insert of these columns overwrite them where the keys exist already.
    pub(super) fn or_update(&self, insert: &str, keys: &[&str], columns: &[&str]) -> String {
        let others: Vec<&str> =
            columns.iter().copied().filter(|column| !keys.contains(column)).collect();
        format!("{insert} {}", self.on_conflict(keys, &others))
    }

    /// Deletes the row of these keys.
    pub(super) fn delete(&self, table: &str, keys: &[&str]) -> String {
        format!("delete from {table} where {}", self.pairs(keys, 1).join(" and "))
    }

    /// Deletes the rows whose keys are in a list.
    pub(super) fn delete_all(&self, table: &str, key: &str, rows: usize) -> String {
        format!("delete from {table} where {key} in ({})", self.placeholders(1, rows))
    }

    /// Overwrites columns of the rows that have these keys. A row's parameters are its columns, then its keys.
    pub(super) fn update(&self, update: &Update, rows: usize) -> String {
        if rows > 1 {
            return self.update_rows(update, rows);
        }
        let Update { table, columns, keys, .. } = update;
        let set: Vec<String> = self.pairs(columns, 1).into_iter().chain(update.counted()).collect();
        let keys = self.pairs(keys, columns.len() + 1).join(" and ");
        format!("update {table} set {} where {keys}{}", set.join(", "), update.only())
    }
}

fn placeholders(placeholder: &dyn Fn(usize) -> String, first: usize, count: usize) -> String {
    (first..).take(count).map(placeholder).collect::<Vec<_>>().join(", ")
}

/// The values of several rows, each in brackets.
fn tuples(placeholder: &dyn Fn(usize) -> String, columns: usize, rows: usize) -> String {
    let tuple = |row: usize| format!("({})", placeholders(placeholder, row * columns + 1, columns));
    (0..rows).map(tuple).collect::<Vec<_>>().join(", ")
}

/// What an update is made of.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) table: &'static str,
    /// Columns that are written.
    pub(super) columns: Vec<&'static str>,
    /// Columns that find the row.
    pub(super) keys: &'static [&'static str],
    /// A column that counts the writes.
    pub(super) count_up: Option<&'static str>,
    /// A condition on the row in addition to its keys.
    pub(super) only: Option<&'static str>,
}

/// The parts of an update of several rows, which joins the table with the new values.
struct JoinedUpdate {
    /// The columns of the new values. A column may be both written and a key, so the two have prefixes.
    names: Vec<String>,
    /// The condition that a row of the table belongs to a row of new values.
    matching: String,
    only: String,
}

impl Update {
    fn counted(&self) -> Option<String> {
        self.count_up.map(|column| format!("{column} = {}.{column} + 1", self.table))
    }

    fn only(&self) -> String {
        self.only.map(|only| format!(" and {only}")).unwrap_or_default()
    }

    fn joined(&self) -> JoinedUpdate {
        let (columns, keys) = (self.columns.iter(), self.keys.iter());
        let names = columns.map(|column| format!("v_{column}"));
        let matching: Vec<String> =
            keys.clone().map(|key| format!("{}.{key} = new.k_{key}", self.table)).collect();
        JoinedUpdate {
            names: names.chain(keys.map(|key| format!("k_{key}"))).collect(),
            matching: matching.join(" and "),
            only: self.only(),
        }
    }

    /// What is set to the new values, with a prefix before each column.
    fn assignments(&self, prefix: &str) -> String {
        let set = self.columns.iter().map(|column| format!("{prefix}{column} = new.v_{column}"));
        let counted = self.counted().into_iter().map(|counted| format!("{prefix}{counted}"));
        set.chain(counted).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::mysql::MySql;
    use super::postgres::Postgres;
    use super::sqlite::Sqlite;
    use super::*;

    fn update(dialect: &dyn Dialect, rows: usize) -> String {
        let update = Update {
            table: "t",
            columns: vec!["a", "b"],
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
        assert_eq!(update(&Sqlite, 1), plain);
        assert_eq!(update(&MySql, 1), plain);
        assert_eq!(
            update(&Postgres, 1),
            "update t set a = $1, b = $2, n = t.n + 1 where id = $3 and b = $4 and t.state = 'x'"
        );
    }

    #[test]
    fn an_update_of_several_rows_joins_them() {
        assert_eq!(
            update(&Postgres, 2),
            "with new (v_a, v_b, k_id, k_b) as (values ($1, $2, $3, $4), ($5, $6, $7, $8)) update t set \
             a = new.v_a, b = new.v_b, n = t.n + 1 from new where t.id = new.k_id and t.b = new.k_b and t.state = 'x'"
        );
        assert_eq!(
            update(&MySql, 2),
            "update t join (select ? as v_a, ? as v_b, ? as k_id, ? as k_b union all select ?, ?, ?, ?) as new \
             on t.id = new.k_id and t.b = new.k_b set t.a = new.v_a, t.b = new.v_b, t.n = t.n + 1 \
             where true and t.state = 'x'"
        );
    }

    #[test]
    fn an_upsert_overwrites_what_is_no_key() {
        let upsert = |dialect: &dyn Dialect| dialect.upsert("t", &["id"], &["id", "a"], 1);
        assert_eq!(
            upsert(&Sqlite),
            "insert into t (id, a) values (?, ?) on conflict (id) do update set a = excluded.a"
        );
        assert_eq!(
            upsert(&MySql),
            "insert into t (id, a) values (?, ?) on duplicate key update a = values(a)"
        );
    }
}
