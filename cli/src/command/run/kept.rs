//! What is left of a run for a look around: a line that says how to enter it, or a shell in it.

use std::process::{Command, Stdio};

use buildr_engine::{Engine, FailedIn, Kept, RunId};

use crate::{Error, render::text::quote, screen::Screen};

/// Where a shell opens of which no stage says where.
const WORKSPACE: &str = "/workspace";

/// Says how to enter and how to remove what is kept.
pub(super) fn tell(kept: &Kept, screen: &Screen) {
    let Kept { containers, failed } = kept;
    let mut enter = vec!["docker exec -it".to_owned()];
    let (workdir, container) = match failed {
        Some(FailedIn { workdir, container, user, .. }) => {
            enter.extend((!user.is_empty()).then(|| format!("-u {}", quote(user))));
            (workdir.as_str(), Some(container))
        }
        None => (WORKSPACE, containers.first()),
    };
    enter.push(format!("-w {}", quote(workdir)));
    enter.extend(container.cloned());
    screen.say(&format!(
        "the container is kept\n   to enter it  {} sh\n  to remove it  docker rm -f {}",
        enter.join(" "),
        containers.join(" ")
    ));
}

/// Opens a shell where a stage failed, if one did, and removes what was kept when it ends.
pub(super) async fn look_around(
    engine: &Engine,
    run: &RunId,
    kept: Kept,
    screen: &Screen,
) -> Result<(), Error> {
    let shell = match kept.failed {
        Some(failed) => {
            screen.say(&format!("a shell where stage {} ran; all is removed when it ends", failed.stage));
            tokio::task::spawn_blocking(move || shell(&failed)).await.map_err(|error| error.to_string())
        }
        None => Ok(Ok(())),
    };
    engine.discard(run).await?;
    let opened = shell.and_then(|opened| opened.map_err(|error| format!("cannot start docker: {error}")));
    let hint = || Some("the shell needs the program `docker`".to_owned());
    opened.map_err(|what| Error::Program { what, hint: hint() })
}

/// Comes back when the shell ends, however it does.
fn shell(failed: &FailedIn) -> std::io::Result<()> {
    let FailedIn { container, workdir, user, environment, .. } = failed;
    let mut command = Command::new("docker");
    command.args(["exec", "-it", "-w", workdir]);
    if !user.is_empty() {
        command.args(["-u", user]);
    }
    for (name, value) in environment {
        command.arg("-e").arg(format!("{name}={value}"));
    }
    command.args([container, "sh"]).stdin(Stdio::inherit()).status().map(drop)
}
