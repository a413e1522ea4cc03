//! A disk in memory, below SQLite: quick, and it loses power as a real one does. Invariant: what was synced stays; what was
//! not is there, gone, or torn, write by write.
//!
//! The only module with `unsafe`: SQLite calls it through a table of C functions. Each thread has a disk of its own, as
//! each has a run of its own, so nothing here is shared between threads.

#![expect(unsafe_code, reason = "SQLite reaches a file system through C function pointers")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
    rc::Rc,
    sync::Once,
};

use rusqlite::ffi;

/// Blocks that a torn write is torn at.
const SECTOR: usize = 512;
const SHM_LOCKS: usize = ffi::SQLITE_SHM_NLOCK as usize;
/// Kept for the files of the next run.
const BUFFERS_MAX: usize = 4;
/// The files of the journal; others belong to the broker, which is another machine.
const JOURNAL: &str = "journal.db";

thread_local! {
    static DISK: RefCell<Disk> = const {
        RefCell::new(Disk { files: BTreeMap::new(), aside: BTreeMap::new(), loss: None })
    };
    /// Of files that are gone.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static TRACKS: Cell<bool> = const { Cell::new(false) };
    static LIES: Cell<bool> = const { Cell::new(false) };
}

type Files = BTreeMap<String, Rc<File>>;

struct Disk {
    files: Files,
    /// Another data directory, that somebody may bring back.
    aside: Files,
    /// Power is lost at that many writes and syncs of the journal from now.
    loss: Option<Loss>,
}

struct Loss {
    writes: u64,
    random: u64,
    lost: bool,
}

/// Where SQLite opens its files from here on. Names of other threads' files are other files.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS exists as soon as SQLite is initialised, and what is registered lives for ever.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK, "SQLite can be initialised");
            let system = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!system.is_null(), "there is a default VFS");
            let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
                iVersion: 2,
                szOsFile: size_of::<Handle>() as c_int,
                zName: c"memory-disk".as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_pathname),
                ..*system
            }));
            assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK, "the VFS can be registered");
        }
    });
}

/// An empty disk. `loses_power`: it may, so what is not synced is kept apart. `lies`: it says that it has synced, and has
/// not, to see that this would be found.
pub fn begin(loses_power: bool, lies: bool) {
    drop(DISK.replace(Disk { files: Files::new(), aside: Files::new(), loss: None }));
    TRACKS.set(loses_power);
    LIES.set(lies);
}

/// Power is lost in front of one of the next writes or syncs of the journal, if there are as many.
pub fn lose_power_within(writes: u64, random: u64) {
    DISK.with_borrow_mut(|disk| disk.loss = Some(Loss { writes, random, lost: false }));
}

/// Now at the latest. Files that are open stay with those who have them open, and no other sees them any more.
pub fn power_is_lost() {
    DISK.with_borrow_mut(|disk| {
        let Some(loss) = disk.loss.take() else { return };
        if !loss.lost {
            disk.lose(loss.random);
        }
    });
}

/// What is in the journal's directory now.
pub struct Copy(Vec<(String, Vec<u8>)>);

pub fn copy() -> Copy {
    DISK.with_borrow(|disk| {
        let files = disk.files.iter().filter(|(name, _)| name.starts_with(JOURNAL));
        Copy(files.map(|(name, file)| (name.clone(), file.contents.borrow().bytes.clone())).collect())
    })
}

/// The copy takes the journal's place; what was there is put aside, with those who have it open.
pub fn restore(copy: &Copy) {
    DISK.with_borrow_mut(|disk| {
        disk.aside = disk.take_journal();
        for (name, bytes) in &copy.0 {
            disk.files.insert(name.clone(), Rc::new(File::of(bytes.clone())));
        }
    });
}

/// What was put aside comes back, and what is there is put aside.
pub fn bring_back() {
    DISK.with_borrow_mut(|disk| {
        let there = disk.take_journal();
        disk.aside.values().for_each(|file| file.elsewhere.set(false));
        disk.files.append(&mut disk.aside);
        disk.aside = there;
    });
}

