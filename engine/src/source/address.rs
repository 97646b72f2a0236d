//! Which URLs may be handed to git, and how they are shown. The parser is stricter than git's, so
//! that no text means one thing here and another one there.

use std::{borrow::Cow, fmt, path::Path};

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::SourceError;

const MAX_LENGTH: usize = 4096;

/// Which URLs an operator lets through.
#[derive(Clone, Copy, Debug, Default)]
pub struct UrlPolicy {
    /// Also file URLs and absolute paths: every repository that this process may read.
    pub allow_file: bool,
}

/// A vetted repository URL.
#[derive(Clone)]
pub(super) struct Address {
    /// With credentials.
    text: String,
    /// Without credentials.
    shown: String,
    /// What must not be seen in any text.
    secrets: Vec<String>,
    /// What an http server is told of who asks.
    login: Option<Login>,
    /// One and the same for all spellings of one URL.
    normal: String,
    is_ssh: bool,
}

/// The credentials of an http URL, decoded.
#[derive(Clone)]
pub(super) struct Login {
    /// The server that they are for, as `https://host:port`.
    pub(super) server: String,
    pub(super) user: String,
    pub(super) password: String,
}

impl Address {
    /// Vets a URL.
    pub(super) fn parse(text: &str, policy: UrlPolicy) -> Result<Self, SourceError> {
        let refused = |why| SourceError::RefusedUrl { url: redact(text), why };
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(refused("it is empty or longer than 4096 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refused("it has white space or a control character"));
        }
        if text.starts_with('-') {
            return Err(refused("it begins with `-`"));
        }
        let address = match text.split_once("://") {
            Some((scheme, rest)) => Self::url(text, scheme, rest),
            None if text.starts_with('/') => Self::file(text, text),
            None => Self::scp(text),
        };
        let address = address.map_err(refused)?;
        if address.is_file() && !policy.allow_file {
            return Err(SourceError::FileNotAllowed { url: address.shown });
        }
        Ok(address)
    }

    /// For git's work on a mirror, where no remote is talked to.
    pub(super) fn nowhere() -> Self {
        let (text, shown, normal) = (String::new(), "a mirror".to_owned(), String::new());
        Self { text, shown, secrets: Vec::new(), login: None, normal, is_ssh: false }
    }

    fn url(text: &str, scheme: &str, rest: &str) -> Result<Self, &'static str> {
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "file" => return Self::file(text, rest),
            "https" | "http" | "ssh" | "git" => {}
            _ => {
                return Err("only https, http, ssh, git and file URLs, paths and `user@host:path` are known");
            }
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (userinfo, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
        let (name, port) = check_host(host)?;
        check_decoded(path)?;
        let is_ssh = scheme == "ssh";
        let (kept, secrets) = userinfo.map_or(Ok((String::new(), Vec::new())), |u| check_user(u, is_ssh))?;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let trimmed = path.trim_end_matches('/');
        let user = userinfo.map(|user| format!("{user}@")).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let server = format!("{scheme}://{name}{port}");
        Ok(Self {
            text: format!("{scheme}://{user}{name}{port}{path}"),
            shown: format!("{scheme}://{kept}{name}{port}{path}"),
            secrets,
            normal: format!("{scheme}://{user}{name}{port}{trimmed}"),
            login: userinfo
                .filter(|_| scheme.starts_with("http"))
                .map(|userinfo| Login::new(server, userinfo)),
            is_ssh,
        })
    }

    fn file(text: &str, path: &str) -> Result<Self, &'static str> {
        if !Path::new(path).is_absolute() {
            return Err("a file URL has an absolute path and no host: `file:///path`");
        }
        check_decoded(path)?;
        let normal = format!("file://{}", path.trim_end_matches('/'));
        let (text, shown) = (text.to_owned(), text.to_owned());
        Ok(Self { text, shown, secrets: Vec::new(), normal, login: None, is_ssh: false })
    }

    fn scp(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it is no URL, no absolute path and not of the form `user@host:path`";
        let close = if text.contains("[") { text.find("]:").ok_or(FORM)? + 1 } else { 0 };
        let colon = close + text[close..].find(':').ok_or(FORM)?;
        let (authority, path) = (&text[..colon], &text[colon + 1..]);
        if path.starts_with(':') {
            return Err("remote helpers (`helper::address`) are not allowed");
        }
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
        if host.contains('/') || path.is_empty() {
            return Err(FORM);
        }
        if path.starts_with('-') {
            return Err("its path begins with `-`");
        }
        if let (name, Some(_)) = check_host(host)? {
            return if name.is_empty() {
                Err(FORM)
            } else {
                Err("a port needs the form `ssh://host:port/path`")
            };
        }
        if let Some(user) = user {
            check_ssh_user(user)?;
        }
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let normal = format!("{user}{}:{}", host.to_ascii_lowercase(), path.trim_end_matches('/'));
        let (text, shown) = (text.to_owned(), text.to_owned());
        Ok(Self { text, shown, secrets: Vec::new(), normal, login: None, is_ssh: true })
    }

