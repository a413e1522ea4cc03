//! Who this process is, and which groups it has to itself. Invariant: a group counts as ours alone only where no other
//! account is known to be in it; root, and root's group, may do anything and are nobody else.

use std::{collections::BTreeSet, fs, io, sync::OnceLock};

pub(crate) const ROOT: u32 = 0;

/// The user of this process.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: u32,
    /// What they may write is written by us. (A volume in a container belongs to root and to such a group; and where the
    /// umask is 002, what a user makes can be written by a group that is named like that user.)
    pub(crate) own_groups: BTreeSet<u32>,
}

impl Account {
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Account> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let user = rustix::process::geteuid().as_raw();
            let mut groups: BTreeSet<u32> =
                rustix::process::getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
            groups.insert(rustix::process::getegid().as_raw());
            let own_groups = match (known("/etc/passwd"), known("/etc/group")) {
                (Some(passwd), Some(group)) => {
                    groups.into_iter().filter(|gid| is_alone(user, *gid, &passwd, &group)).collect()
                }
                (None, _) | (_, None) => BTreeSet::new(),
            };
            Account { user, own_groups: own_groups.into_iter().chain([ROOT]).collect() }
        })
    }
}

/// None: it cannot be said who is there. An image without the file has no other accounts.
fn known(file: &str) -> Option<String> {
    match fs::read(file) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(String::new()),
        Err(_) => None,
    }
}

/// Does the group have no members other than this user and root, according to `/etc/passwd` and `/etc/group`?
fn is_alone(user: u32, gid: u32, passwd: &str, group: &str) -> bool {
    let mut ours = BTreeSet::from(["root"]);
    let mut others_primary = false;
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, primary, ..] = fields[..] else { continue };
        let uid: Option<u32> = uid.parse().ok();
        if uid == Some(user) || uid == Some(ROOT) {
            ours.insert(name);
        } else if primary.parse() == Ok(gid) {
            others_primary = true;
        }
    }
    let strangers = group.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members, ..] = fields[..] else { return false };
        id.parse() == Ok(gid) && members.split(',').any(|member| !member.is_empty() && !ours.contains(member))
    });
    !others_primary && !strangers
}

#[cfg(test)]
mod tests {
    use super::is_alone;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nann2:x:1000:1000::/:/bin/sh\n\
                          bob:x:1001:1001::/home/bob:/bin/sh\ncarl:x:1002:100::/home/carl:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nann:x:1000:ann2,root\nbob:x:1001:\nusers:x:100:\nstaff:x:50:ann,bob\nours:x:51:ann\n";

    #[test]
    fn a_group_is_ours_where_nobody_else_is_in_it() {
        let alone = |gid| is_alone(1000, gid, PASSWD, GROUP);
        assert!(alone(1000), "the user's own group, with another name of the same user, and root");
        assert!(alone(51), "a group with this one member");
        assert!(alone(4711), "a group that nothing is known of: a container's volume");
        assert!(!alone(50), "bob is a member");
        assert!(!alone(100), "it is carl's primary group");
        assert!(!alone(1001), "it is bob's primary group");
        assert!(is_alone(1000, 0, "", ""), "an image without accounts");
    }
}
