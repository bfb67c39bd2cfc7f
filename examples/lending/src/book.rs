//! A book of the library, lent to one reader at a time (`book-<id>`).
//!
//! Read it from top to bottom; an aggregate of your own has the same six parts. Deliberately
//! absent: data about the readers. They would be an aggregate of their own, in another file.

use annals::{
    Context, Decider, EventObjects, Timestamp, messages, objects_of, rejections, relates, sets,
};
use serde::{Deserialize, Serialize};

// 1. The commands. Names are imperative and frozen: clients send them, and the log keeps them.
messages! {
    /// The commands of a book.
    pub enum Command {
        /// Lends the book to a reader.
        #[schemars(extend("examples" = [{"reader": 7, "due": "2030-01-31T12:00:00Z"}]))]
        LendBook {
            /// The reader's number; never a name, for the log is kept for ever.
            reader: u32,
            /// When it must be back.
            due: Timestamp,
        },
        /// Takes the book back.
        ReturnBook {},
    }
}

// 2. The events. Their names are in the past tense. An event holds the facts that a read model will
// need later, even if the state holds them too: they cannot be added to old events.
messages! {
    /// The events of a book.
    pub enum Event {
        /// The book was lent to a reader.
        #[schemars(extend("examples" = [{"reader": 7, "due": "2030-01-31T12:00:00Z"}]))]
        BookLent {
            /// The reader's number.
            reader: u32,
            /// When it must be back.
            due: Timestamp,
        },
        /// The book came back.
        #[schemars(extend("examples" = [{
            "reader": 7,
            "lent_at": "2030-01-01T12:00:00Z",
            "due": "2030-01-31T12:00:00Z",
        }]))]
        BookReturned {
            /// The number of the reader who had it.
            reader: u32,
            /// When it had been lent.
            lent_at: Timestamp,
            /// When it had to be back.
            due: Timestamp,
        },
    }
}

// 3. Why a command is refused: one variant for each rule, with the facts that explain it.
rejections! {
    /// The rules of books that a command may break.
    #[derive(Eq)]
    pub enum Rejection {
        /// A lent book cannot be lent again.
        AlreadyLent {
            /// When it must be back.
            due: Timestamp,
        } => "book_already_lent", "the book is lent until {due}",
        /// A book is due only after it is lent.
        DueTooEarly {
            /// When it would be due.
            due: Timestamp,
        } => "book_due_too_early", "the book would be due at {due}, which is not after it is lent",
        /// A book that is not lent cannot be returned.
        NotLent => "book_not_lent", "the book is not lent",
        /// A command with a date before the last loan or return is refused.
        Superseded {
            /// When it was last lent or returned.
            since: Timestamp,
        } => "book_superseded", "the book was lent or returned since then, at {since}",
    }
}

// 4. The state: only what the rules below need.
/// The state of a book after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// When and how it was lent; absent while it is not lent.
    pub loan: Option<(Timestamp, BookLent)>,
    /// When it was last returned.
    pub returned_at: Option<Timestamp>,
}

impl State {
    /// Checks that the command's date is not before the last loan or return.
    fn is_news(&self, ctx: &Context) -> Result<(), Rejection> {
        let lent_at = self.loan.as_ref().map(|(lent_at, _)| *lent_at);
        match lent_at.or(self.returned_at) {
            Some(since) if ctx.is_dated_before(since) => Err(Rejection::Superseded { since }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The rules of books.
#[derive(Clone, Copy, Debug)]
pub struct Book;

impl Decider for Book {
    const CATEGORY: &'static str = "book";
    // For process mining: whom the events are about beside the book.
    const OBJECTS: &'static [EventObjects] = &[
        objects_of(
            "BookLent",
            &[relates("reader", "reader", "lent to")],
            &[sets("due", "due")],
        ),
        objects_of(
            "BookReturned",
            &[relates("reader", "reader", "returned by")],
            &[],
        ),
    ];
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    // 5. The rules. Each broken rule returns early; the last expression is what happens. The rules
    // read no clock: the context holds the time of the command, and whether the client gave it.
    //
    // A command that is sent again under the same id never gets here: the engine repeats its first
    // answer. The same command under another id is another request. It adds nothing only if the
    // book is already in the described state, since exactly the time that the client gave. (An
    // import of old loans that is repeated next year is such a case.)
    fn decide(state: &State, command: &Command, ctx: &Context) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::LendBook(LendBook { reader, due }) => {
                let (reader, due) = (*reader, *due);
                let lent = BookLent { reader, due };
                match &state.loan {
                    Some((lent_at, loan)) if ctx.is_dated(*lent_at) && *loan == lent => {
                        return Ok(vec![]);
                    }
                    Some((_, loan)) => return Err(Rejection::AlreadyLent { due: loan.due }),
                    None => state.is_news(ctx)?,
                }
                if due <= ctx.occurred_at {
                    return Err(Rejection::DueTooEarly { due });
                }
                Ok(vec![lent.into()])
            }
            Command::ReturnBook(ReturnBook {}) => match &state.loan {
                Some((lent_at, loan)) => {
                    state.is_news(ctx)?;
                    Ok(vec![
                        BookReturned {
                            reader: loan.reader,
                            lent_at: *lent_at,
                            due: loan.due,
                        }
                        .into(),
                    ])
                }
                None if state.returned_at.is_some_and(|at| ctx.is_dated(at)) => Ok(vec![]),
                None => Err(Rejection::NotLent),
            },
        }
    }

    // 6. The effects of events. Events are facts: nothing is refused or computed here, so that a
    // history of any age can be folded again.
    fn evolve(state: &mut State, event: &Event, occurred_at: Timestamp) {
        match event {
            Event::BookLent(lent) => state.loan = Some((occurred_at, lent.clone())),
            Event::BookReturned(_) => {
                state.loan = None;
                state.returned_at = Some(occurred_at);
            }
        }
    }
}
