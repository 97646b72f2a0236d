//! The containers of stages, each capability in a story that is told by `buildr run` and by the farm, and
//! compared: images, users, limits, services, Docker, sources, matrices.

use crate::{
    both::Both,
    harness::{BASH, BUSYBOX, DEBIAN, Farm, Home, Project},
    shells::lines_of,
};

#[test]
fn a_stage_of_another_image_has_the_workspace_and_nothing_else() {
    let both = Both::of_manifest(&format!(
        "image: {BUSYBOX}\nprepare: {{script: ['echo tool > /tool; echo made > made']}}\nstages: [other, back]\n\
         other: {{image: '{BASH}', script: ['ls /tool 2>/dev/null || echo no tool', 'cat made; echo more >> made', 'command -v bash']}}\n\
         back: {{script: ['cat /tool made']}}\n"
    ))
    .in_one_order()
    .expect_code(0);
    assert_eq!(both.text("other"), "no tool\nmade\n/usr/bin/bash\n");
    assert_eq!(both.text("back"), "tool\nmade\nmore\n");
}

#[test]
fn shell_workdir_and_user_are_the_stages_own() {
    let both = Both::of_manifest(&format!(
        "image: {BASH}\nstages: [plain, bash, list, placed]\n\
         plain: {{script: ['mkdir -p sub/dir; false | true; echo on']}}\n\
         bash: {{shell: bash, script: ['false | true || echo pipefail; [[ a == a ]] && echo bash']}}\n\
         list: {{shell: [bash, -eu], script: ['echo ${{NO-unset}}']}}\n\
         placed: {{workdir: sub/dir, user: '1000:1234', script: ['pwd; id -u; id -g; touch mine']}}\n"
    ))
    .in_one_order()
    .expect_code(0);
    assert_eq!(both.text("plain"), "on\n");
    assert_eq!(both.text("bash"), "pipefail\nbash\n");
    assert_eq!(both.text("list"), "unset\n");
    assert_eq!(both.text("placed"), "/workspace/sub/dir\n1000\n1234\n");
}

#[test]
fn memory_that_is_used_up_is_told_with_its_peak() {
    let project = Project::with_manifest(&format!(
        "image: {BUSYBOX}\nresources: {{memory: 32MiB, cpus: 0.5, pids: 100}}\nstages: [eat]\n\
         eat: {{script: ['tail -c 200m /dev/zero > /dev/null']}}\n"
    ));
    let farm = Farm::new();
    let local = Home::new().run(&project).expect_code(1);
    let remote = farm.tail(&farm.submit(&project)).expect_code(1);
    for told in [&local.stderr, &remote.stderr] {
        let line = told.lines().find(|line| line.contains("out of memory in stage eat")).unwrap_or(told);
        assert!(line.contains("of 32 MiB") && line.contains("in use"), "{told}");
    }
    let own = Both::of_manifest(&format!(
        "image: {BUSYBOX}\nstages: [eat, after]\n\
         eat: {{image: '{BUSYBOX}', resources: {{memory: 32MiB}}, script: ['tail -c 200m /dev/zero > /dev/null']}}\n\
         after: {{when: always, script: [echo $BUILDR_STATUS]}}\n"
    ));
    assert_eq!((own.state("eat"), own.text("after").as_str()), ("oom", "failed\n"));
}

/// A page is served by `web` once it is ready.
const WEB: &str = "services:\n  web:\n    image: buildr-test/busybox:1\n    ready: test -e /up\n    timeout: 30s\n    command:\n\
     \x20     - sh\n      - -c\n      - mkdir /www; echo page > /www/index.html; echo serving; touch /up; exec httpd -f -p 80 -h /www\n";

