//! `annals new`: writes a project for a domain of one's own, which builds and runs as it is.
//!
//! The project is `examples/bank` with another name: its sources are those that the workspace builds
//! and tests. Invariant: nothing that exists is changed, and a project is written whole or not at
//! all. Deliberately absent: any later change of a project.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use host::exit::{Exit, Failure};
use host::settings::Settings;
use host::{Domain, Subcommand, talk};

const HELP: &str = "\
The project has rules, a read model, tests of both, a Dockerfile and a workflow for CI. Build and run
it, and replace its domain by yours: docs/your-domain.md explains each part.

Examples:
  annals new mybank && cd mybank && cargo run -- dev
  annals new mybank --annals ../annals     on a checkout of Annals instead of the published crate";

/// The longest name: it becomes the name of a crate, a user and an image.
const NAME_CHARACTERS_MAX: usize = 32;

/// Words that a crate cannot have as its name: those of Rust and cargo, and crates that the project uses.
const TAKEN: [&str; 62] = [
    "abstract",
    "annals",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "schemars",
    "self",
    "serde",
    "serde_json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tokio",
    "trait",
    "true",
    "try",
    "type",
    "unsafe",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// The files of a project: where they stand in it, and what is in them.
const FILES: [(&str, &str); 11] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.txt")),
    ("README.md", include_str!("../template/README.md")),
    ("Dockerfile", include_str!("../template/Dockerfile")),
    (".dockerignore", include_str!("../template/dockerignore")),
    (".gitignore", include_str!("../template/gitignore")),
    (
        ".github/workflows/ci.yml",
        include_str!("../template/ci.yml"),
    ),
    (
        "src/main.rs",
        include_str!("../../examples/bank/src/main.rs"),
    ),
    ("src/lib.rs", include_str!("../../examples/bank/src/lib.rs")),
    (
        "src/account.rs",
        include_str!("../../examples/bank/src/account.rs"),
    ),
    (
        "src/balances.rs",
        include_str!("../../examples/bank/src/balances.rs"),
    ),
    (
        "tests/rules.rs",
        include_str!("../../examples/bank/tests/rules.rs"),
    ),
];

/// The test of the whole program; apart, because it names the program, too.
const RUNS: (&str, &str) = (
    "tests/runs.rs",
    include_str!("../../examples/bank/tests/runs.rs"),
);

/// Write a project for a domain of your own, which builds and runs
#[derive(Debug, Parser)]
#[command(name = "new", after_help = HELP)]
pub(crate) struct New {
    /// Name of the project and of its folder: small letters, digits, - and _
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// Where the project is written [default: a folder of its name]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// A checkout of Annals to build on [default: the published crate of this version]
    #[arg(long, value_name = "DIR")]
    annals: Option<PathBuf>,
}

impl Subcommand for New {
    // A project is for all who work on it.
    const KEEPS_PRIVATE: bool = false;