/// What is in place is the journal from here on: a host has begun on it.
pub fn forget_aside() {
    DISK.with_borrow_mut(|disk| disk.aside.clear());
}

pub fn is_something_aside() -> bool {
    DISK.with_borrow(|disk| !disk.aside.is_empty())
}

impl Disk {
    fn take_journal(&mut self) -> Files {
        let (journal, others) =
            std::mem::take(&mut self.files).into_iter().partition(|(name, _)| name.starts_with(JOURNAL));
        self.files = others;
        let journal: Files = journal;
        journal.values().for_each(|file| file.elsewhere.set(true));
        journal
    }

    fn lose(&mut self, mut random: u64) {
        for (name, file) in self.take_journal() {
            let left = file.contents.borrow().survivors(&mut random);
            self.files.insert(name, Rc::new(File::of(left)));
        }
    }

    /// Called in front of each write and sync of the journal.
    fn count_down(&mut self) {
        let Some(loss) = self.loss.as_mut().filter(|loss| !loss.lost) else { return };
        if loss.writes > 0 {
            loss.writes -= 1;
            return;
        }
        loss.lost = true;
        let random = loss.random;
        self.lose(random);
    }
}

struct File {
    /// It is put aside, or another has taken its place: nothing that is done by its name meets it.
    elsewhere: Cell<bool>,
    contents: RefCell<Contents>,
    locks: Cell<Locks>,
    shared: RefCell<Shared>,
}

#[derive(Clone, Copy, Default)]
struct Locks {
    readers: u32,
    /// Somebody has reserved it, or has it alone.
    writer: bool,
    alone: bool,
}

/// Only what has happened since the last sync is to be lost.
struct Contents {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Change>,
    /// Of a file of the journal, where power may be lost.
    tracked: bool,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// The index of the write-ahead log, which all connections map.
#[derive(Default)]
struct Shared {
    mapped: u32,
    regions: Vec<Region>,
    /// How many hold it; -1: one alone.
    locks: [i32; SHM_LOCKS],
}

struct Region {
    start: *mut u8,
    layout: Layout,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody has it mapped any more.
        unsafe { dealloc(self.start, self.layout) }
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.bytes.clear();
        let bytes = std::mem::take(&mut self.bytes);
        // Memory that the system has given stays: a page of it costs more than all that is done with it.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < BUFFERS_MAX && bytes.capacity() > 0 {
                buffers.push(bytes);
            }
        });
    }
}

impl File {
    fn of(bytes: Vec<u8>) -> Self {
        let tracked = TRACKS.get();
        let synced = if tracked { bytes.clone() } else { Vec::new() };
        let contents = Contents { synced, bytes, since: Vec::new(), tracked };
        Self {
            elsewhere: Cell::default(),
            contents: RefCell::new(contents),
            locks: Cell::default(),
            shared: RefCell::default(),
        }
    }

    fn new(is_journal: bool) -> Self {
        let file = Self::of(BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default());
        file.contents.borrow_mut().tracked &= is_journal;
        file
    }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        if self.tracked {
            self.since.push(change);
        }
    }

    fn sync(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    fn survivors(&self, random: &mut u64) -> Vec<u8> {
        let mut draw = |among: usize| {
            *random = crate::plan::draw(*random, 1, among as u64);
            (*random % among.max(1) as u64) as usize
        };
        let mut left = self.synced.clone();
        for change in &self.since {
            match (draw(3), change) {
                (0, _) => {}
                (1, Change::Write { at, bytes }) => {
                    let torn = draw(bytes.len() / SECTOR + 1) * SECTOR;
                    Change::write(&mut left, *at, &bytes[..torn]);
                }
                _ => change.apply(&mut left),
            }
        }
        left
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => Self::write(to, *at, bytes),
            Self::Truncate(length) => to.truncate(*length),
        }
    }

    fn write(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        if to.len() < at + bytes.len() {
            to.resize(at + bytes.len(), 0);
        }
        to[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// What SQLite has in hand. It allocates `szOsFile` bytes for it, and passes a pointer to them.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    file: Rc<File>,
    level: c_int,
    mapped: bool,
    name: Option<String>,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The last part of a path: a run has one directory.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn name_of(path: *const c_char) -> Option<String> {
    // SAFETY: by the caller.
    let path = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) })?.to_string_lossy();
    Some(path.rsplit('/').next().unwrap_or_default().to_owned())
}

