//! The demo under crashes: orders do not stay open because a daemon was down, and counters are repaired.

use std::path::Path;

use chrono::TimeDelta;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use punctual::clock::{Clock, SystemClock, Timestamp, rfc3339};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::port::Port;
use support::{Home, run_to_end, text};
use tokio::net::TcpStream;

/// Orders that the demonstration places.
const DEMO_ORDERS: i64 = 6;

/// The configuration of the demonstration, with its API at this port.
fn example(port: &Port) -> (String, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/demo.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    assert!(text.contains("127.0.0.1:8000"));
    (text.replace("127.0.0.1:8000", &address), address)
}

async fn call(address: &str, method: &str, path: &str, body: String) -> Value {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let exchange = async move {
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let (answer, _) = tokio::join!(exchange, connection);
    serde_json::from_slice::<Value>(&answer).unwrap()["data"].take()
}

async fn tables(home: &Home) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(home.path().join("toutiao.db"));
    SqlitePool::connect_with(options).await.unwrap()
}

/// Orders in a status, and of these the ones whose time was up at that instant.
async fn orders(rows: &SqlitePool, status: &str, at: Timestamp) -> (i64, i64) {
    sqlx::query_as(
        "select count(*), count(*) filter (where expires_at <= ?) from orders where status = ?",
    )
    .bind(at.timestamp_micros())
    .bind(status)
    .fetch_one(rows)
    .await
    .unwrap()
}

#[tokio::test]
async fn after_a_crash_no_order_stays_open_beyond_its_time() {
    let port = Port::reserve();
    let (config, address) = example(&port);
    let home = Home::new(&config);
    let daemon = home.start_with(&["--demo"]);
    let client = home.client();
    // However long the crash takes to come, no order expires before it.
    client.pause_all().await.unwrap();
    // One that is due while no daemon runs, by its own job.
    let new = json!({"user_id": 1, "amount": 990, "expires_in_seconds": 1}).to_string();
    let order = call(&address, "POST", "/v1_0/orders", new).await;
    daemon.kill();

    let rows = tables(&home).await;
    assert_eq!(orders(&rows, "pending", SystemClock.now()).await.0, DEMO_ORDERS + 1);
    // The other ones as after a night: their time is up, and their jobs know nothing of it.
    sqlx::query("update orders set expires_at = created_at where id <> ?")
        .bind(order["id"].as_i64().unwrap())
        .execute(&rows)
        .await
        .unwrap();

    let _daemon = home.start();
    client.resume_all().await.unwrap();
    // The clock has passed the order's time when a job that is due just after it runs.
    let mut signal = home.signal("after");
    let expires_at: Timestamp = text(&order, "expires_at").parse().unwrap();
    let after = rfc3339(expires_at + TimeDelta::milliseconds(1));
    let trigger = json!({"type": "date", "run_date": after, "timezone": "UTC"});
    client
        .add(&json!({"id": "after", "trigger": trigger, "task": signal.shell("x")}))
        .await
        .unwrap();
    signal.next().await;
    let own = support::ledger(&client, &format!("order:{}:expire", text(&order, "id_str"))).await;
    let own = support::ended(&client, text(&own[0], "id")).await;
    assert_eq!(text(&own, "state"), "succeeded");
    let shown =
        call(&address, "GET", &format!("/v1_0/orders/{}", text(&order, "id_str")), String::new())
            .await;
    assert_eq!(text(&shown, "status"), "expired");

    let before = SystemClock.now();
    let sweep = run_to_end(&client, "expire-overdue").await;
    assert_eq!(text(&sweep, "state"), "succeeded");
    assert_eq!(orders(&rows, "pending", before).await, (0, 0));
    assert_eq!(orders(&rows, "expired", before).await, (DEMO_ORDERS + 1, DEMO_ORDERS + 1));
    let again = run_to_end(&client, "expire-overdue").await;
    assert_eq!(again["result"]["expired"], 0, "none is expired twice");
}

#[tokio::test]
async fn after_a_crash_the_counters_are_set_right_once_and_for_all() {
    let port = Port::reserve();
    let (config, _) = example(&port);
    let home = Home::new(&config);
    home.start_with(&["--demo"]).kill();
    let daemon = home.start();
    let client = home.client();
    let first = run_to_end(&client, "fix-statistics").await;
    assert_eq!(text(&first, "state"), "succeeded");
    assert!(first["result"]["corrected"].as_i64().unwrap() > 0, "{first}");
    let said = home.ok(&["logs", "fix-statistics"]);
    let corrected = &first["result"]["corrected"];
    assert!(said.trim_end().ends_with(&format!("{corrected} corrected in all")), "{said}");
    let second = run_to_end(&client, "fix-statistics").await;
    assert_eq!(second["result"]["corrected"], 0, "{second}");
    daemon.kill();
    // The sample data is there already: it is neither filled in nor drifted again.
    let _daemon = home.start_with(&["--demo"]);
    let third = run_to_end(&client, "fix-statistics").await;
    assert_eq!(third["result"]["corrected"], 0, "{third}");
}