    async fn run(self, _domain: &Domain, _settings: Settings) -> Result<Exit, Failure> {
        let folder = self.folder.unwrap_or_else(|| PathBuf::from(&self.name));
        let version = env!("CARGO_PKG_VERSION");
        let (annals, source) = match &self.annals {
            Some(checkout) => (at_path(checkout)?, checkout.display().to_string()),
            None => (
                format!("version = \"{version}\""),
                format!("crate {version}"),
            ),
        };
        write(&folder, &files(&self.name, &annals))?;
        talk!(
            "wrote {}, which builds on annals ({source})",
            folder.display()
        );
        talk!("  cd {} && cargo run -- dev", folder.display());
        Ok(Exit::Done)
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let is_name = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(is_part)
        && text.len() <= NAME_CHARACTERS_MAX;
    if !is_name {
        return Err(format!(
            "a name begins with a small letter and has at most {NAME_CHARACTERS_MAX} small letters, \
             digits, - and _"
        ));
    }
    match TAKEN.contains(&text.replace('-', "_").as_str()) {
        true => Err("a crate cannot have this name, or the project uses a crate of it".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// How a manifest names the crate `annals` in a checkout.
fn at_path(checkout: &Path) -> Result<String, Failure> {
    let krate = checkout.join("annals");
    let found = krate.canonicalize();
    match found {
        Ok(path) if path.join("Cargo.toml").is_file() => {
            Ok(format!("path = {:?}", path.display().to_string()))
        }
        Ok(_) | Err(_) => {
            let message = format!(
                "{} is no checkout of Annals: it has no crate annals",
                checkout.display()
            );
            Err(Failure::new(Exit::NotFound, message))
        }
    }
}

/// Every file of a project. `annals` says where its dependency comes from.
fn files(name: &str, annals: &str) -> Vec<(&'static str, String)> {
    let plain = match annals.strip_prefix("version = ") {
        Some(version) => version.to_owned(),
        None => format!("{{ {annals} }}"),
    };
    let testing = format!("{{ {annals}, features = [\"testing\"] }}");
    let ident = name.replace('-', "_");
    let filled = |(path, text): (&'static str, &str)| {
        let text = match path.ends_with(".rs") {
            true => text
                .replace("CARGO_BIN_EXE_bank", &format!("CARGO_BIN_EXE_{name}"))
                .replace("bank::", &format!("{ident}::")),
            false => text
                .replace("@annals_testing@", &testing)
                .replace("@annals@", &plain)
                .replace("@name@", name),
        };
        (path, text)
    };
    FILES.into_iter().chain([RUNS]).map(filled).collect()
}

/// Writes the project. It grows in a folder beside, which then gets its name.
fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    let failed = |error: &io::Error| {
        Failure::of(Exit::Failed, error).while_trying(&format!("write {}", folder.display()))
    };
    if folder.symlink_metadata().is_ok() {
        let message = format!("{} exists already; nothing was written", folder.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut unfinished = folder.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(unfinished.parent().unwrap_or(Path::new("."))).map_err(|e| failed(&e))?;
    fs::create_dir(&unfinished).map_err(|error| {
        let failure = Failure::of(Exit::Failed, &error)
            .while_trying(&format!("create {}", unfinished.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => failure.hint("an earlier run was ended; remove it"),
            _ => failure,
        }
    })?;
    let grow = || -> io::Result<()> {
        for (path, text) in files {
            let path = unfinished.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&unfinished))?;
            fs::write(path, text)?;
        }
        fs::rename(&unfinished, folder)
    };
    grow().map_err(|error| {
        // What was written is of no use; if it cannot be removed, the error above says more.
        let _ = fs::remove_dir_all(&unfinished);
        failed(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_keeps_nothing_of_the_templates_name() {
        for project in ["shop", "my-shop", "a"] {
            for (path, text) in files(project, "version = \"1.2.3\"") {
                let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                let left: Vec<&str> = words.filter(|word| word.contains("bank")).collect();
                assert!(
                    left.is_empty() && !text.contains('@'.to_string().repeat(2).as_str()),
                    "{path}: {left:?}"
                );
                assert!(
                    !text.contains("@name") && !text.contains("@annals"),
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_no_crate_can_have_is_refused() {
        for good in ["mybank", "my-bank", "my_bank2"] {
            assert_eq!(name(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "My",
            "2bank",
            "a b",
            "../x",
            "-a",
            "für",
            "annals",
            "self",
            "proc-macro",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(name(&"a".repeat(NAME_CHARACTERS_MAX + 1)).is_err());
        assert!(TAKEN.is_sorted());
    }

    #[test]
    fn what_exists_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("annals-new-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let refused = write(&folder, &files("mybank", "version = \"1\"")).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
        write(&folder, &files("mybank", "version = \"1\"")).unwrap();
        assert!(folder.join("src/main.rs").is_file());
        fs::remove_dir_all(&folder).unwrap();
        // A run that was ended leaves a folder; the next one says which.
        let unfinished = folder.with_extension("unfinished");
        fs::create_dir(&unfinished).unwrap();
        let refused = write(&folder, &files("mybank", "version = \"1\"")).unwrap_err();
        assert!(
            refused.message.contains(".unfinished"),
            "{}",
            refused.message
        );
        fs::remove_dir(&unfinished).unwrap();
    }
}
