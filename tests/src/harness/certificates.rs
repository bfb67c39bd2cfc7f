//! Certificates for test servers: a new authority and the certificates that it signs, made by the
//! program `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A certificate authority that no system trusts by default, and the folder with its files.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    /// The folder, if it is removed together with the authority.
    own: Option<TempDir>,
}

/// A certificate and its key, each in a PEM file.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority in a new folder.
    ///
    /// # Panics
    /// If there is no `openssl`.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut authority = Self::within(folder.path());
        authority.own = Some(folder);
        authority
    }

    /// Makes an authority in the given folder.
    ///
    /// # Panics
    /// If there is no `openssl`.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        let authority = Self {
            folder: folder.to_owned(),
            own: None,
        };
        let mut command = authority.request("authority");
        command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        run(&mut command);
        authority
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// A certificate for a server or a client at this machine's loopback address.
    ///
    /// # Panics
    /// If `openssl` does not make it.
    #[must_use]
    pub fn certify(&self, name: &str) -> Certified {
        let mut command = self.request(name);
        command
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-CA")
            .arg(self.certificate())
            .arg("-CAkey")
            .arg(self.path("authority.key"));
        run(&mut command);
        Certified {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn request(&self, name: &str) -> Command {
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-noenc", "-days", "2", "-subj"])
            .arg(format!("/CN={name}"))
            .arg("-keyout")
            .arg(self.path(&format!("{name}.key")))
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")));
        command
    }
}

impl Certified {
    /// Certificate and key in one text, the form that Kafka takes.
    ///
    /// # Panics
    /// If the files cannot be read.
    #[must_use]
    pub fn together(&self) -> String {
        let read = |file: &Path| std::fs::read_to_string(file).expect("`certify` made the file");
        read(&self.key) + &read(&self.certificate)
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("no openssl for the tests ({error}): run ops/setup and try again")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "openssl made no certificate:\n{errors}"
    );
}