#[test]
fn a_service_is_ready_before_the_first_stage_and_reached_by_its_name() {
    let project = Project::with_manifest(&format!(
        "image: {BUSYBOX}\n{WEB}stages: [ask, other]\nask: {{script: ['wget -qO- http://web/']}}\n\
         other: {{image: '{DEBIAN}', script: ['getent hosts web | grep -c .']}}\n"
    ));
    let both = Both::of(&project).in_one_order().expect_code(0);
    assert_eq!(both.text("ask"), "page\n");
    assert_eq!(both.text("other"), "1\n");
    for told in [&both.local, &both.remote] {
        assert_eq!(told.all("service_ready").count(), 1);
        assert_eq!(told.all("output").filter(|output| output["service"] == "web").count(), 0);
    }
    let farm = Farm::new();
    let build = farm.submit(&project);
    farm.tail(&build).expect_code(0);
    let remote = farm.home.call(&["tail", &build, "--service", "web"]).expect_code(0);
    let local =
        Home::new().call(&["run", "--service", "web", project.path().to_str().unwrap()]).expect_code(0);
    for told in [local, remote] {
        assert!(told.out().contains("serving"), "{}", told.out());
    }
}

#[test]
fn a_service_that_does_not_get_ready_is_no_failure_of_the_build() {
    let project = Project::with_manifest(&format!(
        "image: {BUSYBOX}\nservices:\n  db:\n    image: {BUSYBOX}\n    ready: test -e /never\n    timeout: 2s\n\
         \x20   command: [sh, -c, 'echo no disk for me; exec sleep 1000']\nstages: [s]\ns: {{script: ['echo never']}}\n"
    ));
    let farm = Farm::new();
    let local = Home::new().run(&project).expect_code(4);
    let build = farm.submit(&project);
    let remote = farm.tail(&build).expect_code(4);
    for told in [&local.stderr, &remote.stderr] {
        assert!(told.contains("db") && told.contains("no disk for me"), "{told}");
    }
    assert_eq!(farm.show(&build)["outcome"], "service_error");
}

#[test]
fn an_image_that_is_not_here_is_an_image_error_where_none_is_pulled() {
    let project = Project::with_script("buildr-test/nowhere:1", &["echo never"]);
    let mut farm = Farm::without_agents();
    farm.start_agent("one", &["--pull", "never"]);
    let folder = project.path().to_str().unwrap();
    let local = Home::new().call(&["run", "--json", "--pull", "never", folder]);
    let remote = farm.home.call(&["tail", "--json", &farm.submit(&project)]);
    let both = Both::compared(&local, &remote).expect_code(4);
    assert_eq!(both.outcome(), "image_error");
}

#[test]
fn a_manifest_can_do_without_the_docker_socket() {
    let both = Both::of_manifest(&format!(
        "image: {BUSYBOX}\ndocker: false\nstages: [s]\ns: {{script: ['test -e /var/run/docker.sock || echo none']}}\n"
    ));
    assert_eq!(both.expect_code(0).text("s"), "none\n");
}

