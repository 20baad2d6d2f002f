//! Reads a crontab as cron does: comments, variables, and lines with a time and a command.

use std::collections::BTreeMap;

/// Whose crontab it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CrontabForm {
    /// A user's own, as `crontab -l` prints it.
    User,
    /// The machine's: each line names a user before the command.
    System,
}

/// A line with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CrontabEntry {
    /// From 1.
    pub(super) line: usize,
    /// Five fields, or a nickname such as `@daily`.
    pub(super) schedule: String,
    pub(super) user: Option<String>,
    pub(super) command: String,
    /// What the command reads: the text after its first `%`.
    pub(super) stdin: Option<String>,
    /// The variables that were set above it, each with the line that sets it.
    pub(super) variables: BTreeMap<String, (usize, String)>,
}

/// A line that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineFault {
    pub(super) line: usize,
    pub(super) why: String,
}

/// The lines with commands, and those that are none of what a crontab may have.
pub(super) fn read(text: &str, form: CrontabForm) -> (Vec<CrontabEntry>, Vec<LineFault>) {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    let mut variables = BTreeMap::new();
    for (index, text) in text.lines().enumerate() {
        let (line, text) = (index + 1, text.trim_start_matches([' ', '\t']));
        if text.trim_end().is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = variable(text) {
            variables.insert(name, (line, value));
            continue;
        }
        match entry(text, form) {
            Ok((schedule, user, command)) => {
                let (command, stdin) = split_stdin(&command);
                let variables = variables.clone();
                entries.push(CrontabEntry { line, schedule, user, command, stdin, variables });
            }
            Err(why) => faults.push(LineFault { line, why }),
        }
    }
    (entries, faults)
}

/// A variable and its value, if the line sets one. Quotes around either are not part of it.
fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = unquoted(name.trim_end());
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains('*');
    is_name.then(|| (name.to_owned(), unquoted(value.trim()).to_owned()))
}

fn unquoted(text: &str) -> &str {
    let quotes = ['"', '\''].into_iter();
    let mut inside = quotes
        .filter_map(|quote| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)));
    inside.next().unwrap_or(text)
}

/// The first word of a text, and what follows the spaces after it.
fn first_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start_matches([' ', '\t']))
}

/// Time, user and command of a line.
fn entry(text: &str, form: CrontabForm) -> Result<(String, Option<String>, String), String> {
    let fields = if text.starts_with('@') { 1 } else { 5 };
    let (mut schedule, mut rest) = (Vec::new(), text);
    for _ in 0..fields {
        let (field, after) = first_word(rest);
        schedule.push(field);
        rest = after;
    }
    let schedule = schedule.join(" ");
    if schedule.eq_ignore_ascii_case("@reboot") {
        return Err("@reboot has no equivalent; use a systemd unit".to_owned());
    }
    let user = match form {
        CrontabForm::User => None,
        CrontabForm::System => {
            let (user, after) = first_word(rest);
            rest = after;
            Some(user.to_owned()).filter(|user| !user.is_empty())
        }
    };
    let command = rest.trim_end();
    if command.is_empty() || (form == CrontabForm::System && user.is_none()) {
        return Err(match form {
            CrontabForm::User => "expected a time and a command".to_owned(),
            CrontabForm::System => "expected a time, a user and a command".to_owned(),
        });
    }
    Ok((schedule, user, command.to_owned()))
}

/// The command up to the first `%`, and what it reads: the rest, where each further `%` is the end of a line. `\%` is a
/// plain `%`.
fn split_stdin(text: &str) -> (String, Option<String>) {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'%') => part.extend(letters.next()),
            '%' => parts.push(std::mem::take(&mut part)),
            _ => part.push(letter),
        }
    }
    parts.push(part);
    let mut parts = parts.into_iter();
    let command = parts.next().unwrap_or_default().trim_end().to_owned();
    let lines: Vec<String> = parts.collect();
    let stdin = lines.join("\n");
    let stdin = (!stdin.is_empty())
        .then(|| if stdin.ends_with('\n') { stdin } else { format!("{stdin}\n") });
    (command, stdin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str, form: CrontabForm) -> Vec<(usize, String, Option<String>, String)> {
        let (entries, faults) = read(text, form);
        assert_eq!(faults, [], "{text}");
        entries
            .into_iter()
            .map(|entry| (entry.line, entry.schedule, entry.user, entry.command))
            .collect()
    }

    #[test]
    fn a_line_is_a_time_and_a_command() {
        let text = "# comment\n\n  \t\n\t5 */2 * * mon-fri   /bin/a  --b 'c  d' \n@daily\tb";
        let expected = [(4, "5 */2 * * mon-fri", "/bin/a  --b 'c  d'"), (5, "@daily", "b")];
        let expected =
            expected.map(|(line, time, command)| (line, time.to_owned(), None, command.to_owned()));
        assert_eq!(commands(text, CrontabForm::User), expected);
    }

    #[test]
    fn the_machines_crontab_has_a_user_before_the_command() {
        let found = commands("17 * * * *\troot    cd / && run-parts x", CrontabForm::System);
        let (user, command) = (Some("root".to_owned()), "cd / && run-parts x".to_owned());
        assert_eq!(found, [(1, "17 * * * *".to_owned(), user, command)]);
    }

    #[test]
    fn a_variable_holds_for_the_lines_below_it() {
        let text = "A=1\n* * * * * a\n A = \"x y \" \nB='q'\n* * * * * b\nC=\n* * * * * X=1 c";
        let (entries, faults) = read(text, CrontabForm::User);
        assert_eq!(faults, []);
        let of = |index: usize| -> Vec<(&str, usize, &str)> {
            let variables = entries[index].variables.iter();
            variables.map(|(name, (line, value))| (name.as_str(), *line, value.as_str())).collect()
        };
        assert_eq!(of(0), [("A", 1, "1")]);
        assert_eq!(of(1), [("A", 3, "x y "), ("B", 4, "q")]);
        assert_eq!(of(2), [("A", 3, "x y "), ("B", 4, "q"), ("C", 6, "")]);
        assert_eq!(entries[2].command, "X=1 c", "that is for the shell");
    }

    #[test]
    fn what_follows_a_percent_sign_is_read_by_the_command() {
        let split = |text: &str| split_stdin(text);
        let stdin = |text: &str| Some(text.to_owned());
        assert_eq!(split("mail bob%Hi,%%bye"), ("mail bob".to_owned(), stdin("Hi,\n\nbye\n")));
        assert_eq!(split(r"date +\%F"), ("date +%F".to_owned(), None));
        assert_eq!(split(r"cat % 100\%%"), ("cat".to_owned(), stdin(" 100%\n")));
        assert_eq!(split("cat%"), ("cat".to_owned(), None));
        assert_eq!(split(r"a\\b \c"), (r"a\\b \c".to_owned(), None));
    }

    #[test]
    fn what_is_no_line_of_a_crontab_is_named() {
        let text = "* * * * *\n@reboot /bin/a\n@daily\n* * *\nnonsense\n0 3 * * * ok";
        let (entries, faults) = read(text, CrontabForm::User);
        assert_eq!(entries.len(), 1);
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(faults[1].why.contains("@reboot"));
        let (_, faults) = read("0 3 * * * root\n@hourly root", CrontabForm::System);
        assert!(faults.len() == 2 && faults[0].why.contains("a user"));
    }
}
