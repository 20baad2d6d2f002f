//! The task `command`: a program in a process of its own, and how it is started and ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::{ResourceLimits, TaskType};
use crate::invalid::{self, Invalid};
use crate::job::seconds;
use crate::secret::{Secret, Text};

/// The most bytes of text for standard input.
const STDIN_BYTES_MAX: usize = 64 * 1024;
/// The exit codes that there are.
const CODES: std::ops::RangeInclusive<i32> = 0..=255;
/// The nice values that there are.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;
/// The time between SIGTERM and SIGKILL where none is given.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// The longest such time, in seconds.
const KILL_GRACE_MAX: f64 = 3600.0;
/// Words that mean something to a shell, and usually nothing to another program.
const OPERATORS: [&str; 7] = ["|", "||", "&&", ">", ">>", "2>", "2>&1"];
/// The variables that tell a command about its run.
pub const RUN_VARIABLES: [&str; 12] = [
    "PUNCTUAL_JOB_ID",
    "PUNCTUAL_RUN_ID",
    "PUNCTUAL_ATTEMPT",
    "PUNCTUAL_SCHEDULED_AT",
    "PUNCTUAL_EVENT",
    "PUNCTUAL_HOOK_RUN_ID",
    "PUNCTUAL_HOST",
    "PUNCTUAL_STATE",
    "PUNCTUAL_EXIT_CODE",
    "PUNCTUAL_ERROR",
    "PUNCTUAL_OUTPUT",
    "TRACEPARENT",
];

/// The program that is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// A program and its arguments, without a shell in between.
    Argv(Vec<String>),
    /// A script for `/bin/sh`.
    Shell(String),
}

impl Program {
    /// A warning about words that look like a shell command line although no shell is used.
    fn advice(&self) -> Option<String> {
        let Self::Argv(argv) = self else { return None };
        let instead = "a line for a shell is given as \"shell\" (on the command line: --shell)";
        let quoted = invalid::quoted;
        if let [program] = argv.as_slice()
            && program.contains(char::is_whitespace)
        {
            let program = quoted(program);
            return Some(format!(
                "{program} is one word, which names the program: {instead}, and arguments are words of their own"
            ));
        }
        let operator = argv.iter().skip(1).find(|word| OPERATORS.contains(&word.as_str()))?;
        Some(format!("{} is an argument of the program: {instead}", quoted(operator)))
    }
}

/// The form in which a hook command reads its report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportForm {
    /// Text for people, as in the body of a mail.
    #[default]
    Text,
    /// One line of JSON.
    Json,
}

/// A command, with only the fields that were given: so it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Command {
    /// The program that is executed.
    #[serde(flatten)]
    pub program: Program,
    /// Variables that are added to the daemon's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// The working directory. None: the daemon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Text for standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Text>,
    /// The form of the report that a hook reads from standard input, unless `stdin` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportForm>,
    /// The user to run as: a name or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group to run in. None: the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The permissions that new files do not get, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// The niceness, from -20 to 19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// The resources that it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceLimits>,
    /// The exit codes that mean success. None: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_codes: Option<Vec<i32>>,
    /// The exit codes after which a retry is pointless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_retry_codes: Option<Vec<i32>>,
    /// The seconds between SIGTERM and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_grace: Option<Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandInput {
    argv: Option<Vec<String>>,
    shell: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, Text>,
    cwd: Option<String>,
    stdin: Option<Text>,
    report: Option<ReportForm>,
    user: Option<String>,
    group: Option<String>,
    umask: Option<String>,
    nice: Option<i32>,
    limits: Option<ResourceLimits>,
    success_codes: Option<Vec<i32>>,
    no_retry_codes: Option<Vec<i32>>,
    kill_grace: Option<Number>,
}