#[test]
fn each_attempt_has_a_compose_project_of_its_own() {
    let project = Project::with_script(BUSYBOX, &["echo $COMPOSE_PROJECT_NAME"]);
    let farm = Farm::new();
    let remote = || lines_of(&farm.tail(&farm.submit(&project)).expect_code(0).out(), "test").join("");
    let local = || lines_of(&Home::new().run(&project).expect_code(0).out(), "test").join("");
    let mut names = vec![remote(), remote(), local(), local()];
    assert!(names.iter().all(|name| name.starts_with("buildr-")), "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
}

/// Docker's API over its socket in perl's own words: runs a container with the workspace in it.
const SIBLING: &str = r#"use strict; use IO::Socket::UNIX;
sub call { my ($method, $path, $body) = @_;
  my $socket = IO::Socket::UNIX->new("/var/run/docker.sock") or die "no socket";
  print $socket "$method $path HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ", length $body, "\r\n\r\n$body";
  local $/; return <$socket>; }
my $made = call("POST", "/containers/create", '{"Image":"buildr-test/busybox:1","Cmd":["sh","-c","cat /w/given > /w/made"],"HostConfig":{"Binds":["' . $ENV{BUILDR_HOST_WORKSPACE} . ':/w"]}}');
my ($id) = $made =~ /"Id":"(\w+)"/ or die $made;
call("POST", "/containers/$id/$_", "") for "start", "wait";
call("DELETE", "/containers/$id?force=1", "");
"#;

#[test]
fn a_container_that_a_build_starts_can_mount_the_workspace() {
    let manifest = format!(
        "image: {DEBIAN}\nstages: [s]\ns: {{script: ['echo hello > given', perl sibling.pl, cat made]}}\n"
    );
    let project = Project::repository(&[(".buildr.yml", &manifest), ("sibling.pl", SIBLING)]);
    assert_eq!(Both::of(&project).expect_code(0).text("s"), "hello\n");
}

#[test]
fn the_farm_fetches_as_deep_as_the_manifest_wants() {
    let script = "stages: [s]\ns: {script: ['git rev-list --count HEAD']}\n";
    let project = Project::with_manifest(&format!("image: {DEBIAN}\n{script}"));
    project.write("more", "x");
    project.commit("second");
    let farm = Farm::new();
    let count =
        |project: &Project| lines_of(&farm.tail(&farm.submit(project)).expect_code(0).out(), "s").join(" ");
    assert_eq!(count(&project), "2");
    project.write(".buildr.yml", &format!("image: {DEBIAN}\nclone: {{depth: 1}}\n{script}"));
    project.commit("shallow");
    assert_eq!(count(&project), "1");
}

#[test]
fn the_farm_brings_submodules_where_the_manifest_wants_them() {
    let part = Project::repository(&[("file", "of the part\n")]);
    let manifest = |clone: &str| {
        format!("image: {BUSYBOX}\n{clone}stages: [s]\ns: {{script: ['cat part/file || echo none']}}\n")
    };
    let project = Project::with_manifest(&manifest(""));
    project.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &part.url(), "part"]);
    project.commit("with a part");
    let farm = Farm::new();
    let text = |project: &Project| {
        lines_of(&farm.tail(&farm.submit(project)).expect_code(0).out(), "s").last().cloned().unwrap()
    };
    assert_eq!(text(&project), "none");
    project.write(".buildr.yml", &manifest("clone: {submodules: true}\n"));
    project.commit("wanted");
    assert_eq!(text(&project), "of the part");
}

/// Two jobs.
fn matrix() -> Project {
    Project::with_manifest(&format!(
        "image: {BUSYBOX}\nmatrix: {{DB: [postgres, sqlite]}}\nstages: [s]\ns: {{script: ['echo with $DB']}}\n"
    ))
}

#[test]
fn the_farm_runs_each_job_of_a_matrix() {
    let (farm, project) = (Farm::new(), matrix());
    let build = farm.submit(&project);
    let mut lines = lines_of(&farm.tail(&build).expect_code(0).out(), "s");
    lines.sort();
    assert_eq!(lines, ["with postgres", "with sqlite"]);
    assert_eq!(farm.show(&build)["jobs"].as_array().unwrap().len(), 2);
}

#[test]
fn one_machine_runs_the_job_of_a_matrix_that_is_picked() {
    let (home, project) = (Home::new(), matrix());
    let folder = project.path().to_str().unwrap();
    let picked = home.call(&["run", folder, "--matrix", "DB=sqlite"]).expect_code(0);
    assert_eq!(lines_of(&picked.out(), "s"), ["with sqlite"]);
    for flags in [&[][..], &["--matrix", "DB=oracle"]] {
        let refused = home.call(&[&["run", folder], flags].concat()).expect_code(2);
        for part in ["DB=postgres", "DB=sqlite", "--matrix"] {
            assert!(refused.stderr.contains(part), "{flags:?}: {}", refused.stderr);
        }
    }
}
