//! Users over HTTP: the row of the table, with the user's counters.

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::get;
use serde_json::json;

use super::ApiState;
use super::arguments::RequestArguments;
use super::response::{DataResponse, ToutiaoApiError};
use crate::toutiao::Toutiao;
use crate::toutiao::counters::{CounterError, Member, Score};
use crate::toutiao::metric::Metric;

pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/v1_0/user", get(show))
}

async fn show(State(state): State<ApiState>, uri: Uri) -> Result<DataResponse, ToutiaoApiError> {
    let mut arguments = RequestArguments::from_query(&uri)?;
    let id = arguments.whole("user_id", 1..=i64::MAX)?;
    arguments.finish()?;
    let Some(user) = state.toutiao.database().await?.user(id).await? else {
        return Err(ToutiaoApiError::not_found("The user does not exist."));
    };
    let count = async |metric| count(&state.toutiao, metric, id).await;
    Ok(DataResponse::ok(json!({
        "id": user.id,
        "name": user.name,
        "photo": user.photo,
        "is_media": user.is_media,
        "intro": user.introduction,
        "certi": user.certificate,
        "art_count": count(Metric::UserArticles).await?,
        "follow_count": count(Metric::UserFollowings).await?,
        "fans_count": count(Metric::UserFollowers).await?,
        "like_count": count(Metric::UserLiked).await?,
    })))
}

async fn count(toutiao: &Toutiao, metric: Metric, id: i64) -> Result<i64, CounterError> {
    let counters = toutiao.counters().await?;
    let scores = counters.scores(toutiao.settings().key(metric), &[Member::from(id)]).await?;
    Ok(scores.first().and_then(Option::as_ref).map_or(0, Score::shown))
}
