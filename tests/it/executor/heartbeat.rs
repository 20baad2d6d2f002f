//! Heartbeats as the service that receives them sees them, and what the log says when they do not get through.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use punctual::clock::SystemClock;
use punctual::executor::{Executor, Heartbeat, HeartbeatEvent, PoolExecutor};
use punctual::job::JobId;
use punctual::run::RunId;
use punctual::secret::{Secret, Text};
use punctual::task::builtin::Registry;
use support::pools::no_worker;
use support::web::{Step, Web, answer};
use tokio::sync::{Semaphore, mpsc};
use tracing::subscriber::DefaultGuard;

fn pools() -> PoolExecutor {
    let (completions, _) = mpsc::channel(1);
    let clock = Arc::new(SystemClock);
    PoolExecutor::new(&BTreeMap::new(), Registry::default(), clock, completions, &no_worker())
}

fn beat(job: &str, url: &str, signal: HeartbeatEvent) -> Heartbeat {
    Heartbeat {
        job_id: JobId::parse(job).unwrap(),
        url: url.into(),
        event: signal,
        run_id: RunId("019a2b3c-4d5e-7f60-8123-456789abcdef".into()),
        body: String::new(),
    }
}

/// What is logged on this thread, while this is held.
#[derive(Debug, Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn start() -> (Self, DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn starts_successes_and_failures_are_sent_in_the_form_of_each_service() {
    let mut web = Web::start(|_| answer("200 OK", "OK")).await;
    let mut pools = pools();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("{}\n", web.url("/secret/slug?create=1"))).unwrap();
    let secret = Text::Secret(Secret::File(file.display().to_string()));
    let plain = web.url("/uuid");
    pools.send_heartbeat(beat("job", &plain, HeartbeatEvent::Start));
    pools.send_heartbeat(beat("job", &plain, HeartbeatEvent::Success));
    let body = format!("it broke\n{}", "é".repeat(10_000));
    pools.send_heartbeat(Heartbeat {
        body: body.clone(),
        ..beat("job", &plain, HeartbeatEvent::Failure)
    });
    pools.send_heartbeat(Heartbeat { url: secret, ..beat("job", "", HeartbeatEvent::Failure) });
    let rid = "rid=019a2b3c-4d5e-7f60-8123-456789abcdef";
    let expected = [
        format!("POST /uuid/start?{rid} HTTP/1.1"),
        format!("POST /uuid?{rid} HTTP/1.1"),
        format!("POST /uuid/fail?{rid} HTTP/1.1"),
        format!("POST /secret/slug/fail?create=1&{rid} HTTP/1.1"),
    ];
    for line in expected {
        let asked = web.asked().await;
        assert_eq!(asked.line, line);
        assert!(asked.header("user-agent").unwrap().starts_with("punctual/"));
        if line.starts_with("POST /uuid/fail") {
            assert!(body.starts_with(&asked.body) && (9_990..=10_000).contains(&asked.body.len()));
        } else {
            assert_eq!(asked.body, "");
        }
    }
}

#[tokio::test]
async fn the_beats_of_a_job_keep_their_order_and_those_of_others_do_not_wait_for_them() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let mut web = Web::start(move |asked| {
        let mut steps = answer("200 OK", "");
        if asked.line.contains("/slow/start") {
            steps.insert(0, Step::Wait(Arc::clone(&held)));
        }
        steps
    })
    .await;
    let mut pools = pools();
    let (slow, other) = (web.url("/slow"), web.url("/other"));
    pools.send_heartbeat(beat("slow", &slow, HeartbeatEvent::Start));
    pools.send_heartbeat(beat("slow", &slow, HeartbeatEvent::Success));
    for signal in [
        HeartbeatEvent::Start,
        HeartbeatEvent::Failure,
        HeartbeatEvent::Start,
        HeartbeatEvent::Success,
    ] {
        pools.send_heartbeat(beat("other", &other, signal));
    }
    let mut paths = Vec::new();
    for _ in 0..5 {
        let asked = web.asked().await;
        paths.push(asked.line.split(['?', ' ']).nth(1).unwrap().to_owned());
    }
    paths.sort();
    let expected = ["/other", "/other/fail", "/other/start", "/other/start", "/slow/start"];
    assert_eq!(paths, expected, "all but what waits for the slow one");
    gate.add_permits(1);
    assert!(web.asked().await.line.starts_with("POST /slow?"));
}

