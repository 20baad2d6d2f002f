//! Statements on users.

use super::{DatabaseError, ToutiaoDatabase};

/// A user, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: i64,
    pub name: String,
    /// The key of the portrait.
    pub photo: Option<String>,
    pub is_media: bool,
    pub introduction: Option<String>,
    pub certificate: Option<String>,
}

/// The columns of `user_basic` that are read.
type UserColumns = (i64, String, Option<String>, i64, Option<String>, Option<String>);

impl ToutiaoDatabase {
    pub async fn user(&self, id: i64) -> Result<Option<User>, DatabaseError> {
        let row: Option<UserColumns> = sqlx::query_as(
            "select user_id, user_name, profile_photo, is_media, introduction, certificate \
             from user_basic where user_id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(id, name, photo, is_media, introduction, certificate)| User {
            id,
            name,
            photo,
            is_media: is_media != 0,
            introduction,
            certificate,
        }))
    }

    /// The lowest ids of users, in order.
    pub async fn user_ids(&self, limit: u32) -> Result<Vec<i64>, DatabaseError> {
        let rows: Vec<(i64,)> =
            sqlx::query_as("select user_id from user_basic order by user_id limit ?")
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}
