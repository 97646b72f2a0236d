//! How much of what comes up from a container is believed: a build with root can write reports of
//! its own, and none of them may cost more than an honest one.

use std::time::Duration;

use buildr_init::wire::{EndCause, StageEnd, StageStatus, Traffic};

/// The longest explanation, in characters.
const MAX_REASON: usize = 1000;

/// The most complaints about files; init sends no more.
const MAX_COMPLAINTS: usize = 10;

/// More time than a stage on the largest of machines has used.
const MAX_TIME: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// More bytes than a stage has used or moved; so many can still be added up.
const MAX_BYTES: u64 = 1 << 56;

/// What a job's stages can truly have.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The number of steps of each stage.
    pub(crate) steps: Vec<usize>,
    /// The longest log of a stage, in bytes.
    pub(crate) log: u64,
}

impl Bounds {
    /// Cuts a report down to what can be; none where there is no such stage.
    pub(super) fn stage(&self, mut news: StageStatus) -> Option<StageStatus> {
        let steps = *self.steps.get(usize::try_from(news.stage).ok()?)?;
        news.steps.truncate(steps);
        news.steps.shrink_to_fit();
        news.log_bytes = news.log_bytes.min(self.log);
        news.end = news.end.map(cut);
        Some(news)
    }
}

/// An end whose text is short and whose numbers can be added to others.
fn cut(mut end: StageEnd) -> StageEnd {
    if let EndCause::LogFailed { reason } | EndCause::CannotStart { reason, .. } = &mut end.cause {
        *reason = one_line(reason);
    }
    let bytes = |bytes: u64| bytes.min(MAX_BYTES);
    let network = |Traffic { received, sent }| Traffic { received: bytes(received), sent: bytes(sent) };
    StageEnd {
        duration: end.duration.min(MAX_TIME),
        user_cpu: end.user_cpu.min(MAX_TIME),
        system_cpu: end.system_cpu.min(MAX_TIME),
        max_rss: bytes(end.max_rss),
        peak_memory: end.peak_memory.map(bytes),
        network: end.network.map(network),
        ..end
    }
}

/// Cuts what is said of files down.
pub(super) fn complaints(errors: Vec<String>) -> Vec<String> {
    errors.iter().take(MAX_COMPLAINTS).map(|error| one_line(error)).collect()
}

fn one_line(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use buildr_init::wire::{MAX_LINE, Report};
    use buildr_manifest::Usage;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::link::{Board, lines::Lines, session};

    const BOUNDS: [usize; 2] = [1, 3];

    fn bounds() -> Bounds {
        Bounds { steps: BOUNDS.to_vec(), log: 100 }
    }

    /// What a board comes to that hears all this.
    fn board(said: &[u8]) -> Board {
        let (mut lines, mut board) = (Lines::default(), Board::default());
        lines.feed(said, |line| match serde_json::from_slice(line) {
            Ok(Report::State { stages, .. }) => {
                stages.into_iter().for_each(|stage| session::note(&mut board, stage, &bounds()));
            }
            Ok(Report::Stage(stage)) => session::note(&mut board, stage, &bounds()),
            _ => {}
        });
        board
    }

    #[test]
    fn numbers_that_no_stage_can_reach_are_cut_to_what_can_be_added_up_and_read_back() {
        let time = r#"{"secs":18446744073709551615,"nanos":999999999}"#;
        let text = format!(
            r#"{{"report":"stage","stage":1,"log_bytes":18446744073709551615,"steps":[1,2,3,4,5],"end":{{
            "cause":{{"cannot_start":{{"reason":"{}\u001b[2J","no_shell":false}}}},"stopped":false,"duration":{time},
            "user_cpu":{time},"system_cpu":{time},"max_rss":18446744073709551615,"oom_kills":18446744073709551615,
            "peak_memory":18446744073709551615,"network":{{"received":18446744073709551615,"sent":1}}}}}}"#,
            "x".repeat(5000)
        );
        let board = board(format!("{}\n", text.replace('\n', "")).as_bytes());
        let stage = &board.stages[&1];
        assert_eq!((stage.log_bytes, stage.steps.len()), (100, 3));
        let end = stage.end.clone().unwrap();
        assert_eq!((end.user_cpu, end.max_rss, end.peak_memory), (MAX_TIME, MAX_BYTES, Some(MAX_BYTES)));
        assert_eq!(end.network, Some(Traffic { received: MAX_BYTES, sent: 1 }));
        let EndCause::CannotStart { reason, .. } = end.cause else { panic!() };
        assert!(reason.chars().count() == MAX_REASON && !reason.contains('\u{1b}'));
        let usage = Usage { user_cpu: end.user_cpu * 16, max_rss: 16 * end.max_rss, ..Usage::default() };
        let read_back: Usage = serde_json::from_str(&serde_json::to_string(&usage).unwrap()).unwrap();
        assert_eq!(read_back.max_rss, usage.max_rss);
    }

    /// Lines that are nearly reports: whole ones, cut ones, and anything at all.
    fn said() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![0..5_u64, Just(u64::MAX), any::<u64>()];
        let report = (number.clone(), number.clone(), vec(number.clone(), 0..6), number, any::<bool>());
        let line = report.prop_map(|(stage, log, steps, big, ends)| {
            let time = format!(r#"{{"secs":{big},"nanos":{}}}"#, big % 2_000_000_000);
            let end = format!(
                r#"{{"cause":{{"exit":{}}},"stopped":false,"duration":{time},"user_cpu":{time},"system_cpu":{time},"max_rss":{big}}}"#,
                big as i32
            );
            let end = if ends { end } else { "null".to_owned() };
            format!(r#"{{"report":"stage","stage":{stage},"log_bytes":{log},"steps":{steps:?},"end":{end}}}"#)
        });
        let piece = prop_oneof![
            3 => (line, any::<prop::sample::Index>(), prop::bool::weighted(0.2)).prop_map(|(line, at, cut)| {
                let length = if cut { at.index(line.len()) } else { line.len() };
                line.as_bytes()[..length].to_vec()
            }),
            1 => vec(any::<u8>(), 0..100),
        ];
        vec(piece, 0..20).prop_map(|pieces| pieces.join(&b'\n'))
    }

    proptest! {
        #[test]
        fn whatever_is_said_no_stage_gets_more_than_it_can_have(said in said()) {
            prop_assert!(said.len() < MAX_LINE);
            for (number, stage) in board(&said).stages {
                let steps = BOUNDS.get(number as usize).copied();
                prop_assert!(stage.log_bytes <= 100 && steps.is_some_and(|most| stage.steps.len() <= most));
                if let Some(end) = stage.end {
                    prop_assert!(end.user_cpu.max(end.system_cpu).max(end.duration) <= MAX_TIME);
                    prop_assert!(end.max_rss <= MAX_BYTES);
                }
            }
        }
    }
}
