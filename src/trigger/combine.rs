//! Reading `and` and `or`: triggers that are made of triggers.

use chrono::TimeDelta;
use serde_json::Value;

use super::Trigger;
use super::and::{And, THRESHOLD_MICROS};
use super::or::Or;
use super::spec::SpecReader;
use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::invalid::Invalid;

/// Members of one trigger, at most.
const MEMBERS_MAX: usize = 16;
/// How deep triggers can be in triggers.
const DEPTH_MAX: u8 = 3;
/// Simple triggers in one, at most: every question about the whole is a question to each.
const LEAVES_MAX: usize = 32;

/// Where a trigger stands in others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nesting {
    depth: u8,
    in_and: bool,
    /// Whether it was accepted before.
    is_stored: bool,
}

impl Nesting {
    /// Of a trigger that was accepted before.
    pub(super) fn of_stored() -> Self {
        Self { is_stored: true, ..Self::default() }
    }
}

/// Reads an `and`.
pub(super) fn and(
    given: &mut SpecReader,
    anchor: Timestamp,
    place: Nesting,
) -> Result<And, Invalid> {
    if place.in_and {
        // It says no more than its members do in the outer one, and a search in a search would multiply.
        let message = "an and cannot be inside an and: put its triggers into the outer one";
        return Err(Invalid::new("type", message));
    }
    let has_threshold = given.take("threshold").is_some();
    let micros = given.micros("threshold", MICROS_PER_SECOND)?;
    let threshold = TimeDelta::microseconds(if has_threshold { micros } else { THRESHOLD_MICROS });
    let members = members(given, anchor, Nesting { in_and: true, ..place })?;
    if let Some(number) = members.iter().position(|member| member.jitter() > TimeDelta::zero()) {
        let message = "triggers that have to agree have no jitter of their own: give it to the and";
        return Err(Invalid::new(format!("triggers[{number}].jitter"), message));
    }
    let and = And::new(members, threshold);
    if !place.is_stored && and.is_out_of_reach() {
        let leaps = and.leaps_max();
        let message = format!(
            "the triggers never agree, or too seldom: no common time was found in {leaps} steps"
        );
        return Err(Invalid::new("triggers", message));
    }
    Ok(and)
}

/// Reads an `or`.
pub(super) fn or(given: &mut SpecReader, anchor: Timestamp, place: Nesting) -> Result<Or, Invalid> {
    Ok(Or::new(members(given, anchor, place)?))
}

fn members(
    given: &mut SpecReader,
    anchor: Timestamp,
    place: Nesting,
) -> Result<Vec<Trigger>, Invalid> {
    if place.depth >= DEPTH_MAX {
        return Err(Invalid::new(
            "type",
            format!("more than {DEPTH_MAX} triggers inside each other"),
        ));
    }
    let place = Nesting { depth: place.depth + 1, ..place };
    let zone = given.zone().clone();
    let Some(Value::Array(specs)) = given.take("triggers") else {
        given.refuse_unknown()?;
        return Err(Invalid::new("triggers", "must be a list of triggers"));
    };
    if specs.is_empty() || specs.len() > MEMBERS_MAX {
        let message = format!("must be 1 to {MEMBERS_MAX} triggers, not {}", specs.len());
        return Err(Invalid::new("triggers", message));
    }
    let members: Result<Vec<Trigger>, Invalid> = specs
        .iter()
        .enumerate()
        .map(|(number, spec)| {
            Trigger::compile_at(spec, &zone, anchor, place)
                .map_err(|invalid| invalid.within(&format!("triggers[{number}]")))
        })
        .collect();
    let members = members?;
    let leaves: usize = members.iter().map(Trigger::leaves).sum();
    if leaves > LEAVES_MAX {
        let message = format!("{leaves} triggers in all, of at most {LEAVES_MAX}");
        return Err(Invalid::new("triggers", message));
    }
    // What is stored says everything, also what the members take from the whole.
    let specs = members.iter().map(|member| member.spec().clone()).collect();
    given.replace("triggers", Value::Array(specs));
    Ok(members)
}

/// The members in words.
pub(super) fn describe(word: &str, members: &[Trigger]) -> String {
    let words: Vec<String> = members.iter().map(Trigger::describe).collect();
    format!("{word}({})", words.join(", "))
}