#[tokio::test]
async fn only_a_few_are_under_way_at_once_and_when_too_many_wait_the_oldest_are_given_up() {
    let (logged, _guard) = Logged::start();
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let mut web =
        Web::start(move |_| [vec![Step::Wait(Arc::clone(&held))], answer("200 OK", "")].concat())
            .await;
    let mut pools = pools();
    let of = |number: usize, web: &Web| {
        beat(&format!("job-{number}"), &web.url(&format!("/{number}")), HeartbeatEvent::Success)
    };
    (0..4).for_each(|number| pools.send_heartbeat(of(number, &web)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(web.asked().await.line);
    }
    (4..1024).for_each(|number| pools.send_heartbeat(of(number, &web)));
    assert!(web.is_quiet(), "four are under way");
    gate.add_permits(2000);
    for _ in 0..1000 {
        seen.push(web.asked().await.line);
    }
    pools.stop().await;
    assert!(web.is_quiet());
    let was_told = |number: usize| {
        let begin = format!("POST /{number}?");
        seen.iter().any(|line| line.starts_with(&begin))
    };
    let missing: Vec<usize> = (0..1024).filter(|number| !was_told(*number)).collect();
    assert_eq!(missing, (4..24).collect::<Vec<_>>(), "the oldest of those that waited");
    let lines = logged.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("too many heartbeats wait; the oldest ones are dropped waiting=1000")
    );
    assert!(lines[1].contains("heartbeats were dropped because too many waited dropped=20"));
}

#[tokio::test]
async fn temporary_failures_are_retried_and_refusals_are_not() {
    let count = AtomicUsize::new(0);
    let mut web = Web::start(move |asked| {
        if asked.line.contains("/unknown") {
            return answer("404 Not Found", "");
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => answer("503 Service Unavailable", ""),
            1 => vec![Step::Reset],
            _ => answer("200 OK", ""),
        }
    })
    .await;
    let (logged, _guard) = Logged::start();
    let mut pools = pools();
    let (known, unknown) = (web.url("/known"), web.url("/unknown"));
    pools.send_heartbeat(beat("unknown", &unknown, HeartbeatEvent::Start));
    assert!(web.asked().await.line.starts_with("POST /unknown/start"));
    pools.send_heartbeat(beat("known", &known, HeartbeatEvent::Start));
    pools.send_heartbeat(beat("known", &known, HeartbeatEvent::Success));
    for expected in ["/known/start", "/known/start", "/known/start", "/known"] {
        let asked = web.asked().await;
        assert!(asked.line.starts_with(&format!("POST {expected}?")), "{}", asked.line);
    }
    pools.stop().await;
    assert!(web.is_quiet(), "the unknown one was asked once");
    let lines = logged.lines();
    assert_eq!(lines.len(), 1, "what got through in the end is no outage: {lines:?}");
    assert!(lines[0].contains("could not be delivered"), "{lines:?}");
    assert!(lines[0].contains("answered 404 Not Found") && lines[0].contains("job=unknown"));
}

