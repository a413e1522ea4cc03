//! Whether a file belongs to this user alone. Invariant: a verdict is about what is there itself, never about what a link
//! leads to.

use std::{
    fmt,
    fs::Metadata,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use crate::account::{Account, ROOT};

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
/// What others may do with it.
pub(crate) const OPEN_BITS: u32 = 0o077;
pub(crate) const MODE_BITS: u32 = 0o7777;

/// What is expected in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Socket,
}

/// Why a file or directory is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    Link,
    NotAFile,
    NotADirectory,
    NotASocket,
    /// Of whom, and who this process is.
    Owner {
        owner: u32,
        user: u32,
    },
    Writable {
        mode: u32,
        owner: u32,
        group: u32,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => write!(f, "is a symbolic link, and none is followed here"),
            Self::NotAFile => write!(f, "is not a regular file"),
            Self::NotADirectory => write!(f, "is not a directory"),
            Self::NotASocket => write!(f, "is not a socket"),
            Self::Owner { owner, user } => write!(f, "belongs to user {owner}, and this process runs as user {user}"),
            Self::Writable { mode, owner, group } => {
                write!(f, "can be written by other users (mode {mode:04o}, owner {owner}, group {group})")
            }
        }
    }
}

impl Flaw {
    pub(crate) fn advice(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Link => "replace it with what it leads to".to_owned(),
            Self::NotAFile | Self::NotADirectory | Self::NotASocket => "remove it".to_owned(),
            Self::Owner { owner, .. } => format!(
                "run this as user {owner}; or, if you know where all of it comes from, give it to this user \
                 (`chown -R`)"
            ),
            Self::Writable { .. } => {
                format!(
                    "if you know that nobody else has written there, `chmod -R go-w {path}`; otherwise start with another one"
                )
            }
        }
    }
}

/// None: it is of that kind, and nobody else can change it.
pub(crate) fn flaw(metadata: &Metadata, expected: Kind, account: &Account) -> Option<Flaw> {
    let kind = metadata.file_type();
    let wrong = match expected {
        _ if kind.is_symlink() => Some(Flaw::Link),
        Kind::File => (!kind.is_file()).then_some(Flaw::NotAFile),
        Kind::Directory => (!kind.is_dir()).then_some(Flaw::NotADirectory),
        Kind::Socket => (!kind.is_socket()).then_some(Flaw::NotASocket),
    };
    wrong.or_else(|| owner(metadata, account)).or_else(|| writable(metadata, account))
}

/// None: nobody else can put another entry in the place of one of ours in this directory.
pub(crate) fn flaw_above(metadata: &Metadata, account: &Account) -> Option<Flaw> {
    let sticky = metadata.mode() & STICKY != 0;
    owner(metadata, account).or_else(|| writable(metadata, account).filter(|_| !sticky))
}

fn owner(metadata: &Metadata, account: &Account) -> Option<Flaw> {
    let owner = metadata.uid();
    let ours = owner == account.user || owner == ROOT;
    (!ours).then_some(Flaw::Owner { owner, user: account.user })
}

fn writable(metadata: &Metadata, account: &Account) -> Option<Flaw> {
    let (mode, owner, group) = (metadata.mode() & MODE_BITS, metadata.uid(), metadata.gid());
    let by_group = mode & GROUP_WRITES != 0 && !account.own_groups.contains(&group);
    (by_group || mode & OTHERS_WRITE != 0).then_some(Flaw::Writable { mode, owner, group })
}
