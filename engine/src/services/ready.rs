//! Waiting until a service can be used.

use std::time::Duration;

use buildr_init::wire::{EndCause, Order, StageEnd};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    ServiceError,
    check::Check,
    error::Unready,
    host::{Host, MAX_CHECKS, PROGRAM},
};

/// Between the first checks; it doubles up to [`PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Between checks.
const PAUSE: Duration = Duration::from_millis(250);

/// A check that takes longer has failed.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// The most that one check may print.
const CHECK_LOG: u64 = 64 << 10;

/// A service of which nothing better is known is ready when it has run for so long.
const SETTLED: Duration = Duration::from_secs(1);

/// As good as for ever, for a clock that ends.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many lines of a log are shown.
const LINES: usize = 10;

/// The check that was made last: its number and how it ended.
type Last = Option<(u32, String)>;

/// Comes back when the service is ready; an error where it ended, or its time did.
pub(super) async fn wait(host: &Host) -> Result<(), ServiceError> {
    let mut last = None;
    let deadline = Instant::now() + host.timeout.min(YEAR);
    let what = tokio::select! {
        biased;
        end = host.end_of(PROGRAM) => match end {
            Some(end) => format!("{} before it was ready", how(&end)),
            None => "went away before it was ready: its container ended".to_owned(),
        },
        ready = timeout_at(deadline, until_ready(host, &mut last)) => match ready {
            Ok(()) => return Ok(()),
            Err(_) => {
                let seconds = host.timeout.as_secs_f64();
                format!("did not get ready within {seconds} s: {}", tried(host, last.as_ref()))
            }
        }
    };
    let check = match last {
        Some((number, _)) => host.last_lines(number, LINES).await,
        None => Vec::new(),
    };
    let log = host.last_lines(PROGRAM, LINES).await;
    let (service, image) = (host.name.clone(), host.image.clone());
    Err(ServiceError::NotReady { service, image, what: Unready { what, check, log } })
}

async fn until_ready(host: &Host, last: &mut Last) {
    let Some(command) = host.check.command() else { return sleep(SETTLED).await };
    // What an engine before this one has tried has numbers of its own.
    let begun = host.link.board().borrow().stages.keys().next_back().copied().unwrap_or(PROGRAM);
    // So many checks, less the quick ones at the beginning, fill the whole time.
    let longest = (host.timeout / (MAX_CHECKS - 100)).max(PAUSE);
    let mut pause = FIRST_PAUSE;
    for number in begun + 1..=MAX_CHECKS {
        match check(host, number, command.clone()).await {
            Some(StageEnd { cause: EndCause::Exit(0), .. }) => return,
            Some(end) => *last = Some((number, how(&end))),
            // The container ended, which is seen elsewhere.
            None => break,
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    std::future::pending().await
}

/// Runs one check to its end.
async fn check(host: &Host, number: u32, command: Vec<String>) -> Option<StageEnd> {
    host.run(number, command, "/".to_owned(), CHECK_LOG).await;
    if let Ok(end) = timeout(CHECK_LIMIT, host.end_of(number)).await {
        return end;
    }
    host.link.send(Order::Stop { stage: number, grace: Duration::ZERO }).await;
    host.end_of(number).await
}

/// What was tried, and with what success.
fn tried(host: &Host, last: Option<&(u32, String)>) -> String {
    match &host.check {
        Check::Program { title, .. } => {
            format!("{title} {}", last.map_or("has not ended so far", |(_, end)| end))
        }
        Check::Ports(ports) => {
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            let ports = ports.join(", ");
            format!(
                "nobody listens on the ports that its image exposes ({ports}); say in `ready` how to tell"
            )
        }
        Check::Running => "it has not run for long enough".to_owned(),
    }
}

/// How a program ended, to follow its name.
pub(super) fn how(end: &StageEnd) -> String {
    match &end.cause {
        EndCause::Exit(code) => format!("exited with code {code}"),
        EndCause::Signal(9) if end.oom_kills > 0 => "was ended for want of memory".to_owned(),
        EndCause::Signal(_) if end.stopped => "was ended, since it took too long".to_owned(),
        EndCause::Signal(signal) => format!("was ended by signal {signal}"),
        EndCause::LogLimit => "printed more than it may".to_owned(),
        EndCause::LogFailed { reason } => format!("could not write its log ({reason})"),
        EndCause::CannotStart { reason, .. } => format!("could not be started ({reason})"),
    }
}
