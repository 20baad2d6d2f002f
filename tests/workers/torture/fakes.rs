//! Programs that pretend to be a worker, and break the protocol at one of its steps.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::exit;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

const VERSION: u32 = 1;

/// A worker's end of its socket.
struct Link(UnixStream);

impl Link {
    fn read(&mut self) -> Value {
        let mut length = [0; 4];
        if self.0.read_exact(&mut length).is_err() {
            exit(0);
        }
        let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut message).unwrap();
        serde_json::from_slice(&message).unwrap()
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn send(&mut self, message: &Value) {
        self.raw(&frame(message));
    }

    fn ready(&mut self) {
        assert_eq!(self.read()["hello"]["version"], VERSION);
        self.send(&json!({"ready": {"version": VERSION}}));
    }

    fn call(&mut self) -> Value {
        let mut message = self.read();
        while message.get("cancel").is_some() {
            message = self.read();
        }
        message["call"].clone()
    }

    fn done(&mut self) {
        self.send(&done());
    }

    /// Answers calls as a worker that works.
    fn work(&mut self) -> ! {
        loop {
            self.call();
            self.done();
        }
    }

    /// Waits until there is something to read, and does not read it.
    fn see(&self) {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None).unwrap();
    }
}

fn frame(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn done() -> Value {
    json!({"done": {"outcome": {"succeeded": {"result": "fake"}}, "cpu_micros": 1, "peak_memory": 2}})
}

/// Whether this is the first process that asks so, of all that share the folder.
fn is_first() -> bool {
    let mark = PathBuf::from(std::env::var_os("WORKER_FOLDER").unwrap()).join("mark");
    File::options().write(true).create_new(true).open(mark).is_ok()
}

/// Never does anything again.
fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}

/// Pretends to be a worker.
pub(crate) fn pretend(what: &str) -> ! {
    let mut link = Link(std::io::stdin().as_fd().try_clone_to_owned().unwrap().into());
    match what {
        "exit-at-once" => exit(3),
        "exit-at-once-first" if is_first() => exit(3),
        "exit-at-hello" => {
            link.read();
            eprintln!("there is no hope");
            exit(4);
        }
        "silent" => sleep(),
        "garbage" => link.raw(b"Welcome to the wrong program!\n"),
        "too-long" => link.raw(&u32::MAX.to_be_bytes()),
        "old" => link.send(&json!({"ready": {"version": 99}})),
        "done-at-hello" => link.done(),
        "half-ready" => link.raw(&frame(&json!({"ready": {"version": VERSION}}))[..9]),
        _ => {
            link.ready();
            pretend_ready(what, &mut link);
        }
    }
    sleep()
}

/// The same from the point on where it is ready.
fn pretend_ready(what: &str, link: &mut Link) {
    match what {
        "exit-ready-first" if is_first() => exit(5),
        "unread-first" if is_first() => {
            link.see();
            exit(6);
        }
        "exit-done-first" if is_first() => {
            link.call();
            link.done();
            exit(9);
        }
        "done-when-idle-first" if is_first() => link.done(),
        "exit-at-once-first"
        | "exit-ready-first"
        | "unread-first"
        | "done-when-idle-first"
        | "exit-done-first" => link.work(),
        "unread" => {
            link.see();
            exit(6);
        }
        "deaf" => sleep(),
        _ => {
            link.call();
            pretend_called(what, link);
        }
    }
}

/// The same from the point on where it has a call.
fn pretend_called(what: &str, link: &mut Link) {
    match what {
        "exit-called" => exit(7),
        "exit-zero" => exit(0),
        "half-done" => {
            let frame = frame(&done());
            link.raw(&frame[..frame.len() / 2]);
            exit(8);
        }
        "done-and-exit" => {
            link.done();
            exit(10);
        }
        "garbage-called" => link.raw(b"\0\0\0\x07garbage"),
        "too-long-called" => link.raw(&[0xff; 64]),
        "ready-called" => link.send(&json!({"ready": {"version": VERSION}})),
        "silent-called" => {}
        "closed" => link.0.shutdown(std::net::Shutdown::Both).unwrap(),
        "cancelled-unasked" => {
            link.send(
                &json!({"done": {"outcome": "cancelled", "cpu_micros": null, "peak_memory": null}}),
            );
        }
        "beat" => loop {
            link.send(&json!("beat"));
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        },
        other => panic!("there is no pretence of {other}"),
    }
}
