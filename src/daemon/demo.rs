//! `punctual serve --demo`: fills a database with sample data, places some orders that expire within a minute, prints what
//! there is to try, and repairs the statistics while the user watches.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::toutiao::{Toutiao, demo};

/// Number of orders that are placed at each start.
const ORDERS: u32 = 6;
/// Time for the user to look at the wrong counters before they are repaired.
const BEFORE_REPAIR: Duration = Duration::from_secs(5);
/// The job of the demo's configuration that repairs the statistics.
const REPAIR_JOB: &str = "fix-statistics";
/// Maximum time to wait for the repair, in seconds.
const REPAIR_SECONDS: u64 = 120;

/// Fills the database if it is empty, and places orders.
pub(super) async fn prepare(
    toutiao: &Toutiao,
    client: &Client,
    now: Timestamp,
) -> anyhow::Result<()> {
    let summary = demo::fill(toutiao, now).await.context("the sample data")?;
    if summary.filled {
        tracing::info!(
            users = summary.users,
            articles = summary.articles,
            attitudes = summary.attitudes,
            comments = summary.comments,
            follows = summary.follows,
            drifted_counters = summary.drifted,
            "sample data"
        );
    } else {
        tracing::info!("the sample data exists already");
    }
    let orders = demo::place_orders(toutiao, client, ORDERS).await.context("the sample orders")?;
    for order in &orders {
        let seconds = order.expires_at.signed_duration_since(now).num_seconds();
        tracing::info!(order = order.id, expires_in_seconds = seconds, "an unpaid order");
    }
    Ok(())
}

/// Prints what there is to try, then repairs the statistics and prints what was corrected.
pub(super) async fn show(client: Client, listen: Option<String>) {
    print(guide(client.socket(), listen.as_deref())).await;
    tokio::time::sleep(BEFORE_REPAIR).await;
    match repair(&client).await {
        Ok(output) => {
            print(format!("\nStatistics that job {REPAIR_JOB} has just corrected:\n{output}"))
                .await;
        }
        Err(error) => {
            tracing::warn!(%error, "the statistics could not be repaired for the demo");
        }
    }
}

async fn repair(client: &Client) -> Result<String, ClientError> {
    match client.job(REPAIR_JOB).await {
        Err(error) if error.is_not_found() => {
            let task = json!({"type": "builtin", "name": "toutiao.fix_statistics"});
            client.add(&json!({"id": REPAIR_JOB, "trigger": {"type": "cron", "hour": 3}, "task": task})).await?;
        }
        other => drop(other?),
    }
    let run = client.run(REPAIR_JOB).await?;
    let id = run.get("id").and_then(Value::as_str).unwrap_or_default();
    client.wait(id, REPAIR_SECONDS).await?;
    let output = client.output(id).await?;
    Ok(output.get("output").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn guide(socket: &Path, listen: Option<&str>) -> String {
    let socket = socket.display();
    let order = r#"{"user_id": 1, "amount": 990, "expires_in_seconds": 20}"#;
    let api = listen.map_or_else(String::new, |listen| {
        format!(
            "  curl http://{listen}/v1_0/orders -H 'content-type: application/json' -d '{order}'\n"
        )
    });
    format!(
        "\nPunctual is running. In another terminal, in this folder (`punctual` is target/release/punctual):\n\n  \
         punctual list                                  the jobs, and when each is next due\n  \
         punctual runs                                  what ran, how late it started, how it ended\n  \
         punctual logs {REPAIR_JOB}                   which counters were wrong, and how they were corrected\n  \
         punctual add hello --every 5s -- /bin/echo hi  a job of your own\n  \
         curl --unix-socket {socket} http://punctual/v1/status\n{api}\n\
         Within a minute the counters are corrected, and {ORDERS} orders expire, each at its own time. Ctrl-C stops the daemon.\n"
    )
}

/// Prints on a thread for blocking work, because stdout may be a pipe that nobody reads.
async fn print(text: String) {
    let printing = move || writeln!(std::io::stdout(), "{text}");
    // An error means that nobody reads.
    drop(tokio::task::spawn_blocking(printing).await);
}
