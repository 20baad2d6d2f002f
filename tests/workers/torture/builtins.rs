//! Builtins that misbehave in every way that a builtin can.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use punctual::invalid::Invalid;
use punctual::task::builtin::{Args, BuiltinFunction, Call, Registry, TaskError};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

type Work = fn(&Call) -> Result<Value, TaskError>;

/// A builtin that is a function.
struct Misbehaving(&'static str, Work);

impl BuiltinFunction for Misbehaving {
    fn name(&self) -> &'static str {
        self.0
    }

    fn check(&self, _: &Args) -> Result<(), Invalid> {
        Ok(())
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        (self.1)(call)
    }
}

pub(crate) fn registry() -> Registry {
    let builtins: [(&str, Work); 14] = [
        ("pid", |_| Ok(json!(std::process::id()))),
        ("exit", exit),
        ("abort", |_| std::process::abort()),
        ("kill", kill),
        ("panic", |_| panic!("over there")),
        ("deadlock", deadlock),
        ("obey", obey),
        ("ignore", ignore),
        ("exit-when-asked", exit_when_asked),
        ("say", say),
        ("print", print),
        ("words", words),
        ("parent", parent),
        ("large", |call| Ok(json!("x".repeat(number(call, "bytes"))))),
    ];
    let mut registry = Registry::default();
    for (name, work) in builtins {
        registry.register(Misbehaving(name, work));
    }
    registry
}

fn number(call: &Call, key: &str) -> usize {
    usize::try_from(call.args[key].as_u64().unwrap()).unwrap()
}

/// Tells the test that it has begun, by the pipe in its arguments.
fn begin(call: &Call) {
    if let Some(path) = call.args.get("begun").and_then(Value::as_str) {
        std::fs::write(path, format!("{}\n", std::process::id())).unwrap();
    }
}

fn exit(call: &Call) -> Result<Value, TaskError> {
    std::process::exit(i32::try_from(number(call, "code")).unwrap())
}

fn kill(call: &Call) -> Result<Value, TaskError> {
    eprintln!("these are its last words");
    kill_process(
        getpid(),
        Signal::from_named_raw(number(call, "signal").try_into().unwrap()).unwrap(),
    )
    .unwrap();
    // Another thread may have got it first.
    loop {
        std::thread::park();
    }
}

fn deadlock(call: &Call) -> Result<Value, TaskError> {
    begin(call);
    let lock = Mutex::new(());
    let first = lock.lock().unwrap();
    drop(lock.lock().unwrap());
    drop(first);
    Ok(Value::Null)
}

/// Waits until it is to end.
fn obey(call: &Call) -> Result<Value, TaskError> {
    call.say("waiting");
    begin(call);
    assert!(call.wait(Duration::from_mins(10)));
    call.say("asked");
    Err(TaskError::Cancelled)
}

/// Does its work although it is to end.
fn ignore(call: &Call) -> Result<Value, TaskError> {
    begin(call);
    assert!(call.wait(Duration::from_mins(10)));
    Ok(json!("done"))
}

fn exit_when_asked(call: &Call) -> Result<Value, TaskError> {
    begin(call);
    assert!(call.wait(Duration::from_mins(10)));
    std::process::exit(9)
}

fn say(call: &Call) -> Result<Value, TaskError> {
    (0..number(call, "lines")).for_each(|line| call.say(&format!("line {line}")));
    Ok(Value::Null)
}

fn print(call: &Call) -> Result<Value, TaskError> {
    let (mut left, chunk) = (number(call, "bytes"), b"0123456789abcde\n".repeat(1024));
    while left > 0 {
        let count = left.min(chunk.len());
        std::io::stdout().write_all(&chunk[..count]).unwrap();
        left -= count;
    }
    eprintln!("that is all");
    Ok(Value::Null)
}

/// Says a word in each way that there is.
fn words(call: &Call) -> Result<Value, TaskError> {
    call.say("said");
    println!("printed");
    print!("unfinished");
    eprintln!("complained");
    Ok(Value::Null)
}

/// Has a child that holds the test's pipe and the worker's standard error open, and dies on request.
fn parent(call: &Call) -> Result<Value, TaskError> {
    let held = call.args["held"].as_str().unwrap();
    let script = format!("exec 9> {held}; echo born; exec sleep 600");
    let mut child =
        Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    begin(call);
    if call.args.contains_key("dies") {
        std::process::exit(3);
    }
    child.wait().unwrap();
    Ok(Value::Null)
}
