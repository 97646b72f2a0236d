//! The commands: which there are, what they share, and who carries them out.

mod agents;
mod cancel;
mod doctor;
mod init;
mod lint;
mod list;
mod retry;
mod run;
mod schema;
mod show;
mod submit;
mod tail;
mod up;
mod why;

use std::{path::PathBuf, str::FromStr};

use buildr_manifest::VarName;
use clap::{Parser, Subcommand};

use crate::{
    Error, Exit,
    client::{Client, Target},
    screen::{ColorChoice, Screen},
};

/// Continuous integration that runs the same on a laptop and on a farm.
///
/// A build lives in the repository as `.buildr.yml` and runs in a clean container.
#[derive(Debug, Parser)]
#[command(
    name = "buildr",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  buildr init                    write a first manifest for the current folder
  buildr lint                    check it
  buildr run                     build the current folder on this machine
  buildr up                      start an orchestrator and an agent here
  buildr submit                  build HEAD of the current repository on the farm
  buildr tail latest             follow the newest build

Exit codes:
  0 passed or skipped   1 the build failed     2 usage or manifest error
  3 canceled            4 infrastructure       5 timed out
  130 detached by Ctrl-C"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Where an orchestrator listens of itself.
const USUAL_ORCHESTRATOR: &str = "127.0.0.1:50051";

/// What every command understands.
#[derive(Debug, clap::Args)]
pub(crate) struct Globals {
    /// Where the orchestrator listens
    #[arg(
        long,
        global = true,
        env = "BUILDR_ORCHESTRATOR",
        hide_env_values = true,
        value_name = "HOST:PORT",
        default_value = USUAL_ORCHESTRATOR,
        help_heading = "Global options"
    )]
    orchestrator: String,
    /// The token that the orchestrator asks for; others on this machine can see it, a file is better
    #[arg(
        long,
        global = true,
        env = "BUILDR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Global options"
    )]
    token: Option<String>,
    /// A file with the token
    #[arg(
        long,
        global = true,
        env = "BUILDR_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    token_file: Option<PathBuf>,
    /// When to use colours; NO_COLOR and CLICOLOR_FORCE are obeyed
    #[arg(
        long,
        global = true,
        env = "BUILDR_COLOR",
        hide_env_values = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options"
    )]
    pub(crate) color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Lint(lint::Args),
    Init(init::Args),
    Schema(schema::Args),
    Submit(submit::Args),
    Tail(tail::Args),
    List(list::Args),
    Show(show::Args),
    Cancel(cancel::Args),
    Retry(retry::Args),
    Why(why::Args),
    Agents(agents::Args),
    Up(up::Args),
    Doctor(doctor::Args),
}

/// Carries a command out.
pub(crate) async fn dispatch(cli: Cli, screen: &Screen) -> Result<Exit, Error> {
    let Cli { globals, command } = cli;
    match command {
        Command::Run(args) => run::run(args, screen).await,
        Command::Lint(args) => lint::run(&args, screen),
        Command::Init(args) => init::run(&args, screen),
        Command::Schema(args) => schema::run(&args, screen),
        Command::Submit(args) => submit::run(args, &globals, screen).await,
        Command::Tail(args) => tail::run(args, &globals, screen).await,
        Command::List(args) => list::run(args, &globals, screen).await,
        Command::Show(args) => show::run(args, &globals, screen).await,
        Command::Cancel(args) => cancel::run(args, &globals, screen).await,
        Command::Retry(args) => retry::run(args, &globals, screen).await,
        Command::Why(args) => why::run(args, &globals, screen).await,
        Command::Agents(args) => agents::run(args, &globals, screen).await,
        Command::Up(args) => up::run(args, screen).await,
        Command::Doctor(args) => doctor::run(&args, &globals, screen).await,
    }
}

impl Globals {
    /// The user may have named none.
    fn is_usual_orchestrator(&self) -> bool {
        self.orchestrator == USUAL_ORCHESTRATOR
    }

    /// Connects to the orchestrator that the user means.
    async fn connect(&self) -> Result<Client, Error> {
        let from_file =
            match (&self.token, &self.token_file) {
                (None, Some(file)) => {
                    let read = std::fs::read_to_string(file);
                    Some(read.map_err(|error| {
                        Error::io(format!("read the token file {}", file.display()), error)
                    })?)
                }
                _ => None,
            };
        let token = self.token.as_deref().or(from_file.as_deref()).map(str::trim);
        Client::connect(Target::new(&self.orchestrator, token.filter(|token| !token.is_empty()))?).await
    }
}

/// `NAME=VALUE` for a variable of the build.
#[derive(Clone, Debug)]
struct Variable(VarName, String);

impl FromStr for Variable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
        if name == "BUILDR" || name.starts_with("BUILDR_") {
            return Err(format!("`{name}` is one of buildr's own variables"));
        }
        let name = VarName::new(name).map_err(|invalid| invalid.to_string())?;
        Ok(Self(name, value.to_owned()))
    }
}

/// Who asks for something, as they name themselves.
fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| {
            let uid = rustix::process::getuid().as_raw();
            let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            account(&accounts, uid).unwrap_or_else(|| format!("uid {uid}"))
        })
}

/// The name that belongs to a uid in the text of `/etc/passwd`.
fn account(accounts: &str, uid: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Where the command was given.
fn current_folder() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| Error::io("find the current folder", error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_is_what_people_read() {
        let mut command = Cli::command();
        command.build();
        let mut text = command.render_help().to_string();
        for name in
            ["run", "lint", "init", "schema", "submit", "tail", "list", "show", "cancel", "up", "doctor"]
        {
            let command = command.find_subcommand_mut(name).unwrap();
            text.push_str(&format!("\n======== {name}\n{}", command.render_long_help()));
        }
        let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_user_without_an_environment_is_looked_up() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\n\nann:x:1000:1000::/home/ann:\nodd\n";
        assert_eq!(account(accounts, 1000).as_deref(), Some("ann"));
        assert_eq!(account(accounts, 1), None);
    }

    #[test]
    fn buildrs_own_variables_cannot_be_set() {
        assert!("BUILDR_COMMIT=x".parse::<Variable>().is_err());
        assert!("1A=x".parse::<Variable>().is_err());
        assert!("A".parse::<Variable>().is_err());
        let Variable(name, value) = "A=b=c".parse().unwrap();
        assert_eq!((&*name, value.as_str()), ("A", "b=c"));
    }
}
