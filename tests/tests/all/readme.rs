//! README shows the real output: every `console` block is run against `annals demo`. The output
//! must be README's text, except for ids, times and tokens, which differ in every run.
//!
//! `BLESS=1 cargo test -p tests --test all readme` writes the outputs of a run into README.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use tests::harness::annals::Annals;
use tests::harness::ports;

/// The demo's address in README.
const ADDRESS: &str = "127.0.0.1:4747";
/// The program's path in README.
const PROGRAM: &str = "target/debug/annals";
const BLOCK: &str = "```console\n";
const END: &str = "```\n";

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// The output with ids, times and tokens replaced by fixed ones.
fn steady(output: &str) -> String {
    let volatile = [
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
            "UUID",
        ),
        (r"A[g-v][A-Za-z0-9_-]{29,}", "TOKEN"),
        (r"20[2-9][0-9]-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "NOW"),
    ];
    volatile
        .iter()
        .fold(output.to_owned(), |text, (pattern, name)| {
            Regex::new(pattern)
                .unwrap()
                .replace_all(&text, *name)
                .into_owned()
        })
}

/// The command of a block: the `$` line, and the lines that continue it.
fn command_of(block: &str) -> String {
    let mut command = String::new();
    let mut quoted = false;
    for line in block.lines() {
        let text = if command.is_empty() {
            line.strip_prefix("$ ").unwrap()
        } else {
            line
        };
        command.push_str(text);
        command.push('\n');
        quoted ^= text.matches('\'').count() % 2 == 1;
        if !quoted && !text.ends_with(['\\', '|']) {
            break;
        }
    }
    command
}

fn run(command: &str, listen: &str, folder: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_annals-under-test");
    let here = command.replace(ADDRESS, listen).replace(PROGRAM, program);
    let output = Command::new("bash")
        .args(["-c", &here])
        .current_dir(folder)
        .env("ANNALS_URL", format!("http://{listen}"))
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout)
        .unwrap()
        .replace(listen, ADDRESS);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !printed.is_empty(),
        "`{command}` printed nothing, but: {errors}"
    );
    if printed.ends_with('\n') {
        printed
    } else {
        printed + "\n"
    }
}

#[test]
fn readme_and_performance_show_the_figures_of_the_last_full_run() {
    let rows = |text: String| -> Vec<String> {
        let is_row = |line: &&str| line.starts_with("| B");
        text.lines().filter(is_row).map(str::to_owned).collect()
    };
    let results = readme().with_file_name("bench/results/full.md");
    let measured = rows(fs::read_to_string(results).expect("a committed result"));
    let has_goal = |row: &String| row.ends_with("| met |") || row.ends_with("| **missed** |");
    let with_goal: Vec<String> = measured.into_iter().filter(has_goal).collect();
    assert!(with_goal.len() > 40, "{}", with_goal.len());
    let page = readme().with_file_name("docs/performance.md");
    let page = rows(fs::read_to_string(page).unwrap());
    assert_eq!(
        page.into_iter().filter(has_goal).collect::<Vec<_>>(),
        with_goal
    );
    let shown = rows(fs::read_to_string(readme()).unwrap());
    assert_eq!(shown.len(), 10);
    let unknown: Vec<_> = shown
        .iter()
        .filter(|row| !with_goal.contains(row))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn readme_shows_what_the_program_prints() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", ports::free());
    let program = Path::new(env!("CARGO_BIN_EXE_annals-under-test"));
    let arguments = ["demo".to_owned(), format!("--listen={listen}")];
    let mut demo = Annals::start(program, &arguments, folder.path());
    let text = fs::read_to_string(readme()).unwrap();
    let mut real = String::new();
    let mut rest = text.as_str();
    while let Some(begin) = rest.find(BLOCK) {
        let (before, after) = rest.split_at(begin + BLOCK.len());
        let block = &after[..after.find(END).unwrap()];
        let command = command_of(block);
        let printed = run(&command, &listen, folder.path());
        real.push_str(before);
        real.push_str(&format!("$ {command}{printed}"));
        rest = &after[block.len()..];
    }
    real.push_str(rest);
    assert_eq!(demo.terminate(), Some(0), "{}", demo.said());
    let url = demo
        .said()
        .split('\'')
        .find(|word| word.ends_with("/url"))
        .map(|path| folder.path().join(path));
    let url = fs::read_to_string(url.expect("it says where the address is")).unwrap();
    let password = url.split([':', '@']).nth(2).unwrap();
    assert!(
        !demo.said().contains(password),
        "the demo prints a password"
    );
    if std::env::var_os("BLESS").is_some() {
        fs::write(readme(), real).unwrap();
    } else {
        let (expected, found) = (steady(&text), steady(&real));
        assert_eq!(
            expected, found,
            "BLESS=1 writes what is printed into README"
        );
    }
}
