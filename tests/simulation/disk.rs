//! A disk in memory: inodes, names, open files, what is durable, and what goes wrong with calls on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use openalgo_bridge::platform::fs::{FileFacts, FileKind};

use crate::rng::Rng;

pub(crate) const INPUT: &str = "/in/events.jsonl";
pub(crate) const INPUT_DIRECTORY: &str = "/in";
pub(crate) const STATE: &str = "/state";

/// The life of an inode, from its creation to its last name and last open file. Never used again,
/// whereas its inode number may be.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    pub(crate) born_ns: i64,
    pub(crate) modified_ns: i64,
    pub(crate) kind: FileKind,
    pub(crate) data: Vec<u8>,
    /// What a power cut leaves at least (state: the content; input: that many bytes).
    durable: Vec<u8>,
    pub(crate) durable_length: usize,
    /// What was written since the last fsync, failed ones included: after a failed one the kernel
    /// has forgotten what it could not write, and the next one succeeds without it.
    dirty: Vec<(usize, usize)>,
    locked: bool,
    pub(crate) readable: bool,
    open: u32,
}

/// A call on the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Write,
    Sync,
    Rename,
    Link,
    Remove,
    Look,
    SyncDirectory,
}

pub(crate) const CALLS: [Call; 8] = [
    Call::Open,
    Call::Write,
    Call::Sync,
    Call::Rename,
    Call::Link,
    Call::Remove,
    Call::Look,
    Call::SyncDirectory,
];

/// The next calls of one kind that fail.
pub(crate) struct Fault {
    pub(crate) call: Call,
    pub(crate) errno: i32,
    pub(crate) left: u64,
}

/// A change of names that a power cut may undo.
#[derive(Clone)]
struct NameChange {
    path: PathBuf,
    node: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// The time of the input's directory only has to differ.
    changes_in_directory: i64,
    /// Changes in the state directory since it was last synced.
    changes: Vec<NameChange>,
    free: BTreeSet<u64>,
    next_node: u64,
    next_ino: u64,
    pub(crate) reuses: bool,
    pub(crate) births: bool,
    /// None: as many calls as one likes. Some(0): the process is dead, whatever it still tries.
    pub(crate) calls_left: Option<u64>,
    pub(crate) faults: Vec<Fault>,
    /// Calls on the input that fail: 0 the next stats, 1 the next opens, 2 the next reads.
    pub(crate) input_faults: [u64; 3],
    /// At most so many bytes for each of the next reads.
    pub(crate) short_reads: VecDeque<u64>,
    pub(crate) directory_closed: bool,
    /// What really happened here.
    pub(crate) state_errors: u64,
    pub(crate) inodes_reused: u64,
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

pub(crate) const EIO: i32 = 5;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;
pub(crate) const ESTALE: i32 = 116;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

fn is_state(path: &Path) -> bool {
    path.starts_with(STATE)
}

impl Disk {
    pub(crate) fn new(reuses: bool, births: bool) -> Self {
        let mut disk = Self { reuses, births, next_ino: 100, ..Self::default() };
        let directory = disk.create(Path::new(INPUT_DIRECTORY), FileKind::Directory, 0);
        disk.node_mut(directory).readable = true;
        disk
    }

    pub(crate) fn node(&self, uid: u64) -> &Node {
        &self.nodes[&uid]
    }

    pub(crate) fn node_mut(&mut self, uid: u64) -> &mut Node {
        self.nodes.get_mut(&uid).expect("the node is there while someone names it")
    }

    /// The file at a path, whatever the daemon may see of it.
    pub(crate) fn at(&self, path: &Path) -> Option<u64> {
        self.names.get(path).copied()
    }

    pub(crate) fn input(&self) -> Option<u64> {
        self.at(Path::new(INPUT)).filter(|uid| self.node(*uid).kind == FileKind::Regular)
    }

    pub(crate) fn create(&mut self, path: &Path, kind: FileKind, now_ns: i64) -> u64 {
        let reused = if self.reuses { self.free.pop_first() } else { None };
        self.inodes_reused += u64::from(reused.is_some());
        let ino = reused.unwrap_or_else(|| {
            self.next_ino += 1;
            self.next_ino
        });
        self.next_node += 1;
        let uid = self.next_node;
        let node = Node {
            ino,
            // Two files are never born at the same moment.
            born_ns: now_ns + i64::try_from(uid).unwrap_or(0),
            modified_ns: now_ns,
            kind,
            data: Vec::new(),
            durable: Vec::new(),
            durable_length: 0,
            dirty: Vec::new(),
            locked: false,
            readable: true,
            open: 0,
        };
        self.nodes.insert(uid, node);
        self.set_name(path, Some(uid));
        uid
    }

