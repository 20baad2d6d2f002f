//! The jobs of a file, one by one: a fault of one of them is no fault of the others.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ConfigError;
use crate::invalid::Invalid;
use crate::job::{Definition, JobId, new_id};

/// A job of a file that cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyJob {
    /// Its number in the file, from 0.
    pub number: usize,
    /// Its id, if it has one that no job before it has.
    pub id: Option<JobId>,
    /// What is wrong with it.
    pub error: ConfigError,
}

/// The same without its place.
pub(super) struct Faulty {
    pub(super) number: usize,
    pub(super) id: Option<JobId>,
    pub(super) invalid: Invalid,
}

/// The first fault of each job among these, by its number and within it; and the first one that is of no job.
pub(super) fn sort_out(faults: &[Invalid]) -> (BTreeMap<usize, Invalid>, Option<Invalid>) {
    let mut of_jobs = BTreeMap::new();
    for invalid in faults {
        match within_job(invalid) {
            Some((number, invalid)) => {
                of_jobs.entry(number).or_insert(invalid);
            }
            None => return (of_jobs, Some(invalid.clone())),
        }
    }
    (of_jobs, None)
}

/// A fault as its job sees it, with the number of that job.
fn within_job(invalid: &Invalid) -> Option<(usize, Invalid)> {
    let (number, field) = invalid.field.strip_prefix("jobs[")?.split_once(']')?;
    let field = field.strip_prefix('.').unwrap_or(field);
    Some((number.parse().ok()?, Invalid::new(field, invalid.message.clone())))
}

/// Reads the jobs of a file, some of which are known to be faulty.
pub(super) fn read(
    jobs: Vec<Value>,
    mut known: BTreeMap<usize, Invalid>,
) -> (Vec<(usize, Definition)>, Vec<Faulty>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut definitions, mut faulty) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (number, job) in jobs.into_iter().enumerate() {
        let id = job.get("id").and_then(Value::as_str).and_then(|text| new_id(text).ok());
        // The first one of an id has it, whether it is in order or not.
        let former = id.as_ref().and_then(|id| seen.get(id.as_str()).copied());
        let read = known.remove(&number).map_or_else(|| definition(job), Err);
        let read = read.and_then(|definition| match (&id, former) {
            (Some(id), Some(former)) => {
                let message = format!("\"{id}\" is the id of jobs[{former}] already");
                Err(Invalid::new("id", message))
            }
            (_, _) => Ok(definition),
        });
        if let (Some(id), None) = (&id, former) {
            seen.insert(id.to_string(), number);
        }
        match read {
            Ok(definition) => definitions.push((number, definition)),
            Err(invalid) => {
                let id = id.filter(|_| former.is_none());
                faulty.push(Faulty { number, id, invalid });
            }
        }
    }
    (definitions, faulty)
}

fn definition(job: Value) -> Result<Definition, Invalid> {
    let definition = Definition::parse(job)?;
    match &definition.id {
        None => return Err(Invalid::new("id", "missing: a declared job has an id")),
        Some(id) => new_id(id)?,
    };
    if definition.replace_existing {
        let message = "has no meaning here: the file is the truth for the jobs that it declares";
        return Err(Invalid::new("replace_existing", message));
    }
    Ok(definition)
}
