//! Daemons that share a database server, while one after the other is killed or suspended. What any of them has
//! acknowledged is kept, and nothing happens twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use punctual::client::Client;
use rustix::process::Signal;
use support::audit::{check_end, check_nodes, check_now, nothing_is_left, settle, tick};
use support::load::{Book, Caller, Random, Shift, noted, seed};
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};
use support::{Daemon, Home, PATIENCE, text};

const NODES: u64 = 3;
const CALLERS: u64 = 6;
/// How long all work, before something happens to one of them.
const WORK_MILLIS: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_nothing_is_lost_or_doubled_while_nodes_are_killed_and_stopped() {
    torture::<Postgres>(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_nothing_is_lost_or_doubled_while_nodes_are_killed_and_stopped() {
    torture::<MariaDb>(3).await;
}

/// What happens to a node.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    /// It stands still for less than its lease.
    Pause,
    /// It stands still until the others have given it up.
    Stop,
}

struct Cluster {
    homes: Vec<Home>,
    daemons: Vec<Option<Daemon>>,
    /// The folder of each node that was ever there.
    folders: BTreeMap<String, PathBuf>,
    book: Book,
}

impl Cluster {
    async fn start(url: &str) -> Self {
        // The test kills these daemons; their runs do not.
        let config = format!(
            "[scheduler]\nmax_crashes = 1000\n[store]\nurl = \"{url}\"\nlease_seconds = 3\n"
        );
        let homes: Vec<Home> = (0..NODES).map(|_| Home::new(&config)).collect();
        let daemons = homes.iter().map(|_| None).collect();
        let folders = BTreeMap::new();
        let mut cluster = Self { homes, daemons, folders, book: Book::default() };
        for number in 0..cluster.homes.len() {
            cluster.start_node(number).await;
        }
        cluster
    }

    async fn start_node(&mut self, number: usize) {
        let home = &self.homes[number];
        self.daemons[number] = Some(home.start());
        self.folders.insert(node(&home.client()).await, home.path().to_owned());
    }

    fn clients(&self) -> Vec<Client> {
        self.homes.iter().map(Home::client).collect()
    }

    fn signal(&self, number: usize, signal: Signal) {
        self.daemons[number].as_ref().unwrap().signal(signal);
    }

    /// Lets callers work, and a blow meet a node meanwhile.
    async fn round(
        &mut self,
        callers: Vec<Caller>,
        (number, blow): (usize, Blow),
        random: &mut Random,
    ) -> Vec<Caller> {
        let clients = self.clients();
        let mut shift = Shift::begin(callers, &clients);
        shift.go_on_for(random.millis(WORK_MILLIS), &mut self.book).await;
        let other = &clients[(number + 1) % clients.len()];
        match blow {
            Blow::Kill => {
                self.daemons[number].take().unwrap().kill();
                shift.go_on_for(random.millis(WORK_MILLIS), &mut self.book).await;
                self.start_node(number).await;
            }
            Blow::Pause => {
                self.signal(number, Signal::STOP);
                shift.go_on_for(random.millis(WORK_MILLIS), &mut self.book).await;
                self.signal(number, Signal::CONT);
            }
            Blow::Stop => {
                let name = node(&clients[number]).await;
                self.signal(number, Signal::STOP);
                shift.cut(clients[number].socket());
                // The others work on, and one of them finds out.
                wait_until_it_is(Sight::Gone, other, &name, (&mut shift, &mut self.book)).await;
                self.signal(number, Signal::CONT);
                wait_until_it_is(Sight::Back, other, &name, (&mut shift, &mut self.book)).await;
            }
        }
        shift.end(&mut self.book).await
    }
}

/// How a node is seen by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Gone,
    Back,
}

/// Lets the callers work until a daemon sees another node so.
async fn wait_until_it_is(
    sight: Sight,
    client: &Client,
    name: &String,
    (shift, book): (&mut Shift, &mut Book),
) {
    let waiting = async {
        while nodes(client).await.contains(name) == (sight == Sight::Gone) {
            assert!(shift.next(book).await);
        }
    };
    let seen = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(seen.is_ok(), "{name} is not {sight:?}");
}

/// The name of a daemon.
async fn node(client: &Client) -> String {
    text(&client.status().await.unwrap(), "node").to_owned()
}

/// The nodes that a daemon knows to be alive.
async fn nodes(client: &Client) -> BTreeSet<String> {
    let status = client.status().await.unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| text(node, "name").to_owned()).collect()
}

async fn torture<K: Kind>(rounds: u64) {
    let Some(server) = Server::<K>::shared() else { return };
    let mut cluster = Cluster::start(&server.database("torture")).await;
    let file = cluster.homes[0].path().join("ran.txt");
    let mut random = Random(seed());
    let caller =
        |number| Caller::new(format!("caller-{number}"), Random(seed() + number), file.clone());
    let mut callers: Vec<Caller> = (1..=CALLERS).map(caller).collect();
    let clients = cluster.clients();
    clients[0].add(&tick(&noted(&file))).await.unwrap();
    for round in 0..rounds {
        let blow = [Blow::Kill, Blow::Stop, Blow::Pause][usize::try_from(round % 3).unwrap()];
        let number = random.below(clients.len());
        callers = cluster.round(callers, (number, blow), &mut random).await;
        cluster.book.check_fresh(&clients[number]).await;
    }
    check_now(&clients[1], &cluster.book).await;
    clients[2].pause("tick").await.unwrap();
    settle(&clients[0], &mut cluster.homes[0].signal("pulse")).await;
    let again = check_end(&clients[1], &cluster.book, &file).await;
    assert!(again > 0 || rounds < 10, "blows met runs");
    check_nodes(&clients[1], &cluster.folders, &file).await;
    for daemon in &mut cluster.daemons {
        assert!(daemon.take().unwrap().stop().success());
    }
    cluster.homes.iter().for_each(nothing_is_left);
}
