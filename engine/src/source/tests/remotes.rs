//! Over ssh, with a server of its own on loopback.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Stdio},
};

use super::*;

/// An sshd in the foreground, with keys and settings of its own.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(place: &Place) -> Self {
        let key = |name: &str| {
            let path = place.path(name);
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path));
            path
        };
        let (host, user) = (key("host_key"), key("user_key"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = place.path("sshd_config");
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            host.display(),
            user.display()
        );
        fs::write(&config, text).unwrap();
        // Where sshd separates privileges; a package makes it at boot.
        let _ = fs::create_dir_all("/run/sshd");
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(config).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "sshd ended before it listened");
        }
        // Somebody must read on, or sshd ends when it can say no more.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, port }
    }

    fn sources(&self, place: &Place, key: &str, knows_host: bool) -> Sources {
        let known = place.path("known_hosts");
        let host = fs::read_to_string(place.path("host_key.pub")).unwrap();
        let entry = if knows_host { format!("[127.0.0.1]:{} {host}", self.port) } else { String::new() };
        fs::write(&known, entry).unwrap();
        let ssh = format!(
            "ssh -F none -oBatchMode=yes -oIdentitiesOnly=yes -oUserKnownHostsFile={} -i {}",
            known.display(),
            place.path(key).display()
        );
        let environment = vec![("GIT_SSH_COMMAND".into(), ssh.into())];
        Sources::with_settings(place.path("mirrors"), Settings { environment, ..Settings::default() })
    }

    fn source(&self, place: &Place, reference: GitReference) -> GitSource {
        let url = format!("ssh://root@127.0.0.1:{}{}", self.port, place.origin().display());
        GitSource { url, reference, commit: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_repository_comes_over_ssh() {
    let place = Place::new();
    let server = Server::start(&place);
    let sources = server.sources(&place, "user_key", true);
    let source = server.source(&place, GitReference::Default);
    let checkout = check_out(&sources, &source, &place.path("w"), &CancellationToken::new()).await.unwrap();
    assert_eq!(checkout.branch.as_deref(), Some("main"));
    assert_eq!(git(&place.path("w"), &["describe", "--always"]).find("v1-1-g"), Some(0));
    assert_eq!(git(&place.path("w"), &["config", "remote.origin.url"]), source.url);
    let error = place.refused(&sources, server.source(&place, branch("nope"))).await;
    assert!(matches!(error, SourceError::NoReference { .. }), "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_not_let_in_is_a_matter_of_authentication() {
    let place = Place::new();
    let server = Server::start(&place);
    let sources = server.sources(&place, "host_key", true);
    let error = place.refused(&sources, server.source(&place, branch("main"))).await;
    assert!(matches!(error, SourceError::Authentication { .. }), "{error:?}");
}

#[tokio::test]
async fn a_host_that_is_not_known_is_not_trusted() {
    let place = Place::new();
    let server = Server::start(&place);
    let sources = server.sources(&place, "user_key", false);
    let error = place.refused(&sources, server.source(&place, branch("main"))).await;
    assert!(matches!(error, SourceError::HostKey { .. }), "{error:?}");
    let error = place.refused(&place.sources(Backend::Library), server.source(&place, branch("main"))).await;
    assert!(matches!(error, SourceError::HostKey { .. }), "{error:?}");
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named_over_ssh() {
    let place = Place::new();
    let server = Server::start(&place);
    let sources = server.sources(&place, "user_key", true);
    let mut source = server.source(&place, branch("main"));
    source.url.push_str("-nowhere");
    let error = place.refused(&sources, source).await;
    assert!(matches!(error, SourceError::NoRepository { .. }), "{error:?}");
}
