//! Pulling images from a registry on loopback that wants a login.

use std::{fs, net::TcpListener, process::Command};

use crate::{
    harness::{BUSYBOX, Farm, Home, Process, Project, eventually, must},
    shells::lines_of,
};

/// Debian's `docker-registry` with one user, and an image in it that this machine does not have.
struct Registry {
    _process: Process,
    _home: Home,
    address: String,
    image: String,
}

impl Registry {
    fn new() -> Self {
        let home = Home::new();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let passwords = home.path().join("htpasswd");
        fs::write(&passwords, must("htpasswd", &["-nbB", "someone", "a secret"]) + "\n").unwrap();
        let config = home.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/storage}}}}\n\
             http: {{addr: '{address}'}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            home.path().display(),
            passwords.display()
        );
        fs::write(&config, text).unwrap();
        let process = Process::start(home.program("docker-registry", &["serve", config.to_str().unwrap()]));
        eventually("the registry listens", || std::net::TcpStream::connect(&address).ok());
        let registry =
            Self { _process: process, image: format!("{address}/test/app:1"), address, _home: home };
        registry.push();
        registry
    }

    /// Puts busybox there under another name, and forgets that name here.
    fn push(&self) {
        let login = self.login();
        must("docker", &["tag", BUSYBOX, &self.image]);
        must("docker", &["--config", login.path().to_str().unwrap(), "push", "-q", &self.image]);
        must("docker", &["rmi", &self.image]);
    }

    /// A folder with a `config.json` that holds the login, as `docker login` leaves it.
    fn login(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        // `someone:a secret`
        let text =
            format!("{{\"auths\": {{\"{}\": {{\"auth\": \"c29tZW9uZTphIHNlY3JldA==\"}}}}}}", self.address);
        fs::write(folder.path().join("config.json"), text).unwrap();
        folder
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        Command::new("docker").args(["rmi", "-f", &self.image]).output().ok();
    }
}

#[test]
fn an_image_is_pulled_with_the_users_login() {
    let registry = Registry::new();
    let project = Project::with_script(&registry.image, &["echo pulled"]);

    let without = Home::new().run(&project).expect_code(4);
    assert!(without.stderr.contains("docker login"), "{}", without.stderr);

    let login = registry.login();
    let mut home = Home::new();
    home.set("DOCKER_CONFIG", login.path().to_str().unwrap());
    let with = home.run(&project).expect_code(0);
    assert_eq!(lines_of(&with.out(), "test"), ["pulled"]);

    must("docker", &["rmi", &registry.image]);
    let gone = Project::with_script(&format!("{}/test/other:7", registry.address), &["true"]);
    let gone = home.run(&gone).expect_code(4);
    assert!(gone.stderr.contains("test/other:7"), "{}", gone.stderr);
}

#[test]
fn a_credential_helper_is_asked() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::new();
    let mut farm = Farm::without_agents();
    let bin = farm.home.path().join("bin");
    let docker = farm.home.path().join(".docker");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&docker).unwrap();
    let helper = bin.join("docker-credential-story");
    let answer = format!(
        "{{\"ServerURL\": \"{}\", \"Username\": \"someone\", \"Secret\": \"a secret\"}}",
        registry.address
    );
    fs::write(&helper, format!("#!/bin/sh\n[ \"$1\" = get ] && cat >/dev/null && echo '{answer}'\n"))
        .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        docker.join("config.json"),
        format!("{{\"credHelpers\": {{\"{}\": \"story\"}}}}", registry.address),
    )
    .unwrap();
    farm.home.set("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    farm.start_agent("one", &[]);
    let project = Project::with_script(&registry.image, &["echo pulled"]);
    let build = farm.submit(&project);
    let tail = farm.tail(&build).expect_code(0);
    assert_eq!(lines_of(&tail.out(), "test"), ["pulled"]);
}
