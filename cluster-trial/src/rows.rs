//! Turns the findings into rows for people and programs.
//!
//! Invariant: a guarantee that nothing in this trial could have broken is *not tested*, with the
//! reason.

use std::time::Duration;

use event_log::log::{LogError, SettingProblem};

use super::groups::Grouped;
use super::judge::Judged;
use super::lanes::Lane;
use super::readers::Followed;
use super::report::{Guarantee, Places, Row};

/// The clocks of brokers and nodes may differ by this much.
const SKEW_MAX_MS: u64 = 60_000;
/// A larger difference than this is mentioned.
const SKEW_NOTED_MS: u64 = 1_000;

/// All that was found.
pub(super) struct Findings {
    pub(super) settings: Result<Vec<String>, Vec<SettingProblem>>,
    pub(super) directory: Result<Duration, LogError>,
    pub(super) grouped: Grouped,
    pub(super) session_timeout: Duration,
    pub(super) lane: Lane,
    pub(super) followed: Followed,
    pub(super) judged: Judged,
    /// How many times connections were cut, and how many connections in all.
    pub(super) cuts: (u64, u64),
    /// For how long brokers could be restarted.
    pub(super) pause: Option<Duration>,
}

/// The rows, in the order of [`Guarantee`].
pub(super) fn rows(findings: Findings) -> Vec<Row> {
    let Findings {
        settings,
        directory,
        grouped,
        session_timeout,
        lane,
        followed,
        judged,
        cuts,
        pause,
    } = findings;
    let mut rows = vec![settings_row(settings), directory_row(directory)];
    rows.extend(log_rows(&lane, &judged, cuts));
    rows.extend(reader_rows(&lane, &followed, &judged));
    rows.push(group_row(&grouped, session_timeout));
    rows.push(restart_row(&lane, &judged, pause));
    rows.sort_by_key(|row| row.guarantee);
    rows
}

fn settings_row(settings: Result<Vec<String>, Vec<SettingProblem>>) -> Row {
    let done = "created a topic and read its settings".to_owned();
    let mut against = Places::default();
    let note = match settings {
        Ok(warnings) => warnings.join("; "),
        Err(problems) => {
            for problem in problems {
                let SettingProblem {
                    setting,
                    found,
                    needed,
                    ..
                } = problem;
                against.add(format!("{setting} is {found} and must be {needed}"));
            }
            String::new()
        }
    };
    Row::of(Guarantee::Settings, done, (0, 1), &against, note)
}

fn directory_row(directory: Result<Duration, LogError>) -> Row {
    let done = "created a compacted topic, and sent a hint through it".to_owned();
    let mut against = Places::default();
    let note = match directory {
        Ok(took) => format!("the hint came within {}", ms(took)),
        Err(error) => {
            against.add(super::claimant::explained(&error));
            String::new()
        }
    };
    Row::of(Guarantee::CompactedTopic, done, (1, 1), &against, note)
}

fn log_rows(lane: &Lane, judged: &Judged, (cuts, connections): (u64, u64)) -> Vec<Row> {
    let ledger = &lane.ledger;
    let (records, acknowledged) = (judged.records, judged.acknowledged);
    let mut order = judged.order.clone();
    order.extend(ledger.out_of_order.clone());
    let faults = format!(
        "{connections} connections cut at {cuts} moments, {} producers discarded with {} records \
         in flight",
        lane.throws, lane.thrown_records
    );
    let doubts = match ledger.doubts {
        0 => String::new(),
        count => format!("{count} doubts, each settled by another claim"),
    };
    let mut rows = vec![
        Row::of(
            Guarantee::Order,
            format!("{faults}; read all"),
            (records, cuts + lane.throws),
            &order,
            doubts,
        ),
        Row::of(
            Guarantee::DurableAcknowledgement,
            "looked for every acknowledged record at its acknowledged place".to_owned(),
            (acknowledged, cuts + lane.throws),
            &judged.durable,
            "a power failure of brokers cannot be tested from here".to_owned(),
        ),
        Row::of(
            Guarantee::ContiguousOffsets,
            "read all from the first offset to the end".to_owned(),
            (records, 1),
            &judged.offsets,
            match ledger.slow {
                0 => String::new(),
                slow => format!("{slow} acknowledgements were not at the next offset, and read"),
            },
        ),
    ];
    let tries = cuts + lane.throws;
    rows.push(match tries {
        0 if judged.duplicates.is_empty() => Row::not_tested(
            Guarantee::NoDuplicates,
            "no connection was cut and no producer discarded: nothing was sent again",
        ),
        _ => Row::of(
            Guarantee::NoDuplicates,
            faults,
            (records, tries),
            &judged.duplicates,
            String::new(),
        ),
    });
    rows.push(time_row(lane));
    rows.push(largest_row(lane));
    rows
}

