//! What is generated from the description of the command line: completions and manual pages.

use std::collections::BTreeSet;
use std::process::Command;

use super::help::verbs;
use support::Home;

/// What bash offers for the last of these words, with the completions that the program prints.
fn bash_offers(home: &Home, words: &[&str]) -> BTreeSet<String> {
    std::fs::write(home.path().join("completions"), home.ok(&["completions", "bash"])).unwrap();
    // The function gets the command, the word and the word before it. What it offers it leaves in COMPREPLY.
    let script = r#"
source ./completions
[[ $(complete -p punctual) =~ -F\ ([a-z_]+) ]]
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" punctual "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-e", "-c", script, "bash"]).args(words).current_dir(home.path());
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let offered = String::from_utf8(output.stdout).unwrap();
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn bash_completes_commands_options_and_their_values() {
    let home = Home::new("");
    assert_eq!(bash_offers(&home, &["punctual", "sta"]), set(&["status"]));
    assert_eq!(bash_offers(&home, &["punctual", "add", "x", "--crontab"]), set(&["--crontab"]));
    let states = set(&["active", "paused", "finished", "broken"]);
    assert_eq!(bash_offers(&home, &["punctual", "list", "--state", ""]), states);
    // All that the help lists, and nothing that only the daemon uses.
    let all = bash_offers(&home, &["punctual", ""]);
    let commands: BTreeSet<String> =
        all.into_iter().filter(|word| !word.starts_with('-')).collect();
    let mut documented: BTreeSet<String> = verbs(&home).into_iter().collect();
    documented.extend(set(&["help", "rm"]));
    assert_eq!(commands, documented);
}

#[test]
fn completions_for_other_shells_name_the_commands() {
    let home = Home::new("");
    let zsh = home.ok(&["completions", "zsh"]);
    assert!(zsh.starts_with("#compdef punctual\n"), "{zsh}");
    let fish = home.ok(&["completions", "fish"]);
    assert!(fish.contains("complete -c punctual "), "{fish}");
    for verb in verbs(&home) {
        assert!(zsh.contains(&format!("'{verb}:")), "zsh: {verb}");
        assert!(fish.contains(&format!("-a \"{verb}\" ")), "fish: {verb}");
    }
    let (code, complaint) = home.fails(&["completions", "tcsh"]);
    assert_eq!(code, 2);
    assert!(complaint.contains("'tcsh'") && complaint.contains("bash"), "{complaint}");
}

#[test]
fn every_command_has_a_manual_page() {
    let home = Home::new("");
    home.ok(&["man", "share/man1"]);
    let folder = home.path().join("share/man1");
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected = set(&["punctual.1"]);
    expected.extend(verbs(&home).iter().map(|verb| format!("punctual-{verb}.1")));
    assert_eq!(pages, expected);
    let add = std::fs::read_to_string(folder.join("punctual-add.1")).unwrap();
    assert!(add.contains("\n.TH punctual-add 1 "), "{add}");
    let version = env!("CARGO_PKG_VERSION");
    for page in &pages {
        let page = std::fs::read_to_string(folder.join(page)).unwrap();
        let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(title.contains(&format!("\"punctual {version}\"")), "{title}");
        let (_, synopsis) = page.split_once(".SH SYNOPSIS\n").unwrap();
        let synopsis = synopsis.split("\n.SH ").next().unwrap();
        assert!(synopsis.contains("[OPTIONS]") && !synopsis.contains("socket"), "{synopsis}");
    }
    // Options and examples are those of the help.
    assert!(add.contains(r"\-\-crontab") && add.contains("punctual add backup"), "{add}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let home = Home::new("");
    let (code, complaint) = home.fails(&["man", "jobs.toml/pages"]);
    assert_eq!(code, 1);
    assert!(complaint.starts_with("punctual: jobs.toml/pages: "), "{complaint}");
}