#[tokio::test]
async fn an_outage_is_logged_once_when_it_begins_and_once_when_it_has_ended_without_its_url() {
    let is_up = Arc::new(AtomicUsize::new(0));
    let up = Arc::clone(&is_up);
    let mut web = Web::start(move |_| match up.load(Ordering::Relaxed) {
        0 => answer("403 Forbidden", "T0PS3CRET"),
        _ => answer("200 OK", ""),
    })
    .await;
    let (logged, _guard) = Logged::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, web.url("/T0PS3CRET")).unwrap();
    let secret = Text::Secret(Secret::File(file.display().to_string()));
    let mut pools = pools();
    let tell = |pools: &mut PoolExecutor| {
        pools.send_heartbeat(Heartbeat {
            url: secret.clone(),
            ..beat("job", "", HeartbeatEvent::Success)
        });
    };
    for _ in 0..5 {
        tell(&mut pools);
        web.asked().await;
    }
    std::fs::remove_file(&file).unwrap();
    tell(&mut pools);
    let blocked = beat("other", &web.url("/T0PS3CRET"), HeartbeatEvent::Success);
    pools.send_heartbeat(blocked);
    web.asked().await;
    // The other one came last, so the one without its file has been tried before or is being.
    is_up.store(1, Ordering::Relaxed);
    std::fs::write(&file, web.url("/T0PS3CRET")).unwrap();
    tell(&mut pools);
    web.asked().await;
    pools.stop().await;
    let lines = logged.lines();
    let of = |job: &str| lines.iter().filter(|line| line.contains(job)).collect::<Vec<_>>();
    assert_eq!((of("job=job").len(), of("job=other").len(), lines.len()), (2, 1, 3), "{lines:?}");
    assert!(
        of("job=job")[0].contains("WARN")
            && of("job=job")[0].contains("the server answered 403 Forbidden")
    );
    assert!(of("job=job")[1].contains("INFO") && of("job=job")[1].contains("delivered again"));
    assert!(of("job=other")[0].contains(&format!("{} answered 403", web.address)));
    assert!(!lines.iter().any(|line| line.contains("T0PS3CRET")), "{lines:?}");
}

#[tokio::test]
async fn of_those_that_fail_one_is_tried_at_a_time_and_the_others_go_on() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let mut web = Web::start(move |asked| {
        if asked.line.contains("/good") {
            return answer("200 OK", "");
        }
        let mut steps = answer("400 Bad Request", "");
        if !asked.line.contains("/start") {
            steps.insert(0, Step::Wait(Arc::clone(&held)));
        }
        steps
    })
    .await;
    let (logged, _guard) = Logged::start();
    let mut pools = pools();
    for job in ["a", "b", "c"] {
        pools.send_heartbeat(beat(job, &web.url("/bad"), HeartbeatEvent::Start));
        web.asked().await;
    }
    // Each of them is known to fail when its second beat is looked at.
    for job in ["a", "b", "c", "a", "b", "c"] {
        pools.send_heartbeat(beat(job, &web.url("/bad"), HeartbeatEvent::Success));
    }
    assert!(web.asked().await.line.contains("/bad?"));
    for job in ["d", "e", "f", "g"] {
        pools.send_heartbeat(beat(job, &web.url("/good"), HeartbeatEvent::Success));
    }
    for _ in 0..4 {
        assert!(web.asked().await.line.contains("/good?"));
    }
    gate.add_permits(6);
    for _ in 0..5 {
        assert!(web.asked().await.line.contains("/bad?"));
    }
    pools.stop().await;
    assert_eq!(logged.lines().len(), 3, "{:?}", logged.lines());
}

#[tokio::test]
async fn a_stop_sends_waiting_heartbeats_but_does_not_wait_for_ever() {
    let mut web = Web::start(|asked| {
        if asked.line.contains("/hangs") { vec![Step::Hang] } else { answer("200 OK", "") }
    })
    .await;
    let mut ending = pools();
    for number in 0..20 {
        ending.send_heartbeat(beat(
            "job",
            &web.url(&format!("/{number}")),
            HeartbeatEvent::Failure,
        ));
    }
    ending.stop().await;
    for number in 0..20 {
        assert!(web.asked().await.line.starts_with(&format!("POST /{number}/fail?")));
    }
    let (logged, _guard) = Logged::start();
    let mut ending = pools();
    ending.send_heartbeat(beat("job", &web.url("/hangs"), HeartbeatEvent::Failure));
    ending.send_heartbeat(beat("job", &web.url("/hangs"), HeartbeatEvent::Failure));
    web.asked().await;
    ending.stop().await;
    web.left().await;
    assert!(logged.lines()[0].contains("could not be sent before the stop waiting=1"));
}
