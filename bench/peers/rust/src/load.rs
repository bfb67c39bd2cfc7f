//! The load: clients that each send a command, wait for its answer, and send the next. Answers
//! between the end of the warm-up and the end of the run are measured; all answers are counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::Arguments;
use crate::order::Order;

/// A client, with all it needs for one command at a time.
pub trait Client: Send + 'static {
    /// Places an order in a stream of its own, which must not exist yet.
    fn place(&mut self, order: Order) -> impl Future<Output = Result<()>> + Send;
}

/// The result of the load.
#[derive(Default)]
pub struct Load {
    /// How many commands were answered, including those before and after the measurement.
    pub answered: usize,
    /// The time of each answer during the measurement.
    pub times: Vec<Duration>,
}

/// Runs all clients at the same time. The first failed command ends the run.
pub async fn run<C: Client>(arguments: &Arguments, clients: Vec<C>) -> Result<Load> {
    let measured = Instant::now() + arguments.warm_up;
    let end = measured + arguments.seconds;
    let mut working = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        working.spawn(work(client, number, measured, end));
    }
    let mut all = Load::default();
    while let Some(done) = working.join_next().await {
        let done = done.expect("a client that does not panic")?;
        all.answered += done.answered;
        all.times.extend(done.times);
    }
    Ok(all)
}

/// The work of one client until the end.
async fn work<C: Client>(
    mut client: C,
    number: usize,
    measured: Instant,
    end: Instant,
) -> Result<Load> {
    let mut load = Load::default();
    loop {
        let order = Order::numbered(number + load.answered);
        let began = Instant::now();
        if began >= end {
            return Ok(load);
        }
        client.place(order).await?;
        let answered = Instant::now();
        load.answered += 1;
        if measured <= answered && answered < end {
            load.times.push(answered - began);
        }
    }
}

/// The percentile of the times, in milliseconds.
pub fn percentile_ms(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * hundredths).div_ceil(100).max(1);
    times[rank - 1].as_secs_f64() * 1_000.0
}
