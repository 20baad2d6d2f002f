//! Makes a job of each line of a crontab. What cron does and a job cannot is a note that names the line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::crontab::CrontabEntry;
use crate::job::stable_hash;

/// The shell that cron uses, and `shell` of a command.
const SHELL: &str = "/bin/sh";
/// The tag of imported jobs.
const TAG: &str = "crontab";
/// Maximum length of the part of an id that is the name of the program.
const NAME_CHARS: usize = 40;
/// Variables that cron sets itself.
const FIXED: [&str; 2] = ["LOGNAME", "USER"];
/// Variables that describe the mails of cron.
const MAIL_FORMS: [&str; 2] = ["CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"];

/// A job of the crontab.
#[derive(Debug)]
pub(super) struct ImportedJob {
    pub(super) line: usize,
    pub(super) id: String,
    pub(super) schedule: String,
    pub(super) definition: Value,
}

/// Where the jobs come from.
#[derive(Debug)]
pub(super) struct Origins<'a> {
    /// What their ids begin with.
    pub(super) prefix: &'a str,
    /// The user of lines that name none.
    pub(super) user: Option<&'a str>,
    pub(super) file: &'a str,
    /// The zone of times, where `CRON_TZ` names none.
    pub(super) zone: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) jobs: Vec<ImportedJob>,
    /// What a job does otherwise than cron, each with its line.
    pub(super) notes: BTreeSet<(usize, String)>,
}

/// The jobs of these lines. The id of a job depends on its user and its command only, so that a later import finds it
/// again when its time has changed or lines were added.
pub(super) fn translate(entries: Vec<CrontabEntry>, origins: &Origins<'_>) -> Translated {
    let mut translated = Translated::default();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let user = entry.user.as_deref().or(origins.user);
        let base = id(&entry, user, origins.prefix);
        let count = known.entry(base.clone()).or_default();
        *count += 1;
        let id = if *count == 1 { base } else { format!("{base}-{count}") };
        let definition = definition(&entry, user, &id, origins, &mut translated.notes);
        let CrontabEntry { line, schedule, .. } = entry;
        translated.jobs.push(ImportedJob { line, id, schedule, definition });
    }
    translated
}

/// The name of the program, and a number that stands for the whole command.
fn id(entry: &CrontabEntry, user: Option<&str>, prefix: &str) -> String {
    let mut words = entry.command.split_whitespace().filter(|word| !word.contains('='));
    let program = words.next().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    let name: String = program.chars().filter(is_plain).take(NAME_CHARS).collect();
    let name = if name.is_empty() { "command" } else { &name };
    let (user, stdin) = (user.unwrap_or_default(), entry.stdin.as_deref().unwrap_or_default());
    let whole = [user, &entry.command, stdin].join("\0");
    let hash = stable_hash(whole.as_bytes(), 0) >> 32;
    let user = if user.is_empty() { String::new() } else { format!("{user}:") };
    format!("{prefix}{user}{name}-{hash:08x}")
}

fn definition(
    entry: &CrontabEntry,
    user: Option<&str>,
    id: &str,
    origins: &Origins<'_>,
    notes: &mut BTreeSet<(usize, String)>,
) -> Value {
    let mut variables = entry.variables.clone();
    let mut take = |name: &str| variables.remove(name);
    let mut trigger = json!({"type": "crontab", "expression": entry.schedule,
        "timezone": take("CRON_TZ").map_or_else(|| origins.zone.to_owned(), |(_, zone)| zone)});
    let (mut task, mut job) = (Map::new(), Map::new());
    let (shell, home) = (take("SHELL"), take("HOME"));
    let (mail_to, mail_from) = (take("MAILTO"), take("MAILFROM"));
    if let Some((line, minutes)) = take("RANDOM_DELAY") {
        match minutes.parse::<u32>() {
            Ok(minutes) => {
                if let Some(trigger) = trigger.as_object_mut().filter(|_| minutes > 0) {
                    trigger.insert("jitter".to_owned(), (u64::from(minutes) * 60).into());
                }
            }
            Err(_) => drop(notes.insert((
                line,
                "RANDOM_DELAY is no number of minutes, and is left out".to_owned(),
            ))),
        }
    }
    for name in FIXED.iter().chain(&MAIL_FORMS) {
        if let Some((line, _)) = take(name) {
            notes.insert((line, format!("{name} is left out: a job has none of its own")));
        }
    }
    let mut env: BTreeMap<String, String> =
        variables.into_iter().map(|(name, (_, value))| (name, value)).collect();
    task.insert("type".to_owned(), "command".into());
    match shell.map(|(_, shell)| shell).filter(|shell| shell != SHELL && !shell.is_empty()) {
        None => drop(task.insert("shell".to_owned(), entry.command.as_str().into())),
        Some(shell) => {
            task.insert("argv".to_owned(), json!([shell, "-c", entry.command]));
            env.insert("SHELL".to_owned(), shell);
        }
    }
    if let Some((_, home)) = home {
        task.insert("cwd".to_owned(), home.as_str().into());
        env.insert("HOME".to_owned(), home);
    }
    if !env.is_empty() {
        task.insert("env".to_owned(), json!(env));
    }
    if let Some(stdin) = &entry.stdin {
        task.insert("stdin".to_owned(), stdin.as_str().into());
    }
    if let Some(user) = user {
        task.insert("user".to_owned(), user.into());
    }
    job.insert("id".to_owned(), id.into());
    job.insert("trigger".to_owned(), trigger);
    job.insert("task".to_owned(), task.into());
    if let Some(hook) = mail(mail_to, mail_from, notes) {
        job.insert("on_failure".to_owned(), hook);
    }
    job.insert("tags".to_owned(), json!([TAG]));
    job.insert("description".to_owned(), format!("imported from {}", origins.file).into());
    job.insert("replace_existing".to_owned(), true.into());
    job.into()
}

