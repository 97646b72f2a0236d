use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt,
        fs::{chown, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    process::Command,
};

use rustix::fs::{CWD, mkdirat, mknodat};
use tempfile::TempDir;

use super::*;

fn tree() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    (folder, tree)
}

/// Makes folders in each other, deeper than a path may be long.
fn nest(top: &Path, levels: usize) {
    let mut folder = open(top, FOLDER, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
    }
    openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
}

#[test]
fn a_tree_goes_whatever_is_in_it_and_what_its_links_name_stays() {
    let (folder, tree) = tree();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink("/etc", tree.join("etc")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    for name in [&b"a\nb"[..], b"\xff\xfe", b"-rf", b" ", b"..."] {
        fs::create_dir(tree.join(OsStr::from_bytes(name))).unwrap();
        fs::write(tree.join(OsStr::from_bytes(name)).join("file"), "").unwrap();
    }
    let _socket = UnixListener::bind(tree.join("socket")).unwrap();
    mknodat(CWD, tree.join("pipe"), FileType::Fifo, Mode::empty(), 0).unwrap();
    fs::File::create(tree.join("sparse")).unwrap().set_len(10 << 30).unwrap();
    fs::create_dir_all(tree.join("closed/within")).unwrap();
    fs::set_permissions(tree.join("closed/within"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    remove_tree(&tree).unwrap();
}

#[test]
fn a_tree_may_be_deeper_than_a_process_may_have_files() {
    let (_folder, tree) = tree();
    nest(&tree, 2000);
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn files_that_must_not_be_removed_go_all_the_same() {
    let (_folder, tree) = tree();
    fs::create_dir(tree.join("fixed")).unwrap();
    fs::write(tree.join("fixed/file"), "").unwrap();
    fs::write(tree.join("log"), "").unwrap();
    for (flag, name) in [("+i", "fixed/file"), ("+i", "fixed"), ("+a", "log")] {
        let status = Command::new("chattr").arg(flag).arg(tree.join(name)).status().unwrap();
        assert!(status.success(), "{name}");
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn what_is_no_folder_is_left_alone() {
    let (folder, tree) = tree();
    let link = folder.path().join("link");
    symlink(&tree, &link).unwrap();
    remove_tree(&link).unwrap_err();
    fs::write(folder.path().join("file"), "").unwrap();
    remove_tree(&folder.path().join("file")).unwrap_err();
    assert!(tree.exists());
}

/// Root may do everything, so this is done by somebody else: this very test program as another user.
#[test]
fn an_ordinary_user_s_folders_without_permissions_go_and_those_of_others_are_named() {
    const TREE: &str = "BUILDR_TEST_TREE";
    const USER: u32 = 12345;
    if let Some(tree) = std::env::var_os(TREE) {
        let error = remove_tree(Path::new(&tree)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("theirs\\n: "), "{error}");
        return;
    }
    let (folder, tree) = tree();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    nest(&tree, 100);
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir_all(tree.join("foreign")).unwrap();
    fs::write(tree.join("a/b/file"), "").unwrap();
    fs::write(tree.join("foreign/theirs\n"), "").unwrap();
    let owned = Command::new("chown").args(["-R", &USER.to_string()]).arg(&tree).status().unwrap();
    assert!(owned.success());
    chown(tree.join("foreign"), Some(0), Some(0)).unwrap();
    for closed in ["a/b", "a"] {
        fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let me = fs::read(std::env::current_exe().unwrap()).unwrap();
    let program = folder.path().join("program");
    fs::write(&program, me).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let name =
        "removal::tests::an_ordinary_user_s_folders_without_permissions_go_and_those_of_others_are_named";
    let mut again = Command::new("setpriv");
    again.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
    let ended = again.arg(program).args(["--exact", name]).env(TREE, &tree).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let left: Vec<_> = fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign"]);
}
