//! The user that an image names, as `/etc/passwd` and `/etc/group` of the image have it.
//!
//! What is written is `USER`, `USER:GROUP`, or nothing, each a name or a number (the OCI image specification, `config.User`); what
//! looks like a number is one, as with Docker. A user that is named alone has the group that `/etc/passwd` gives it, and those in which
//! `/etc/group` lists it. A number need not be in either file.

use std::io::{self, Read};

use oci_spec::image::Config;
use serde::{Deserialize, Serialize};
use spore_rootfs::Owners;
use spore_sandbox::{MORE_GROUPS_MAX, User};

use crate::program::DeriveError;

const PASSWD_FILE: &str = "/etc/passwd";
const GROUP_FILE: &str = "/etc/group";
/// Longest of these files, in bytes; what is behind that is not read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Greatest number of a user or group, as with Docker.
const NUMBER_MAX: u32 = i32::MAX as u32;
/// How the superuser is written.
const SUPERUSER: [&str; 6] = ["0", "root", "0:0", "root:root", "0:root", "root:0"];

/// What an image names as its user, unless that is the superuser.
pub(crate) fn named(config: &Config) -> Option<&str> {
    let named = config.user().as_deref().map(str::trim);
    named.filter(|named| !named.is_empty() && !SUPERUSER.contains(named))
}

/// A user of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    id: u32,
    group: u32,
    more_groups: Vec<u32>,
    /// Its folder.
    pub(crate) home: Option<String>,
}

impl Account {
    /// That of a program whose image names nobody else.
    pub(crate) fn superuser(home: &str) -> Self {
        Self {
            home: Some(home.to_owned()),
            ..Self::default()
        }
    }

