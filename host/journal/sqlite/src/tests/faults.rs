//! A full disk, a damaged file, a program that holds the file. Invariant: the fault is reported by its name, and what was
//! journaled before is still there.

use std::{fs, io::Write as _, process::Command};

use super::*;

/// A file system of its own, of 2 MiB.
struct SmallDisk(Dir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = Dir::new();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .output()
            .expect("the command `mount` is there");
        assert!(
            mount.status.success(),
            "this test fills a small file system for real and must be allowed to mount one (run it as root): {}",
            String::from_utf8_lossy(&mount.stderr)
        );
        Self(dir)
    }
    /// Leaves no byte free.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.path().join("ballast")).unwrap();
        while ballast.write(&[0; 1024]).is_ok_and(|written| written > 0) {}
    }
    /// Emptied, not removed: a child that another test is starting may still hold the file.
    fn free(&self) {
        fs::File::create(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_the_batch_and_is_survived() {
    let disk = SmallDisk::mount();
    let journal = disk.0.host().unwrap();
    let epoch = journal.identity().epoch;
    commit(&journal, &batch(1, 5));
    disk.fill();
    // The log may have room left over from before: the batch is larger.
    let full = journal.commit(epoch, &batch(2, 1_000));
    assert!(matches!(&full, Err(JournalError::DiskFull(why)) if why.contains("free some space")), "{full:?}");
    assert_eq!(journal.identity().last_batch, BatchNo(1));
    assert!(journal.saga(&SagaId::from("order-1-0")).unwrap().is_some(), "reading still works");
    assert!(journal.saga(&SagaId::from("order-2-0")).unwrap().is_none());
    disk.free();
    commit(&journal, &batch(2, 100));
    journal.close().unwrap();
    assert_eq!(disk.0.host().unwrap().identity().last_batch, BatchNo(2));
}

#[test]
fn a_full_disk_at_the_start() {
    let disk = SmallDisk::mount();
    disk.fill();
    let full = disk.0.host().map(drop);
    assert!(matches!(full, Err(JournalError::DiskFull(_))), "{full:?}");
    disk.free();
    disk.0.host().unwrap();
}

#[test]
fn a_disk_that_fills_up_by_the_journal_itself() {
    let disk = SmallDisk::mount();
    let journal = disk.0.host().unwrap();
    let epoch = journal.identity().epoch;
    let full = (1..).find_map(|number| journal.commit(epoch, &batch(number, 50)).err()).unwrap();
    assert!(matches!(full, JournalError::DiskFull(_)), "{full:?}");
    let last = journal.identity().last_batch;
    drop(journal);
    // After a crash on a full disk: opened again with all that was said to be journaled, or told why not.
    match disk.0.host() {
        Ok(journal) => assert_eq!(journal.identity().last_batch, last),
        Err(JournalError::DiskFull(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
}

fn corrupt(outcome: Result<SqliteJournal, JournalError>) -> String {
    match outcome {
        Err(JournalError::Corrupt(why)) => why,
        Err(other) => panic!("refused for another reason: {other:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn a_file_that_is_no_database() {
    let dir = Dir::new();
    fs::write(dir.path().join(FILE), "not a database, but long enough to look like a file of one".repeat(100)).unwrap();
    let why = corrupt(dir.host());
    assert!(why.contains("journal.db") && why.contains("backup"), "{why}");
}

#[test]
fn a_damaged_file() {
    let dir = Dir::new();
    let journal = dir.host().unwrap();
    commit(&journal, &batch(1, 500));
    journal.close().unwrap();
    let path = dir.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let why = corrupt(dir.host());
    assert!(why.contains("journal.db") && why.contains("backup"), "{why}");
}

#[test]
fn a_truncated_file() {
    let dir = Dir::new();
    let journal = dir.host().unwrap();
    commit(&journal, &batch(1, 500));
    journal.close().unwrap();
    let path = dir.path().join(FILE);
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    corrupt(dir.host());
}

#[test]
fn one_cell_of_another_format_is_named() {
    let dir = Dir::new();
    let journal = dir.host().unwrap();
    commit(&journal, &batch(1, 1));
    let shell = Connection::open(dir.path().join(FILE)).unwrap();
    shell.execute("UPDATE outbox SET body = x'09'", []).unwrap();
    let why = journal.outbox(BatchNo(0), 1).unwrap_err().to_string();
    assert!(why.contains("a batch of the outbox cannot be read: it has the format 9"), "{why}");
    assert!(journal.saga(&SagaId::from("order-1-0")).unwrap().is_some(), "the rest is served");
}

#[test]
fn a_program_that_holds_the_file() {
    let dir = Dir::new();
    let journal =
        dir.open_with(OpenOptions { busy_wait: Duration::from_millis(50), ..OpenOptions::default() }).unwrap();
    let shell = Connection::open(dir.path().join(FILE)).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = journal.commit(journal.identity().epoch, &batch(1, 1)).unwrap_err().to_string();
    assert!(held.contains("locked by another program"), "{held}");
    shell.execute_batch("ROLLBACK").unwrap();
    commit(&journal, &batch(1, 1));
}
