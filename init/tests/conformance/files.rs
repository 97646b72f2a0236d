//! The control directory that a build tampers with, and files that are given to somebody.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use buildr_init::wire::{EndCause, HandBack, NewOwner, Order, Owner, Report, Settings, StageSpec};

use crate::container::{BUSYBOX, Container, settings, stage};

const OTHER: Owner = Owner { uid: 4321, gid: 8765 };

fn own(container: &mut Container, path: &str, from: Vec<u32>, to: NewOwner) -> Vec<String> {
    let wanted = container.order(Order::Own { path: path.into(), from, to });
    container.until(|report| match report {
        Report::Owned { seq, errors, .. } if seq == wanted => Some(errors),
        _ => None,
    })
}

#[test]
fn what_a_build_put_in_the_way_of_its_files_is_not_followed() {
    let mut container = Container::new(BUSYBOX);
    let folder = container.folder.path().to_owned();
    fs::write(folder.join("victim"), "untouched").unwrap();
    symlink("victim", folder.join("1.log")).unwrap();
    symlink("/buildr/victim", folder.join("1.sh")).unwrap();
    fs::create_dir(folder.join("1.times")).unwrap();
    container.check(&["mkfifo /buildr/1.step; ln -s victim /buildr/1.go"]);
    assert_eq!(container.check(&["echo a"]), "a\n");
    assert_eq!(fs::read_to_string(folder.join("victim")).unwrap(), "untouched");
    assert!(fs::symlink_metadata(folder.join("1.log")).unwrap().is_file());
}

#[test]
fn a_way_that_cannot_be_cleared_is_an_error() {
    let mut container = Container::new(BUSYBOX);
    fs::create_dir_all(container.folder.path().join("0.log/full")).unwrap();
    let done = container.run(stage(&["true"]));
    assert!(
        matches!(&done.end.cause, EndCause::CannotStart { reason, .. } if reason.contains("0.log")),
        "{done:?}"
    );
}

#[test]
fn a_stage_has_an_empty_file_of_its_own_for_values_that_it_hands_on() {
    let mut container = Container::new(BUSYBOX);
    let folder = container.folder.path().to_owned();
    fs::write(folder.join("victim"), "untouched").unwrap();
    symlink("victim", folder.join("0.env")).unwrap();
    let spec =
        stage(&["test ! -s /buildr/0.env", "echo A=1 >> /buildr/0.env", "stat -c '%a %u:%g' /buildr/0.env"]);
    let done = container.run(StageSpec { user: "dev".into(), ..spec });
    assert_eq!(done.text(), "644 1000:1000\n");
    assert_eq!(fs::read_to_string(folder.join("0.env")).unwrap(), "A=1\n");
    assert_eq!(fs::read_to_string(folder.join("victim")).unwrap(), "untouched");
    let other = stage(&["! echo B=2 >> /buildr/0.env; echo C=3 >> /buildr/1.env"]);
    assert_eq!(container.run(StageSpec { user: "4242:77".into(), ..other }).end.cause, EndCause::Exit(0));
    assert_eq!(fs::read_to_string(folder.join("0.env")).unwrap(), "A=1\n");
    assert_eq!(fs::read_to_string(folder.join("1.env")).unwrap(), "C=3\n");
}

#[test]
fn removing_the_control_files_ends_nothing() {
    let mut container = Container::new(BUSYBOX);
    let done = container.run(stage(&["rm -rf /buildr/0.* || :", "echo a", "echo b"]));
    assert_eq!(done.end.cause, EndCause::Exit(0));
    assert_eq!(done.status.log_bytes, 4);
}

#[test]
fn a_control_directory_of_the_agents_alone_serves_every_user() {
    let mut container = Container::new(BUSYBOX);
    let mode = fs::metadata(container.folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    let mut spec = stage(&["echo a"]);
    spec.user = "dev".into();
    assert_eq!(container.run(spec).text(), "a\n");
}

#[test]
fn files_are_given_to_a_user_and_links_are_not_followed() {
    let mut container = Container::new(BUSYBOX);
    container.check(&[
        "mkdir -p /tmp/w/a/b && touch /tmp/w/a/b/f /tmp/outside && ln -s /tmp/outside /tmp/w/link && ln -s /tmp /tmp/w/up",
        "touch /tmp/w/theirs && chown 55 /tmp/w/theirs",
    ]);
    assert_eq!(own(&mut container, "/tmp/w", vec![0], NewOwner::Ids(OTHER)), Vec::<String>::new());
    let script = "stat -c '%u:%g %n' /tmp/w /tmp/w/a/b/f /tmp/w/link /tmp/w/theirs /tmp/outside";
    let expected = "4321:8765 /tmp/w\n4321:8765 /tmp/w/a/b/f\n4321:8765 /tmp/w/link\n55:0 /tmp/w/theirs\n0:0 /tmp/outside\n";
    assert_eq!(container.check(&[script]), expected);
    assert_eq!(own(&mut container, "/tmp/w/a", vec![], NewOwner::Named("dev".into())), Vec::<String>::new());
    assert_eq!(container.check(&["stat -c %u:%g /tmp/w/a/b"]), "1000:1000\n");
}

#[test]
fn an_answer_is_given_again_where_it_is_asked_for_again() {
    let mut container = Container::new(BUSYBOX);
    let order = |path: &str| Order::Own { path: path.into(), from: vec![], to: NewOwner::Ids(OTHER) };
    for (seq, path) in [(1, "/no/such"), (2, "/tmp"), (1, "/no/such"), (2, "/tmp")] {
        container.send(seq, order(path));
        let errors = container.until(|report| match report {
            Report::Owned { session: 1, seq: answered, errors } if answered == seq => Some(errors),
            _ => None,
        });
        assert_eq!(errors.len(), usize::from(seq == 1), "{errors:?}");
    }
}

#[test]
fn what_cannot_be_given_is_named() {
    let mut container = Container::new(BUSYBOX);
    let errors = own(&mut container, "/no/such", vec![], NewOwner::Ids(OTHER));
    assert!(errors.len() == 1 && errors[0].contains("/no/such"), "{errors:?}");
    let errors = own(&mut container, "/tmp", vec![], NewOwner::Named("ghost".into()));
    assert!(errors.len() == 1 && errors[0].contains("ghost"), "{errors:?}");
    let errors = own(&mut container, "/proc/self", vec![], NewOwner::Ids(OTHER));
    assert!(errors.len() <= 10, "{errors:?}");
}

#[test]
fn the_workspace_is_handed_back_at_the_end() {
    let workspace = tempfile::tempdir().unwrap();
    let mount = format!("{}:/workspace", workspace.path().display());
    let hand_back = Some(HandBack { path: "/workspace".into(), to: OTHER });
    let mut container = Container::start(BUSYBOX, &Settings { hand_back, ..settings() }, &["-v", &mount]);
    container.check(&["mkdir -p /workspace/target/x; touch /workspace/target/x/y"]);
    container.hang_up();
    assert_eq!(container.exit_code(), Some(0));
    for path in ["", "target", "target/x/y"] {
        let meta = fs::metadata(workspace.path().join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (OTHER.uid, OTHER.gid), "{path}");
    }
}
