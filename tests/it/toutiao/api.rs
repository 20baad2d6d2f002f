//! The HTTP API, over real sockets, with a control socket that only records its requests.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::site::Site;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use axum::{Json, Router};
use chrono::TimeDelta;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use punctual::client::Client;
use punctual::toutiao::counters::Member;
use punctual::toutiao::orders::OrderStatus;
use punctual::toutiao::{ToutiaoSettings, api, demo};
use serde_json::{Value, json};
use sqlx::sqlite::SqlitePool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The control socket, in a directory of its own.
const SOCKET: &str = "punctual.sock";

/// What was asked of the scheduler: the verb, and the job with the orders that there were then.
type Asked = Arc<Mutex<Vec<(&'static str, Value, i64)>>>;

/// The API and the scheduler that it talks to.
struct World {
    site: Site,
    address: SocketAddr,
    client: Client,
    asked: Asked,
    tasks: JoinSet<()>,
    stop: oneshot::Sender<()>,
    _directory: tempfile::TempDir,
}

impl World {
    /// With a scheduler that takes every job.
    async fn start() -> Self {
        let site = Site::open(ToutiaoSettings::default()).await;
        let asked = Asked::default();
        let directory = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let router = Router::new()
            .route("/v1/jobs", post(note_add))
            .route("/v1/jobs/{id}", delete(note_removal))
            .with_state((Arc::clone(&asked), site.rows.clone()));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self::start_api(site, directory, asked, tasks).await
    }

    /// With no scheduler at all.
    async fn start_alone() -> Self {
        let site = Site::open(ToutiaoSettings::default()).await;
        Self::start_api(site, tempfile::tempdir().unwrap(), Asked::default(), JoinSet::new()).await
    }

    async fn start_api(
        site: Site,
        directory: tempfile::TempDir,
        asked: Asked,
        mut tasks: JoinSet<()>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client::new(directory.path().join(SOCKET));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        tasks.spawn(api::serve(listener, site.toutiao.clone(), client.clone(), shutdown));
        Self { site, address, client, asked, tasks, stop, _directory: directory }
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        let exchange = async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        let (answer, _) = tokio::join!(exchange, connection);
        (answer.0, serde_json::from_slice(&answer.1).unwrap_or(Value::Null))
    }

    fn advance(&self, by: TimeDelta) {
        self.site.clock.0.fetch_add(by.num_microseconds().unwrap(), Ordering::SeqCst);
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, "").await
    }

    async fn order(&self, body: Value) -> Value {
        let (status, answer) = self.call("POST", "/v1_0/orders", body.to_string()).await;
        assert_eq!((status, &answer["message"]), (201, &json!("OK")), "{answer}");
        answer["data"].clone()
    }

    async fn pay(&self, id: &Value) -> (u16, Value) {
        self.call("POST", &format!("/v1_0/orders/{id}/pay"), "").await
    }

    fn asked(&self) -> Vec<(&'static str, Value, i64)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn orders(rows: &SqlitePool) -> i64 {
    let counted: Result<(i64,), _> =
        sqlx::query_as("select count(*) from orders").fetch_one(rows).await;
    counted.map_or(-1, |(count,)| count)
}

async fn note_add(
    State((asked, rows)): State<(Asked, SqlitePool)>,
    Json(job): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let orders = orders(&rows).await;
    asked.lock().unwrap().push(("add", job.clone(), orders));
    (StatusCode::CREATED, Json(job))
}

async fn note_removal(
    State((asked, rows)): State<(Asked, SqlitePool)>,
    Path(id): Path<String>,
) -> (StatusCode, Json<Value>) {
    let orders = orders(&rows).await;
    asked.lock().unwrap().push(("remove", json!(id), orders));
    (StatusCode::NOT_FOUND, Json(json!({"error": {"code": "not_found", "message": "no such job"}})))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_registers_its_job_first_and_paying_removes_it() {
    let world = World::start().await;
    let order = world.order(json!({"user_id": 7, "amount": 1990})).await;
    let id = &order["id"];
    assert!(id.as_i64().unwrap() > 1 << 53);
    let expect = json!({
        "id": id, "id_str": id.to_string(), "user_id": 7, "amount": 1990, "status": "pending",
        "created_at": "2027-01-15T08:00:00.000000Z", "expires_at": "2027-01-15T08:30:00.000000Z", "paid_at": null,
    });
    assert_eq!(order, expect);
    let job = json!({
        "id": format!("order:{id}:expire"),
        "trigger": {"type": "date", "run_date": "2027-01-15T08:30:00.000000Z", "timezone": "UTC"},
        "task": {"type": "builtin", "name": "orders.expire", "args": {"order_id": id.to_string()}},
        "tags": ["orders"],
    });
    assert_eq!(world.asked(), [("add", job, 0)], "the job is there before the order");

    world.advance(TimeDelta::minutes(1));
    let (status, paid) = world.pay(id).await;
    assert_eq!((status, &paid["data"]["status"]), (200, &json!("paid")));
    assert_eq!(paid["data"]["paid_at"], "2027-01-15T08:01:00.000000Z");
    assert_eq!(
        world.asked()[1..],
        [("remove", json!(format!("order:{id}:expire")), 1)],
        "an unknown job is no matter"
    );
    assert_eq!(world.get(&format!("/v1_0/orders/{id}")).await, (200, paid));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_written_takes_its_job_back() {
    let world = World::start().await;
    world.site.sql("drop table orders").await;
    let (status, answer) =
        world.call("POST", "/v1_0/orders", r#"{"user_id": 1, "amount": 1}"#).await;
    assert_eq!(status, 503, "{answer}");
    let verbs: Vec<_> = world.asked().into_iter().map(|(verb, _, _)| verb).collect();
    assert_eq!(verbs, ["add", "remove"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_scheduler_orders_are_accepted_and_the_sweep_expires_them() {
    let world = World::start_alone().await;
    let order = world.order(json!({"user_id": 7, "amount": 1, "expires_in_seconds": 60})).await;
    assert_eq!(order["expires_at"], "2027-01-15T08:01:00.000000Z");
    world.advance(TimeDelta::seconds(60));
    let (status, answer) = world.pay(&order["id"]).await;
    assert_eq!((status, answer), (409, json!({"message": "The order has expired."})));
    world.site.run("orders.expire_overdue", json!({})).await.unwrap();
    let (_, shown) = world.get(&format!("/v1_0/orders/{}", order["id"])).await;
    assert_eq!(shown["data"]["status"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_comes_too_late_is_refused_with_the_reason() {
    let world = World::start_alone().await;
    let order = world.order(json!({"user_id": 7, "amount": 1})).await;
    let id = &order["id"];
    assert_eq!(world.pay(id).await.0, 200);
    assert_eq!(world.pay(id).await, (409, json!({"message": "The order is already paid."})));
    world.site.sql("update orders set status = 'cancelled'").await;
    assert_eq!(world.pay(id).await, (409, json!({"message": "The order is cancelled."})));
    assert_eq!(world.pay(&json!(5)).await, (404, json!({"message": "The order does not exist."})));
    assert_eq!(world.get("/v1_0/orders/5").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_the_argument_named() {
    let world = World::start().await;
    let cases = [
        (r#"{"amount": 1}"#, "user_id"),
        (r#"{"user_id": "1", "amount": 1}"#, "user_id"),
        (r#"{"user_id": 0, "amount": 1}"#, "user_id"),
        (r#"{"user_id": 1}"#, "amount"),
        (r#"{"user_id": 1, "amount": 0}"#, "amount"),
        (r#"{"user_id": 1, "amount": 1.5}"#, "amount"),
        (r#"{"user_id": 1, "amount": 99999999999999999999}"#, "amount"),
        (r#"{"user_id": 1, "amount": 1, "expires_in_seconds": 86401}"#, "expires_in_seconds"),
        (r#"{"user_id": 1, "amount": 1, "expires_in_seconds": true}"#, "expires_in_seconds"),
        (r#"{"user_id": 1, "amount": 1, "coupon": 5}"#, "coupon"),
    ];
    for (body, argument) in cases {
        let (status, answer) = world.call("POST", "/v1_0/orders", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["message"][argument].is_string(), "{body}: {answer}");
    }
    for (method, path, body, expect) in [
        ("POST", "/v1_0/orders", "{", 400),
        ("POST", "/v1_0/orders", "[]", 400),
        ("POST", "/v1_0/orders", "", 400),
        ("GET", "/v1_0/orders/x", "", 400),
        ("GET", "/v1_0/user", "", 400),
        ("GET", "/v1_0/user?user_id=x", "", 400),
        ("GET", "/v1_0/user?user_id=1&user_id=2", "", 400),
        ("GET", "/v1_0/user?user_id=1&page=2", "", 400),
        ("GET", "/v1_0/user?user_id=1", "", 404),
        ("GET", "/v1_0/orders", "", 405),
        ("GET", "/", "", 404),
    ] {
        let (status, answer) = world.call(method, path, body).await;
        assert_eq!(status, expect, "{method} {path} {body}");
        assert!(!answer["message"].is_null(), "{method} {path} {body}: {answer}");
    }
    let large = format!(r#"{{"user_id": 1, "amount": 1, "note": "{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(world.call("POST", "/v1_0/orders", large).await.0, 413);
    assert_eq!(world.asked(), [], "nothing was asked of the scheduler");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_shown_with_counts_that_are_never_negative() {
    let world = World::start_alone().await;
    world
        .site
        .sql(
            "insert into user_basic (user_id, mobile, user_name, profile_photo, is_media, introduction) \
             values (1110505004856385536, '13800000001', '王芳', 'p.jpg', 1, 'hello')",
        )
        .await;
    let counters = world.site.toutiao.counters().await.unwrap();
    let member = Member::from(1_110_505_004_856_385_536);
    for (key, by) in
        [("count:user:arts", 3), ("count:user:followers", 12), ("count:user:liked", -1)]
    {
        counters.add(key, &member, by).await.unwrap();
    }
    let expect = json!({"message": "OK", "data": {
        "id": 1_110_505_004_856_385_536_i64, "name": "王芳", "photo": "p.jpg", "is_media": true, "intro": "hello",
        "certi": null, "art_count": 3, "follow_count": 0, "fans_count": 12, "like_count": 0,
    }});
    assert_eq!(world.get("/v1_0/user?user_id=1110505004856385536").await, (200, expect));
}

#[tokio::test(flavor = "multi_thread")]
async fn demonstration_orders_go_the_way_of_every_order() {
    let world = World::start().await;
    let placed = demo::place_orders(&world.site.toutiao, &world.client, 5).await.unwrap();
    assert_eq!(world.asked().len(), 5);
    for order in placed {
        assert_eq!(order.status, OrderStatus::Pending);
        assert!((10..=55).contains(&(order.expires_at - order.created_at).num_seconds()));
        assert_eq!(world.get(&format!("/v1_0/orders/{}", order.id)).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_cannot_use_the_api_through_a_browser() {
    let world = World::start().await;
    let order = r#"{"user_id": 1, "amount": 1}"#;
    let ask = async |line: &str, headers: &str, body: &str| {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let place = "POST /v1_0/orders";
    let json = "content-type: application/json\r\n";
    let cases = [
        (place, "host: evil.example\r\n".to_owned() + json, "403"),
        ("GET /v1_0/orders/1", "host: evil.example:8000\r\n".to_owned(), "403"),
        ("GET /v1_0/orders/1", String::new(), "403"),
        (place, format!("host: localhost\r\norigin: http://evil.example\r\n{json}"), "403"),
        (place, format!("host: localhost\r\norigin: null\r\n{json}"), "403"),
        (
            "POST /v1_0/orders/1/pay",
            "host: localhost\r\norigin: http://evil.example\r\n".to_owned(),
            "403",
        ),
        (place, "host: localhost\r\n".to_owned(), "415"),
        (place, "host: localhost\r\ncontent-type: text/plain\r\n".to_owned(), "415"),
        ("GET /", "host: evil.example\r\n".to_owned(), "403"),
    ];
    for (line, headers, status) in cases {
        let body = if line == place { order } else { "" };
        let answer = ask(line, &headers, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line} {headers}: {answer}");
        assert!(answer.contains(r#"{"message":""#), "{answer}");
    }
    assert_eq!(world.asked(), [], "nothing was asked of the scheduler");
    let own = format!("host: localhost:8000\r\norigin: http://localhost:8000\r\n{json}");
    assert!(ask(place, &own, order).await.starts_with("HTTP/1.1 201"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_api_cannot_serve_now_is_answered_with_retry_after() {
    let world = World::start().await;
    world.site.sql("drop table orders").await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET /v1_0/orders/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_any_kind_is_in_the_envelope() {
    let world = World::start_alone().await;
    for (request, status) in [
        ("GET /v1_0/orders/%ff HTTP/1.1\r\nhost: localhost\r\n\r\n", "400"),
        ("POST /v1_0/orders/%ff/pay HTTP/1.1\r\nhost: localhost\r\n\r\n", "400"),
        ("no http\r\n\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains(r#"{"message":"#), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_cannot_hold_a_connection() {
    let world = World::start_alone().await;
    let half = async |text: &'static str| {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (head, body) = tokio::join!(
        half("POST /v1_0/orders HTTP/1.1\r\nhost: te"),
        half(
            "POST /v1_0/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 20\r\n\r\n{\"user"
        ),
    );
    assert!(!head.contains("200 OK"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_idle_connections_and_the_server() {
    let World { address, mut tasks, stop, site, .. } = World::start_alone().await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /v1_0/orders/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0_u8; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
    stop.send(()).unwrap();
    tasks.join_next().await.unwrap().unwrap();
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    drop(site);
}
