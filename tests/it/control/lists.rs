//! Lists of jobs and of runs: their conditions and orders, cursors, waiting for a change, and parts of run ids.

use punctual::client::{Client, ClientError};
use serde_json::{Value, json};
use support::definitions::{by_hand, noop, once, with};
use support::{Home, run_to_end, text};

fn ids<'a>(page: &'a Value, list: &str) -> Vec<&'a str> {
    page[list].as_array().unwrap().iter().map(|row| text(row, "id")).collect()
}

/// The status and the field of a refusal.
fn refusal(answer: Result<Value, ClientError>) -> (u16, String) {
    let ClientError::Refused { status, field, .. } = answer.unwrap_err() else {
        panic!("no refusal")
    };
    (status, field.unwrap_or_default())
}

/// Jobs that are due in the years from 2100 on, the last of them first by id.
async fn add_dated(client: &Client, count: usize) {
    let jobs: Vec<Value> = (0..count)
        .map(|number| {
            once(&format!("job-{number}"), &format!("{}-01-01", 2100 + count - number), noop())
        })
        .collect();
    client.add_all(&jobs).await.unwrap();
}

#[tokio::test]
async fn jobs_are_listed_by_next_run_time_in_a_range() {
    let home = Home::new("[scheduler]\ntimezone = \"UTC\"\n");
    let _daemon = home.start();
    let client = home.client();
    add_dated(&client, 4).await;
    client.pause("job-3").await.unwrap();
    let jobs = async |query: &str| client.jobs(query).await.unwrap();
    assert_eq!(ids(&jobs("").await, "jobs"), ["job-0", "job-1", "job-2", "job-3"]);
    let by_time = "order=next_run_time";
    assert_eq!(ids(&jobs(by_time).await, "jobs"), ["job-2", "job-1", "job-0"], "one is paused");
    let range = "since=2102-01-01&until=2104-01-01";
    assert_eq!(ids(&jobs(range).await, "jobs"), ["job-2", "job-1"]);
    assert_eq!(ids(&jobs("until=in+1h").await, "jobs"), [""; 0]);
    let mut query = format!("{by_time}&limit=1");
    let mut found = Vec::new();
    loop {
        let page = jobs(&query).await;
        found.extend(ids(&page, "jobs").iter().map(ToString::to_string));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("{by_time}&limit=1&cursor={cursor}");
    }
    assert_eq!(found, ["job-2", "job-1", "job-0"]);
}

#[tokio::test]
async fn the_next_times_of_jobs_are_listed_on_request() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let every = json!({"id": "often", "trigger": {"type": "interval", "hours": 1},
        "task": {"type": "builtin", "name": "noop"}, "max_runs": 9});
    client.add(&every).await.unwrap();
    client.add(&by_hand("never", noop())).await.unwrap();
    let page = client.jobs("until=in+3h30m&upcoming=2").await.unwrap();
    let [job] = &page["jobs"].as_array().unwrap()[..] else { panic!("{page}") };
    let times = job["upcoming"]["times"].as_array().unwrap();
    assert_eq!((times.len(), &times[0]), (2, &job["next_run_time"]), "{page}");
    assert_eq!(job["upcoming"]["more"], true);
    let page = client.jobs("until=in+3h30m&upcoming=3").await.unwrap();
    assert_eq!(page["jobs"][0]["upcoming"]["more"], false, "{page}");
    let page = client.jobs("upcoming=100&prefix=often").await.unwrap();
    assert_eq!(page["jobs"][0]["upcoming"]["times"].as_array().unwrap().len(), 9, "max_runs");
    assert!(client.jobs("").await.unwrap()["jobs"][0].get("upcoming").is_none());
    // People see every time in its order.
    let shown = home.ok(&["list", "--next", "3h 30m"]);
    assert_eq!(shown.lines().filter(|line| line.contains("often")).count(), 3, "{shown}");
    assert!(shown.starts_with("TIME") && !shown.contains("never"), "{shown}");
    assert!(home.ok(&["list", "--next", "1min"]).contains("nothing is due"));
}

