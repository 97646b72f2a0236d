//! `buildr-init listening PORT...`: whether anybody in this container's network takes connections on
//! one of these TCP ports. It runs as a program of its own, in place of tools that an image may not
//! have: how a service is known to be ready that says nothing else.

use std::{fs, process::ExitCode};

/// In `/proc/net/tcp`: the state of a socket that takes connections.
const LISTEN: &str = "0A";

/// The tables of sockets, by the length of their addresses.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Loopback as the tables write it; who listens there alone cannot be reached from elsewhere.
const LOOPBACK: [&str; 2] = ["0100007F", "00000000000000000000000001000000"];

/// Succeeds where a port is listened on. Says on standard output what it saw.
pub(crate) fn run(ports: impl Iterator<Item = String>) -> ExitCode {
    let ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
    let open = |table: &str| fs::read_to_string(table).is_ok_and(|text| any_open(&text, &ports));
    let listens = TABLES.iter().any(|table| open(table));
    if listens { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn any_open(table: &str, ports: &[u16]) -> bool {
    table.lines().skip(1).filter_map(listening_port).any(|port| ports.contains(&port))
}

/// The port of a line, where something listens there that others can reach.
fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let reachable = state == LISTEN && !LOOPBACK.contains(&address);
    u16::from_str_radix(port, 16).ok().filter(|_| reachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
        0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n   \
        1: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1\n   \
        2: 020011AC:1F90 030011AC:C350 01 00000000:00000000 00:00000000 00000000     0        0 3 1\n";

    #[test]
    fn a_port_counts_where_somebody_takes_connections_from_outside() {
        assert!(any_open(TABLE, &[1, 5432]));
        assert!(!any_open(TABLE, &[3306]), "on loopback alone");
        assert!(!any_open(TABLE, &[8080]), "a connection is no listener");
        assert!(!any_open("no table\nat all: x y", &[5432]));
    }

    #[test]
    fn a_listener_of_this_machine_is_seen() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tables: Vec<_> =
            TABLES.iter().map(|table| fs::read_to_string(table).unwrap_or_default()).collect();
        assert!(tables.iter().any(|table| any_open(table, &[port])));
    }
}
