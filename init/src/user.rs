//! Who a stage runs as: an image's `USER`, looked up in the container's own `/etc/passwd` and
//! `/etc/group` by Docker's rules. Nothing else is asked; a static program has no name service.

use std::{fs::OpenOptions, io::Read, os::unix::fs::OpenOptionsExt};

/// The most that is read of either file.
const MAX_FILE: u64 = 8 << 20;

/// A user to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Finds `USER[:GROUP]` in the container's files.
pub(crate) fn resolve(wanted: &str) -> Result<Identity, String> {
    resolve_in(wanted, &read("/etc/passwd"), &read("/etc/group"))
}

/// The same for the text of the files.
fn resolve_in(wanted: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, wanted_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let found = passwd.lines().filter_map(Account::parse).find(|account| account.is(user));
    let number = parse_id(user);
    let (name, uid, gid, home) = match (found, number) {
        (Some(account), _) => (account.name, account.uid, account.gid, account.home),
        (None, Some(uid)) => ("", uid, 0, ""),
        (None, None) => return Err(format!("no user {user:?} in the image's /etc/passwd")),
    };
    let (gid, mut groups) = if wanted_group.is_empty() {
        (gid, memberships(group, name))
    } else {
        (find_group(group, wanted_group)?, Vec::new())
    };
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    }

    fn is(&self, user: &str) -> bool {
        self.name == user || parse_id(user) == Some(self.uid)
    }
}

/// A line of `/etc/group`: name, number, members.
fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.trim().split(':');
    let name = fields.next()?;
    let gid = parse_id(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or("")))
}

fn find_group(group: &str, wanted: &str) -> Result<u32, String> {
    let number = parse_id(wanted);
    let found =
        group.lines().filter_map(parse_group).find(|(name, gid, _)| *name == wanted || number == Some(*gid));
    found
        .map(|(_, gid, _)| gid)
        .or(number)
        .ok_or_else(|| format!("no group {wanted:?} in the image's /etc/group"))
}

fn memberships(group: &str, user: &str) -> Vec<u32> {
    let lists = |members: &str| !user.is_empty() && members.split(',').any(|member| member == user);
    let mut gids: Vec<u32> = group
        .lines()
        .filter_map(parse_group)
        .filter(|(_, _, members)| lists(members))
        .map(|(_, gid, _)| gid)
        .collect();
    gids.dedup();
    gids
}

/// The last number means "unchanged" to the kernel, so nobody has it.
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// What cannot be read is empty: an image need not have either file.
fn read(path: &str) -> String {
    // A build may have put a FIFO there: opening it must not wait.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let mut bytes = Vec::new();
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
        && file.take(MAX_FILE).read_to_end(&mut bytes).is_err()
    {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\ndev:x:1000:1001:dev:/home/dev:/bin/sh\n\
                          nohome:x:1002:1002::\n7:x:70:70::/seven:\nbroken:x:nine:9::/\n";
    const GROUP: &str = "root:x:0:\ndev:x:1001:\nextra:x:1234:dev,root\nother:x:5:root\n";

    fn check(wanted: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = Identity { uid, gid, groups: groups.to_vec(), home: home.into() };
        assert_eq!(resolve_in(wanted, PASSWD, GROUP), Ok(expected), "{wanted:?}");
    }

    #[test]
    fn users_and_groups_are_found_as_docker_finds_them() {
        check("", 0, 0, &[1234, 5, 0], "/root");
        check("dev", 1000, 1001, &[1234, 1001], "/home/dev");
        check("1000", 1000, 1001, &[1234, 1001], "/home/dev");
        check("dev:other", 1000, 5, &[5], "/home/dev");
        check("dev:77", 1000, 77, &[77], "/home/dev");
        check("4242", 4242, 0, &[0], "/");
        check("4242:dev", 4242, 1001, &[1001], "/");
        check("nohome", 1002, 1002, &[1002], "/");
        check("7", 70, 70, &[70], "/seven");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        for (wanted, named) in
            [("ghost", "\"ghost\""), ("dev:ghosts", "\"ghosts\""), ("broken", "\"broken\"")]
        {
            let error = resolve_in(wanted, PASSWD, GROUP).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn numbers_work_without_any_file() {
        assert_eq!(resolve_in("12:34", "", "").unwrap().groups, [34]);
        assert!(resolve_in("4294967295", "", "").is_err());
    }
}
