//! The statistics against a real Redis: what other readers and writers see while they are repaired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::site::Site;
use super::statistics::{
    Counts, ROWS, SETTLE_SECONDS, TRUTH, assert_nothing_lost_or_doubled, number,
};
use punctual::clock::Clock;
use punctual::task::builtin::TaskError;
use punctual::toutiao::{RedisSettings, ToutiaoSettings, demo};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use serde_json::json;
use support::servers::redis::RedisServer;
use tokio::task::JoinSet;

/// The application on a Redis of its own, and another connection to it.
struct World {
    site: Site,
    server: RedisServer,
    redis: MultiplexedConnection,
}

impl World {
    async fn start() -> Option<Self> {
        let server = RedisServer::start()?;
        let settings = ToutiaoSettings {
            redis: Some(RedisSettings { url: server.url() }),
            ..ToutiaoSettings::default()
        };
        let site = Site::open(settings).await;
        let redis = connect(&server.url()).await;
        Some(Self { site, server, redis })
    }

    /// What is published under a key, as another client of the server sees it.
    async fn published(&mut self, key: &str) -> Counts {
        let flat: Vec<(String, String)> = self.redis.zrange_withscores(key, 0, -1).await.unwrap();
        flat.into_iter().collect()
    }

    /// All eleven are exactly what they count.
    async fn assert_all_equal(&mut self) {
        for (key, statement) in TRUTH {
            assert_eq!(self.published(key).await, self.site.counted(statement).await, "{key}");
        }
    }
}

async fn connect(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn assert_all_there(redis: &mut MultiplexedConnection, stable: &[(&str, String)]) {
    for (key, member) in stable {
        let size: u64 = redis.zcard(*key).await.unwrap();
        let score: Option<i64> = redis.zscore(*key, member).await.unwrap();
        assert!(size > 0 && score.is_some(), "{key} {member}: {size} {score:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_repair_all_eleven_are_equal_and_readings_are_untouched() {
    let Some(mut world) = World::start().await else { return };
    let summary = demo::fill(&world.site.toutiao, world.site.clock.now()).await.unwrap();
    let _: () = world.redis.zadd("", "7", 12).await.unwrap();
    let readings: Vec<(String, String)> =
        world.redis.zrange_withscores("count:art:reading", 0, -1).await.unwrap();
    assert_eq!(readings.len(), summary.articles);

    let result = world.site.fix(0.05).await;
    assert_eq!(result["corrected"].as_u64().unwrap(), u64::try_from(summary.drifted).unwrap());
    world.assert_all_equal().await;
    let after: Vec<(String, String)> =
        world.redis.zrange_withscores("count:art:reading", 0, -1).await.unwrap();
    assert_eq!(after, readings);
    assert_eq!(world.redis.zscore::<_, _, Option<i64>>("", "7").await.unwrap(), Some(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_missing_are_built_and_odd_scores_are_set_right() {
    let Some(mut world) = World::start().await else { return };
    world.site.sql(ROWS).await;
    for (member, score) in
        [("11", "2.5"), ("13", "1"), ("14", "inf"), ("15", "-0"), ("16", "1e300"), ("17", "-inf")]
    {
        let _: () = world.redis.zadd("count:art:liking", member, score).await.unwrap();
    }
    let _: () = world.redis.zadd("count:art:dislike", b"\xff\xfe".as_slice(), 3).await.unwrap();
    let result = world.site.fix(0.0).await;
    world.assert_all_equal().await;
    assert_eq!(number(&result, "article_likes", "corrected"), 5);
    let examples = result["metrics"][4]["examples"].as_array().unwrap();
    assert!(examples.contains(&json!({"member": "11", "from": "2.5", "to": 2})), "{examples:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_a_stable_member_disappear() {
    let Some(mut world) = World::start().await else { return };
    demo::fill(&world.site.toutiao, world.site.clock.now()).await.unwrap();
    // The member of each set that counts most: in the set before, while and after.
    let mut stable = Vec::new();
    for (key, _) in TRUTH {
        let top: Vec<String> = world.redis.zrevrange(key, 0, 0).await.unwrap();
        stable.push((key, top[0].clone()));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut reader = JoinSet::new();
    let (url, stopped) = (world.server.url(), Arc::clone(&stop));
    let (reads, reading) = tokio::sync::oneshot::channel();
    reader.spawn(async move {
        let mut redis = connect(&url).await;
        assert_all_there(&mut redis, &stable).await;
        reads.send(()).unwrap();
        while !stopped.load(Ordering::SeqCst) {
            assert_all_there(&mut redis, &stable).await;
        }
    });
    reading.await.unwrap();
    world.site.fix(0.2).await;
    stop.store(true, Ordering::SeqCst);
    reader.join_all().await;
    world.assert_all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_during_a_repair_are_neither_lost_nor_doubled() {
    let Some(world) = World::start().await else { return };
    world.site.publish_busy_articles().await;
    let world = Arc::new(tokio::sync::RwLock::new(world));
    let busy = Arc::new(AtomicBool::new(true));
    let mut writers = JoinSet::new();
    for writer in 1..=4 {
        let (world, busy) = (Arc::clone(&world), Arc::clone(&busy));
        writers.spawn(async move {
            world.read().await.site.like_articles(writer, || busy.load(Ordering::SeqCst)).await
        });
    }
    world.read().await.site.fix(SETTLE_SECONDS).await;
    busy.store(false, Ordering::SeqCst);
    let late = writers.join_all().await.into_iter().flatten().collect();

    let mut world = world.write().await;
    for (key, statement) in [TRUTH[4], TRUTH[10]] {
        let counted = world.site.counted(statement).await;
        assert_nothing_lost_or_doubled(key, &world.published(key).await, &counted, &late);
    }
    world.site.fix(0.0).await;
    world.assert_all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_repairs_at_once_do_not_correct_twice() {
    let Some(mut world) = World::start().await else { return };
    let summary = demo::fill(&world.site.toutiao, world.site.clock.now()).await.unwrap();
    let (one, other) = tokio::join!(world.site.fix(0.05), world.site.fix(0.05));
    let corrected = one["corrected"].as_u64().unwrap() + other["corrected"].as_u64().unwrap();
    assert_eq!(corrected, u64::try_from(summary.drifted).unwrap());
    world.assert_all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_fails_its_metric_and_no_other() {
    let Some(mut world) = World::start().await else { return };
    world.site.sql(ROWS).await;
    let _: () = world.redis.set("count:art:comm", "text").await.unwrap();
    let error =
        world.site.run("toutiao.fix_statistics", json!({"settle_seconds": 0})).await.unwrap_err();
    assert!(error.to_string().starts_with("article_comments (count:art:comm): redis: "), "{error}");
    let _: () = world.redis.del("count:art:comm").await.unwrap();
    world.site.fix(0.0).await;
    world.assert_all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_fails_every_metric_for_now() {
    let Some(World { site, server, redis }) = World::start().await else { return };
    site.sql(ROWS).await;
    drop((server, redis));
    let error = site.run("toutiao.fix_statistics", json!({})).await.unwrap_err();
    assert!(
        matches!(&error, TaskError::Passing(message) if message.contains("user_liked")),
        "{error:?}"
    );
}