    /// The account of the user that is written `named`, in files that `open` opens.
    pub(crate) fn find<F: Read>(
        named: &str,
        open: impl Fn(&str) -> io::Result<Option<F>>,
    ) -> Result<Self, DeriveError> {
        let text = |path| -> io::Result<String> {
            let mut bytes = Vec::new();
            if let Some(file) = open(path)? {
                file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let account = Self::of(named, &text(PASSWD_FILE)?, &text(GROUP_FILE)?);
        account.map_err(|what| DeriveError::NoUser {
            named: named.to_owned(),
            what,
        })
    }

    /// The same with the contents of the files; what is wrong with the user.
    fn of(named: &str, passwd: &str, groups: &str) -> Result<Self, String> {
        let (user, group) = match named.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (named, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let found = entry(passwd, user, 2);
        let id = id_of(&found, user, "user", PASSWD_FILE)?;
        // The name that goes with a number counts too.
        let name = found.as_ref().map_or(user, |fields| fields[0]);
        let own_group = || {
            let field = found.as_ref().and_then(|fields| number(fields.get(3)?));
            field.unwrap_or(0)
        };
        let (group, more_groups) = match group.filter(|group| !group.is_empty()) {
            Some(group) => {
                let id = id_of(&entry(groups, group, 2), group, "group", GROUP_FILE)?;
                (id, Vec::new())
            }
            None => {
                let own = own_group();
                let mut more = further_groups(groups, name);
                more.retain(|group| *group != own);
                (own, more)
            }
        };
        let home = found
            .as_ref()
            .and_then(|fields| fields.get(5))
            .filter(|home| home.starts_with('/'))
            .unwrap_or(&"/");
        Ok(Self {
            id,
            group,
            more_groups,
            home: Some((*home).to_owned()),
        })
    }

    /// Who the files of such an image belong to.
    pub(crate) fn owners(&self) -> Owners {
        Owners::User {
            id: self.id,
            group: self.group,
        }
    }

    /// As a sandbox is told of it.
    pub(crate) fn user(&self) -> User {
        User {
            id: self.id,
            group: self.group,
            more_groups: self.more_groups.clone(),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|&number| is_plain && number <= NUMBER_MAX)
}

/// The fields of the line (passwd(5), group(5)) that has this number at `place`; of what is no number, that has this name.
fn entry<'a>(file: &'a str, wanted: &str, place: usize) -> Option<Vec<&'a str>> {
    let lines = || file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    match number(wanted) {
        Some(wanted) => {
            lines().find(|fields| fields.get(place).and_then(|field| number(field)) == Some(wanted))
        }
        None => lines().find(|fields| fields.len() > place && fields[0] == wanted),
    }
}

/// The number of who was looked for.
fn id_of(found: &Option<Vec<&str>>, wanted: &str, what: &str, file: &str) -> Result<u32, String> {
    match found {
        Some(fields) => {
            number(fields[2]).ok_or_else(|| format!("{file} gives the {what} {wanted} no number"))
        }
        None => number(wanted).ok_or_else(|| format!("{file} has no {what} {wanted}")),
    }
}

/// The groups that list a user.
fn further_groups(groups: &str, name: &str) -> Vec<u32> {
    let lists = |fields: &Vec<&str>| {
        let members = fields.get(3).copied().unwrap_or_default();
        members.split(',').any(|member| member == name)
    };
    let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found: Vec<u32> = lines
        .filter(lists)
        .filter_map(|fields| number(fields[2]))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MORE_GROUPS_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:100:101:An app:/home/app:/bin/sh\n42:x:7:7::/seven:/bin/sh\n\
        broken:x:many:1\nshort\n";
    const GROUPS: &str =
        "root:x:0:\napp:x:101:app\nvideo:x:44:root,app\naudio:x:29:app\nwheel:x:10:root\nodd\n";

    fn account(named: &str) -> Result<Account, String> {
        Account::of(named, PASSWD, GROUPS)
    }

    fn numbers(named: &str) -> (u32, u32, Vec<u32>) {
        let user = account(named).unwrap().user();
        (user.id, user.group, user.more_groups)
    }

    #[test]
    fn names_and_numbers_are_users() {
        assert_eq!(numbers("app"), (100, 101, vec![29, 44]));
        assert_eq!(account("app").unwrap().home.as_deref(), Some("/home/app"));
        assert_eq!(
            numbers("100"),
            (100, 101, vec![29, 44]),
            "the name that goes with it"
        );
        assert_eq!(numbers("1000"), (1000, 0, vec![]), "in no file");
        assert_eq!(account("1000").unwrap().home.as_deref(), Some("/"));
        assert_eq!(numbers("42"), (42, 0, vec![]), "what looks like a number is one");
        assert_eq!(numbers("7"), (7, 7, vec![]));
    }

    #[test]
    fn a_group_that_is_named_is_the_only_one() {
        assert_eq!(numbers("app:video"), (100, 44, vec![]));
        assert_eq!(numbers("app:5000"), (100, 5000, vec![]));
        assert_eq!(numbers("app:"), numbers("app"));
        assert_eq!(numbers("0:app"), (0, 101, vec![]));
        assert_eq!(numbers(":app"), (0, 101, vec![]));
    }

    #[test]
    fn who_is_nobody_is_refused() {
        for (named, what) in [
            ("nobody", "/etc/passwd has no user nobody"),
            ("app:nogroup", "/etc/group has no group nogroup"),
            ("broken", "/etc/passwd gives the user broken no number"),
            ("4294967295", "/etc/passwd has no user 4294967295"),
            ("+1", "/etc/passwd has no user +1"),
            (":nogroup", "/etc/group has no group nogroup"),
        ] {
            assert_eq!(account(named).unwrap_err(), what);
        }
        let error = Account::find("app", |_| Ok(None::<io::Empty>)).unwrap_err();
        assert!(
            error.to_string().contains("/etc/passwd has no user app"),
            "{error}"
        );
    }

    #[test]
    fn the_superuser_needs_no_account() {
        let config = |user: &str| {
            let mut config = Config::default();
            config.set_user(Some(user.to_owned()));
            config
        };
        for user in SUPERUSER.into_iter().chain(["", " "]) {
            assert_eq!(named(&config(user)), None);
        }
        assert_eq!(named(&config("app")), Some("app"));
        assert_eq!(named(&Config::default()), None);
    }
}
