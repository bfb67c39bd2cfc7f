//! `annals demo`: everything on this machine, with sample data, and where to look.
//!
//! Invariant: each printed command works when pasted into a shell. Deliberately absent: the roles
//! (`host::node`) and the sample itself (`olist`).

use std::time::Duration;

use clap::Parser;
use client::SendOptions;
use host::args::Serving;
use host::command::dev;
use host::exit::{Exit, Failure};
use host::node::{Node, Preparation};
use host::progress::sending;
use host::settings::{Flags, Roles, Settings};
use host::signals::{HangUp, Stop};
use host::{Domain, Subcommand, output, talk};
use kernel::escape;
use olist::{OlistOptions, OlistSource, import_olist};
use reqwest::Client;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The folder of the demo, below the data folder.
const FOLDER: &str = "demo";
/// How long the read models may take to catch up.
const CATCH_UP_WAIT: Duration = Duration::from_secs(60);
/// How many orders are searched for one to show.
const ORDERS_LOOKED_AT: u32 = 100;

const HELP: &str = "\
The sample is sixty generated orders in the format of the Olist data set. Without --data, the demo
uses a folder of its own, .annals/demo, so that the sample never mixes with your data.

Examples:
  annals demo
  annals demo --once    shows real answers, then ends";

/// Run everything with sample data and show where to look
#[derive(Debug, Parser)]
#[command(name = "demo", after_help = HELP, display_order = 0)]
pub(crate) struct Demo {
    /// Show a few requests with their answers, then end
    #[arg(long)]
    once: bool,
    /// Where and how it serves.
    #[command(flatten)]
    serving: Serving,
}

impl Subcommand for Demo {
    fn add_to(&self, flags: &mut Flags) {
        self.serving.add_to(flags);
    }

    async fn run(self, domain: &Domain, settings: Settings) -> Result<Exit, Failure> {
        run(domain, settings, self.once).await
    }
}

async fn run(domain: &Domain, settings: Settings, once: bool) -> Result<Exit, Failure> {
    let settings = dev::of_one_process(&settings.in_own_folder(FOLDER));
    let stop = Stop::listen(HangUp::EndsWithTerminal)?;
    talk!("starting everything in {} …", settings.data.display());
    let started = Node::start(domain, &settings, Roles::ALL, Preparation::Make, &stop);
    let Some(node) = started.await? else {
        return Ok(Exit::Done);
    };
    let shown = tokio::select! {
        shown = show(&settings, &node, &stop, once) => shown,
        () = stop.asked() => Ok(()),
    };
    if shown.is_ok() && !once {
        stop.asked().await;
    }
    node.end().await;
    shown.map(|()| Exit::Done)
}

async fn show(settings: &Settings, node: &Node, stop: &Stop, once: bool) -> Result<(), Failure> {
    if !node.ready(stop).await {
        return Ok(());
    }
    let options = OlistOptions {
        source: OlistSource::Sample,
        tenant: None,
        correct: false,
        unreadable: None,
        sending: SendOptions::to(node.url()),
    };
    let report = import_olist(options, sending::on_stderr()).await;
    let report = report.map_err(|error| Failure::of(Exit::Failed, &error))?;
    talk!(
        "imported the sample: {} commands accepted, {} refused, as real data has it; {} commands/s",
        report.total.accepted + report.total.nothing_to_do,
        report.total.refused,
        report.commands_per_second
    );
    let viewer = Viewer {
        http: Client::new(),
        url: node.url().to_owned(),
    };
    if let Some(position) = &report.position {
        viewer.catch_up(&position.to_string()).await?;
    }
    let order = viewer.delivered_order().await?;
    let calls = calls(node, &order);
    if once {
        return viewer.run(settings, &calls).await;
    }
    dev::announce(settings, node);
    talk!("\nannals is ready. Paste these into another terminal:\n");
    for call in &calls {
        talk!("# {}\n{}\n", call.about, call.line());
    }
    if let Some(postgres) = node.postgres() {
        let address = match postgres.url_file() {
            Some(file) => format!("\"$(cat '{}')\"", file.display()),
            None => format!("'{}'", postgres.shown()),
        };
        talk!("# the same in SQL\npsql {address} -c 'SELECT * FROM read.daily_sales LIMIT 5'\n");
    }
    let url = node.url();
    talk!("Console: {url}/console. All routes: {url}/docs. Ctrl-C stops it.");
    Ok(())
}

/// One request that the demo shows.
struct Call {
    about: &'static str,
    method: reqwest::Method,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

impl Call {
    fn get(about: &'static str, url: String) -> Self {
        Self {
            about,
            method: reqwest::Method::GET,
            url,
            headers: Vec::new(),
            body: None,
        }
    }

