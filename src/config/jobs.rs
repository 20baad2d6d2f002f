//! The `[[jobs]]` of a file, judged one by one: a fault of one job does not affect the others.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ConfigError;
use crate::invalid::Invalid;
use crate::job::{Definition, JobId, new_id};

/// A job of a file that cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyJob {
    /// Its number in the file, from 0.
    pub number: usize,
    /// Its id, if it has a valid one that no earlier job has.
    pub id: Option<JobId>,
    /// What is wrong with it.
    pub error: ConfigError,
}

/// Splits faults into the first one of each job, by the number of the job, and the first one that belongs to no job.
pub(super) fn faults_by_job(faults: &[Invalid]) -> (BTreeMap<usize, Invalid>, Option<Invalid>) {
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

/// The number of the job that a fault belongs to, and the fault with its field relative to that job.
fn within_job(invalid: &Invalid) -> Option<(usize, Invalid)> {
    let (number, field) = invalid.field.strip_prefix("jobs[")?.split_once(']')?;
    let field = field.strip_prefix('.').unwrap_or(field);
    Some((number.parse().ok()?, Invalid::new(field, invalid.message.clone())))
}

/// Reads the jobs of a file. `known_faults` has the jobs that contain values which JSON cannot represent, and `locate`
/// adds the place to the fault of a job.
pub(super) fn read(
    jobs: Vec<Value>,
    mut known_faults: BTreeMap<usize, Invalid>,
    locate: impl Fn(usize, Invalid) -> ConfigError,
) -> (Vec<(usize, Definition)>, Vec<FaultyJob>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut definitions, mut faulty) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (number, job) in jobs.into_iter().enumerate() {
        let id = job.get("id").and_then(Value::as_str).and_then(|text| new_id(text).ok());
        // An id belongs to the first job that has it, even if that job is faulty.
        let former = id.as_ref().and_then(|id| seen.get(id.as_str()).copied());
        let read = known_faults.remove(&number).map_or_else(|| definition(job), Err);
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
                faulty.push(FaultyJob { number, id, error: locate(number, invalid) });
            }
        }
    }
    (definitions, faulty)
}

fn definition(job: Value) -> Result<Definition, Invalid> {
    let definition = Definition::parse(job)?;
    match &definition.id {
        None => return Err(Invalid::new("id", "missing: a declared job must have an id")),
        Some(id) => new_id(id)?,
    };
    if definition.replace_existing {
        let message = "not allowed here: the file always decides about the jobs that it declares";
        return Err(Invalid::new("replace_existing", message));
    }
    Ok(definition)
}
