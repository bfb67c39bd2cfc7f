//! The other program: started, asked, heard, ended.
//!
//! Invariant: each answer belongs to the command that was asked, and a program that ends, says
//! anything else or says nothing is named as such. It ends with this process, because its input
//! ends. Deliberately absent: what the answers mean (`report`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use event_log::subscription::Placed;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::command::raw::BUFFER_BYTES;
use crate::command::rules::{Answer, EXCHANGE_VERSION, Hello, LINE_BYTES_MAX, Reason, Verdict};
use crate::exit::{Exit, Failure};
use crate::output;

/// How long the program may take to end when there is nothing more to judge.
const END_WAIT: Duration = Duration::from_secs(5);
/// How much of its messages is kept, and how much of a line that is no answer is shown, in bytes.
const SHOWN_BYTES: usize = 600;

/// The other program, which judges.
pub(super) struct Judge {
    pub(super) hello: Hello,
    child: Child,
    asking: Asking,
    hearing: Hearing,
}

/// The side on which commands are sent.
pub(super) struct Asking(BufWriter<ChildStdin>);

/// The side on which answers come.
pub(super) struct Hearing {
    file: PathBuf,
    lines: BufReader<ChildStdout>,
    line: Vec<u8>,
    /// How long the program may take to say who it is, and to judge one command.
    answer_timeout: Duration,
    messages: Option<JoinHandle<Vec<u8>>>,
}

/// A bare name is a file of this folder, and not a command that is looked for.
fn as_path(file: &Path) -> PathBuf {
    match file.components().count() {
        1 => Path::new(".").join(file),
        _ => file.to_owned(),
    }
}

/// Whether a variable of the environment is passed on: those by which any program runs.
fn is_passed_on(name: &OsStr) -> bool {
    const PASSED_ON: [&str; 9] = [
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_ALL",
        "TZ",
        "LD_LIBRARY_PATH",
        "RUST_BACKTRACE",
        "SYSTEMROOT",
    ];
    name.to_str().is_some_and(|name| PASSED_ON.contains(&name))
}

