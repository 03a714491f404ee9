//! A disk of a test's own: a real ext4 in an image, mounted over a loop device, or a small one in memory.
//!
//! As root, or through a sudo that asks nothing: `make test` installs what it takes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What only root may do.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Runs to its end, which has to be a good one; gives what it printed.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A mounted image. Unmounted when dropped, however the test ends.
pub struct Disk {
    image: PathBuf,
    directory: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes an empty ext4 in the file `image`. `options` are mkfs's.
    pub fn format(image: &Path, directory: &Path, options: &[&str]) -> Self {
        std::fs::File::create(image).and_then(|file| file.set_len(16 << 20)).expect("an image");
        done(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).args(options).arg(image));
        Self::of(image, directory)
    }

    /// The disk that is in an image already.
    pub fn of(image: &Path, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a directory to mount at");
        Self { image: image.to_owned(), directory: directory.to_owned(), is_mounted: false }
    }

    /// Mounts it, on a loop device that goes with the mount. The directory is the tests' own then.
    #[must_use]
    pub fn mounted(mut self, options: &str) -> Self {
        self.mount(options);
        self
    }

    /// The same, after it was unmounted.
    pub fn mount(&mut self, options: &str) {
        let options = format!("loop,{options}");
        done(
            as_root("mount")
                .args(["-t", "ext4", "-o", &options])
                .args([&self.image, &self.directory]),
        );
        self.is_mounted = true;
        let owner = format!("{}", rustix::process::geteuid().as_raw());
        done(as_root("chown").arg(owner).arg(&self.directory));
    }

    /// Takes it away from its directory. It goes on for whoever has a file of it open.
    pub fn detach(&mut self) {
        done(as_root("umount").arg("--lazy").arg(&self.directory));
        self.is_mounted = false;
    }

    /// Unmounts it for good: nobody has a file of it open.
    pub fn unmount(&mut self) {
        done(as_root("umount").arg(&self.directory));
        self.is_mounted = false;
    }

    /// What is on the disk at this moment, as a power cut would leave it.
    pub fn cut_power(&self, image: &Path) {
        std::fs::copy(&self.image, image).expect("a copy of the image");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = as_root("umount").arg("--lazy").arg(&self.directory).status();
        }
    }
}

/// A disk of so many bytes, in memory. Unmounted when dropped, however the test ends.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted at a directory, which is made if it is not there.
    pub fn mounted(directory: &Path, size: &str) -> Self {
        std::fs::create_dir_all(directory).expect("a directory to mount at");
        let options = format!("size={size}");
        done(as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory));
        Self(directory.to_owned())
    }

    /// Has it hold more.
    pub fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        done(as_root("mount").args(["-o", &options]).arg(&self.0));
    }

    /// Unmounts it, which nobody may hold any more.
    pub fn unmount(self) {
        done(as_root("umount").arg(&self.0));
        std::mem::forget(self);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = as_root("umount").arg("--lazy").arg(&self.0).status();
    }
}
