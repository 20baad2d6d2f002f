//! Fills empty tables with the rows of the demonstration: with all of them or, after a crash, with none.

use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite};

use super::{BEGIN, CHUNK_ROWS, DatabaseError, ToutiaoDatabase};

/// Rows of one table.
#[derive(Debug)]
pub struct SeedTable {
    pub table: &'static str,
    /// The columns, separated by commas.
    pub columns: &'static str,
    /// The values of each row, in the order of the columns.
    pub rows: Vec<Vec<SeedValue>>,
}

impl SeedTable {
    /// The statement that inserts these rows of the table.
    fn insert(&self, rows: &[Vec<SeedValue>]) -> QueryBuilder<Sqlite> {
        let head = format!("insert into {} ({}) ", self.table, self.columns);
        let mut query = QueryBuilder::new(head);
        query.push_values(rows, |mut row, values| {
            for value in values {
                value.bind(&mut row);
            }
        });
        query
    }
}

/// A value of a row.
#[derive(Debug, Clone)]
pub enum SeedValue {
    Integer(i64),
    Text(String),
    Null,
}

impl SeedValue {
    fn bind(&self, row: &mut Separated<'_, Sqlite, &'static str>) {
        match self {
            Self::Integer(number) => row.push_bind(*number),
            Self::Text(text) => row.push_bind(text.clone()),
            Self::Null => row.push_bind(None::<i64>),
        };
    }
}

impl From<i64> for SeedValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<String> for SeedValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for SeedValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToutiaoDatabase {
    /// Writes all rows in one transaction if there is no user yet. Returns whether it did.
    pub async fn seed(&self, tables: &[&SeedTable]) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        let users: Option<(i64,)> = sqlx::query_as("select user_id from user_basic limit 1")
            .fetch_optional(&mut *transaction)
            .await?;
        if users.is_some() {
            return Ok(false);
        }
        for table in tables {
            for chunk in table.rows.chunks(CHUNK_ROWS) {
                table.insert(chunk).build().execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(true)
    }
}