    /// The request as a shell command.
    fn line(&self) -> String {
        let mut line = format!("curl -s '{}'", self.url);
        for (name, value) in &self.headers {
            line.push_str(&format!(" \\\n  -H '{name}: {value}'"));
        }
        if let Some(body) = &self.body {
            line.push_str(&format!(" \\\n  -d '{body}'"));
        }
        line
    }
}

fn calls(node: &Node, order: &str) -> Vec<Call> {
    let url = node.url();
    let review = Call {
        about: "send a command; the same key again gives the same answer",
        method: reqwest::Method::POST,
        url: format!("{url}/v1/streams/order-{order}/ReviewOrder"),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", "\"my-first-review\"".to_owned()),
            ("annals-occurred-at", "2018-12-24T18:00:00Z".to_owned()),
        ],
        body: Some(r#"{"review":"my-first","score":5,"comment":"It works."}"#.to_owned()),
    };
    let refused = Call {
        about: "a refusal has a reason, and is recorded",
        method: reqwest::Method::POST,
        url: format!("{url}/v1/streams/order-{order}/CancelOrder"),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", "\"my-first-refusal\"".to_owned()),
            ("annals-occurred-at", "2018-12-24T18:00:00Z".to_owned()),
        ],
        body: Some(r#"{"reason":"changed my mind"}"#.to_owned()),
    };
    vec![
        Call::get("sales by day", format!("{url}/v1/read/daily_sales?limit=3")),
        Call::get("one order", format!("{url}/v1/read/order_summary/{order}")),
        Call::get(
            "the events of its stream",
            format!("{url}/v1/streams/order-{order}/events?limit=2"),
        ),
        review,
        Call::get(
            "the state that its events fold to",
            format!("{url}/v1/streams/order-{order}/state"),
        ),
        refused,
        Call::get(
            "refused commands",
            format!("{url}/v1/read/rejections?limit=2"),
        ),
    ]
}

/// A call and its answer, for programs.
#[derive(Serialize)]
struct Shown {
    about: &'static str,
    command: String,
    status: u16,
    answer: Box<RawValue>,
}

/// Sends requests to the doors, as a person would.
struct Viewer {
    http: Client,
    url: String,
}

impl Viewer {
    /// Waits until every read model shows what was imported.
    async fn catch_up(&self, position: &str) -> Result<(), Failure> {
        let models = self.get("/v1/read").await?;
        let names = models.get("models").and_then(Value::as_array);
        for model in names.into_iter().flatten() {
            if let Some(name) = model.get("name").and_then(Value::as_str) {
                self.get(&format!("/v1/read/{name}?limit=1&min_position={position}"))
                    .await?;
            }
        }
        Ok(())
    }

    /// A delivered order: it has the most to show.
    async fn delivered_order(&self) -> Result<String, Failure> {
        let page = format!("/v1/read/order_summary?limit={ORDERS_LOOKED_AT}");
        let page = self.get(&page).await?;
        let rows = page.get("rows").and_then(Value::as_array);
        let text = |row: &Value, name: &str| Some(row.get(name)?.as_str()?.to_owned());
        let mut rows = rows.into_iter().flatten();
        rows.find(|row| text(row, "status").as_deref() == Some("delivered"))
            .and_then(|row| text(row, "order_id"))
            .ok_or_else(|| Failure::new(Exit::Failed, "the sample left no delivered order"))
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        let asked = self
            .http
            .get(format!("{}{path}", self.url))
            .header("annals-timeout-ms", CATCH_UP_WAIT.as_millis().to_string())
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        let answer = match asked {
            Ok(response) => response.json().await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| Failure::of(Exit::Failed, &error).while_trying("look at the demo"))
    }

    /// Runs the calls and shows what they answer.
    async fn run(&self, settings: &Settings, calls: &[Call]) -> Result<(), Failure> {
        let mut shown = Vec::new();
        for call in calls {
            let (answer, position) = self.call(call).await.map_err(|error| {
                let what = format!("show {}", call.about);
                Failure::of(Exit::Failed, &error).while_trying(&what)
            })?;
            shown.push(answer);
            // Wait for the read models: a person would need longer than that to paste the next
            // line.
            if let Some(position) = position {
                self.catch_up(&position).await?;
            }
        }
        if settings.output.is_json() {
            return output::rows(settings.output, &[], &shown);
        }
        for shown in shown {
            let answer = output::pretty(shown.answer.get());
            let answer = escape::json(&answer);
            output::line(&format!(
                "# {}\n$ {}\n{answer}\n",
                shown.about, shown.command
            ))?;
        }
        Ok(())
    }

    /// The answer, and its position in the log if the call changed something.
    async fn call(&self, call: &Call) -> Result<(Shown, Option<String>), reqwest::Error> {
        let mut request = self.http.request(call.method.clone(), &call.url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let position = response.headers().get("annals-position");
        let position = position.and_then(|position| position.to_str().ok());
        let position = position.filter(|_| call.body.is_some()).map(str::to_owned);
        let shown = Shown {
            about: call.about,
            command: call.line(),
            status,
            answer: response.json().await?,
        };
        Ok((shown, position))
    }
}