    /// Gives a name to a node, or takes it away.
    fn set_name(&mut self, path: &Path, node: Option<u64>) {
        if is_state(path) {
            self.changes.push(NameChange { path: path.to_owned(), node });
        }
        self.changes_in_directory += 1;
        let changes = self.changes_in_directory;
        if path.parent() == Some(Path::new(INPUT_DIRECTORY))
            && let Some(directory) = self.at(Path::new(INPUT_DIRECTORY))
        {
            self.node_mut(directory).modified_ns = changes;
        }
        let before = match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        if let Some(before) = before {
            self.free_if_unused(before);
        }
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        if !self.names.contains_key(path) {
            return Err(error(ENOENT));
        }
        self.set_name(path, None);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.at(from).ok_or_else(|| error(ENOENT))?;
        // Two names of one file: POSIX leaves both.
        if self.at(to) != Some(node) {
            self.set_name(to, Some(node));
            self.set_name(from, None);
        }
        Ok(())
    }

    pub(crate) fn link(&mut self, original: &Path, link: &Path) -> io::Result<()> {
        let node = self.at(original).ok_or_else(|| error(ENOENT))?;
        if self.names.contains_key(link) {
            return Err(error(EEXIST));
        }
        self.set_name(link, Some(node));
        Ok(())
    }

    fn free_if_unused(&mut self, uid: u64) {
        let named = self.names.values().chain(self.durable_names.values()).any(|node| *node == uid)
            || self.changes.iter().any(|change| change.node == Some(uid));
        if !named && self.nodes.get(&uid).is_some_and(|node| node.open == 0) {
            let node = self.nodes.remove(&uid);
            self.free.extend(node.map(|node| node.ino));
        }
    }

    pub(crate) fn opened(&mut self, uid: u64) {
        self.node_mut(uid).open += 1;
    }

    pub(crate) fn closed(&mut self, uid: u64, was_locked: bool) {
        let node = self.node_mut(uid);
        node.open -= 1;
        node.locked &= !was_locked;
        self.free_if_unused(uid);
    }

    pub(crate) fn facts(&self, uid: u64) -> FileFacts {
        let node = self.node(uid);
        FileFacts {
            kind: node.kind,
            dev: 1,
            ino: node.ino,
            born_ns: self.births.then_some(node.born_ns),
            size: node.data.len() as u64,
            modified_ns: node.modified_ns,
            links: self.names.values().filter(|named| **named == uid).count() as u64,
        }
    }

    /// One call on the state directory: whether it may do anything.
    pub(crate) fn state_call(&mut self, call: Call) -> io::Result<()> {
        if let Some(left) = &mut self.calls_left {
            if *left == 0 {
                return Err(io::Error::other("the process is dead"));
            }
            *left -= 1;
        }
        let fault = self.faults.iter_mut().find(|fault| fault.call == call && fault.left > 0);
        let Some(fault) = fault else { return Ok(()) };
        fault.left -= 1;
        self.state_errors += 1;
        let errno = fault.errno;
        self.faults.retain(|fault| fault.left > 0);
        Err(error(errno))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.calls_left == Some(0)
    }

    pub(crate) fn input_call(&mut self, which: usize) -> io::Result<()> {
        let left = &mut self.input_faults[which];
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(error([EIO, EMFILE, ESTALE][which]))
    }

    /// What a look at a path gives.
    pub(crate) fn look(&mut self, path: &Path) -> io::Result<u64> {
        if is_state(path) {
            self.state_call(Call::Look)?;
        } else if path != Path::new(INPUT_DIRECTORY) {
            self.input_call(0)?;
            if self.directory_closed {
                return Err(error(EACCES));
            }
        }
        self.at(path).ok_or_else(|| error(ENOENT))
    }

    /// Opens an input file for reading.
    pub(crate) fn open_input(&mut self, path: &Path) -> io::Result<u64> {
        if is_state(path) {
            self.state_call(Call::Look)?;
        } else {
            self.input_call(1)?;
        }
        if self.directory_closed && !is_state(path) {
            return Err(error(EACCES));
        }
        let uid = self.at(path).ok_or_else(|| error(ENOENT))?;
        if !self.node(uid).readable {
            return Err(error(EACCES));
        }
        self.opened(uid);
        Ok(uid)
    }

    pub(crate) fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        if is_state(directory) {
            self.state_call(Call::Look)?;
        } else if self.directory_closed {
            return Err(error(EACCES));
        }
        Ok(self.names.keys().filter(|name| name.parent() == Some(directory)).cloned().collect())
    }

