//! The spans of a command: one for the command, and one for each part of its way through this node.
//!
//! Deliberately absent: the request's own span (`door`), and when the command took its steps
//! (`engine::Walk`).

use std::sync::Arc;

use engine::Walk;
use engine::command::{Decision, Reply, Request, SubmitError};
use engine::peers::LinkAnswer;
use spans::{Parent, Part};

/// A command whose trace is collected.
pub(crate) struct Traced {
    parent: Parent,
    walk: Arc<Walk>,
    command: String,
    attributes: Vec<(&'static str, String)>,
}

impl Traced {
    /// Traces a command of the request whose span is `here`, if that is traced. Its commit then names
    /// that span, so that others can continue the trace.
    pub(crate) fn begin(here: Option<&Parent>, request: &mut Request) -> Option<Self> {
        let here = here?;
        request.trace = Some(here.traceparent());
        Some(Self::of(here.clone(), request))
    }

    /// Traces a command that another node forwarded, if that node does.
    pub(crate) fn forwarded(request: &Request) -> Option<Self> {
        let parent = Parent::of(request.trace.as_deref()?)?;
        parent.is_sampled().then(|| Self::of(parent, request))
    }

    fn of(parent: Parent, request: &Request) -> Self {
        Self {
            parent,
            walk: Walk::begin(),
            command: request.command.as_str().to_owned(),
            attributes: vec![
                ("annals.tenant", request.tenant.as_str().to_owned()),
                ("annals.stream", request.stream.as_str().to_owned()),
                ("annals.command_id", request.id.as_str().to_owned()),
            ],
        }
    }

    /// Where the engine notes the command's steps.
    pub(crate) fn walk(&self) -> Arc<Walk> {
        Arc::clone(&self.walk)
    }

    /// Tells of the command once it has its answer.
    pub(crate) fn end(mut self, reply: &Reply) {
        let outcome = match reply {
            Ok(answer) => match &answer.decision {
                Decision::Accepted(_) => "accepted",
                Decision::Rejected(rejection) => {
                    let code = ("annals.rejection", rejection.code.to_string());
                    self.attributes.push(code);
                    "rejected"
                }
            },
            Err(SubmitError::Unknown) => "unknown",
            Err(SubmitError::TurnedAway { .. }) => "turned_away",
            Err(_) => "failed",
        };
        self.tell(outcome);
    }

    /// Tells of a forwarded command.
    pub(crate) fn end_forwarded(self, answer: &LinkAnswer) {
        match answer {
            LinkAnswer::Answered(reply) => self.end(reply),
            LinkAnswer::Moved(_) => self.tell("moved"),
        }
    }

    fn tell(mut self, outcome: &'static str) {
        self.attributes.push(("annals.outcome", outcome.to_owned()));
        let parts = self.walk.parts().into_iter().map(|part| Part {
            name: part.name,
            from: part.from,
            to: part.to,
        });
        let parts: Vec<Part> = parts.collect();
        spans::command(&self.parent, &self.command, self.attributes, &parts);
    }
}
