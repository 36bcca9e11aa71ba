//! Who a program runs as.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use spore_test_harness::program;

use crate::life::answer;
use crate::{daemon, sandbox};

pub(crate) const TESTS: &[crate::Test] = &[("a_program_runs_as_the_user_of_its_image", user_of_image)];

fn user_of_image(kind: &'static str) {
    let daemon = daemon(kind);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let root = folder.path();
    let write = |name: &str, text: &str, mode: u32| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
    };
    write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/home/app:/bin/sh\n",
        0o644,
    );
    write(
        "etc/group",
        "root:x:0:\napp:x:1235:\nvideo:x:44:app,root\n",
        0o644,
    );
    write("data/file", "of the image", 0o600);
    fs::copy(program::build("user"), root.join("user")).expect("a program");
    let deploy = |name: &str, user: &[&str]| {
        let root = root.to_str().expect("UTF-8");
        let options = [
            "deploy",
            name,
            "--rootfs",
            root,
            "--entrypoint",
            "/user",
            "--sandbox",
            sandbox(kind),
        ];
        daemon.spore(&[&options[..], user].concat())
    };

    assert!(deploy("named", &["--user", "app"]).status.success());
    let files = "/ 1234:1235\n/data/file 1234:1235, writable\n/data/new 1234:1235\n/new 1234:1235\n";
    assert_eq!(
        answer(&daemon, "named"),
        format!(
            "1234 1234 1235 1235, groups 44, home /home/app\n{files}/dev/stdout opened\nport 80 bound\npeer 1234:1235\nagain 1234\n"
        )
    );
    assert!(deploy("numbered", &["--user", "1234:50"]).status.success());
    let answered = answer(&daemon, "numbered");
    assert!(
        answered.starts_with(
            "1234 1234 50 50, groups, home /home/app\n/ 1234:50\n/data/file 1234:50, writable\n"
        ),
        "{answered}"
    );
    assert!(deploy("superuser", &[]).status.success());
    let answered = answer(&daemon, "superuser");
    assert!(
        answered.starts_with("0 0 0 0, groups, home /root\n/ 0:0\n/data/file 0:0, writable\n"),
        "{answered}"
    );

    // A program that is all of its image.
    for name in ["data", "etc"] {
        fs::remove_dir_all(root.join(name)).expect("a folder");
    }
    let missing = "No such file or directory";
    let none = format!("/data/file: {missing}, {missing}\n/data/new: {missing}\n");
    assert!(deploy("alone", &["--user", "1234:50"]).status.success());
    let answered = answer(&daemon, "alone");
    let expected = format!("1234 1234 50 50, groups, home /\n/ 1234:50\n{none}/new 1234:50\n");
    assert!(answered.starts_with(&expected), "{answered}");
    assert!(deploy("only", &[]).status.success());
    let answered = answer(&daemon, "only");
    let expected = format!("0 0 0 0, groups, home /\n/ 0:0\n{none}/new 0:0\n");
    assert!(answered.starts_with(&expected), "{answered}");

    let refused = deploy("nobody", &["--user", "nobody"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("/etc/passwd has no user nobody"),
        "{said}"
    );
}
