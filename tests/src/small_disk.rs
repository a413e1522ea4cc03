//! A file system of its own that can be filled for real. Invariant: it is gone with the test.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub struct SmallDisk(TempDir);

impl SmallDisk {
    pub fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
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

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).expect("a file can be made");
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![0; size];
            while ballast.write(&bytes).is_ok_and(|written| written > 0) {}
        }
    }

    /// Emptied, not removed: a child that another test is starting may still hold the file.
    pub fn free(&self) {
        fs::File::create(self.ballast()).expect("a file can be made");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
