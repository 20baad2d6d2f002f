//! The application with its embedded database and counters: statistics and orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::site::Site;
use super::statistics::{
    Counts, ROWS, SETTLE_SECONDS, TRUTH, assert_nothing_lost_or_doubled, number,
};
use chrono::TimeDelta;
use punctual::clock::{Clock, SystemClock};
use punctual::task::builtin::{Registry, TaskError};
use punctual::task::context::{Context, Ending};
use punctual::toutiao::orders::{Order, OrderStatus};
use punctual::toutiao::{Toutiao, ToutiaoSettings, demo};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What is published under a key.
async fn published(site: &Site, key: &str) -> Counts {
    let mut all = Counts::new();
    let mut cursor = None;
    loop {
        let page = site.counters().await.page(key, cursor.as_ref()).await.unwrap();
        all.extend(page.entries.iter().map(|(id, score)| (id.to_string(), score.to_string())));
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// All eleven are exactly what they count.
async fn assert_all_equal(site: &Site) {
    for (key, statement) in TRUTH {
        assert_eq!(published(site, key).await, site.counted(statement).await, "{key}");
    }
}

fn advance(site: &Site, by: TimeDelta) {
    site.clock.0.fetch_add(by.num_microseconds().unwrap(), Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demonstration_has_drifted_and_one_repair_makes_every_metric_equal() {
    let site = Site::open(ToutiaoSettings::default()).await;
    let summary = demo::fill(&site.toutiao, site.clock.now()).await.unwrap();
    assert!(summary.filled && summary.users > 1_000 && summary.drifted > 11 * 20, "{summary:?}");
    for (key, statement) in TRUTH {
        assert_ne!(published(&site, key).await, site.counted(statement).await, "{key} has drifted");
    }
    let readings = published(&site, "count:art:reading").await;
    assert_eq!(readings.len(), summary.articles);

    let first = site.fix(0.05).await;
    assert_eq!(first["corrected"].as_u64().unwrap(), u64::try_from(summary.drifted).unwrap());
    assert_all_equal(&site).await;
    assert_eq!(published(&site, "count:art:reading").await, readings, "readings are not repaired");

    assert_eq!(site.fix(0.05).await["corrected"], 0, "what is right is left alone");
    let again = demo::fill(&site.toutiao, site.clock.now()).await.unwrap();
    assert!(!again.filled, "a demonstration never touches tables that are in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_of_every_kind_is_corrected_and_reported() {
    let site = Site::open(ToutiaoSettings::default()).await;
    site.sql(ROWS).await;
    let key = "count:art:liking";
    for (member, by) in
        [("11", 7), ("12", 0), ("13", -1), ("404", 3), ("-5", 2), ("not an id", 1), ("011", 2)]
    {
        site.add(key, member, by).await;
    }
    let result = site.fix(0.05).await;
    assert_all_equal(&site).await;
    assert_eq!(
        published(&site, key).await,
        [("11", "2"), ("13", "1")].map(|(m, c)| (m.to_owned(), c.to_owned())).into()
    );

    let likes = &result["metrics"][4];
    assert_eq!(likes["metric"], "article_likes");
    assert_eq!(likes["key"], key);
    assert_eq!(number(&result, "article_likes", "members"), 2);
    assert_eq!(number(&result, "article_likes", "corrected"), 7);
    assert_eq!(number(&result, "article_likes", "unsettled"), 0);
    let examples = likes["examples"].as_array().unwrap();
    assert!(examples.contains(&json!({"member": "11", "from": 7, "to": 2})), "{examples:?}");
    assert!(examples.contains(&json!({"member": "not an id", "from": 1, "to": 0})), "{examples:?}");
    let articles = &result["metrics"][0]["examples"];
    assert_eq!(*articles, json!([{"member": "1", "from": null, "to": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_reports_in_words_what_it_changed() {
    let site = Site::open(ToutiaoSettings::default()).await;
    site.sql(ROWS).await;
    let context = Arc::new(Context::default());
    let args = json!({"settle_seconds": 0});
    let repair = site.start("toutiao.fix_statistics", &args, Arc::clone(&context));
    repair.await.unwrap().unwrap();
    let said = context.log.close(SystemClock.now()).text();
    assert!(
        said.contains("user_articles (count:user:arts): 1 members, 1 corrected\n  1 absent → 2\n"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_cancelled_ends_at_once_and_the_next_one_does_its_work() {
    let site = Site::open(ToutiaoSettings::default()).await;
    site.sql(ROWS).await;
    let context = Arc::new(Context::default());
    let args = json!({"settle_seconds": 60});
    let repair = site.start("toutiao.fix_statistics", &args, Arc::clone(&context));
    context.cancellation.cancel(Ending::Cancelled("not now".to_owned()));
    assert_eq!(repair.await.unwrap(), Err(TaskError::Cancelled));
    site.fix(0.0).await;
    assert_all_equal(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_can_be_called_differently() {
    let keys = [("user_followers".to_owned(), "count:user:fans".to_owned())].into();
    let site = Site::open(ToutiaoSettings { keys, ..ToutiaoSettings::default() }).await;
    site.sql(ROWS).await;
    site.fix(0.0).await;
    assert_eq!(
        published(&site, "count:user:fans").await,
        [("1".to_owned(), "2".to_owned())].into()
    );
    assert!(published(&site, "count:user:followers").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_during_a_repair_are_neither_lost_nor_doubled() {
    let site = Arc::new(Site::open(ToutiaoSettings::default()).await);
    site.publish_busy_articles().await;
    let busy = Arc::new(AtomicBool::new(true));
    let mut writers = JoinSet::new();
    for writer in 1..=4 {
        let (site, busy) = (Arc::clone(&site), Arc::clone(&busy));
        writers
            .spawn(async move { site.like_articles(writer, || busy.load(Ordering::SeqCst)).await });
    }
    site.fix(SETTLE_SECONDS).await;
    busy.store(false, Ordering::SeqCst);
    let late = writers.join_all().await.into_iter().flatten().collect();

    for (key, statement) in [TRUTH[4], TRUTH[10]] {
        let counted = site.counted(statement).await;
        assert_nothing_lost_or_doubled(key, &published(&site, key).await, &counted, &late);
    }
    site.fix(0.0).await;
    assert_all_equal(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_fails_does_not_stop_the_others() {
    let site = Site::open(ToutiaoSettings::default()).await;
    site.sql(ROWS).await;
    site.sql("drop table news_comment_liking").await;
    let error = site.run("toutiao.fix_statistics", json!({"settle_seconds": 0})).await.unwrap_err();
    let TaskError::Passing(message) = error else { panic!("{error:?}") };
    assert!(message.starts_with("comment_likes (count:comm:liking): "), "{message}");
    for (key, statement) in TRUTH.into_iter().filter(|(key, _)| *key != "count:comm:liking") {
        assert_eq!(published(&site, key).await, site.counted(statement).await, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_checked_and_nothing_is_opened_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let toutiao =
        Toutiao::new(ToutiaoSettings::default(), directory.path(), Arc::new(SystemClock)).unwrap();
    let mut registry = Registry::default();
    toutiao.register(&mut registry, &tokio::runtime::Handle::current());
    assert_eq!(
        registry.names(),
        ["orders.expire", "orders.expire_overdue", "toutiao.fix_statistics"]
    );
    let cases = [
        ("orders.expire", json!({"order_id": 42}), ""),
        ("orders.expire", json!({"order_id": "42"}), ""),
        ("orders.expire", json!({}), "args.order_id"),
        ("orders.expire", json!({"order_id": 4.5}), "args.order_id"),
        ("orders.expire", json!({"order_id": "x"}), "args.order_id"),
        ("orders.expire", json!({"order_id": 0}), "args.order_id"),
        ("orders.expire", json!({"order_id": 1, "order": 2}), "args.order"),
        ("orders.expire_overdue", json!({}), ""),
        ("orders.expire_overdue", json!({"limit": 1}), "args.limit"),
        ("toutiao.fix_statistics", json!({"settle_seconds": 0.5}), ""),
        ("toutiao.fix_statistics", json!({"settle_seconds": -1}), "args.settle_seconds"),
        ("toutiao.fix_statistics", json!({"settle_seconds": "1"}), "args.settle_seconds"),
        ("toutiao.fix_statistics", json!({"settle": 1}), "args.settle"),
    ];
    for (name, args, field) in cases {
        let checked = registry.check(name, args.as_object().unwrap());
        assert_eq!(
            checked.err().map(|invalid| invalid.field).unwrap_or_default(),
            field,
            "{name} {args}"
        );
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_open_new_files_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut opening = JoinSet::new();
    for worker_id in 0..8 {
        let state = directory.path().join("state");
        let settings = ToutiaoSettings { worker_id, ..ToutiaoSettings::default() };
        opening.spawn(async move { Toutiao::open(settings, &state, Arc::new(SystemClock)).await });
    }
    for opened in opening.join_all().await {
        opened.unwrap();
    }
}

async fn insert_orders(
    site: &Site,
    ids: std::ops::Range<i64>,
    status: OrderStatus,
    expires_in: TimeDelta,
) {
    let now = site.clock.now();
    for id in ids {
        let order = Order {
            id,
            user_id: 1,
            amount: 990,
            status,
            created_at: now,
            expires_at: now + expires_in,
            paid_at: None,
        };
        site.toutiao.database().await.unwrap().insert_order(&order).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_expires_when_its_time_is_up_and_not_before() {
    let site = Site::open(ToutiaoSettings::default()).await;
    insert_orders(&site, 42..43, OrderStatus::Pending, TimeDelta::minutes(30)).await;
    insert_orders(&site, 43..44, OrderStatus::Paid, TimeDelta::minutes(30)).await;
    let expire = |id: Value| site.run("orders.expire", json!({"order_id": id}));
    let answer = |id: &str, expired: bool, status: &str| json!({"order_id": id, "expired": expired, "status": status});

    advance(&site, TimeDelta::minutes(30) - TimeDelta::microseconds(1));
    assert_eq!(expire(json!("42")).await.unwrap(), answer("42", false, "pending"));
    advance(&site, TimeDelta::microseconds(1));
    assert_eq!(expire(json!("42")).await.unwrap(), answer("42", true, "expired"));
    assert_eq!(
        expire(json!(42)).await.unwrap(),
        answer("42", false, "expired"),
        "a second attempt changes nothing"
    );
    assert_eq!(expire(json!("43")).await.unwrap(), answer("43", false, "paid"));
    assert_eq!(expire(json!("44")).await.unwrap(), answer("44", false, "unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_payment_and_expiry_exactly_one_wins() {
    let site = Site::open(ToutiaoSettings::default()).await;
    insert_orders(&site, 1..41, OrderStatus::Pending, TimeDelta::minutes(30)).await;
    // Two machines whose clocks differ: for one there is still time, for the other there is not.
    let early = site.clock.now();
    let late = early + TimeDelta::minutes(30);
    let mut wins = JoinSet::new();
    for id in 1..41 {
        let database = site.toutiao.database().await.unwrap().clone();
        let other = database.clone();
        wins.spawn(async move { (id, "paid", database.pay_order(id, early).await.unwrap()) });
        wins.spawn(async move { (id, "expired", other.expire_order(id, late).await.unwrap()) });
    }
    let mut won: Vec<_> = wins.join_all().await.into_iter().filter(|(_, _, won)| *won).collect();
    won.sort_unstable();
    assert_eq!(won.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), (1..41).collect::<Vec<_>>());
    for (id, status, _) in won {
        let order = site.toutiao.database().await.unwrap().order(id).await.unwrap().unwrap();
        assert_eq!(order.status.word(), status);
        assert_eq!(order.paid_at.is_some(), status == "paid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_expires_all_that_is_overdue_and_nothing_else() {
    let site = Site::open(ToutiaoSettings::default()).await;
    site.sql(
        "insert into orders (id, user_id, amount, status, created_at, expires_at)
         with recursive n (i) as (select 1 union all select i + 1 from n where i < 1203)
         select i, 1, 100, 'pending', 0, i from n",
    )
    .await;
    insert_orders(&site, 5_000..5_001, OrderStatus::Pending, TimeDelta::minutes(1)).await;
    insert_orders(&site, 5_001..5_002, OrderStatus::Paid, TimeDelta::minutes(-1)).await;

    let swept = site.run("orders.expire_overdue", json!({})).await.unwrap();
    assert_eq!(swept["expired"], 1_203);
    assert_eq!(swept["order_ids"].as_array().unwrap().len(), 100, "a result is bounded");
    assert_eq!(swept["complete"], false);
    let left = site.counted("select id, id from orders where status <> 'expired'").await;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["5000", "5001"]);

    advance(&site, TimeDelta::minutes(1));
    let swept = site.run("orders.expire_overdue", json!({})).await.unwrap();
    assert_eq!(swept, json!({"expired": 1, "order_ids": ["5000"], "complete": true}));
}
