//! Routes the commands of one partition: to the owner in this node, to the owner in another node
//! over one link, or nowhere yet. A state machine without I/O or clock, so that the simulator runs
//! it.
//!
//! Invariants: the commands of a stream keep their order whenever the owner changes: no command is
//! sent to a new place while an earlier command is still open at another place. A command keeps its
//! id throughout. Deliberately absent: deadlines (the waiting clients give up by themselves), and
//! who owns (`owner`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use event_log::directory::Hint;

use super::window::Window;
use super::{Client, Command};
use crate::command::Reply;
use crate::peers::{LinkAnswer, LinkId};

/// An owner counts as answering if its last answer, and its oldest unanswered command, are more
/// recent than this, in milliseconds.
const LIVELY_MS: u64 = 250;
/// How many commands may always be unanswered on a link.
const WINDOW_MIN: usize = 4;
/// An answer slower than this means that more was sent than the owner can take, in milliseconds.
const ANSWER_SLOW_MS: u64 = 200;
/// The pause before the next link after a link broke or was answered *moved*, in milliseconds; it
/// doubles each time.
const RETRY_AFTER_MS: u64 = 10;
/// The longest such pause.
const RETRY_AFTER_MAX_MS: u64 = 320;

/// The state of the owner in this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalOwner {
    /// It owns the partition and takes a command now.
    Takes,
    /// It owns but is full, or it is about to own, or does not know yet: commands wait.
    Busy,
    /// Commands go to another node.
    Elsewhere,
}

/// What to do next.
#[expect(
    clippy::large_enum_variant,
    reason = "a step is taken at once, never kept"
)]
pub enum Step<C> {
    /// Give the command to the owner in this node.
    Decide(Command<C>),
    /// Open a link to the node at this address.
    Open(LinkId, String),
    /// Send a command over the open link; [`Router::sent`] returns the command.
    Send(LinkId, u64),
    /// Close a link on which nothing is open.
    Close(LinkId),
}

struct Link<C> {
    id: LinkId,
    address: String,
    /// Commands without an answer and those answered *moved*, by sequence, each with its time of
    /// sending.
    sent: BTreeMap<u64, (Command<C>, u64)>,
    /// The commands among them that were answered *moved*. After the first of these, nothing more
    /// is sent on this link.
    moved: BTreeSet<u64>,
    /// When the last final answer came, as a monotonic time in milliseconds.
    answered_at_ms: Option<u64>,
}

/// The commands of one partition that this node's clients sent.
pub struct Router<C> {
    waiting: VecDeque<Command<C>>,
    /// Commands for which nobody waited any more at their turn.
    dropped: Vec<Command<C>>,
    link: Option<Link<C>>,
    next_link: u64,
    next_sequence: u64,
    /// When another link may be opened, as a monotonic time in milliseconds.
    retry_at_ms: u64,
    retries: u32,
    /// The address of the last link, if it broke or its commands moved.
    led_nowhere: Option<String>,
    window: Window,
}

impl<C> Default for Router<C> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            dropped: Vec::new(),
            link: None,
            next_link: 1,
            next_sequence: 1,
            retry_at_ms: 0,
            retries: 0,
            led_nowhere: None,
            window: Window::with_min(WINDOW_MIN),
        }
    }
}

impl<C: Client> Router<C> {
    /// Adds a command after all others.
    pub fn push(&mut self, command: Command<C>) {
        self.waiting.push_back(command);
    }

    /// Puts commands back, in their order, before all that wait.
    pub fn put_back(&mut self, commands: impl DoubleEndedIterator<Item = Command<C>>) {
        for command in commands.rev() {
            self.waiting.push_front(command);
        }
    }

    /// How many commands wait without having been sent anywhere.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether commands wait and do not reach `owner`: no owner is known, or the last links to the
    /// supposed owner gave no answer.
    #[must_use]
    pub fn is_stuck(&self, owner: Option<&Hint>) -> bool {
        !self.waiting.is_empty() && (owner.is_none() || self.retries > 0)
    }