impl Command {
    /// Reads the JSON form, without its type.
    pub(super) fn parse(given: Map<String, Value>) -> Result<Self, Invalid> {
        let given: CommandInput = invalid::read(Value::Object(given))?;
        let command = Self {
            program: program(given.argv, given.shell)?,
            env: given.env,
            cwd: given.cwd,
            stdin: given.stdin,
            report: given.report,
            user: given.user,
            group: given.group,
            umask: given.umask,
            nice: given.nice,
            limits: given.limits,
            success_codes: given.success_codes,
            no_retry_codes: given.no_retry_codes,
            kill_grace: given.kill_grace,
        };
        command.check_environment()?;
        command.check_identity()?;
        if let Some(limits) = &command.limits {
            limits.check().map_err(|invalid| invalid.within("limits"))?;
        }
        command.check_ending()?;
        Ok(command)
    }

    fn check_environment(&self) -> Result<(), Invalid> {
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                let why = "a variable's name is not empty and has no \"=\" and no NUL byte";
                return Err(Invalid::new("env", why));
            }
            let field = format!("env.{name}");
            if RUN_VARIABLES.contains(&name.as_str()) {
                return Err(Invalid::new(field, "is set by the daemon, for each run"));
            }
            if value.plain().is_some_and(|value| value.contains('\0')) {
                return Err(Invalid::new(field, "a value must not contain a NUL byte"));
            }
            check_place(&field, value)?;
        }
        if self.stdin.is_some() && self.report.is_some() {
            let why = "cannot be given together with \"stdin\"";
            return Err(Invalid::new("report", why));
        }
        if let Some(stdin) = &self.stdin {
            check_place("stdin", stdin)?;
        }
        if self
            .stdin
            .as_ref()
            .and_then(Text::plain)
            .is_some_and(|text| text.len() > STDIN_BYTES_MAX)
        {
            let why = format!("has more than {STDIN_BYTES_MAX} bytes");
            return Err(Invalid::new("stdin", why));
        }
        check_word("cwd", self.cwd.as_deref(), "must be a path")
    }

    fn check_identity(&self) -> Result<(), Invalid> {
        check_word("user", self.user.as_deref(), "must be the name or the number of a user")?;
        check_word("group", self.group.as_deref(), "must be the name or the number of a group")?;
        if self.umask.is_some() && self.umask().is_none() {
            let why = "must be an octal text between \"0\" and \"777\", such as \"027\"";
            return Err(Invalid::new("umask", why));
        }
        if self.nice.is_some_and(|nice| !NICE.contains(&nice)) {
            return Err(Invalid::new("nice", "must be between -20 and 19"));
        }
        Ok(())
    }

    fn check_ending(&self) -> Result<(), Invalid> {
        let lists =
            [("success_codes", &self.success_codes), ("no_retry_codes", &self.no_retry_codes)];
        for (field, codes) in lists {
            let Some(codes) = codes else { continue };
            if codes.is_empty() {
                return Err(Invalid::new(field, "must name at least one exit code"));
            }
            if codes.iter().any(|code| !CODES.contains(code)) {
                return Err(Invalid::new(field, "an exit code is between 0 and 255"));
            }
        }
        let both = self.no_retry_codes.iter().flatten().find(|code| self.is_success(**code));
        if let Some(code) = both {
            let why = format!("{code} means success, so that nothing would be tried again");
            return Err(Invalid::new("no_retry_codes", why));
        }
        if let Some(grace) = &self.kill_grace {
            // A number that is no float is refused as too long.
            let grace = grace.as_f64().unwrap_or(f64::INFINITY);
            seconds::parse("kill_grace", grace, KILL_GRACE_MAX)?;
        }
        Ok(())
    }

    /// Whether an exit code means success.
    pub fn is_success(&self, code: i32) -> bool {
        self.success_codes.as_ref().map_or(code == 0, |codes| codes.contains(&code))
    }

    /// Whether a retry is pointless after this exit code.
    pub fn is_permanent(&self, code: i32) -> bool {
        self.no_retry_codes.as_ref().is_some_and(|codes| codes.contains(&code))
    }

    /// The time between SIGTERM and SIGKILL.
    pub fn kill_grace(&self) -> Duration {
        let given = self.kill_grace.as_ref().and_then(Number::as_f64);
        given.map_or(KILL_GRACE, Duration::from_secs_f64)
    }

    /// The umask as a number.
    pub fn umask(&self) -> Option<u32> {
        let text = self.umask.as_deref().filter(|text| text.bytes().all(|c| c.is_ascii_digit()))?;
        u32::from_str_radix(text, 8).ok().filter(|umask| *umask <= 0o777)
    }
}

