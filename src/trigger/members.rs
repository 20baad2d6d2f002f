//! The members of `and` and `or`.

use serde_json::Value;

use super::compiled::Trigger;
use super::spec::{Nesting, SpecReader};
use crate::invalid::Invalid;

/// The largest number of direct members.
const MEMBERS_MAX: usize = 16;
/// How deep triggers can be nested.
const DEPTH_MAX: u8 = 3;
/// The largest number of simple triggers in one trigger. Each question to the trigger is a question to all of them.
const LEAVES_MAX: usize = 32;

/// Reads `triggers`. `in_and` says that the list belongs to an `and`.
pub(super) fn parse(spec: &mut SpecReader, in_and: bool) -> Result<Vec<Trigger>, Invalid> {
    let outer = spec.nesting();
    if outer.depth >= DEPTH_MAX {
        return Err(Invalid::new(
            "type",
            format!("more than {DEPTH_MAX} triggers inside each other"),
        ));
    }
    let nesting = Nesting { depth: outer.depth + 1, in_and: outer.in_and || in_and, ..outer };
    let (zone, anchor, compile) = (spec.zone().clone(), spec.anchor(), outer.compile);
    let Some(Value::Array(list)) = spec.take("triggers") else {
        spec.refuse_unknown()?;
        return Err(Invalid::new("triggers", "must be a list of triggers"));
    };
    if list.is_empty() || list.len() > MEMBERS_MAX {
        let message = format!("must be 1 to {MEMBERS_MAX} triggers, not {}", list.len());
        return Err(Invalid::new("triggers", message));
    }
    let members: Result<Vec<Trigger>, Invalid> = list
        .iter()
        .enumerate()
        .map(|(number, member)| {
            compile(member, &zone, anchor, nesting)
                .map_err(|invalid| invalid.within(&format!("triggers[{number}]")))
        })
        .collect();
    let members = members?;
    let leaves = leaves(&members);
    if leaves > LEAVES_MAX {
        let message = format!("{leaves} triggers in all, of at most {LEAVES_MAX}");
        return Err(Invalid::new("triggers", message));
    }
    // The stored form is complete: it also has what the members take from the outer trigger, such as its zone.
    let complete = members.iter().map(|member| member.spec().clone()).collect();
    spec.replace("triggers", Value::Array(complete));
    Ok(members)
}

/// The number of simple triggers in all members.
pub(super) fn leaves(members: &[Trigger]) -> usize {
    members.iter().map(Trigger::leaves).sum()
}

/// Whether each member of one list has the same occurrences as one of the other, and the other way round.
pub(super) fn are_alike(one: &[Trigger], other: &[Trigger]) -> bool {
    let has_all = |list: &[Trigger], wanted: &[Trigger]| {
        wanted.iter().all(|member| list.iter().any(|own| own.has_same_occurrences(member)))
    };
    has_all(one, other) && has_all(other, one)
}

/// A few words for tables and logs.
pub(super) fn describe(word: &str, members: &[Trigger]) -> String {
    let words: Vec<String> = members.iter().map(Trigger::describe).collect();
    format!("{word}({})", words.join(", "))
}
