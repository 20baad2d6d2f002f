//! Reads a file that a user named. Only a regular file of a bounded size is read, because a pipe can block, a device may
//! have no end, and a large file would fill the memory.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Reads a regular file of UTF-8 text with at most `bytes_max` bytes. The error does not contain the path.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let too_large = || format!("it has more than {bytes_max} bytes");
    if metadata.len() > bytes_max {
        return Err(too_large());
    }
    let mut text = String::new();
    let read = file.take(bytes_max + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    // A file of /proc has no length, and another file may grow while it is read.
    if u64::try_from(text.len()).is_ok_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "text");
        assert!(read_text(&path, 3).unwrap_err().contains("more than 3 bytes"));
        std::fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
        assert!(read_text(&path, 1000).unwrap_err().contains("more than 1000 bytes"));
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            assert!(read_text(path, 10).unwrap_err().contains("not a regular file"), "{path:?}");
        }
    }
}