impl TaskType for Command {
    fn needs_process(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        match &self.program {
            Program::Argv(argv) => argv.join(" "),
            Program::Shell(script) => script.clone(),
        }
    }

    fn secret_variables(&self) -> Vec<&str> {
        self.env.values().chain(&self.stdin).filter_map(Text::variable).collect()
    }

    fn secret_field(&self) -> Option<String> {
        let is_secret = |text: &Text| text.plain().is_none();
        let variable = self.env.iter().find(|(_, text)| is_secret(text));
        let variable = variable.map(|(name, _)| format!("env.{name}"));
        variable
            .or_else(|| self.stdin.as_ref().filter(|text| is_secret(text)).map(|_| "stdin".into()))
    }

    fn advice(&self) -> Option<String> {
        self.program.advice()
    }

    fn check_is_no_hook(&self) -> Result<(), Invalid> {
        if self.report.is_none() {
            return Ok(());
        }
        let message =
            "applies to hooks only, which read a report; the job's own command has none to read";
        Err(Invalid::new("report", message))
    }
}

fn program(argv: Option<Vec<String>>, shell: Option<String>) -> Result<Program, Invalid> {
    let refuse = |field: &str, why: &str| Err(Invalid::new(field, why));
    match (argv, shell) {
        (Some(_), Some(_)) => refuse("shell", "give either \"argv\" or \"shell\", and not both"),
        (None, None) => refuse("argv", "missing (or give \"shell\")"),
        (None, Some(script)) if script.contains("\r\n") => refuse(
            "shell",
            "must not have CRLF line ends (\"\\r\\n\"): a shell takes the carriage return for a part of the line",
        ),
        (None, Some(script)) if script.trim().is_empty() => refuse("shell", "must not be empty"),
        (None, Some(script)) if script.contains('\0') => {
            refuse("shell", "must not contain a NUL byte")
        }
        (None, Some(script)) => Ok(Program::Shell(script)),
        (Some(argv), None) if argv.first().is_none_or(String::is_empty) => {
            refuse("argv", "must name a program")
        }
        (Some(argv), None) if argv.iter().any(|word| word.contains('\0')) => {
            refuse("argv", "must not contain a NUL byte")
        }
        (Some(argv), None) => Ok(Program::Argv(argv)),
    }
}

fn check_word(field: &str, word: Option<&str>, why: &str) -> Result<(), Invalid> {
    if word.is_some_and(|word| word.is_empty() || word.contains('\0')) {
        return Err(Invalid::new(field, why));
    }
    Ok(())
}