    /// The address that a relative URL (`../other.git`) means in a repository that came from here.
    /// Credentials go with it: it cannot lead to another server.
    pub(super) fn relative(&self, url: &str, policy: UrlPolicy) -> Result<Self, SourceError> {
        let refused = |why| SourceError::RefusedUrl { url: redact(url), why };
        // The root is what no `..` can leave.
        let start = match self.text.find("://") {
            Some(at) => at + 3 + self.text[at + 3..].find('/').ok_or(refused("it leads above its server"))?,
            None if self.text.starts_with('/') => 0,
            None => self.text.find(':').map_or(0, |colon| colon + 1),
        };
        let (root, path) = self.text.split_at(start);
        let is_absolute = path.starts_with('/');
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for part in url.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop().ok_or(refused("it leads above its server"))?),
                part => parts.push(part),
            }
        }
        let slash = if is_absolute { "/" } else { "" };
        Self::parse(&format!("{root}{slash}{}", parts.join("/")), policy)
    }

    /// As libgit2 needs it: with credentials, so never to be shown, nor on any command line.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }

    /// The credentials of an http URL.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Without credentials.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// True where ssh carries it.
    pub(super) fn is_ssh(&self) -> bool {
        self.is_ssh
    }

    /// True where it is a folder of this machine.
    pub(super) fn is_file(&self) -> bool {
        self.normal.starts_with("file://")
    }

    /// A folder's name, the same for all spellings of one URL. Credentials count: who has none must
    /// not get what somebody else's have fetched.
    pub(super) fn folder_name(&self) -> String {
        Sha256::digest(&self.normal)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A text in which no credential of this URL is left.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

impl Login {
    fn new(server: String, userinfo: &str) -> Self {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        Self { server, user: decoded(user), password: decoded(password) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

/// Checks `name`, `name:port`, `[ipv6]` or `[ipv6]:port`.
fn check_host(host: &str) -> Result<(&str, Option<&str>), &'static str> {
    let end = if host.starts_with('[') { host.find(']').map_or(0, |end| end + 1) } else { 0 };
    let (name, port) = match host[end..].find(':') {
        Some(colon) => (&host[..end + colon], Some(&host[end + colon + 1..])),
        None => (host, None),
    };
    if name.starts_with('-') {
        return Err("its host begins with `-`");
    }
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if !valid {
        return Err("its host is not a name or an address");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err("its port is not a number");
    }
    Ok((name, port))
}

/// Splits off what of `user[:password]` may be shown (as `user@`) and what must not.
fn check_user(userinfo: &str, is_ssh: bool) -> Result<(String, Vec<String>), &'static str> {
    check_decoded(userinfo)?;
    let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
    let mut secrets: Vec<&str> = password.into_iter().collect();
    let mut kept = String::new();
    if is_ssh {
        check_ssh_user(user)?;
        kept = format!("{user}@");
    } else {
        // `https://TOKEN@host/` is as usual as `https://user:password@host/`.
        secrets.extend([userinfo, user]);
    }
    let decoded = secrets.iter().map(|secret| percent_decode_str(secret).decode_utf8_lossy());
    let mut secrets: Vec<String> =
        decoded.chain(secrets.iter().map(|secret| Cow::Borrowed(*secret))).map(Cow::into_owned).collect();
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    Ok((kept, secrets))
}

/// Ssh gets it on its command line.
fn check_ssh_user(user: &str) -> Result<(), &'static str> {
    if user.starts_with('-') {
        return Err("its user begins with `-`");
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~');
    if user.is_empty() || !user.bytes().all(fits) {
        return Err("its user has characters that no user of ssh has");
    }
    Ok(())
}

/// Git decodes `%0a` before it uses it.
fn check_decoded(part: &str) -> Result<(), &'static str> {
    match percent_decode_str(part).any(|byte| byte.is_ascii_control()) {
        true => Err("it has an encoded control character"),
        false => Ok(()),
    }
}

/// A text that may be a URL with credentials, fit for showing.
fn redact(text: &str) -> String {
    let text: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    let start = text.find("://").map_or(0, |at| at + 3);
    match text.rfind('@') {
        Some(at) if at >= start => format!("{}***{}", &text[..start], &text[at..]),
        _ => text,
    }
}

/// A repository's URL as people may see it: without credentials, whatever it is.
pub fn without_credentials(text: &str) -> String {
    let known = Address::parse(text, UrlPolicy { allow_file: true });
    known.map_or_else(|_| redact(text), |address| address.shown)
}

#[cfg(test)]
mod tests;
