//! Seeded worlds: schedulers on a store that fails, with processes that die between any two calls,
//! nodes that stop for a while, clocks that jump, and requests of every kind, with the promises
//! checked at every write.
//!
//! `SIM_SEED=n` runs one seed, `SIM_SEEDS=n` this many of each kind.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a world that cannot go on ends"
)]

mod accounts;
mod dice;
mod executor;
mod hooks;
mod ledger;
mod node;
mod properties;
mod requests;
mod rest;
mod store;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use world::{Mode, World};

/// Seeds of worlds with several nodes, and with one.
const SEEDS_TOGETHER: u64 = 300;
const SEEDS_ALONE: u64 = 100;
/// Characters that are shown of what was found in other worlds.
const PROMISE_SHOWN: usize = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// A promise that did not hold, and what happened before.
#[derive(Debug)]
struct Broken {
    promise: String,
    last_events: String,
}

/// Lives through one world; what happened in it, in order.
fn live(seed: u64, mode: Mode) -> Result<Vec<String>, Broken> {
    let mut world = World::new(seed, mode);
    let shared = Arc::clone(&world.shared);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
    // What a world leaves behind when it ends in the midst of a call is of no use to anybody.
    std::mem::forget(world);
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match lived {
        Ok(()) => Ok(shared.trace().to_vec()),
        Err(why) => Err(Broken {
            promise: why.downcast_ref::<String>().cloned().unwrap_or_default(),
            last_events: shared.last_events(),
        }),
    }
}

/// Every n-th world, so that several tests can share them out to as many threads.
fn live_through(mode: Mode, seeds: u64, (part, parts): (u64, u64)) {
    let seeds = number("SIM_SEEDS").unwrap_or(seeds);
    let seeds = number("SIM_SEED").map_or(0..seeds, |seed| seed..seed + 1);
    let mut broken = BTreeMap::new();
    for seed in seeds.filter(|seed| seed % parts == part) {
        if let Err(how) = live(seed, mode) {
            broken.insert(seed, how);
        }
    }
    if let Some((seed, Broken { promise, last_events })) = broken.first_key_value() {
        let others = broken.iter().skip(1).map(|(seed, how)| {
            let promise: String = how.promise.chars().take(PROMISE_SHOWN).collect();
            format!("{seed}: {promise}\n")
        });
        panic!(
            "{last_events}\n\n{promise}\n\nto see it again: \
             SIM_SEED={seed} cargo test --test simulation {}\n\nothers:\n{}",
            mode.word(),
            others.collect::<String>(),
        );
    }
}

#[test]
fn the_promises_hold_for_nodes_together_in_every_even_world() {
    live_through(Mode::Together, SEEDS_TOGETHER, (0, 2));
}

#[test]
fn the_promises_hold_for_nodes_together_in_every_odd_world() {
    live_through(Mode::Together, SEEDS_TOGETHER, (1, 2));
}

#[test]
fn the_promises_hold_for_a_node_alone_in_every_world() {
    live_through(Mode::Alone, SEEDS_ALONE, (0, 1));
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..4 {
        for mode in [Mode::Alone, Mode::Together] {
            assert_eq!(live(seed, mode).unwrap(), live(seed, mode).unwrap(), "seed {seed}");
        }
    }
}
