//! What could be wrong with an orchestrator before it starts, or while it runs. Changes nothing.

use std::{fs::File, net::TcpListener};

use buildr_telemetry::doctor::{Check, Report, disk, folder};

use crate::config::{Config, TokenPolicy};

/// File descriptors that are used for anything but connections.
const OWN_FILES: u64 = 512;

/// Looks at all that these settings need.
pub fn examine(config: &Config) -> Report {
    let runs = is_running(config);
    let checks = vec![
        folder(&config.data),
        disk(&config.data, config.min_free.as_u64()),
        database(config),
        listen(config, runs),
        token(config),
        files(config),
    ];
    Report::new("buildr-orchestrator", env!("CARGO_PKG_VERSION"), checks)
}

/// Whether an orchestrator has the data folder.
fn is_running(config: &Config) -> bool {
    let lock = File::open(config.data.join("lock"));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

fn database(config: &Config) -> Check {
    let path = config.data.join("buildr.db");
    match File::open(&path).and_then(|file| file.metadata()) {
        Ok(data) => Check::ok("database", format!("{}, {} KiB", path.display(), data.len() >> 10)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok("database", "none yet: the first start makes it")
        }
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            Check::problem("database", found, "make it readable for the user of this program")
        }
    }
}

fn listen(config: &Config, runs: bool) -> Check {
    let address = config.listen;
    match TcpListener::bind(address) {
        Ok(_) if config.is_exposed() => Check::warning(
            "listen",
            format!("{address}, which others can reach, and traffic is not encrypted"),
            "use a private network, a VPN or a TLS proxy in front",
        ),
        Ok(_) => Check::ok("listen", format!("{address} is free")),
        Err(_) if runs => {
            Check::ok("listen", format!("an orchestrator with this data folder is running; {address}"))
        }
        Err(error) => {
            let advice = "stop what listens there (`ss -ltnp` shows it), or give another --listen";
            Check::problem("listen", format!("{address}: {error}"), advice)
        }
    }
}

fn token(config: &Config) -> Check {
    match &config.token {
        TokenPolicy::Open => Check::ok("token", "none is asked for: only this machine can reach it"),
        TokenPolicy::OfFile(path) => match crate::auth::Token::from_file(path) {
            Ok(_) => Check::ok("token", format!("that of {}", path.display())),
            Err(error) => Check::problem(
                "token",
                crate::error::chain(&error),
                "write one: `openssl rand -hex 32 > FILE`",
            ),
        },
        TokenPolicy::OfFolder if config.data.join("token.sha256").exists() => {
            Check::ok("token", "the one that the first start showed")
        }
        TokenPolicy::OfFolder => Check::ok("token", "the first start makes one and shows it once"),
    }
}

fn files(config: &Config) -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let connections = config.gate.connections as u64;
    match limit {
        Some(limit) if limit < connections + OWN_FILES => Check::warning(
            "files",
            format!(
                "{limit} files may be open, and {connections} connections need {}",
                connections + OWN_FILES
            ),
            "raise it (LimitNOFILE= in the unit), or lower --max-connections",
        ),
        Some(limit) => Check::ok("files", format!("{limit} may be open")),
        None => Check::ok("files", "as many as wanted may be open"),
    }
}

#[cfg(test)]
mod tests {
    use buildr_telemetry::doctor::State;

    use super::*;

    fn config(folder: &tempfile::TempDir) -> Config {
        Config::local(folder.path().join("data"))
    }

    #[test]
    fn a_fresh_folder_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let report = examine(&config(&folder));
        assert_eq!(report.exit_code(), 0, "{report:?}");
    }

    #[test]
    fn an_address_in_use_and_a_token_that_is_none_are_problems() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "short").unwrap();
        let listen_address = taken.local_addr().unwrap();
        let config =
            Config { listen: listen_address, token: TokenPolicy::OfFile(token_file), ..config(&folder) };
        assert_eq!(listen(&config, false).state, State::Problem);
        assert_eq!(listen(&config, true).state, State::Ok, "it is the orchestrator itself");
        assert_eq!(token(&config).state, State::Problem);
        assert_eq!(examine(&config).exit_code(), 4);
    }
}