    pub(crate) fn open_state(&mut self, path: &Path, new: bool, now_ns: i64) -> io::Result<u64> {
        self.state_call(Call::Open)?;
        if self.at(Path::new(STATE)).is_none() {
            return Err(error(ENOENT));
        }
        let uid = match self.at(path) {
            Some(_) if new => return Err(error(EEXIST)),
            Some(uid) => uid,
            None => self.create(path, FileKind::Regular, now_ns),
        };
        self.opened(uid);
        Ok(uid)
    }

    pub(crate) fn create_directory(&mut self, path: &Path, now_ns: i64) -> io::Result<()> {
        self.state_call(Call::Open)?;
        if self.at(path).is_none() {
            self.create(path, FileKind::Directory, now_ns);
            // Of the directory itself nothing is lost: the one above it is not modelled.
            self.sync_directory();
        }
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self) {
        let before: Vec<u64> = self.durable_names.values().copied().collect();
        for change in std::mem::take(&mut self.changes) {
            match change.node {
                Some(node) => self.durable_names.insert(change.path, node),
                None => self.durable_names.remove(&change.path),
            };
        }
        for uid in before {
            self.free_if_unused(uid);
        }
    }

    /// Writes; with too little space, only the first half.
    pub(crate) fn write(&mut self, uid: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let alive = !self.is_dead();
        let called = self.state_call(Call::Write);
        let bytes = if called.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        // A process that dies in a call leaves it half done.
        if alive {
            let node = self.node_mut(uid);
            let end = offset as usize + bytes.len();
            node.data.resize(node.data.len().max(end), 0);
            node.data[offset as usize..end].copy_from_slice(bytes);
            node.dirty.push((offset as usize, end));
        }
        called
    }

    pub(crate) fn set_size(&mut self, uid: u64, size: u64) -> io::Result<()> {
        self.state_call(Call::Write)?;
        self.node_mut(uid).data.resize(size as usize, 0);
        Ok(())
    }

    pub(crate) fn sync(&mut self, uid: u64) -> io::Result<()> {
        let called = self.state_call(Call::Sync);
        if self.is_dead() && called.is_err() {
            return called;
        }
        let node = self.node_mut(uid);
        let dirty = std::mem::take(&mut node.dirty);
        if called.is_ok() {
            node.durable.resize(node.data.len(), 0);
            for (start, end) in dirty {
                let end = end.min(node.data.len());
                if start < end {
                    node.durable[start..end].copy_from_slice(&node.data[start..end]);
                }
            }
        }
        called
    }

    /// What is certainly there after a power cut.
    pub(crate) fn durable_content(&self, path: &Path) -> &[u8] {
        let node = self.durable_names.get(path).and_then(|uid| self.nodes.get(uid));
        node.map_or(&[], |node| &node.durable)
    }

    pub(crate) fn lock(&mut self, uid: u64) -> io::Result<()> {
        self.state_call(Call::Open)?;
        let node = self.node_mut(uid);
        if std::mem::replace(&mut node.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// The state directory and all in it are removed.
    pub(crate) fn remove_state(&mut self) {
        let names: Vec<PathBuf> =
            self.names.keys().filter(|name| is_state(name)).cloned().collect();
        for name in names {
            self.set_name(&name, None);
        }
        self.sync_directory();
    }

    /// The machine loses power: what was not durable is there, or not, or half of it.
    pub(crate) fn power_cut(&mut self, luck: &mut Rng) {
        let kept = luck.below(self.changes.len() as u64 + 1) as usize;
        self.changes.truncate(kept);
        self.sync_directory();
        self.names.retain(|name, _| !is_state(name));
        self.names.extend(self.durable_names.iter().map(|(name, uid)| (name.clone(), *uid)));
        let uids: Vec<u64> =
            self.names.iter().filter(|(name, _)| is_state(name)).map(|(_, uid)| *uid).collect();
        for uid in uids {
            let node = self.node_mut(uid);
            if node.data != node.durable {
                node.data = survived(&node.durable, &node.data, luck);
            }
            node.durable.clone_from(&node.data);
            node.dirty.clear();
        }
        let unused: Vec<u64> = self.nodes.keys().copied().collect();
        for uid in unused {
            self.free_if_unused(uid);
        }
    }
}

/// What is left of content that was being written back.
fn survived(durable: &[u8], newer: &[u8], luck: &mut Rng) -> Vec<u8> {
    match luck.below(4) {
        0 => durable.to_vec(),
        1 => newer.to_vec(),
        2 => newer[..luck.below(newer.len() as u64 + 1) as usize].to_vec(),
        _ => {
            const SECTOR: usize = 64;
            let mut mixed = newer.to_vec();
            for start in (0..mixed.len()).step_by(SECTOR).filter(|_| luck.percent(50)) {
                for at in start..(start + SECTOR).min(mixed.len()) {
                    mixed[at] = durable.get(at).copied().unwrap_or(0);
                }
            }
            mixed
        }
    }
}