impl Judge {
    /// Starts the program and hears who it is.
    pub(super) async fn start(
        file: &Path,
        answer_timeout_ms: u64,
        with_events: bool,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(as_path(file));
        // It is given no secret, no address and no setting of this process: it needs none, and another
        // build may not know them.
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
            .args(["rules", "judge"])
            .args(with_events.then_some("--events"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which then ends the other one.
            .process_group(0)
            .kill_on_drop(true);
        let started = command.spawn();
        let mut child = started.map_err(|error| {
            Failure::of(Exit::Usage, &error)
                .while_trying(&format!("start {}", shown(file)))
                .hint("--rules takes the path of a program built on Annals")
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::new(Exit::Failed, "the program has no pipes"));
        };
        let mut hearing = Hearing {
            file: file.to_owned(),
            lines: BufReader::with_capacity(BUFFER_BYTES, stdout),
            line: Vec::new(),
            answer_timeout: Duration::from_millis(answer_timeout_ms),
            messages: Some(tokio::spawn(last_of(stderr))),
        };
        let hello = hearing.hello().await?;
        Ok(Self {
            hello,
            child,
            asking: Asking(BufWriter::with_capacity(BUFFER_BYTES, stdin)),
            hearing,
        })
    }

    /// Both sides, to be used at the same time.
    pub(super) fn sides(&mut self) -> (&mut Asking, &mut Hearing) {
        (&mut self.asking, &mut self.hearing)
    }

    /// Ends the program. If it is not done, it need not end by itself.
    pub(super) async fn end(self, is_done: bool) -> Result<(), Failure> {
        let Self {
            mut child, asking, ..
        } = self;
        drop(asking);
        if !is_done || timeout(END_WAIT, child.wait()).await.is_err() {
            let killed = child.kill().await;
            killed.map_err(|error| {
                Failure::of(Exit::Failed, &error).while_trying("end the other program")
            })?;
        }
        Ok(())
    }
}

impl Asking {
    /// Sends a line; whether the program still takes one.
    pub(super) async fn ask(&mut self, line: &[u8]) -> bool {
        self.0.write_all(line).await.is_ok()
    }

    pub(super) async fn flush(&mut self) {
        // If the program ended, the other side says how.
        let _ = self.0.flush().await;
    }
}

impl Hearing {
    async fn hello(&mut self) -> Result<Hello, Failure> {
        let file = shown(&self.file);
        let needed = "it must be a program built on Annals that can judge for this one: see \
                      --help there for the command rules";
        if !self.next("before it said what it is").await? {
            let ended = self.ended("before it said what it is").await;
            return Err(ended.hint(needed));
        }
        let said: Hello = serde_json::from_slice(&self.line).map_err(|_| {
            let line = self.shown_line();
            let message = format!("{file} rules judge did not say what it is, but: {line}");
            Failure::new(Exit::Failed, message).hint(needed)
        })?;
        if said.exchange != EXCHANGE_VERSION {
            let theirs = said.exchange;
            let message = format!(
                "{file} judges in version {theirs} of the exchange, and this program asks in \
                 version {EXCHANGE_VERSION}"
            );
            let hint = "build both with the same release of Annals";
            return Err(Failure::new(Exit::Usage, message).hint(hint));
        }
        Ok(said)
    }

    /// The answer for this command.
    pub(super) async fn answer(&mut self, placed: &Placed) -> Result<Answer, Failure> {
        let when = || {
            let (partition, position) = (placed.partition, placed.position);
            let (stream, id) = (&placed.commit.stream, placed.commit.command.id.as_str());
            let id = output::shown(id);
            format!("at partition {partition}, position {position} (stream {stream}, command {id})")
        };
        if !self.next(&when()).await? {
            return Err(self.ended(&when()).await);
        }
        let (file, said) = (shown(&self.file), serde_json::from_slice(&self.line));
        let answer: Answer = match said {
            Ok(answer) => answer,
            Err(_) => {
                let (line, when) = (self.shown_line(), when());
                let message = format!("{file} gave no answer {when}, but: {line}");
                return Err(Failure::new(Exit::Failed, message));
            }
        };
        let is_asked =
            (answer.partition, answer.position) == (placed.partition.0, placed.position.0);
        let is_whole = match answer.verdict {
            Verdict::Same | Verdict::Accepted => true,
            Verdict::Refused => answer.rejection.is_some(),
            Verdict::NotJudgeable => answer.reason.is_some(),
        };
        if !is_asked || !is_whole {
            let (line, when) = (self.shown_line(), when());
            let message = format!("{file} gave another answer than was asked {when}: {line}");
            return Err(Failure::new(Exit::Failed, message));
        }
        Ok(answer)
    }

    /// Reads the next line; whether there is one.
    async fn next(&mut self, when: &str) -> Result<bool, Failure> {
        self.line.clear();
        let max = LINE_BYTES_MAX as u64;
        let mut limited = (&mut self.lines).take(max);
        let read = limited.read_until(b'\n', &mut self.line);
        match timeout(self.answer_timeout, read).await {
            Ok(Ok(_)) => Ok(self.line.last() == Some(&b'\n') || self.line.len() as u64 == max),
            Ok(Err(error)) => Err(Failure::of(Exit::Failed, &error)
                .while_trying(&format!("hear {}", shown(&self.file)))),
            Err(_) => {
                let (file, waited) = (shown(&self.file), self.answer_timeout.as_millis());
                let message = format!("{file} said nothing for {waited} ms {when}");
                Err(Failure::new(Exit::Failed, message)
                    .hint("a rule that never ends does that; --answer-timeout-ms waits longer"))
            }
        }
    }

    /// The failure of a program that ended too early, with its last messages.
    async fn ended(&mut self, when: &str) -> Failure {
        let messages = match self.messages.take() {
            // They end when the program does.
            Some(messages) => timeout(END_WAIT, messages).await,
            None => Ok(Ok(Vec::new())),
        };
        let messages = messages.map(Result::unwrap_or_default).unwrap_or_default();
        let messages = String::from_utf8_lossy(&messages);
        let said = match messages.trim() {
            "" => "nothing".to_owned(),
            said => output::shown(said).into_owned(),
        };
        let message = format!("{} ended {when}; it said: {said}", shown(&self.file));
        Failure::new(Exit::Failed, message)
    }

    fn shown_line(&self) -> String {
        let begin = &self.line[..self.line.len().min(SHOWN_BYTES)];
        output::shown(String::from_utf8_lossy(begin).trim_end()).into_owned()
    }
}

/// The last bytes of what the program says on stderr. All of it is read, so that it never waits.
async fn last_of(mut stderr: ChildStderr) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        let surplus = kept.len().saturating_sub(SHOWN_BYTES);
        kept.drain(..surplus);
    }
    kept
}

fn shown(file: &Path) -> String {
    output::shown(&file.display().to_string()).into_owned()
}

/// The name of a reason, as reports show it.
pub(super) fn name_of(reason: Reason) -> String {
    serde_json::to_value(reason)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
