//! Repositories over https and ssh, through the farm, with the keys and certificates of the machine
//! that builds.

use std::{
    fs,
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{BUSYBOX, Farm, Home, Process, Project, eventually, must},
    shells::lines_of,
};

/// Git's own server side over TLS: the repositories below a folder, on a port, with a certificate.
const SERVER: &str = r#"
import http.server, os, ssl, subprocess, sys
root, port, cert, key = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        environment = dict(
            os.environ, GIT_PROJECT_ROOT=root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
            REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("content-type", ""),
            HTTP_CONTENT_ENCODING=self.headers.get("content-encoding", ""),
            GIT_PROTOCOL=self.headers.get("git-protocol", ""))
        answer = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE).stdout
        head, _, data = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn listening(port: &str) {
    eventually("the server listens", || TcpStream::connect(format!("127.0.0.1:{port}")).ok());
}

#[test]
fn https_with_the_machines_certificates() {
    let project = Project::with_script(BUSYBOX, &["echo over $BUILDR_REPO"]);
    let home = Home::new();
    let (folder, port) = (home.path().to_str().unwrap(), free_port());
    must(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            &format!("{folder}/key.pem"),
            "-out",
            &format!("{folder}/cert.pem"),
        ],
    );
    let (root, name) = (project.path().parent().unwrap(), project.path().file_name().unwrap());
    let (cert, key) = (format!("{folder}/cert.pem"), format!("{folder}/key.pem"));
    let arguments = ["-c", SERVER, root.to_str().unwrap(), &port, &cert, &key];
    let _server = Process::start(home.program("python3", &arguments));
    listening(&port);
    let url = format!("https://127.0.0.1:{port}/{}/.git", name.display());

    // Without the certificate the server is not trusted, and the error says so.
    let distrustful = Farm::new();
    let tail = distrustful.tail(&distrustful.submit_with(&["--repo", &url])).expect_code(4);
    assert!(tail.stderr.contains("certificate"), "{}", tail.stderr);

    let mut farm = Farm::without_agents();
    farm.home.set("GIT_SSL_CAINFO", cert);
    farm.start_agent("one", &[]);
    let tail = farm.tail(&farm.submit_with(&["--repo", &url])).expect_code(0);
    assert_eq!(lines_of(&tail.out(), "test"), [format!("over {url}")]);
}

#[test]
fn ssh_with_the_keys_of_the_machine() {
    let project = Project::with_script(BUSYBOX, &["echo cloned"]);
    let home = Home::new();
    let (folder, port) = (home.path().to_str().unwrap(), free_port());
    for key in ["host", "user", "other"] {
        must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &format!("{folder}/{key}")]);
    }
    fs::copy(home.path().join("user.pub"), home.path().join("authorized")).unwrap();
    fs::write(
        home.path().join("sshd_config"),
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        ),
    )
    .unwrap();
    fs::create_dir_all("/run/sshd").ok();
    let _sshd =
        Process::start(home.program("/usr/sbin/sshd", &["-D", "-e", "-f", &format!("{folder}/sshd_config")]));
    listening(&port);
    let host = fs::read_to_string(home.path().join("host.pub")).unwrap();
    fs::write(home.path().join("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
    let config = |name: &str, key: &str| {
        let text = format!(
            "Host forge\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/{key}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {folder}/known_hosts\n"
        );
        fs::write(home.path().join(name), text).unwrap();
        format!("ssh -F {folder}/{name} -o BatchMode=yes")
    };
    let user = must("id", &["-un"]);
    // `forge` is a name that only the ssh configuration knows.
    let url = format!("{user}@forge:{}", project.path().display());

    let mut farm = Farm::without_agents();
    farm.home.set("GIT_SSH_COMMAND", config("right", "user"));
    farm.start_agent("one", &[]);
    let tail = farm.tail(&farm.submit_with(&["--repo", &url])).expect_code(0);
    assert_eq!(lines_of(&tail.out(), "test"), ["cloned"]);

    let mut farm = Farm::without_agents();
    farm.home.set("GIT_SSH_COMMAND", config("wrong", "other"));
    farm.start_agent("one", &[]);
    let tail = farm.tail(&farm.submit_with(&["--repo", &url])).expect_code(4);
    assert!(tail.stderr.contains("key"), "{}", tail.stderr);
}