/// # Safety
/// `file` was opened by `open` and not closed.
unsafe fn handle<'h>(file: *mut ffi::sqlite3_file) -> &'h mut Handle {
    // SAFETY: SQLite passes what it let `open` fill, from one thread at a time.
    unsafe { &mut *file.cast::<Handle>() }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: as SQLite promises: `path` is null or a string, `file` has room for a `Handle`.
    unsafe {
        (*file).pMethods = ptr::null();
        let name = name_of(path);
        let found = DISK.with_borrow_mut(|disk| match &name {
            None => Some(Rc::new(File::new(false))),
            Some(name) => match disk.files.get(name) {
                Some(found) => Some(found.clone()),
                None if flags & ffi::SQLITE_OPEN_CREATE == 0 => None,
                None => {
                    let made = Rc::new(File::new(name.starts_with(JOURNAL)));
                    disk.files.insert(name.clone(), made.clone());
                    Some(made)
                }
            },
        });
        let Some(found) = found else { return ffi::SQLITE_CANTOPEN };
        let name = name.filter(|_| flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0);
        let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
        file.cast::<Handle>().write(Handle { base, file: found, level: ffi::SQLITE_LOCK_NONE, mapped: false, name });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, _: c_int) -> c_int {
    // SAFETY: `path` is a string.
    let name = unsafe { name_of(path) }.unwrap_or_default();
    let gone = DISK.with_borrow_mut(|disk| disk.files.remove(&name));
    if gone.is_some() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_DELETE_NOENT }
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, path: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: `path` is a string, `out` can be written.
    unsafe {
        let name = name_of(path).unwrap_or_default();
        let there =
            DISK.with_borrow(|disk| disk.files.get(&name).is_some_and(|file| !file.contents.borrow().bytes.is_empty()));
        *out = c_int::from(there);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: `path` is a string, `out` has `room` bytes.
    unsafe {
        let path = CStr::from_ptr(path).to_bytes_with_nul();
        if path.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(path.as_ptr().cast(), out, path.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: it was opened; SQLite does not use it any more.
    unsafe {
        unlock(file, ffi::SQLITE_LOCK_NONE);
        let handle = file.cast::<Handle>().read();
        if let Some(name) = &handle.name {
            DISK.with_borrow_mut(|disk| disk.files.remove(name));
        }
        (*file).pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, out: *mut c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: `out` has `count` bytes.
    unsafe {
        let contents = handle(file).file.contents.borrow();
        let (at, count) = (at as usize, count as usize);
        let there = contents.bytes.len().saturating_sub(at).min(count);
        if there > 0 {
            ptr::copy_nonoverlapping(contents.bytes.as_ptr().add(at), out.cast(), there);
        }
        if there == count {
            return ffi::SQLITE_OK;
        }
        ptr::write_bytes(out.cast::<u8>().add(there), 0, count - there);
    }
    ffi::SQLITE_IOERR_SHORT_READ
}

/// In front of a change or sync of a file: power may be lost here.
fn about_to(file: &File) {
    if file.contents.borrow().tracked {
        DISK.with_borrow_mut(Disk::count_down);
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: `from` has `count` bytes.
    unsafe {
        let file = &handle(file).file;
        about_to(file);
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), count as usize);
        let mut contents = file.contents.borrow_mut();
        match contents.tracked {
            true => contents.change(Change::Write { at: at as usize, bytes: bytes.to_vec() }),
            false => Change::write(&mut contents.bytes, at as usize, bytes),
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: it is open.
    let file = unsafe { &handle(file).file };
    about_to(file);
    file.contents.borrow_mut().change(Change::Truncate(size as usize));
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: it is open.
    let file = unsafe { &handle(file).file };
    about_to(file);
    if !LIES.get() {
        file.contents.borrow_mut().sync();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: `out` can be written.
    unsafe { *out = handle(file).file.contents.borrow().bytes.len() as i64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: it is open.
    let handle = unsafe { handle(file) };
    if level <= handle.level {
        return ffi::SQLITE_OK;
    }
    let mut locks = handle.file.locks.get();
    let others_write = locks.writer && handle.level < ffi::SQLITE_LOCK_RESERVED;
    let granted = match level {
        ffi::SQLITE_LOCK_SHARED => !locks.alone,
        ffi::SQLITE_LOCK_RESERVED => !others_write,
        // Whoever has a database alone deletes its log when it closes it, by name: that may be another's by now.
        _ => !others_write && locks.readers <= 1 && !handle.file.elsewhere.get(),
    };
    if !granted {
        return ffi::SQLITE_BUSY;
    }
    locks.readers += u32::from(handle.level == ffi::SQLITE_LOCK_NONE);
    locks.writer |= level >= ffi::SQLITE_LOCK_RESERVED;
    locks.alone |= level == ffi::SQLITE_LOCK_EXCLUSIVE;
    handle.file.locks.set(locks);
    handle.level = level;
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: it is open.
    let handle = unsafe { handle(file) };
    if level >= handle.level {
        return ffi::SQLITE_OK;
    }
    let mut locks = handle.file.locks.get();
    if handle.level >= ffi::SQLITE_LOCK_RESERVED {
        (locks.writer, locks.alone) = (false, false);
    }
    locks.readers -= u32::from(level == ffi::SQLITE_LOCK_NONE);
    handle.file.locks.set(locks);
    handle.level = level;
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: `out` can be written.
    unsafe { *out = c_int::from(handle(file).file.locks.get().writer) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR as c_int
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: `out` can be written; `size` is not zero.
    unsafe {
        let handle = handle(file);
        let mut shared = handle.file.shared.borrow_mut();
        shared.mapped += u32::from(!std::mem::replace(&mut handle.mapped, true));
        while extend != 0 && shared.regions.len() <= region as usize {
            let layout = Layout::from_size_align(size as usize, 16).expect("a region is of a sensible size");
            let start = alloc_zeroed(layout);
            if start.is_null() {
                handle_alloc_error(layout);
            }
            shared.regions.push(Region { start, layout });
        }
        *out = shared.regions.get(region as usize).map_or(ptr::null_mut(), |region| region.start.cast());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: it is open.
    let mut shared = unsafe { &handle(file).file }.shared.borrow_mut();
    let slots = &mut shared.locks[first as usize..(first + count) as usize];
    let (unlocks, alone) = (flags & ffi::SQLITE_SHM_UNLOCK != 0, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0);
    let granted = |slot: &i32| unlocks || if alone { *slot == 0 } else { *slot >= 0 };
    if !slots.iter().all(granted) {
        return ffi::SQLITE_BUSY;
    }
    for slot in slots {
        *slot = match (unlocks, alone) {
            (false, true) => -1,
            (false, false) => *slot + 1,
            (true, true) => 0,
            (true, false) => (*slot - 1).max(0),
        };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: it is open.
    let handle = unsafe { handle(file) };
    if std::mem::replace(&mut handle.mapped, false) {
        let mut shared = handle.file.shared.borrow_mut();
        shared.mapped -= 1;
        if shared.mapped == 0 {
            shared.regions.clear();
        }
    }
    ffi::SQLITE_OK
}