/// The hook that mails a failure to `MAILTO`.
fn mail(
    to: Option<(usize, String)>,
    from: Option<(usize, String)>,
    notes: &mut BTreeSet<(usize, String)>,
) -> Option<Value> {
    let (line, to) = to?;
    let names = to.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty());
    let address = |name: &str| {
        if name.contains('@') { name.to_owned() } else { format!("{name}@localhost") }
    };
    let to: Vec<String> = names.map(address).collect();
    if to.is_empty() {
        return None;
    }
    let addresses = to.join(", ");
    notes.insert((
        line,
        format!("MAILTO: cron mails all output; here failures are mailed to {addresses}"),
    ));
    let mut hook = json!({"type": "mail", "to": to});
    if let (Some(hook), Some((_, from))) = (hook.as_object_mut(), from) {
        hook.insert("from".to_owned(), from.into());
    }
    Some(hook)
}

#[cfg(test)]
mod tests {
    use super::super::crontab::{CrontabForm, read};
    use super::*;

    fn translated(text: &str, form: CrontabForm) -> Translated {
        let (entries, faults) = read(text, form);
        assert_eq!(faults, []);
        let origins =
            Origins { prefix: "cron:", user: None, file: "/etc/x", zone: "Europe/Berlin" };
        translate(entries, &origins)
    }

    fn job(text: &str) -> Value {
        translated(text, CrontabForm::User).jobs.pop().unwrap().definition
    }

    #[test]
    fn a_line_is_a_command_for_the_shell_at_a_time_in_the_machines_zone() {
        let job = job("5 3 * * * /usr/bin/backup --all | gzip > x");
        let trigger =
            json!({"type": "crontab", "expression": "5 3 * * *", "timezone": "Europe/Berlin"});
        assert_eq!(job["trigger"], trigger);
        let task = json!({"type": "command", "shell": "/usr/bin/backup --all | gzip > x"});
        assert_eq!(job["task"], task);
        assert_eq!((&job["tags"], &job["replace_existing"]), (&json!(["crontab"]), &json!(true)));
        assert_eq!(job["description"], "imported from /etc/x");
        assert!(job.get("on_failure").is_none());
    }

    #[test]
    fn the_variables_of_cron_become_what_they_mean() {
        let text = "SHELL=/bin/bash\nPATH=/opt/bin:/bin\nHOME=/srv/app\nCRON_TZ=Asia/Tokyo\n\
            RANDOM_DELAY=5\nMAILTO=ops@example.org,root\nMAILFROM=cron@example.org\nLOGNAME=x\nX=a b\n\
            0 4 * * * run%in";
        let translated = translated(text, CrontabForm::User);
        let job = &translated.jobs[0].definition;
        assert_eq!(job["trigger"]["timezone"], "Asia/Tokyo");
        assert_eq!(job["trigger"]["jitter"], 300);
        let env =
            json!({"PATH": "/opt/bin:/bin", "HOME": "/srv/app", "SHELL": "/bin/bash", "X": "a b"});
        let task = json!({"type": "command", "argv": ["/bin/bash", "-c", "run"], "cwd": "/srv/app",
            "env": env, "stdin": "in\n"});
        assert_eq!(job["task"], task);
        let hook = json!({"type": "mail", "to": ["ops@example.org", "root@localhost"],
            "from": "cron@example.org"});
        assert_eq!(job["on_failure"], hook);
        let lines: Vec<usize> = translated.notes.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [6, 8], "{:?}", translated.notes);
    }

    #[test]
    fn an_empty_mailto_mails_nothing() {
        assert!(job("MAILTO=\"\"\n@daily a").get("on_failure").is_none());
    }

    #[test]
    fn ids_depend_on_user_and_command_only() {
        let ids = |text: &str, form| -> Vec<String> {
            translated(text, form).jobs.into_iter().map(|job| job.id).collect()
        };
        let before = ids("0 3 * * * /usr/bin/a b\n0 4 * * * X=1 /bin/c", CrontabForm::User);
        let after = ids(
            "# new\n1 1 1 1 * new\n30 3 * * * /usr/bin/a b\n0 4 * * * X=1 /bin/c",
            CrontabForm::User,
        );
        assert_eq!(before[..], after[1..]);
        assert!(before[0].starts_with("cron:a-") && before[1].starts_with("cron:c-"), "{before:?}");
        let twice = ids("0 3 * * * a\n0 4 * * * a", CrontabForm::User);
        assert_eq!(twice[1], format!("{}-2", twice[0]));
        let users = ids("0 3 * * * root a\n0 3 * * * www a", CrontabForm::System);
        assert!(users[0].starts_with("cron:root:a-") && users[1].starts_with("cron:www:a-"));
        let odd = ids("0 3 * * * $(x) \n0 3 * * * A=b", CrontabForm::User);
        assert!(odd[0].starts_with("cron:x-") && odd[1].starts_with("cron:command-"), "{odd:?}");
    }

    #[test]
    fn a_job_runs_as_the_user_of_its_line() {
        let job = translated("0 3 * * * www /bin/x", CrontabForm::System).jobs.remove(0);
        assert_eq!(job.definition["task"]["user"], "www");
    }
}
