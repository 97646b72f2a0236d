//! Logins for registries, as `docker login` keeps them on this machine: `config.json` in
//! `DOCKER_CONFIG` or `~/.docker`, and the helper programs that it names.

use std::path::PathBuf;

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};

/// Under this name `config.json` has the login of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The login for a registry, where there is one. A configuration that cannot be used is the same
/// as none, with a message that says so.
pub(crate) async fn login(host: &str) -> (Option<DockerCredentials>, Option<String>) {
    let key = key(host).to_owned();
    // Helpers are programs, and are waited for.
    let found = tokio::task::spawn_blocking({
        let key = key.clone();
        move || docker_credential::get_credential(&key)
    });
    match found.await {
        Ok(Ok(credential)) => (Some(convert(key, credential)), None),
        Ok(Err(error)) if is_none(&error, has_configuration()) => (None, None),
        Ok(Err(error)) => (None, Some(format!("cannot use the login for {host} on this machine: {error}"))),
        Err(panicked) => (None, Some(format!("cannot use the login for {host}: {panicked}"))),
    }
}

fn key(host: &str) -> &str {
    if host == crate::image::DOCKER_HUB { DOCKER_HUB } else { host }
}

/// Whether there is a `config.json` where the crate looks for it.
fn has_configuration() -> bool {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    folder.is_some_and(|folder| folder.join("config.json").exists())
}

fn is_none(error: &CredentialRetrievalError, has_configuration: bool) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound => true,
        // So the crate says when there is no such file, which is the usual case, and when it is broken.
        CredentialRetrievalError::ConfigReadError => !has_configuration,
        // How every helper says that it has none.
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            [stdout, stderr].iter().any(|text| text.contains("credentials not found"))
        }
        _ => false,
    }
}

fn convert(server: String, credential: DockerCredential) -> DockerCredentials {
    let login = DockerCredentials { serveraddress: Some(server), ..DockerCredentials::default() };
    match credential {
        DockerCredential::IdentityToken(token) => DockerCredentials { identitytoken: Some(token), ..login },
        DockerCredential::UsernamePassword(name, password) => {
            DockerCredentials { username: Some(name), password: Some(password), ..login }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_a_key_of_its_own() {
        assert_eq!(key("docker.io"), "https://index.docker.io/v1/");
        assert_eq!(key("registry.example:5000"), "registry.example:5000");
    }

    #[test]
    fn a_token_and_a_password_go_where_docker_looks_for_them() {
        let login = convert("r".into(), DockerCredential::IdentityToken("t".into()));
        assert_eq!((login.identitytoken.as_deref(), login.username), (Some("t"), None));
        let login = convert("r".into(), DockerCredential::UsernamePassword("u".into(), "p".into()));
        assert_eq!((login.username.as_deref(), login.password.as_deref()), (Some("u"), Some("p")));
        assert_eq!(login.serveraddress.as_deref(), Some("r"));
    }

    #[test]
    fn a_helper_that_has_no_login_is_no_fault() {
        let failure = |stdout: &str| CredentialRetrievalError::HelperFailure {
            helper: "pass".into(),
            stdout: stdout.into(),
            stderr: String::new(),
        };
        assert!(is_none(&failure("credentials not found in native keychain\n"), true));
        assert!(!is_none(&failure("exec format error"), true));
    }

    #[test]
    fn a_configuration_that_is_broken_is_told_and_none_is_not() {
        assert!(is_none(&CredentialRetrievalError::ConfigReadError, false));
        assert!(!is_none(&CredentialRetrievalError::ConfigReadError, true));
    }
}
