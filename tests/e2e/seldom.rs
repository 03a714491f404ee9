//! What seldom happens to an input: written through a mapping, shredded, on a disk that is replaced.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::ext4::{image, input_disk};
use crate::files::{Setup, lines, setup};
use crate::rotation::rename;
use crate::support::consumer::Topic;
use crate::support::disk::{Disk, as_root, done};
use crate::support::events::{Appender, event, padded_event};
use crate::support::wait_for;

/// The disk as it is is copied, and the copy takes its place: a replica, or a backup of the volume.
fn replaced_by_copy(setup: &Setup, disk: &mut Disk) -> Disk {
    done(Command::new("sync").arg("-f").arg(setup.bridge.input()));
    let copy = image(setup, "copy");
    disk.cut_power(&copy);
    disk.detach();
    Disk::of(&copy, setup.bridge.input().parent().unwrap()).mounted("rw")
}

#[test]
fn in_38_a_copy_of_the_disk_in_its_place_is_followed_and_not_the_old_one() {
    let setup = setup();
    let mut disk = input_disk(&setup, &[]);
    let daemon = setup.deliver(0..10);
    let _copy = replaced_by_copy(&setup, &mut disk);
    setup.bridge.append().events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

#[test]
fn in_37_a_disk_that_fails_for_good_is_opened_by_its_path_once_a_good_one_is_there() {
    let setup = setup();
    let mut disk = input_disk(&setup, &[]);
    let daemon = setup.deliver(0..10);
    setup.bridge.append().events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());
    done(Command::new("sync").arg("-f").arg(setup.bridge.input()));
    // From here on every call on it gives EIO.
    let shut_down = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
    let directory = setup.bridge.input().parent().unwrap().to_owned();
    done(as_root("python3").args(["-c", shut_down]).arg(&directory));
    daemon.wait_for_log("it can't be read");
    let copy = image(&setup, "copy");
    disk.cut_power(&copy);
    disk.detach();
    let _copy = Disk::of(&copy, &directory).mounted("rw");
    setup.bridge.append().events(20..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// An app that makes its file as large as it may become, and stores lines through a mapping of it.
struct MappedWriter(Child);

impl MappedWriter {
    fn open(path: &Path, size: u64) -> Self {
        let script = "
import mmap, os, sys
file = open(sys.argv[1], 'a+b')
os.ftruncate(file.fileno(), int(sys.argv[2]))
mapped, at = mmap.mmap(file.fileno(), int(sys.argv[2])), 0
print('ready', flush=True)
for line in sys.stdin.buffer:
    mapped[at:at + len(line)] = line
    mapped.flush()
    at += len(line)
    print(at, flush=True)
mapped.close()
os.ftruncate(file.fileno(), at)
";
        let child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .arg(size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut writer = Self(child);
        assert_eq!(writer.answer(), "ready");
        writer
    }

    fn answer(&mut self) -> String {
        let mut answer = String::new();
        let output = self.0.stdout.as_mut().expect("a pipe");
        // Its answers come one at a time, so nothing is read ahead and lost.
        BufReader::with_capacity(1, output).read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }

    /// Stores a line; returns once it is there.
    fn store(&mut self, number: u64) {
        let line = event(number) + "\n";
        self.0.stdin.as_mut().expect("a pipe").write_all(line.as_bytes()).expect("a line");
        assert!(!self.answer().is_empty(), "the writer died");
    }

    /// Cuts what it did not need, and ends.
    fn close(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("an end").success());
    }
}

impl Drop for MappedWriter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn in_33_nuls_at_the_end_of_a_preallocated_file_are_not_passed_before_something_follows() {
    const SIZE: u64 = 1 << 20;
    let setup = setup();
    let mut writer = MappedWriter::open(&setup.bridge.input(), SIZE);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("following the input");
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    // Each is waited for, so the daemon has seen the NULs behind it.
    for number in 0..5 {
        writer.store(number);
        consumer.wait_for_events(number as usize + 1);
    }
    let settled = lines(0..5).len();
    wait_for("the position", || (setup.bridge.checkpoint()["offset"] == settled).then_some(()));
    daemon.kill();
    writer.store(5);
    let daemon = setup.bridge.start();
    consumer.wait_for_events(6);
    writer.store(6);
    consumer.wait_for_events(7);
    writer.close();
    setup.bridge.append().events(7..10);
    setup.expect(&(0..10).collect::<Vec<_>>());
    assert!(setup.bridge.rejects().is_empty());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// `shred` overwrites a file that is open here, and removes it when that is done.
#[test]
fn in_46_shredded_bytes_are_not_taken_for_lines() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let large: String = (10..20).map(|number| padded_event(number, 400_000) + "\n").collect();
    setup.bridge.append().write(large.as_bytes());
    setup.expect(&(0..20).collect::<Vec<_>>());
    let rotated = rename(&setup, ".1");
    setup.bridge.append().events(20..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    // As `shred --remove`, with a look between its two steps.
    done(Command::new("shred").args(["-n", "1"]).arg(&rotated));
    setup.bridge.append().events(30..40);
    setup.expect(&(0..40).collect::<Vec<_>>());
    done(Command::new("shred").args(["-n", "1", "-u"]).arg(&rotated));
    setup.bridge.append().events(40..50);
    setup.expect(&(0..50).collect::<Vec<_>>());
    assert_eq!(setup.bridge.rejects().len(), 0, "random bytes were taken for lines");
    assert_eq!(daemon.stop(), 0);
}

/// logrotate works on the target, and puts what it rotates beside that.
#[test]
fn in_18_files_rotated_beside_the_target_of_the_inputs_link_are_found() {
    let setup = setup();
    let directory = setup.bridge.directory().join("targets");
    fs::create_dir(&directory).unwrap();
    let target = directory.join("real.jsonl");
    symlink(&target, setup.bridge.input()).unwrap();
    assert_eq!(setup.deliver(0..10).stop(), 0);
    Appender::open(&target).events(10..20);
    fs::rename(&target, directory.join("real.jsonl.2")).unwrap();
    Appender::open(&target).events(20..30);
    fs::rename(&target, directory.join("real.jsonl.1")).unwrap();
    Appender::open(&target).events(30..40);
    let daemon = setup.bridge.start();
    setup.expect(&(0..40).collect::<Vec<_>>());

    // While it runs, faster than it looks.
    for round in 0..5 {
        Appender::open(&target).events(40 + round * 10..50 + round * 10);
        fs::rename(&target, directory.join(format!("real.jsonl-20260129-00000{round}"))).unwrap();
    }
    Appender::open(&target).events(90..100);
    setup.expect(&(0..100).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

#[test]
fn sec_10_a_packed_file_that_unpacks_to_gigabytes_costs_neither_memory_nor_the_lines_beside_it() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    assert_eq!(daemon.stop(), 0);
    rename(&setup, ".2");
    let bomb = setup.bridge.input().with_file_name("order_events.jsonl.1.gz");
    let pack = "import gzip, sys
with gzip.open(sys.argv[1], 'wb', 1) as bomb:
    [bomb.write(b'x' * (1 << 24)) for _ in range(128)]";
    done(Command::new("python3").args(["-c", pack]).arg(&bomb));
    assert!(fs::metadata(&bomb).unwrap().len() < 16 << 20, "packed well");
    setup.bridge.append().events(10..20);
    let daemon = setup.bridge.start();
    setup.expect(&(0..20).collect::<Vec<_>>());
    // Two gigabytes without a line end: it is read to its end, where it is a line that is too long.
    wait_for("the whole file to be read", || {
        (setup.bridge.status()["input"]["lag_bytes"].as_u64()? == (2 << 30)).then_some(())
    });
    let peak = daemon.memory_kb("VmHWM");
    assert!(peak < 100 << 10, "{peak} kB");
    setup.bridge.append().events(20..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}
