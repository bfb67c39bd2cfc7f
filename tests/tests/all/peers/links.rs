//! Commands over a link: their order, their answers, and the time for the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::peers::LinkAnswer;
use tokio::sync::Semaphore;

use super::fake::{Fake, elsewhere};
use super::{Node, Opened, command, peers};

fn is_accepted(answer: &LinkAnswer, sequence: u64) -> bool {
    matches!(answer, LinkAnswer::Answered(Ok(answer)) if answer.command_id.as_str() == format!("k{sequence}"))
}

#[tokio::test]
async fn a_command_is_answered_while_the_link_goes_on() {
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    for sequence in 1..=3 {
        opened.send(sequence);
        let (number, answer) = opened.answer().await;
        assert_eq!(number, sequence);
        assert!(is_accepted(&answer, sequence), "{answer:?}");
    }
    let attempted = node.fake.noted.attempted.lock().unwrap();
    let (sent, arrived) = (command(1).request, &attempted[0]);
    assert_eq!(arrived.data.get(), sent.data.get().replace('\n', " "));
    assert_eq!(arrived.stream, sent.stream);
    assert_eq!(node.fake.noted.links.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_keep_their_order() {
    const COUNT: u64 = 10_000;
    const UNANSWERED_MAX: u64 = 1_024;
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    let begun = Instant::now();
    let mut sent = 0;
    for answered in 0..COUNT {
        while sent < COUNT && sent - answered < UNANSWERED_MAX {
            sent += 1;
            opened.send(sent);
        }
        let (sequence, answer) = opened.answer().await;
        assert!(is_accepted(&answer, sequence), "{answer:?}");
    }
    let elapsed = begun.elapsed();
    let attempted = node.fake.noted.attempted.lock().unwrap();
    let arrived: Vec<&str> = attempted
        .iter()
        .map(|request| request.id.as_str())
        .collect();
    let expected: Vec<String> = (1..=COUNT).map(|sequence| format!("k{sequence}")).collect();
    assert_eq!(arrived, expected);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = COUNT as f64 / elapsed.as_secs_f64();
    println!("{COUNT} commands through one link: {rate:.0}/s");
}

#[tokio::test]
async fn after_the_first_moved_command_all_later_ones_are_moved() {
    let fake = Fake {
        moves_after: 5,
        ..Fake::default()
    };
    let node = Node::start(fake, None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    (1..=20).for_each(|sequence| opened.send(sequence));
    let mut moved = Vec::new();
    for _ in 1..=20 {
        let (sequence, answer) = opened.answer().await;
        match answer {
            LinkAnswer::Moved(to) => {
                assert_eq!(to, Some(elsewhere()));
                moved.push(sequence);
            }
            LinkAnswer::Answered(_) => assert!(is_accepted(&answer, sequence)),
        }
    }
    moved.sort_unstable();
    assert_eq!(moved, (6..=20).collect::<Vec<u64>>());
    assert_eq!(node.fake.noted.attempted.lock().unwrap().len(), 5);
    // A new link starts anew.
    let mut next = Opened::to(&peers(None), &node.address);
    next.send(6);
    assert!(is_accepted(&next.answer().await.1, 6));
}

#[tokio::test]
async fn a_full_queue_holds_a_link_up_and_does_not_break_it() {
    let room = Arc::new(Semaphore::new(2));
    let fake = Fake {
        room: Arc::clone(&room),
        ..Fake::default()
    };
    let node = Node::start(fake, None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    (1..=4).for_each(|sequence| opened.send(sequence));
    // The first two commands found a place and are answered; the third waits.
    assert_eq!(opened.answer().await.0, 1);
    assert_eq!(opened.answer().await.0, 2);
    // Longer than either side tolerates silence.
    let more = tokio::time::timeout(Duration::from_millis(2_500), opened.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    room.add_permits(2);
    assert_eq!(opened.answer().await.0, 3);
    assert_eq!(opened.answer().await.0, 4);
}

#[tokio::test]
async fn a_node_that_closes_answers_what_it_took() {
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    opened.send(1);
    assert!(is_accepted(&opened.answer().await.1, 1));
    node.server.close();
    assert_eq!(opened.broken().await, "the node ended the link");
    let mut next = Opened::to(&peers(None), &node.address);
    next.send(2);
    assert_eq!(next.broken().await, "the node ended the link");
    assert_eq!(node.fake.noted.links.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn more_commands_than_a_link_takes_break_it() {
    let room = Arc::new(Semaphore::new(0));
    let fake = Fake {
        room,
        ..Fake::default()
    };
    let node = Node::start(fake, None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    // More than fits into the sockets between the client and the full queue.
    let sent = async {
        for sequence in 1..100_000 {
            opened.link.send(command(sequence));
            if sequence % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    sent.await;
    let why = opened.broken().await;
    assert!(why.contains("more commands"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_a_command_takes_little_time() {
    const COUNT: usize = 2_000;
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    opened.send(1);
    opened.answer().await;
    let mut taken = Vec::with_capacity(COUNT);
    for sequence in (2..).take(COUNT) {
        let command = command(sequence);
        let begun = Instant::now();
        opened.link.send(command);
        opened.answer().await;
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    let (p50, p99) = (taken[COUNT / 2], taken[COUNT * 99 / 100]);
    println!("there and back: p50 {p50:?}, p99 {p99:?}");
    // The limit is wide, because other tests run on the same machine.
    assert!(p50 < Duration::from_millis(10), "{p50:?}");
}