/// Refuses a secret whose source has no name.
fn check_place(field: &str, text: &Text) -> Result<(), Invalid> {
    let Text::Secret(Secret::Env(place) | Secret::File(place) | Secret::Credential(place)) = text
    else {
        return Ok(());
    };
    check_word(field, Some(place), "must say where the secret is found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Task;
    use serde_json::json;

    #[test]
    fn a_command_is_shown_as_it_was_given() {
        let cases = [
            json!({"type": "command", "argv": ["/bin/true", "x"], "env": {"A": "b"}, "cwd": "/tmp"}),
            json!({"type": "command", "shell": "a | b", "stdin": "text"}),
            json!({
                "type": "command", "argv": ["x"], "env": {"A": {"env": "B"}}, "stdin": {"file": "/x"}, "user": "nobody",
                "group": "100", "umask": "027", "nice": -5, "limits": {"memory": "512M", "cpu": 10, "files": 64},
                "success_codes": [0, 3], "no_retry_codes": [64], "kill_grace": 0.5,
            }),
            json!({"type": "command", "argv": ["x"], "limits": {"memory": 10_000_000}, "kill_grace": 3600}),
            json!({"type": "command", "argv": ["x"], "limits": {}, "success_codes": [7]}),
        ];
        for case in cases {
            assert_eq!(Task::parse(&case).unwrap().to_value(), case);
        }
    }

    #[test]
    fn a_bad_command_is_refused_by_its_field() {
        let long = "x".repeat(STDIN_BYTES_MAX + 1);
        let cases = [
            (json!({}), "argv"),
            (json!({"argv": []}), "argv"),
            (json!({"argv": "/bin/true"}), "argv"),
            (json!({"argv": ["a", 1]}), "argv[1]"),
            (json!({"argv": ["a\u{0}b"]}), "argv"),
            (json!({"argv": ["a"], "shell": "b"}), "shell"),
            (json!({"shell": " "}), "shell"),
            (json!({"shell": "a\r\nb"}), "shell"),
            (json!({"shell": "a\u{0}"}), "shell"),
            (json!({"shell": ["a"]}), "shell"),
            (json!({"argv": ["a"], "timeout": 5}), "timeout"),
            (json!({"argv": ["a"], "env": {"A=B": ""}}), "env"),
            (json!({"argv": ["a"], "env": {"A": "\u{0}"}}), "env.A"),
            (json!({"argv": ["a"], "env": {"A": 1}}), "env.A"),
            (json!({"argv": ["a"], "env": {"A": {"vault": "x"}}}), "env.A"),
            (json!({"argv": ["a"], "env": {"A": {"env": ""}}}), "env.A"),
            (json!({"argv": ["a"], "env": {"PUNCTUAL_RUN_ID": "x"}}), "env.PUNCTUAL_RUN_ID"),
            (json!({"argv": ["a"], "cwd": ""}), "cwd"),
            (json!({"argv": ["a"], "stdin": long}), "stdin"),
            (json!({"argv": ["a"], "stdin": {"file": ""}}), "stdin"),
            (json!({"argv": ["a"], "user": ""}), "user"),
            (json!({"argv": ["a"], "user": 1000}), "user"),
            (json!({"argv": ["a"], "group": "a\u{0}"}), "group"),
            (json!({"argv": ["a"], "umask": "089"}), "umask"),
            (json!({"argv": ["a"], "umask": "1000"}), "umask"),
            (json!({"argv": ["a"], "umask": "+7"}), "umask"),
            (json!({"argv": ["a"], "umask": ""}), "umask"),
            (json!({"argv": ["a"], "umask": 27}), "umask"),
            (json!({"argv": ["a"], "nice": 20}), "nice"),
            (json!({"argv": ["a"], "nice": -21}), "nice"),
            (json!({"argv": ["a"], "nice": 1.5}), "nice"),
            (json!({"argv": ["a"], "limits": {"cpu": 0}}), "limits.cpu"),
            (json!({"argv": ["a"], "limits": {"disk": 3}}), "limits.disk"),
            (json!({"argv": ["a"], "success_codes": []}), "success_codes"),
            (json!({"argv": ["a"], "success_codes": [256]}), "success_codes"),
            (json!({"argv": ["a"], "success_codes": 0}), "success_codes"),
            (json!({"argv": ["a"], "no_retry_codes": [-1]}), "no_retry_codes"),
            (json!({"argv": ["a"], "no_retry_codes": [0]}), "no_retry_codes"),
            (json!({"argv": ["a"], "kill_grace": 0}), "kill_grace"),
            (json!({"argv": ["a"], "kill_grace": 3601}), "kill_grace"),
            (json!({"argv": ["a"], "kill_grace": "5s"}), "kill_grace"),
        ];
        for (mut case, field) in cases {
            case["type"] = json!("command");
            assert_eq!(Task::parse(&case).unwrap_err().field, field, "{case}");
        }
    }

    #[test]
    fn exit_codes_mean_what_the_task_says() {
        let Task::Command(command) = Task::parse(
            &json!({"type": "command", "shell": "x", "success_codes": [3], "no_retry_codes": [0]}),
        )
        .unwrap() else {
            panic!("it is a command");
        };
        assert!(command.is_success(3) && !command.is_success(0));
        assert!(command.is_permanent(0) && !command.is_permanent(1));
        assert_eq!(command.kill_grace(), KILL_GRACE);
    }
}
