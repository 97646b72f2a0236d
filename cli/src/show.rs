//! Follows a build on the screen, with the user at the keyboard.

use std::time::Duration;

use buildr_proto::BuildId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::{
    Error, Exit,
    client::{Client, Which, follow::Follow},
    error::DETACHED,
    render::Renderer,
    signals::{Signal, Signals},
};

/// How often what moves on the screen moves.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A second Ctrl-C within this time cancels the build.
const SECOND_INTERRUPT: Duration = Duration::from_secs(2);

/// So many entries are shown before the screen is brought up to date, also when more wait.
const BURST: u32 = 64;

/// What Ctrl-C does.
pub(crate) enum Interrupt<'a> {
    /// It ends the following, never the build.
    Detaches,
    /// Once: the same. Twice: it cancels the build, in this name.
    TwiceCancels(&'a str),
}

/// Shows a build to its end. The exit code is the build's, or says that the user left.
pub(crate) async fn follow(
    follow: &mut Follow,
    client: &Client,
    build: BuildId,
    renderer: &mut dyn Renderer,
    interrupt: Interrupt<'_>,
) -> Result<Exit, Error> {
    let mut signals = Signals::listen()?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut leaving: Option<Instant> = None;
    let mut canceled = false;
    let mut burst = 0;
    loop {
        tokio::select! {
            entry = follow.next() => match entry? {
                Some(entry) => {
                    written(renderer.entry(&entry))?;
                    burst += 1;
                    if !follow.has_more() || burst >= BURST {
                        burst = 0;
                        written(renderer.settle())?;
                    }
                }
                None => break,
            },
            _ = ticks.tick() => written(renderer.tick())?,
            signal = signals.next() => match (&interrupt, signal) {
                (Interrupt::TwiceCancels(by), Signal::Interrupt) if !canceled => {
                    if leaving.take().is_some() {
                        written(renderer.notice(&format!("canceling build {build}; Ctrl-C leaves it to itself")))?;
                        client.cancel(Which::Number(build), by).await?;
                        canceled = true;
                    } else {
                        written(renderer.notice("Ctrl-C again cancels the build; it goes on otherwise"))?;
                        leaving = Some(Instant::now() + SECOND_INTERRUPT);
                    }
                }
                _ => return detached(build, renderer),
            },
            () = sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => {
                return detached(build, renderer);
            }
        }
    }
    written(renderer.settle())?;
    Ok(Exit(follow.outcome().map_or(0, |outcome| outcome.exit_code())))
}

fn detached(build: BuildId, renderer: &mut dyn Renderer) -> Result<Exit, Error> {
    let text =
        format!("build {build} goes on; `buildr tail {build}` shows it, `buildr cancel {build}` ends it");
    written(renderer.notice(&text))?;
    Ok(Exit(DETACHED))
}

/// Names the failed write.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Error> {
    result.map_err(|error| Error::io("write to standard output", error))
}