#[tokio::test]
async fn runs_are_listed_by_what_their_jobs_are() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let tagged = with(by_hand("a:1", noop()), json!({"tags": ["x"]}));
    let cron = with(by_hand("a:2", noop()), json!({"trigger": {"type": "cron", "year": 2100}}));
    let fails = json!({"type": "builtin", "name": "fail", "args": {"message": "no"}});
    for job in [tagged, cron, by_hand("b", fails)] {
        client.add(&job).await.unwrap();
        run_to_end(&client, text(&job, "id")).await;
    }
    let of = async |query: &str| {
        let page = client.runs(query).await.unwrap();
        let rows = page["runs"].as_array().unwrap().iter();
        rows.map(|run| text(run, "job_id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("").await, ["b", "a:2", "a:1"]);
    assert_eq!(of("order=oldest").await, ["a:1", "a:2", "b"]);
    assert_eq!(of("prefix=a:").await, ["a:2", "a:1"]);
    assert_eq!(of("tag=x").await, ["a:1"]);
    assert_eq!(of("trigger_type=cron").await, ["a:2"]);
    assert_eq!(of("executor=default&state=failed,lost").await, ["b"]);
    assert_eq!(of("state=failed,succeeded&prefix=a").await, ["a:2", "a:1"]);
    assert_eq!(of("until=1h").await, [""; 0]);
    assert_eq!(of("since=1h&until=now").await.len(), 3);
    let failed = home.json(&["runs", "--failed", "--since", "1h"]);
    assert_eq!(text(&failed["runs"][0], "job_id"), "b");
    let arguments = ["runs", "--tag", "x", "--executor", "default", "--order", "oldest", "-n", "5"];
    assert_eq!(home.json(&arguments)["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cursor_belongs_to_its_list() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    add_dated(&client, 3).await;
    for id in ["job-0", "job-1", "job-2"] {
        run_to_end(&client, id).await;
    }
    let page = client.jobs("limit=1&trigger_type=date").await.unwrap();
    let cursor = text(&page, "next_cursor");
    let rest = client.jobs(&format!("trigger_type=date&cursor={cursor}")).await.unwrap();
    assert_eq!(ids(&rest, "jobs"), ["job-1", "job-2"]);
    let foreign = [
        format!("cursor={cursor}"),
        format!("trigger_type=date&state=active&cursor={cursor}"),
        format!("trigger_type=date&order=next_run_time&cursor={cursor}"),
        format!("trigger_type=date&cursor={cursor}00"),
        format!("trigger_type=date&cursor={}", &cursor[1..]),
    ];
    for query in foreign {
        assert_eq!(refusal(client.jobs(&query).await), (422, "cursor".to_owned()), "{query}");
    }
    let page = client.runs("limit=1").await.unwrap();
    let of_runs = text(&page, "next_cursor");
    assert_eq!(
        client.runs(&format!("cursor={of_runs}")).await.unwrap()["runs"].as_array().unwrap().len(),
        2
    );
    assert_eq!(refusal(client.jobs(&format!("cursor={of_runs}")).await).1, "cursor");
    assert_eq!(refusal(client.runs(&format!("order=oldest&cursor={of_runs}")).await).1, "cursor");
}

#[tokio::test]
async fn a_list_waits_until_something_has_changed() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let page = client.jobs("").await.unwrap();
    let seen = page["step"].as_u64().unwrap();
    let query = format!("seen={seen}&wait=30");
    let waits = client.jobs(&query);
    let new = by_hand("new", noop());
    let (changed, added) = tokio::join!(waits, client.add(&new));
    added.unwrap();
    let changed = changed.unwrap();
    assert_eq!(ids(&changed, "jobs"), ["new"]);
    assert!(changed["step"].as_u64().unwrap() > seen);
    // What has changed already is answered at once, and a wait without a change ends.
    assert_eq!(ids(&client.jobs(&format!("seen={seen}&wait=300")).await.unwrap(), "jobs"), ["new"]);
    let seen = client.runs("").await.unwrap()["step"].as_u64().unwrap();
    let same = client.runs(&format!("seen={seen}&wait=0")).await.unwrap();
    assert_eq!(same["step"].as_u64(), Some(seen));
}

#[tokio::test]
async fn a_run_is_named_by_the_beginning_or_the_end_of_its_id() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    client.add(&by_hand("job", noop())).await.unwrap();
    let (one, two) = (run_to_end(&client, "job").await, run_to_end(&client, "job").await);
    let (one, two) = (text(&one, "id"), text(&two, "id"));
    let end = &one[one.len() - 12..];
    assert_eq!(text(&client.run_by_id(end).await.unwrap(), "id"), one);
    assert_eq!(text(&client.run_by_id(&one[..35]).await.unwrap(), "id"), one);
    assert_eq!(text(&client.output(end).await.unwrap(), "run_id"), one);
    // The ids of the same second begin alike.
    let ClientError::Refused { status, code, message, .. } =
        client.run_by_id(&one[..8]).await.unwrap_err()
    else {
        panic!("{one} and {two}");
    };
    assert_eq!((status, code.as_str()), (409, "ambiguous"), "{message}");
    assert!(message.contains(one) && message.contains(two) && message.contains("(job, succeeded)"));
    for unknown in ["ffffffff", "----", "abc", "0000-"] {
        assert!(client.run_by_id(unknown).await.unwrap_err().is_not_found(), "{unknown}");
    }
    assert!(home.ok(&["runs", end]).contains(one));
    let (code, complaint) = home.fails(&["cancel", end]);
    assert!(code == 1 && complaint.contains(&format!("run \"{one}\" has ended")), "{complaint}");
    let (code, complaint) = home.fails(&["logs", &one[..8]]);
    assert!(code == 1 && complaint.contains("several runs"), "{complaint}");
    let (code, complaint) = home.fails(&["runs", end, "--failed"]);
    assert!(code == 2 && complaint.contains("one run"), "{complaint}");
    // A job of such an id is meant before a run.
    client.add(&by_hand(end, noop())).await.unwrap();
    assert!(home.ok(&["runs", end]).contains("no runs"));
}