    /// Whether `owner` has answered recently.
    #[must_use]
    pub fn is_answered_by(&self, owner: &Hint, now_ms: u64) -> bool {
        let is_recent = |at_ms: u64| now_ms < at_ms + LIVELY_MS;
        self.link.as_ref().is_some_and(|link| {
            let oldest = link.sent.first_key_value();
            link.address == owner.address
                && link.moved.is_empty()
                && link.answered_at_ms.is_some_and(is_recent)
                && oldest.is_none_or(|(_, (_, sent_at_ms))| is_recent(*sent_at_ms))
        })
    }

    /// Whether nothing waits and nothing is open on a link.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.link.as_ref().is_none_or(|link| link.sent.is_empty())
    }

    /// A command that is to be sent over the link, or was sent.
    #[must_use]
    pub fn sent(&self, sequence: u64) -> Option<&Command<C>> {
        let (command, _) = self.link.as_ref()?.sent.get(&sequence)?;
        Some(command)
    }

    /// Like [`Self::sent`], but mutable.
    pub fn sent_mut(&mut self, sequence: u64) -> Option<&mut Command<C>> {
        let (command, _) = self.link.as_mut()?.sent.get_mut(&sequence)?;
        Some(command)
    }

    /// The next step, if there is one. `owner` is the supposed owner, which is not this node.
    pub fn next(
        &mut self,
        local_owner: LocalOwner,
        owner: Option<&Hint>,
        now_ms: u64,
    ) -> Option<Step<C>> {
        if self.waiting.is_empty() {
            self.window.holds_back(false);
            return None;
        }
        match local_owner {
            LocalOwner::Busy => None,
            LocalOwner::Takes => match &self.link {
                Some(link) if link.sent.is_empty() => self.close(),
                // Commands that were sent to another node come first.
                Some(_) => None,
                None => self.take_waiting().map(Step::Decide),
            },
            LocalOwner::Elsewhere => self.forward(owner?, now_ms),
        }
    }

    fn forward(&mut self, owner: &Hint, now_ms: u64) -> Option<Step<C>> {
        match &self.link {
            None if now_ms < self.retry_at_ms && !self.is_news(owner) => None,
            None => {
                let id = LinkId(self.next_link);
                self.next_link += 1;
                self.link = Some(Link {
                    id,
                    address: owner.address.clone(),
                    sent: BTreeMap::new(),
                    moved: BTreeSet::new(),
                    answered_at_ms: None,
                });
                Some(Step::Open(id, owner.address.clone()))
            }
            Some(link) if !link.moved.is_empty() || link.address != owner.address => {
                if link.sent.is_empty() {
                    self.close()
                } else {
                    None
                }
            }
            Some(link) if link.sent.len() >= self.window.size() => {
                self.window.holds_back(true);
                None
            }
            Some(_) => {
                let command = self.take_waiting()?;
                let sequence = self.next_sequence;
                self.next_sequence += 1;
                let link = self.link.as_mut().expect("it was looked at");
                link.sent.insert(sequence, (command, now_ms));
                Some(Step::Send(link.id, sequence))
            }
        }
    }

    /// Whether the supposed owner is another node than that of the last link: then there is no
    /// pause. This is allowed once only, because two nodes may take each other for the owner.
    fn is_news(&self, owner: &Hint) -> bool {
        self.retries <= 1 && self.led_nowhere.as_ref() != Some(&owner.address)
    }

    /// When the next step may be possible even if no input comes, as a monotonic time in
    /// milliseconds.
    #[must_use]
    pub fn wakes_at_ms(&self) -> Option<u64> {
        (self.link.is_none() && !self.waiting.is_empty()).then_some(self.retry_at_ms)
    }

    fn close(&mut self) -> Option<Step<C>> {
        self.link.take().map(|link| Step::Close(link.id))
    }

    fn take_waiting(&mut self) -> Option<Command<C>> {
        while let Some(mut command) = self.waiting.pop_front() {
            if command.take_up() {
                return Some(command);
            }
            self.dropped.push(command);
        }
        None
    }

    /// Takes an answer to a command; returns the command with the owner's answer if it is final.
    pub fn answered(
        &mut self,
        link_id: LinkId,
        sequence: u64,
        answer: LinkAnswer,
        now_ms: u64,
    ) -> Option<(Command<C>, Reply)> {
        let link = self.link.as_mut().filter(|link| link.id == link_id)?;
        match answer {
            LinkAnswer::Answered(answer) => {
                let (command, sent_at_ms) = link.sent.remove(&sequence)?;
                link.moved.remove(&sequence);
                link.answered_at_ms = Some(now_ms);
                self.window.answered(sent_at_ms, now_ms, ANSWER_SLOW_MS);
                self.retries = 0;
                self.finish_moved(now_ms);
                Some((command, answer))
            }
            LinkAnswer::Moved(_) => {
                if link.sent.contains_key(&sequence) {
                    link.moved.insert(sequence);
                }
                self.finish_moved(now_ms);
                None
            }
        }
    }

    /// Once every command on a link with *moved* commands is answered, puts the moved ones back in
    /// order.
    fn finish_moved(&mut self, now_ms: u64) {
        let moved = |link: &Link<C>| !link.moved.is_empty() && link.moved.len() == link.sent.len();
        if self.link.as_ref().is_some_and(moved) {
            self.take_link_back(now_ms);
        }
    }

    /// Notes that a link is gone. Commands that it did not answer are sent again, under the same
    /// ids.
    pub fn broken(&mut self, link_id: LinkId, now_ms: u64) {
        if let Some(link) = self.link.as_mut().filter(|link| link.id == link_id) {
            for (sequence, (command, _)) in &mut link.sent {
                if !link.moved.contains(sequence) {
                    command.is_lost = true;
                }
            }
            self.take_link_back(now_ms);
        }
    }

    fn take_link_back(&mut self, now_ms: u64) {
        if let Some(link) = self.link.take() {
            self.put_back(link.sent.into_values().map(|(command, _)| command));
            self.led_nowhere = Some(link.address);
        }
        let pause_ms = (RETRY_AFTER_MS << self.retries.min(16)).min(RETRY_AFTER_MAX_MS);
        self.retries += 1;
        self.retry_at_ms = now_ms + pause_ms;
    }

    /// Whether `is` holds for any command that waits or is open on a link.
    pub fn any(&self, is: impl FnMut(&Command<C>) -> bool) -> bool {
        let sent = self.link.iter().flat_map(|link| link.sent.values());
        let sent = sent.map(|(command, _)| command);
        sent.chain(&self.waiting).any(is)
    }

    /// Drops waiting commands for which no client waits any more. Of such commands that are open on
    /// a link, keeps only the name, because they may still be committed.
    pub fn forget_given_up(&mut self) {
        for command in std::mem::take(&mut self.waiting) {
            match command.is_given_up() {
                true => self.dropped.push(command),
                false => self.waiting.push_back(command),
            }
        }
        let sent = self.link.iter_mut().flat_map(|link| link.sent.values_mut());
        for (command, _) in sent.filter(|(command, _)| command.is_given_up()) {
            command.strip();
        }
    }

    /// The commands that were dropped since the last call, because nobody waited for them.
    pub fn take_dropped(&mut self) -> Vec<Command<C>> {
        std::mem::take(&mut self.dropped)
    }

    /// Whether this link is the one in use.
    #[must_use]
    pub fn has_link(&self, id: LinkId) -> bool {
        self.link.as_ref().is_some_and(|link| link.id == id)
    }

    /// Takes all commands that wait and are open nowhere, in order.
    pub fn take_waiting_all(&mut self) -> VecDeque<Command<C>> {
        std::mem::take(&mut self.waiting)
    }

    /// Takes all commands that wait or are open on a link, in order. For the end, when nothing more
    /// is routed.
    pub fn take_all(&mut self) -> Vec<Command<C>> {
        let sent = self.link.take().map(|link| link.sent).unwrap_or_default();
        sent.into_values()
            .map(|(command, _)| command)
            .chain(std::mem::take(&mut self.waiting))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use position::{LogId, Term};

    use super::super::Waiter;
    use super::super::window::{WINDOW_FIRST, WINDOW_MAX};
    use super::*;
    use crate::command::SubmitError;
    use crate::owner::Submission;
    use crate::owner::tests::submission;

    /// A client that waits, or has given up.
    #[derive(Default)]
    struct Waits(Waiter);

    impl Client for Waits {
        fn waiter(&self) -> &Waiter {
            &self.0
        }
    }

    thread_local! {
        static ONE: Submission = submission("1", 1, None);
    }

    /// The command with this number; nobody waits for number 0.
    fn command(number: u32) -> Command<Waits> {
        let mut submission = ONE.with(Clone::clone);
        submission.request.id = number.to_string().parse().unwrap();
        let client = Waits::default();
        if number == 0 {
            client.0.give_up();
        }
        Command::new(submission, vec![(client, false)])
    }

    fn number_of(command: &Command<Waits>) -> u32 {
        command.submission.request.id.as_str().parse().unwrap()
    }

    /// The number of the next command that is decided here.
    fn decided(router: &mut Router<Waits>) -> Option<u32> {
        match router.next(LocalOwner::Takes, None, 0)? {
            Step::Decide(command) => Some(number_of(&command)),
            _ => None,
        }
    }

    fn at(address: &str) -> Hint {
        Hint {
            log: LogId::default(),
            term: Term(1),
            node: address.to_owned(),
            address: address.to_owned(),
        }
    }

    fn router(numbers: &[u32]) -> Router<Waits> {
        let mut router = Router::default();
        numbers.iter().for_each(|n| router.push(command(*n)));
        router
    }

    fn moved() -> LinkAnswer {
        LinkAnswer::Moved(None)
    }

    fn failed() -> LinkAnswer {
        LinkAnswer::Answered(Err(SubmitError::Failed))
    }

    /// What is sent to `owner`, without the opening of the link.
    fn sends(router: &mut Router<Waits>, owner: &Hint, now_ms: u64) -> Vec<(u64, u32)> {
        let mut sent = Vec::new();
        while let Some(step) = router.next(LocalOwner::Elsewhere, Some(owner), now_ms) {
            if let Step::Send(_, sequence) = step {
                sent.push((sequence, number_of(router.sent(sequence).unwrap())));
            }
        }
        sent
    }

    #[test]
    fn decides_here_in_order_and_leaves_out_what_nobody_waits_for() {
        let mut router = router(&[1, 0, 2]);
        assert!(router.next(LocalOwner::Busy, None, 0).is_none());
        for number in [1, 2] {
            assert_eq!(decided(&mut router), Some(number));
        }
        assert!(router.next(LocalOwner::Takes, None, 0).is_none());
    }

    #[test]
    fn waits_where_no_owner_is_known() {
        let mut router = router(&[1]);
        assert!(router.next(LocalOwner::Elsewhere, None, 0).is_none());
        assert_eq!(router.waiting(), 1);
    }

    #[test]
    fn what_moved_is_sent_again_in_order_once_the_rest_is_answered() {
        let mut router = router(&[1, 2, 3]);
        assert_eq!(sends(&mut router, &at("a"), 0), [(1, 1), (2, 2), (3, 3)]);
        let link = LinkId(1);
        router.push(command(4));
        assert!(router.answered(link, 2, moved(), 0).is_none());
        assert!(router.answered(link, 3, moved(), 0).is_none());
        // The first is still open there, so nothing goes elsewhere, not even to this node.
        assert_eq!(sends(&mut router, &at("b"), 1_000), []);
        assert!(router.next(LocalOwner::Takes, None, 1_000).is_none());
        let settled = router.answered(link, 1, failed(), 1_000).unwrap();
        assert_eq!(number_of(&settled.0), 1);
        assert_eq!(sends(&mut router, &at("a"), 1_000), [], "a little later");
        assert_eq!(
            sends(&mut router, &at("b"), 1_000),
            [(4, 2), (5, 3), (6, 4)],
            "at once: another owner is known"
        );
    }

    #[test]
    fn two_nodes_that_take_each_other_for_the_owner_are_not_asked_without_a_pause() {
        let mut router = router(&[1]);
        let mut asked = 0;
        for now_ms in 0..1_000 {
            for address in ["a", "b"] {
                if let [(sequence, _)] = sends(&mut router, &at(address), now_ms)[..] {
                    asked += 1;
                    let link = LinkId(asked);
                    assert!(router.answered(link, sequence, moved(), now_ms).is_none());
                }
            }
            let wakes_at_ms = router.wakes_at_ms().expect("a command waits");
            assert!(wakes_at_ms > now_ms, "somebody looks again");
        }
        assert!((5..20).contains(&asked), "{asked}");
    }

    #[test]
    fn what_a_broken_link_did_not_answer_is_sent_again() {
        let mut router = router(&[1, 2, 3]);
        sends(&mut router, &at("a"), 0);
        assert!(router.answered(LinkId(1), 2, failed(), 0).is_some());
        router.broken(LinkId(1), 0);
        assert!(
            router.answered(LinkId(1), 1, failed(), 0).is_none(),
            "the link is gone"
        );
        for number in [1, 3] {
            assert_eq!(decided(&mut router), Some(number));
        }
    }

    #[test]
    fn released_commands_go_before_those_that_wait() {
        let mut router = router(&[3]);
        router.put_back([command(1), command(2)].into_iter());
        assert_eq!(
            sends(&mut router, &at("a"), 0),
            [(1, 1), (2, 2), (3, 3)],
            "in their first order"
        );
    }

    /// Sends commands to one owner in rounds.
    struct Rounds {
        router: Router<Waits>,
        open: Vec<u64>,
        now_ms: u64,
    }

    impl Rounds {
        /// Answers everything that is open after `took_ms`, and then sends as much as the window
        /// allows.
        fn next(&mut self, took_ms: u64) -> usize {
            self.now_ms += took_ms;
            for sequence in std::mem::take(&mut self.open) {
                let settled = self
                    .router
                    .answered(LinkId(1), sequence, failed(), self.now_ms);
                assert!(settled.is_some(), "it was open");
            }
            let sent = sends(&mut self.router, &at("a"), self.now_ms);
            self.open = sent.iter().map(|(sequence, _)| *sequence).collect();
            self.open.len()
        }
    }

    fn rounds(commands: usize) -> Rounds {
        Rounds {
            router: router(&vec![7; commands]),
            open: Vec::new(),
            now_ms: 0,
        }
    }

    #[test]
    fn a_link_holds_more_while_answers_are_quick_and_less_once_they_are_slow() {
        let mut rounds = rounds(20 * WINDOW_MAX);
        assert_eq!(rounds.next(0), WINDOW_FIRST);
        for _ in 0..5 {
            rounds.next(10);
        }
        assert_eq!(rounds.next(10), WINDOW_MAX);
        // Many slow answers from one queue count once.
        assert_eq!(rounds.next(ANSWER_SLOW_MS + 1), WINDOW_MAX / 2);
        assert_eq!(rounds.next(10), WINDOW_MAX / 2 + 1, "carefully from now on");
        for _ in 0..10 {
            rounds.next(1_000);
        }
        assert_eq!(rounds.next(1_000), WINDOW_MIN);
    }

    #[test]
    fn a_link_that_was_never_full_begins_an_overload_with_little() {
        let mut rounds = rounds(0);
        for _ in 0..10 * WINDOW_MAX {
            rounds.router.push(command(7));
            assert_eq!(rounds.next(1), 1);
        }
        assert_eq!(rounds.next(1), 0, "all is answered");
        for _ in 0..WINDOW_MAX {
            rounds.router.push(command(7));
        }
        assert_eq!(rounds.next(1), WINDOW_FIRST);
    }
}
