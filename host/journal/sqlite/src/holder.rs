//! Who holds a lock that we cannot have, as far as the system says. Invariant: no process is named as the owner of the
//! journal unless the system says that it holds the lock, or it is said that this is not known.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// The system's list of locks, each with the process that took it.
const LOCKS: &str = "/proc/locks";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The owner that noted itself in the file.
    Owner { process: u32 },
    /// It took the lock, and is not the process that noted itself last.
    Other { process: u32, name: Option<String>, user: Option<u32> },
    /// The process that took it is gone: a child of it has the file open.
    ChildOf { process: u32 },
    /// The system does not say. `noted` wrote itself into the file; is it alive here?
    Unknown { noted: Option<(u32, bool)> },
}

impl Holder {
    /// `noted`: the process whose number is in the file.
    pub(super) fn of(file: &File, noted: Option<u32>) -> Self {
        let taken_by = fs::read_to_string(LOCKS)
            .ok()
            .zip(file.metadata().ok())
            .and_then(|(locks, file)| taken_by(&locks, file.dev(), file.ino()));
        match taken_by {
            Some(process) if !is_alive(process) => Self::ChildOf { process },
            Some(process) if noted == Some(process) => Self::Owner { process },
            Some(process) => Self::Other { process, name: name(process), user: user(process) },
            None => Self::Unknown { noted: noted.map(|process| (process, is_alive(process))) },
        }
    }

    /// Follows "the journal in DIR".
    pub(super) fn told(&self, lock: &Path) -> String {
        let lock = lock.display();
        match self {
            Self::Owner { process } => format!(
                "is in use by process {process}: stop that host first, or give this one a data directory and an app name \
                 of its own"
            ),
            Self::Other { process, name, user } => {
                let name = name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
                let user = user.map_or(String::new(), |user| format!(" of user {user}"));
                format!(
                    "is locked by process {process}{name}{user}, which is not a host that owns it: end that process, or \
                     have it let go of {lock}"
                )
            }
            Self::ChildOf { process } => format!(
                "is locked by process {process}, which has ended: a process that it started still has {lock} open \
                 (`fuser -v {lock}` names it); end that one"
            ),
            Self::Unknown { noted } => {
                let noted = match noted {
                    None => "no owner has noted itself there".to_owned(),
                    Some((process, true)) => format!("process {process} noted itself there last, and is running here"),
                    Some((process, false)) => format!(
                        "process {process} noted itself there last, and is not running here: the holder may be in another \
                         container or of another user"
                    ),
                };
                format!(
                    "is in use, and the system does not say by which process: {noted} (`fuser -v {lock}`, as root, tells \
                     more). Stop that host first, or give this one a data directory and an app name of its own"
                )
            }
        }
    }
}

/// `1: FLOCK  ADVISORY  WRITE 4242 08:01:131090 0 EOF`. A process of another container has no number here: 0 or less.
fn taken_by(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        // A line of one that waits has an arrow before the rest, and holds nothing.
        let [_, "FLOCK", _, _, process, place, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        (place == wanted).then(|| process.parse().ok().filter(|process| *process > 0)).flatten()
    })
}

fn major(device: u64) -> u64 {
    ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff)
}

fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & !0xff)
}

fn is_alive(process: u32) -> bool {
    match fs::metadata(format!("/proc/{process}")) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn name(process: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.chars().filter(|letter| !letter.is_control()).collect())
}

fn user(process: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{process}")).ok().map(|process| process.uid())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  READ  70 08:01:131090 128 128\n\
                         2: FLOCK  ADVISORY  WRITE 4242 fd:1a:131090 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 4300 08:01:131091 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE -1 08:01:131092 0 EOF\n\
                         4: FLOCK  ADVISORY  READ  77 08:01:131093 0 EOF\n";

    #[test]
    fn the_systems_list_names_who_took_it() {
        let of = |device, inode| taken_by(LOCKS, device, inode);
        assert_eq!(of(0xfd1a, 131_090), Some(4242));
        assert_eq!(of(0x0801, 131_090), None, "that one is no lock of a whole file");
        assert_eq!(of(0x0801, 131_091), None, "that one waits");
        assert_eq!(of(0x0801, 131_092), None, "it is in another container");
        assert_eq!(of(0x0801, 131_093), Some(77));
    }

    #[test]
    fn it_is_said_what_is_known() {
        let name = Some("backup".to_owned());
        let holders = [
            Holder::Owner { process: 7 },
            Holder::Other { process: 8, name, user: Some(33) },
            Holder::Other { process: 8, name: None, user: None },
            Holder::ChildOf { process: 9 },
            Holder::Unknown { noted: None },
            Holder::Unknown { noted: Some((7, true)) },
            Holder::Unknown { noted: Some((7, false)) },
        ];
        let told: Vec<String> = holders.iter().map(|holder| holder.told(Path::new("data/journal.lock"))).collect();
        expect![[r#"
            is in use by process 7: stop that host first, or give this one a data directory and an app name of its own
            is locked by process 8 (backup) of user 33, which is not a host that owns it: end that process, or have it let go of data/journal.lock
            is locked by process 8, which is not a host that owns it: end that process, or have it let go of data/journal.lock
            is locked by process 9, which has ended: a process that it started still has data/journal.lock open (`fuser -v data/journal.lock` names it); end that one
            is in use, and the system does not say by which process: no owner has noted itself there (`fuser -v data/journal.lock`, as root, tells more). Stop that host first, or give this one a data directory and an app name of its own
            is in use, and the system does not say by which process: process 7 noted itself there last, and is running here (`fuser -v data/journal.lock`, as root, tells more). Stop that host first, or give this one a data directory and an app name of its own
            is in use, and the system does not say by which process: process 7 noted itself there last, and is not running here: the holder may be in another container or of another user (`fuser -v data/journal.lock`, as root, tells more). Stop that host first, or give this one a data directory and an app name of its own"#]].assert_eq(&told.join("\n"));
    }
}
