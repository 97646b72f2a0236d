//! Who calls: the token that lets anybody in, and the credential that says which agent it is.
//!
//! Only hashes are kept. An agent's identity never comes from a message.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use buildr_proto::{AGENT_CREDENTIAL, AUTHORIZATION, AgentId};
use rand::RngCore;
use sha2::{Digest, Sha256};
use tonic::{Request, Status, service::Interceptor};

use crate::error::Error;

/// The shortest token that an operator may set.
const LEAST_TOKEN: usize = 16;

/// The shortest credential of an agent.
const LEAST_CREDENTIAL: usize = 32;

/// What callers must know.
#[derive(Clone, Default)]
pub struct Token(Option<Arc<[u8; 32]>>);

impl Token {
    /// No token is asked for.
    pub fn none() -> Self {
        Self(None)
    }

    /// The token in an operator's file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| file_error(path, source))?;
        let token = text.trim();
        if token.len() < LEAST_TOKEN {
            return Err(Error::ShortToken { path: path.to_owned(), least: LEAST_TOKEN });
        }
        Ok(Self(Some(Arc::new(hash(token)))))
    }

    /// The token of a data folder. It is made where there is none, and then given in clear too:
    /// that is the only time.
    pub fn of_folder(data: &Path) -> Result<(Self, Option<String>), Error> {
        let path = data.join("token.sha256");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let digest = unhex(text.trim()).ok_or_else(|| {
                    file_error(&path, std::io::Error::other("not a hash: remove the file to get a new token"))
                })?;
                Ok((Self(Some(Arc::new(digest))), None))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                rand::rng().fill_bytes(&mut secret);
                let token = hex(&secret);
                let digest = hash(&token);
                write_private(&path, &hex(&digest)).map_err(|source| file_error(&path, source))?;
                Ok((Self(Some(Arc::new(digest))), Some(token)))
            }
            Err(source) => Err(file_error(&path, source)),
        }
    }

    fn check(&self, request: &Request<()>) -> Result<(), Status> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let hint = "set BUILDR_TOKEN to the token that the orchestrator showed at its first start";
        let header = request.metadata().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(given) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(Status::unauthenticated(format!("this orchestrator wants a token: {hint}")));
        };
        if same(&hash(given), wanted) {
            Ok(())
        } else {
            Err(Status::unauthenticated(format!("the token is not this orchestrator's: {hint}")))
        }
    }
}

/// Lets clients in.
#[derive(Clone)]
pub struct ClientAuth(pub Token);

impl Interceptor for ClientAuth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.check(&request)?;
        Ok(request)
    }
}

/// Lets agents in and says who they are.
#[derive(Clone)]
pub struct AgentAuth(pub Token);

impl Interceptor for AgentAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.0.check(&request)?;
        let credential = request.metadata().get(AGENT_CREDENTIAL).and_then(|value| value.to_str().ok());
        let credential = credential.filter(|text| text.len() >= LEAST_CREDENTIAL).ok_or_else(|| {
            Status::unauthenticated(format!(
                "an agent says who it is with {AGENT_CREDENTIAL}, at least {LEAST_CREDENTIAL} characters"
            ))
        })?;
        let agent = AgentId::from_digest(&hash(credential));
        request.extensions_mut().insert(agent);
        Ok(request)
    }
}

/// The agent that sent a request.
pub fn agent_of<T>(request: &Request<T>) -> Result<AgentId, Status> {
    request
        .extensions()
        .get::<AgentId>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("only agents may call this"))
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares without telling by its time where two digests differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension("new");
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_once_and_known_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let (_, shown) = Token::of_folder(folder.path()).unwrap();
        let shown = shown.expect("the first start shows it");
        let (token, again) = Token::of_folder(folder.path()).unwrap();
        assert_eq!(again, None);
        assert_eq!(shown.len(), 64);
        let mut request = Request::new(());
        assert!(token.check(&request).is_err());
        request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {shown}").parse().unwrap());
        assert!(token.check(&request).is_ok());
        request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {shown}0").parse().unwrap());
        assert!(token.check(&request).is_err());
    }

    #[test]
    fn only_the_hash_is_on_disk_and_only_for_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (_, shown) = Token::of_folder(folder.path()).unwrap();
        let path = folder.path().join("token.sha256");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&shown.unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_short_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "secret\n").unwrap();
        assert!(matches!(Token::from_file(&path), Err(Error::ShortToken { .. })));
    }
}
