//! Statements about users.

use super::{DatabaseError, ToutiaoDatabase};

/// What is shown of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Id.
    pub id: i64,
    /// Nickname.
    pub name: String,
    /// Key of the portrait.
    pub photo: Option<String>,
    /// Whether this is a media account.
    pub is_media: bool,
    /// A line about the user.
    pub introduction: Option<String>,
    /// What the account is certified as.
    pub certificate: Option<String>,
}

/// A row of `user_basic`, as far as it is read.
type UserColumns = (i64, String, Option<String>, i64, Option<String>, Option<String>);

impl ToutiaoDatabase {
    /// One user.
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

    /// Some users' ids, in order.
    pub async fn user_ids(&self, limit: u32) -> Result<Vec<i64>, DatabaseError> {
        let rows: Vec<(i64,)> =
            sqlx::query_as("select user_id from user_basic order by user_id limit ?")
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}
