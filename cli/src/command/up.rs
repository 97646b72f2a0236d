//! `buildr up`: an orchestrator and an agent on this machine, for a first try. Each is a process of
//! its own, as on a farm; this one starts them, passes on what they say, and stops them.

mod child;

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::{Path, PathBuf},
};

use crate::{
    Error, Exit,
    screen::Screen,
    signals::{Signal, Signals},
};
use child::Child;

/// Start an orchestrator and an agent on this machine
///
/// For a first try and for a farm of one machine. Ctrl-C stops both: the agent finishes what it
/// runs; a second Ctrl-C cancels that, a third ends everything at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr up
  buildr up --listen 127.0.0.1:50052 --data /tmp/try --slots 4")]
pub(super) struct Args {
    /// Where the orchestrator listens; an address of this machine only
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    listen: String,
    /// Where both keep their data [default: ~/.local/share/buildr]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many builds run at once [default: the number of cores]
    #[arg(long, value_name = "COUNT")]
    slots: Option<u32>,
}

const ORCHESTRATOR: &str = "buildr-orchestrator";
const AGENT: &str = "buildr-agent";

/// Starts both, waits, stops both.
pub(super) async fn run(args: Args, screen: &Screen) -> Result<Exit, Error> {
    let mut signals = Signals::listen()?;
    let listen = loopback(&args.listen)?;
    require_free(listen)?;
    let data = data_folder(args.data)?;
    let folder = |name: &str| data.join(name).display().to_string();

    let listen = listen.to_string();
    let orchestrator = ["--listen", &listen, "--data", &folder("orchestrator")].map(str::to_owned);
    let mut orchestrator = Child::start(&sibling(ORCHESTRATOR)?, "orchestrator", &orchestrator, *screen)?;
    let Some(ready) = wait_ready(&mut orchestrator, &mut signals).await? else {
        return stop(None, orchestrator, &mut signals, screen).await;
    };
    let address = ready.split_whitespace().next().unwrap_or(&listen).to_owned();

    let mut agent = ["--orchestrator", &address, "--data", &folder("agent"), "--allow-file-urls"]
        .map(str::to_owned)
        .to_vec();
    agent.extend(["--docker-socket", "raw"].map(str::to_owned));
    agent.extend(args.slots.iter().flat_map(|slots| ["--slots".to_owned(), slots.to_string()]));
    let mut agent = match start_agent(&agent, screen) {
        Ok(agent) => agent,
        Err(error) => {
            stop(None, orchestrator, &mut signals, screen).await?;
            return Err(error);
        }
    };
    let both_ready = tokio::select! {
        ready = wait_ready(&mut agent, &mut signals) => ready,
        end = orchestrator.ended() => Err(end),
    };
    match both_ready {
        Ok(Some(_)) => screen.say(&welcome(&address)),
        Ok(None) => return stop(Some(agent), orchestrator, &mut signals, screen).await,
        Err(error) => {
            stop(Some(agent), orchestrator, &mut signals, screen).await?;
            return Err(error);
        }
    }
    let died = tokio::select! {
        _ = signals.next() => None,
        end = orchestrator.ended() => Some(end),
        end = agent.ended() => Some(end),
    };
    let stopped = stop(Some(agent), orchestrator, &mut signals, screen).await?;
    died.map_or(Ok(stopped), Err)
}

fn start_agent(arguments: &[String], screen: &Screen) -> Result<Child, Error> {
    Child::start(&sibling(AGENT)?, "agent", arguments, *screen)
}

/// Waits until a program is ready; none if the user ended that.
async fn wait_ready(child: &mut Child, signals: &mut Signals) -> Result<Option<String>, Error> {
    tokio::select! {
        ready = child.ready() => ready.map(Some),
        _ = signals.next() => Ok(None),
    }
}

/// Stops the agent, then the orchestrator, so that the agent can report what it finishes.
async fn stop(
    agent: Option<Child>,
    orchestrator: Child,
    signals: &mut Signals,
    screen: &Screen,
) -> Result<Exit, Error> {
    for mut child in agent.into_iter().chain([orchestrator]) {
        let mut asked = 0;
        child.terminate();
        while child.is_running() {
            tokio::select! {
                _ = child.ended() => {}
                signal = signals.next() => {
                    asked += 1;
                    if asked > 1 || signal == Signal::HangUp {
                        child.kill();
                    } else {
                        screen.say("ending what still runs; Ctrl-C again ends it at once");
                        child.terminate();
                    }
                }
            }
        }
    }
    Ok(Exit::OK)
}

fn welcome(address: &str) -> String {
    let target = if address == "127.0.0.1:50051" {
        String::new()
    } else {
        format!("export BUILDR_ORCHESTRATOR={address}\n  ")
    };
    format!(
        "\nbuildr is up: one agent is connected, and the orchestrator listens on {address}\n\n\
         In another terminal:\n\n  \
         {target}cd YOUR/REPOSITORY\n  buildr submit --repo .    build its last commit, and follow it\n  \
         buildr list               what was built\n\nCtrl-C stops both.\n"
    )
}

fn loopback(text: &str) -> Result<SocketAddr, Error> {
    let address =
        text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| {
            Error::usage_with(format!("`{text}` is not an address"), "give HOST:PORT, as 127.0.0.1:50051")
        })?;
    if !address.ip().is_loopback() {
        return Err(Error::usage_with(
            format!("{text} can be reached from other machines, and `buildr up` is for this one"),
            "start `buildr-orchestrator --listen` and `buildr-agent` yourself for a farm",
        ));
    }
    Ok(address)
}

/// Fails where somebody listens already; whoever comes in between is told by the orchestrator.
fn require_free(address: SocketAddr) -> Result<(), Error> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::Program {
            what: format!("another program listens on {address} already"),
            hint: Some(
                "if that is an orchestrator, `buildr list` shows its builds; else take another port: \
                 `buildr up --listen 127.0.0.1:50052`"
                    .to_owned(),
            ),
        }),
        Err(error) => Err(Error::io(format!("listen on {address}"), error)),
        Ok(_) => Ok(()),
    }
}

fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    let base = || {
        std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".local/share")))
    };
    let data = given
        .or_else(|| base().map(|base| base.join("buildr")))
        .ok_or_else(|| Error::usage_with("there is no home folder", "name a folder with --data"))?;
    std::fs::create_dir_all(&data)
        .and_then(|()| data.canonicalize())
        .map_err(|error| Error::io(format!("make the folder {}", data.display()), error))
}

/// A program of buildr's beside this one.
fn sibling(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|error| Error::io("find this program's own file", error))?;
    let path = own.parent().unwrap_or(Path::new("")).join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Program {
        what: format!("{} is missing", path.display()),
        hint: Some(
            "install the three programs buildr, buildr-orchestrator and buildr-agent in one folder"
                .to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_before_anything_starts() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = require_free(address).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains(&address.to_string()));
        drop(taken);
        assert!(require_free(address).is_ok());
    }

    #[test]
    fn only_this_machine_can_be_listened_on() {
        assert!(loopback("127.0.0.1:0").is_ok());
        for wrong in ["0.0.0.0:50051", "nonsense", "127.0.0.1"] {
            assert_eq!(loopback(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