fn time_row(lane: &Lane) -> Row {
    let ledger = &lane.ledger;
    let mut against = Places::default();
    if ledger.untimed > 0 {
        let count = ledger.untimed;
        against.add(format!("{count} acknowledgements came without a time"));
    }
    if ledger.skew_max_ms > SKEW_MAX_MS {
        let skew = ledger.skew_max_ms;
        against.add(format!("a record's time is {skew} ms from this clock"));
    }
    let note = match ledger.skew_max_ms {
        skew if skew > SKEW_NOTED_MS => format!("{skew} ms apart: correct the clocks"),
        skew => format!("within {skew} ms"),
    };
    Row::of(
        Guarantee::AppendTime,
        "compared the brokers' times with this clock".to_owned(),
        (ledger.acknowledged.len() as u64, 1),
        &against,
        note,
    )
}

fn largest_row(lane: &Lane) -> Row {
    let mut against = Places::default();
    match &lane.largest_refused {
        Some(why) => against.add(why.clone()),
        None if lane.largest == 0 => {
            let why = lane.trouble.as_deref().unwrap_or("there was no time");
            return Row::not_tested(Guarantee::LargestRecord, why);
        }
        None => {}
    }
    Row::of(
        Guarantee::LargestRecord,
        format!(
            "wrote commits of {} bytes",
            event_log::commit::COMMIT_SIZE_MAX
        ),
        (lane.largest, 1),
        &against,
        String::new(),
    )
}

fn reader_rows(lane: &Lane, followed: &Followed, judged: &Judged) -> Vec<Row> {
    let mut readers = judged.readers.clone();
    readers.extend(lane.ends_behind.clone());
    readers.extend(lane.ledger.unseen.clone());
    let mut rows = vec![Row::of(
        Guarantee::ReadersAgree,
        "two clients read everything; the end was compared with the acknowledgements".to_owned(),
        (judged.records, lane.ends_seen),
        &readers,
        String::new(),
    )];
    let is_damaged_elsewhere = lane.is_damaged || followed.stopped.is_some();
    let (take_overs, claims) = (lane.take_overs, lane.ledger.claims_lost);
    rows.push(match take_overs {
        _ if !judged.one_writer.is_empty() => one_writer_row(lane, judged),
        _ if is_damaged_elsewhere => Row::not_tested(
            Guarantee::OneWriterCounts,
            "a guarantee broken above stopped the readers",
        ),
        0 => Row::not_tested(
            Guarantee::OneWriterCounts,
            format!("no claimant took over from another ({claims} claims were lost)"),
        ),
        _ => one_writer_row(lane, judged),
    });
    rows.push(match followed.resumes {
        _ if !judged.resume.is_empty() => resume_row(followed, judged),
        _ if followed.stopped.is_some() => Row::not_tested(
            Guarantee::Resume,
            "a guarantee broken above stopped the reader",
        ),
        0 => Row::not_tested(Guarantee::Resume, "there was no time to stop the reader"),
        _ => resume_row(followed, judged),
    });
    rows
}

fn one_writer_row(lane: &Lane, judged: &Judged) -> Row {
    let claims = lane.ledger.claims_won + lane.ledger.claims_lost;
    Row::of(
        Guarantee::OneWriterCounts,
        format!(
            "two claimants wrote at once, with {claims} claims in total; folded the log and \
             compared the result with {} answers",
            lane.ledger.answers.len()
        ),
        (judged.accepted, lane.take_overs),
        &judged.one_writer,
        String::new(),
    )
}

fn resume_row(followed: &Followed, judged: &Judged) -> Row {
    let note = match followed.interruptions {
        0 => String::new(),
        count => format!("the log did not answer it {count} times"),
    };
    Row::of(
        Guarantee::Resume,
        "stopped a follower and resumed it from its checkpoint".to_owned(),
        (followed.commits.values().sum(), followed.resumes),
        &judged.resume,
        note,
    )
}

fn group_row(grouped: &Grouped, session_timeout: Duration) -> Row {
    Row::of(
        Guarantee::ConsumerGroup,
        "members joined, left and fell silent".to_owned(),
        (0, grouped.changes),
        &grouped.against,
        format!(
            "partitions assigned within {}; a silent member's partitions were assigned to others \
             after {} (session {})",
            ms(grouped.shared_within),
            ms(grouped.noticed_within),
            ms(session_timeout)
        ),
    )
}

fn restart_row(lane: &Lane, judged: &Judged, pause: Option<Duration>) -> Row {
    let Some(pause) = pause else {
        return Row::not_tested(
            Guarantee::BrokerRestart,
            "repeat with --pause 120 and restart the brokers during that time",
        );
    };
    let changes = judged.leader_changes;
    if changes == 0 && lane.trouble.is_none() {
        return Row::not_tested(
            Guarantee::BrokerRestart,
            "no partition of the topic lost its leader: restart a broker that leads a partition",
        );
    }
    let mut against = Places::default();
    if let Some(trouble) = &lane.trouble {
        against.add(format!("writing ended: {trouble}"));
    }
    Row::of(
        Guarantee::BrokerRestart,
        format!("wrote for {pause:?} while brokers were restarted"),
        (judged.acknowledged, changes),
        &against,
        format!(
            "the longest wait for an acknowledgement was {}",
            ms(lane.ledger.wait_max)
        ),
    )
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
