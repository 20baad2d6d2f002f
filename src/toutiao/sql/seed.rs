//! Fills empty tables with the rows of the demonstration: with all of them or, after a crash, with none.

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

/// A value of a row.
#[derive(Debug, Clone)]
pub enum SeedValue {
    Integer(i64),
    Text(String),
    Null,
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
        for SeedTable { table, columns, rows } in tables {
            for chunk in rows.chunks(CHUNK_ROWS) {
                let head = format!("insert into {table} ({columns}) ");
                let mut query = QueryBuilder::<Sqlite>::new(head);
                query.push_values(chunk, |mut row, values| {
                    for value in values {
                        match value {
                            SeedValue::Integer(number) => row.push_bind(*number),
                            SeedValue::Text(text) => row.push_bind(text.as_str()),
                            SeedValue::Null => row.push_bind(None::<i64>),
                        };
                    }
                });
                query.build().execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(true)
    }
}
